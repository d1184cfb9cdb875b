"""Go's durations."""

import pytest

from svcplane.base.durations import parse_duration


@pytest.mark.parametrize(
    ("text", "seconds"), [("15s", 15), ("1m30s", 90), ("250ms", 0.25), ("1.5h", 5400), ("0", 0), ("1h0m0.5s", 3600.5)]
)
def test_go_durations_are_read(text: str, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "15", "s", "1s2", "-1s", "1 s", "1d"])
def test_what_go_would_not_read_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no duration"):
        parse_duration(text)
