"""Selectors of labels and fields, as upstream reads them."""

import pytest

from svcplane.api.selectors import fields_match, parse_field_selector, parse_label_selector
from svcplane.api.status import StatusError

FIELDS = frozenset({"metadata.name", "metadata.namespace"})


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("metadata.name=a=b", "invalid field selector: unescaped character in value: 61"),
        ("metadata.name=a\\", "invalid field selector: invalid escape sequence: \\"),
        ("bogus=1,x", "invalid selector: 'bogus=1,x'; can't understand 'x'"),
        ("b=1,a=1", "field label not supported: a"),
    ],
)
def test_field_selectors_refused(text: str, message: str) -> None:
    """Terms come in order of their text, and are all read before any field is looked at."""
    with pytest.raises(StatusError) as error:
        parse_field_selector(text, FIELDS)
    assert (error.value.code, error.value.message) == (400, message)


@pytest.mark.parametrize(
    ("text", "name", "selected"),
    [
        ("metadata.name==a\\,b", "a,b", True),
        ("metadata.name=a\\\\,metadata.namespace=d", "a\\", True),
        ("metadata.name!=a,", "a", False),
        (",", "a", True),
    ],
)
def test_escapes_and_ends_of_terms(text: str, name: str, selected: bool) -> None:
    values = {"metadata.name": name, "metadata.namespace": "d"}
    assert fields_match(parse_field_selector(text, FIELDS), values) is selected


@pytest.mark.parametrize(
    ("text", "value", "selected"),
    [
        ("a>1", "2", True),
        ("a<2", "+1", True),
        ("a>1", "1_000", False),
        ("a>1", "9223372036854775808", False),
        ("a<5", None, False),
    ],
)
def test_numbers_in_labels(text: str, value: str | None, selected: bool) -> None:
    labels = {} if value is None else {"a": value}
    assert parse_label_selector(text).matches(labels) is selected


@pytest.mark.parametrize("bound", ["x", "1_0", "9223372036854775808"])
def test_bounds_are_numbers_of_64_bits(bound: str) -> None:
    with pytest.raises(StatusError, match="the value must be an integer"):
        parse_label_selector(f"a>{bound}")
