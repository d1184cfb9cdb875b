"""Amounts: one spelling each."""

import pytest

from svcplane.api.quantity import canonical, parse, rounded


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000m", "1"),
        ("1500m", "1500m"),
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1536Mi", "1536Mi"),
        ("1.5Gi", "1536Mi"),
        ("512", "512"),
        ("2000", "2k"),
        ("1e3", "1e3"),
        ("0.0", "0"),
        ("-1500m", "-1500m"),
        ("0.1n", "1n"),
    ],
)
def test_canonical(text: str, expected: str) -> None:
    assert canonical(text) == expected
    assert canonical(expected) == expected
    assert parse(expected) == parse(text) or text == "0.1n"


@pytest.mark.parametrize("text", ["", "x", "1 Gi", "1.2.3", "+-1", "Gi"])
def test_shapes_refused(text: str) -> None:
    with pytest.raises(ValueError, match="quantities must match the regular expression"):
        canonical(text)


@pytest.mark.parametrize("text", ["1KiB", "1kk", "1e", "1e999"])
def test_suffixes_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"quantities must match|unable to parse quantity's suffix"):
        canonical(text)


def test_kept_to_a_thousandth() -> None:
    assert rounded("1100u") == "2m"
    assert rounded("1500m") == "1500m"
