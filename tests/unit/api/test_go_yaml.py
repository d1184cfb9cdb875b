"""Objects as upstream's YAML has them."""

import pytest

from svcplane.api import go_yaml
from svcplane.api.yaml import parse


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("web", "web"),
        ("NaN", "NaN"),
        ("=", "="),
        ("<<", "<<"),
        ("1.2.3", "1.2.3"),
        ("ünï", "ünï"),
        ("a: b", "'a: b'"),
        (" lead", "' lead'"),
        ("*a", "'*a'"),
        *((text, f'"{text}"') for text in ("", "true", "No", "y", "~", "1", "1e3", "1_000", "0x1F", "0o7", ".5", "+1")),
        *((text, f'"{text}"') for text in ("12:30", "2020-01-01", "2026-11-26T14:00:00Z", ".inf")),
        ("tab\there", '"tab\\there"'),
        ("a\n\nb\n", "|\n  a\n\n  b"),
    ],
)
def test_texts_stay_texts(text: str, shown: str) -> None:
    found = go_yaml.written({"x": text})
    assert found == f"x: {shown}\n"
    assert parse(found.encode()) == {"x": text}


def test_names_come_in_order_numbers_by_their_value() -> None:
    names = ["a10", "a9", "B", "a", "a-b", "a.b", "10", "9", "a010", "ab", "100", "a/b"]
    shown = go_yaml.written(dict.fromkeys(names, 1)).splitlines()
    ordered = ["9", "10", "100", "B", "a", "a-b", "a.b", "a/b", "a9", "a10", "a010", "ab"]
    assert [line.split(":")[0].strip('"') for line in shown] == ordered


def test_lists_stand_below_their_names() -> None:
    value = {"b": [{"port": 80, "on": None}], "a": {"x": True, "empty": {}, "none": []}}
    assert go_yaml.written(value) == ('a:\n  empty: {}\n  none: []\n  x: true\nb:\n- "on": null\n  port: 80\n')
