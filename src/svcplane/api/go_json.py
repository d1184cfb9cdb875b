"""How Go names and prints decoded JSON, for messages that show it.  Pure."""

import re
from typing import Any, Self

import msgspec


class Written(float):
    """A number that JSON writes with a fraction or an exponent, as it is written: `1.0` is no integer to Go."""

    def __new__(cls, text: str) -> Self:
        return super().__new__(cls, text)

    def __init__(self, text: str) -> None:
        self.text = text

    def __str__(self) -> str:
        return self.text


def as_written(value: Any) -> msgspec.Raw:
    """For an encoder: such a number as it was written."""
    if isinstance(value, Written):
        return msgspec.Raw(value.text.encode())
    raise NotImplementedError


#: A text in JSON, and whether it is the name of a field.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"(\s*:)?', re.S)


_ESCAPED = re.compile(r"\\\\|\\u[dD][89abAB]..\\u[dD][c-fC-F]..|(\\u[dD][89a-fA-F]..)", re.S)


def repaired(body: bytes) -> bytes:
    """JSON with a mark in place of what is no text: bytes that are no UTF-8, halves of surrogate pairs."""
    text = body.decode(errors="replace")
    if "\\u" in text:
        text = _ESCAPED.sub(lambda found: "\\ufffd" if found[1] else found[0], text)
    return text.encode()


def _field_count(value: Any) -> int:
    """How many fields the objects of a decoded value have."""
    if isinstance(value, dict):
        return len(value) + sum(_field_count(inner) for inner in value.values() if isinstance(inner, dict | list))
    return sum(_field_count(inner) for inner in value if isinstance(inner, dict | list))


def has_repeated(body: bytes, value: Any) -> bool:
    """Whether JSON that was decoded gives a field twice: more of them are written then."""
    return isinstance(value, dict | list) and sum(map(bool, _TEXT.findall(body))) != _field_count(value)


def type_name(value: Any) -> str:
    """As `encoding/json` calls the type of a value in its errors."""
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return {"str": "string", "list": "array", "dict": "object"}.get(type(value).__name__, "null")


def kind_name(value: Any) -> str:
    """As `reflect` calls the kind of a decoded value."""
    match value:
        case bool():
            return "bool"
        case int():
            return "int64"
        case float():
            return "float64"
        case str():
            return "string"
        case list():
            return "slice"
        case dict():
            return "map"
        case _:
            return "invalid"


def printed(value: Any) -> str:
    """A value as `%v` prints it."""
    match value:
        case None:
            return "<nil>"
        case bool():
            return "true" if value else "false"
        case dict():
            return "map[" + " ".join(f"{key}:{printed(value[key])}" for key in sorted(value)) + "]"
        case list():
            return "[" + " ".join(printed(item) for item in value) + "]"
        case _:
            return str(value)


def escaped(text: str) -> str:
    """JSON as `encoding/json` writes it: what HTML or JavaScript could take for their own is escaped."""
    for char in "<>&\u2028\u2029":
        text = text.replace(char, f"\\u{ord(char):04x}")
    return text
