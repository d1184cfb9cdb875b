"""Faults of JSON and YAML, as Go tells of them."""

import pytest

from svcplane.api.go_syntax import json_fault, summary
from svcplane.api.yaml import parse

END = "unexpected end of JSON input"


@pytest.mark.parametrize("body", [b"", b" ", b'{"a', b"[1", b'{"a":1', b"tru", b"-", b"1.", b"1e+", b'"\\u12', b'"\\'])
def test_what_is_not_whole(body: bytes) -> None:
    assert json_fault(body) == END


@pytest.mark.parametrize(
    ("body", "found", "where"),
    [
        (b"{not json}", "n", "looking for beginning of object key string"),
        (b'{"a":1,}', "}", "looking for beginning of object key string"),
        (b'{"a"}', "}", "after object key"),
        (b'{"a":1 "b"}', '"', "after object key:value pair"),
        (b"[1,]", "]", "looking for beginning of value"),
        (b"[1 2]", "2", "after array element"),
        (b"{}x", "x", "after top-level value"),
        (b"01", "1", "after top-level value"),
        (b'{"a":tru}', "}", "in literal true (expecting 'e')"),
        (b'"a\nb"', "\\n", "in string literal"),
        (b'"\\x"', "x", "in string escape code"),
        (b'"\\u12g4"', "g", "in \\u hexadecimal character escape"),
        (b"-a", "a", "in numeric literal"),
        (b"1.a", "a", "after decimal point in numeric literal"),
        (b"1e+x", "x", "in exponent of numeric literal"),
        (b"'a'", "\\'", "looking for beginning of value"),
        (b"\xff", "\xff", "looking for beginning of value"),
        (b"\x00", "\\x00", "looking for beginning of value"),
    ],
)
def test_what_does_not_belong(body: bytes, found: str, where: str) -> None:
    assert json_fault(body) == f"invalid character '{found}' {where}"


@pytest.mark.parametrize(
    "body", [b"{}", b' {"a" : [ 1 , -0.5e+3, {} , [] ] } ', b'"\\u00e4\\n"', b"null", b"[true,false]"]
)
def test_good_json(body: bytes) -> None:
    assert json_fault(body) == ""


@pytest.mark.parametrize(
    ("body", "fault"),
    [
        (b"a: b: c", "mapping values are not allowed in this context"),
        (b"a: 1\nb: c: d", "line 2: mapping values are not allowed in this context"),
        (b"- a\nb: 1", "line 1: did not find expected '-' indicator"),
        (b"a:\n\t- b", "line 2: found character that cannot start any token"),
        (b"a: *x", "unknown anchor 'x' referenced"),
        (b"a: \x00", "control characters are not allowed"),
    ],
)
def test_yaml(body: bytes, fault: str) -> None:
    with pytest.raises(ValueError, match=r".") as raised:
        parse(body)
    assert str(raised.value) == f"yaml: {fault}"


@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (b"", "<empty>"),
        (b"{a", "{a"),
        (b"{" + b"a" * 30, "{" + "a" * 29 + " ..."),
        (b"[]", "5b5d"),
    ],
)
def test_summaries(body: bytes, shown: str) -> None:
    assert summary(body) == shown
