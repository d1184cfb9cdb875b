"""Times, read as Go reads them."""

import pytest

from svcplane.api.go_time import read

WHOLE, MICRO = "2006-01-02T15:04:05Z07:00", "2006-01-02T15:04:05.000000Z07:00"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2026-01-31T23:59:59Z", "2026-01-31T23:59:59Z"),
        ("2024-02-29T00:00:00Z", "2024-02-29T00:00:00Z"),
        ("2026-01-01T00:00:00.987654321Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T1:00:00,5+02:00", "2025-12-31T23:00:00Z"),
        ("2026-01-01T00:00:00-24:60", "2026-01-02T01:00:00Z"),
        ("0000-02-29T00:00:00Z", "0000-02-29T00:00:00Z"),
        ("0001-01-01T01:00:00+01:00", ""),
    ],
)
def test_times(text: str, told: str) -> None:
    assert read(text, micro=False) == told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("2026-01-01T00:00:00.123456Z", "2026-01-01T00:00:00.123456Z"),
        ("2026-01-01T00:00:00,123456+02:00", "2025-12-31T22:00:00.123456Z"),
        ("0001-01-01T00:00:00.000000Z", ""),
    ],
)
def test_times_with_six_digits(text: str, told: str) -> None:
    assert read(text, micro=True) == told


@pytest.mark.parametrize(
    ("text", "rest", "part"),
    [
        ("", "", "2006"),
        ("26-01-01", "26-01-01", "2006"),
        ("2026-1-01", "1-01", "01"),
        ("2026-01-01", "", "T"),
        ("2026-01-01 00:00:00Z", " 00:00:00Z", "T"),
        ("2026-01-01T00:00", "", ":"),
        ("2026-01-01T00:00:00", "", "Z07:00"),
        ("2026-01-01T00:00:00.Z", ".Z", "Z07:00"),
        ("2026-01-01T00:00:00+0100", "+0100", "Z07:00"),
    ],
)
def test_what_does_not_fit(text: str, rest: str, part: str) -> None:
    with pytest.raises(ValueError, match=r"^parsing time ") as raised:
        read(text, micro=False)
    assert str(raised.value) == f'parsing time "{text}" as "{WHOLE}": cannot parse "{rest}" as "{part}"'


@pytest.mark.parametrize(
    ("text", "rest", "part"),
    [
        ("2026-01-01T00:00:00Z", "Z", ".000000"),
        ("2026-01-01T00:00:00.5Z", ".5Z", ".000000"),
        ("2026-01-01T00:00:00.123456789Z", "789Z", "Z07:00"),
    ],
)
def test_six_digits_must_be_given(text: str, rest: str, part: str) -> None:
    with pytest.raises(ValueError, match=r"^parsing time ") as raised:
        read(text, micro=True)
    assert str(raised.value) == f'parsing time "{text}" as "{MICRO}": cannot parse "{rest}" as "{part}"'


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("2026-13-01T00:00:00Z", "month out of range"),
        ("2026-02-29T00:00:00Z", "day out of range"),
        ("2026-01-00T00:00:00Z", "day out of range"),
        ("2026-01-01T24:00:00Z", "hour out of range"),
        ("2026-01-01T00:60:00Z", "minute out of range"),
        ("2026-01-01T00:00:60Z", "second out of range"),
        ("2026-01-01T00:00:00+25:00", "time zone offset hour out of range"),
        ("2026-01-01T00:00:00+01:61", "time zone offset minute out of range"),
        ("2026-01-01T00:00:00Zulu", 'extra text: "ulu"'),
    ],
)
def test_what_is_out_of_range(text: str, what: str) -> None:
    with pytest.raises(ValueError, match=r"^parsing time ") as raised:
        read(text, micro=False)
    assert str(raised.value) == f'parsing time "{text}": {what}'
