"""Fields given twice are named, and nothing else is."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svcplane.api.codec import parse_body

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("body", "problems"),
    [
        (b'{"a": 1, "b": 2}', []),
        (b'{"a": 1, "a": 2}', ['duplicate field "a"']),
        (b'{"spec": {"ports": [{"port": 1}, {"port": 2, "port": 3}]}}', ['duplicate field "spec.ports[1].port"']),
        (b'{"a": {"a": {"a": 1}}, "b": {"a": 2}}', []),
        (b'{"a": "\\"b\\": 1", "b": ["x", ":"]}', []),
        (b'{"a\\"": 1, "a\\"": 2}', [r'duplicate field "a\""']),
        (b'{"a" \n : 1, "a"\t:2}', ['duplicate field "a"']),
    ],
)
def test_fields_given_twice_are_named(body: bytes, problems: list[str]) -> None:
    assert parse_body(body, "application/json")[1] == problems


@given(JSON)
def test_body_without_repeated_fields_has_no_problem(value: object) -> None:
    for ascii_only in (True, False):
        body = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")
        try:
            assert parse_body(body, "application/json") == (value, [])
        except ValueError:
            assert any("\ud800" <= character <= "\udfff" for character in json.dumps(value, ensure_ascii=False))


@given(st.dictionaries(st.text(st.characters(exclude_categories=("Cs",))), st.integers(), min_size=1, max_size=5))
def test_repeated_field_is_always_found(value: dict[str, int]) -> None:
    body = json.dumps(value)
    first = json.dumps(next(iter(value)))
    repeated = f"{body[:-1]}, {first}: 0}}"
    assert len(parse_body(repeated.encode(), "application/json")[1]) == 1
