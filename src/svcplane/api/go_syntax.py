"""What Go says of JSON and YAML that it cannot read.  Pure.

Source: encoding/json scanner.go; sigs.k8s.io/yaml/goyaml.v2 (decode.go, parser.fail).
"""

import re

import yaml

from svcplane.api.fields import quoted

_SHOWN = 30
#: Reading half a megabyte takes a good part of a second in which nobody else is served.
_MAX_BYTES = 512 << 10
END = "unexpected end of JSON input"
_KEY, _COLON, _VALUE, _KEY_OR_END, _VALUE_OR_END, _AFTER = range(6)
_SPACE = b" \t\r\n"
_LITERALS = {ord("t"): b"true", ord("f"): b"false", ord("n"): b"null"}
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_ESCAPE = re.compile(rb'\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})')
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?")


class _Fault(Exception):
    pass


def json_fault(body: bytes) -> str:
    """The first fault of JSON; nothing where there is none, or where it would take long to find."""
    if len(body) > _MAX_BYTES:
        return ""
    try:
        _scan(body)
    except _Fault as fault:
        return str(fault)
    return ""


def _fault(body: bytes, at: int, where: str) -> _Fault:
    if at >= len(body):
        return _Fault(END)
    return _Fault(f"invalid character {_quoted(body[at])} {where}")


def _quoted(byte: int) -> str:
    """A byte as Go quotes it: those beyond ASCII are taken for characters."""
    char = chr(byte)
    return "'" + ({"'": "\\'", '"': '"'}.get(char) or quoted(char)[1:-1]) + "'"


def _scan(body: bytes) -> None:
    open_: list[int] = []
    at, expected = 0, _VALUE
    while True:
        while at < len(body) and body[at] in _SPACE:
            at += 1
        if expected == _AFTER and not open_:
            if at < len(body):
                raise _fault(body, at, "after top-level value")
            return
        byte = body[at] if at < len(body) else 0
        if expected == _AFTER:
            at, expected = _next(body, at, open_)
        elif byte == (ord("}") if expected == _KEY_OR_END else ord("]")) and expected in (_KEY_OR_END, _VALUE_OR_END):
            open_.pop()
            at, expected = at + 1, _AFTER
        elif expected in (_KEY, _KEY_OR_END):
            if byte != ord('"'):
                raise _fault(body, at, "looking for beginning of object key string")
            at, expected = _text(body, at), _COLON
        elif expected == _COLON:
            if byte != ord(":"):
                raise _fault(body, at, "after object key")
            at, expected = at + 1, _VALUE
        elif byte in b"{[" and at < len(body):
            open_.append(byte)
            at, expected = at + 1, _KEY_OR_END if byte == ord("{") else _VALUE_OR_END
        else:
            at, expected = _scalar(body, at), _AFTER


def _next(body: bytes, at: int, open_: list[int]) -> tuple[int, int]:
    """What follows a value within an object or a list."""
    in_object = open_[-1] == ord("{")
    if body[at : at + 1] == b",":
        return at + 1, _KEY if in_object else _VALUE
    if body[at : at + 1] != (b"}" if in_object else b"]"):
        raise _fault(body, at, "after object key:value pair" if in_object else "after array element")
    open_.pop()
    return at + 1, _AFTER


def _scalar(body: bytes, at: int) -> int:
    byte = body[at] if at < len(body) else 0
    if byte == ord('"'):
        return _text(body, at)
    if literal := _LITERALS.get(byte):
        for offset, letter in enumerate(literal):
            if body[at + offset : at + offset + 1] != bytes([letter]):
                raise _fault(body, at + offset, f"in literal {literal.decode()} (expecting '{chr(letter)}')")
        return at + len(literal)
    if byte not in b"-0123456789" or at >= len(body):
        raise _fault(body, at, "looking for beginning of value")
    found = _NUMBER.match(body, at)
    if found is None:
        raise _fault(body, at + 1, "in numeric literal")
    end = found.end()
    if body[end : end + 1] == b"." and not set(found[0]) & set(b".eE"):
        raise _fault(body, end + 1, "after decimal point in numeric literal")
    if body[end : end + 1] in (b"e", b"E") and not set(found[0]) & set(b"eE"):
        end += 2 if body[end + 1 : end + 2] in (b"+", b"-") else 1
        raise _fault(body, end, "in exponent of numeric literal")
    return end


def _text(body: bytes, at: int) -> int:
    """The end of a text that begins here."""
    at += 1
    while True:
        found = _PLAIN.match(body, at)
        assert found is not None
        at = found.end()
        if body[at : at + 1] == b'"':
            return at + 1
        if body[at : at + 1] != b"\\":
            raise _fault(body, at, "in string literal")
        escape = _ESCAPE.match(body, at)
        if escape is None and body[at + 1 : at + 2] == b"u":
            digits = re.compile(rb"[0-9a-fA-F]*").match(body, at + 2)
            assert digits is not None
            raise _fault(body, digits.end(), "in \\u hexadecimal character escape")
        if escape is None:
            raise _fault(body, at + 1, "in string escape code")
        at = escape.end()


def summary(body: bytes) -> str:
    """The begin of a body that is no object, for messages.

    Source: k8s.io/apiserver/pkg/endpoints/handlers/rest.go summarizeData.
    """
    if not body:
        return "<empty>"
    begin = body[:_SHOWN]
    text = begin.decode(errors="replace") if body[:1] == b"{" else begin.hex()
    return text + (" ..." if len(body) > _SHOWN else "")


def yaml_fault(error: Exception, body: bytes) -> str:
    """A fault of YAML, with the line that Go counts: from nought, but for its scanner's."""
    if isinstance(error, yaml.reader.ReaderError):
        return f"yaml: {error.reason}"
    if not isinstance(error, yaml.MarkedYAMLError) or not error.problem:
        return " ".join(str(error).split())
    if isinstance(error, yaml.composer.ComposerError) and error.problem_mark is not None:
        name = re.compile(r"\*([\w-]+)").match(body.decode(errors="replace"), error.problem_mark.index)
        return f"yaml: unknown anchor '{name[1] if name else ''}' referenced"
    marks = (error.context_mark, error.problem_mark)
    line = next((mark.line for mark in marks if mark is not None and mark.line), 0)
    if line and isinstance(error, yaml.scanner.ScannerError):
        line += 1
    return f"yaml: line {line}: {error.problem}" if line else f"yaml: {error.problem}"
