"""Field errors: what is wrong where in an object, exactly as `k8s.io/apimachinery/pkg/util/validation/field`.

Pure values.  A validator returns a list of FieldError; `server` turns a non-empty list into a 422 Status with
one cause each.  `str(error)` is upstream's text, e.g.
`spec.ports[0].port: Invalid value: 0: must be between 1 and 65535, inclusive`.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any


class ErrorType(StrEnum):
    """The value is the cause's `reason` on the wire."""

    REQUIRED = "FieldValueRequired"
    INVALID = "FieldValueInvalid"
    NOT_SUPPORTED = "FieldValueNotSupported"
    DUPLICATE = "FieldValueDuplicate"
    FORBIDDEN = "FieldValueForbidden"
    TOO_LONG = "FieldValueTooLong"
    TOO_MANY = "FieldValueTooMany"
    NOT_FOUND = "FieldValueNotFound"
    INTERNAL = "InternalError"
    TYPE_INVALID = "FieldValueTypeInvalid"


_PREFIX = {
    ErrorType.REQUIRED: "Required value",
    ErrorType.INVALID: "Invalid value",
    ErrorType.NOT_SUPPORTED: "Unsupported value",
    ErrorType.DUPLICATE: "Duplicate value",
    ErrorType.FORBIDDEN: "Forbidden",
    ErrorType.TOO_LONG: "Too long",
    ErrorType.TOO_MANY: "Too many",
    ErrorType.NOT_FOUND: "Not found",
    ErrorType.INTERNAL: "Internal error",
    ErrorType.TYPE_INVALID: "Invalid value",
}
_WITHOUT_VALUE = {ErrorType.REQUIRED, ErrorType.FORBIDDEN, ErrorType.TOO_LONG, ErrorType.INTERNAL}


_ESCAPES = {
    "\\": "\\\\",
    '"': '\\"',
    "\n": "\\n",
    "\t": "\\t",
    "\r": "\\r",
    "\a": "\\a",
    "\b": "\\b",
    "\f": "\\f",
    "\v": "\\v",
}


def quoted(text: str) -> str:
    """Text as Go's `%q` prints it."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    return '"' + "".join(_ESCAPES.get(c) or (c if c.isprintable() else _escaped(ord(c))) for c in text) + '"'


def _escaped(code: int) -> str:
    if code < 0x80:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def go_value(value: Any) -> str:
    """A bad value the way field.Error prints it: quoted text, plain numbers, JSON for the rest.

    None stands for a pointer to nothing, which upstream turns into the word `null` and then quotes.
    """
    if isinstance(value, bool):
        return "true" if value else "false"
    if value is None:
        return '"null"'
    if isinstance(value, str):
        return quoted(value)
    if isinstance(value, int | float):
        return json.dumps(value)
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


@dataclass(frozen=True, slots=True)
class FieldError:
    """One fault.  `path` is like `spec.ports[0].nodePort`; `value` is what was given."""

    type: ErrorType
    path: str
    value: Any
    detail: str = ""

    @property
    def message(self) -> str:
        """The cause's message: the text without the path."""
        head = _PREFIX[self.type]
        if self.type not in _WITHOUT_VALUE and self.type is not ErrorType.TOO_MANY:
            head += f": {go_value(self.value)}"
        if self.type is ErrorType.TOO_MANY and self.value is not None:
            head += f": {self.value}"
        return f"{head}: {self.detail}" if self.detail else head

    def __str__(self) -> str:
        return f"{self.path}: {self.message}"


def invalid(path: str, value: Any, detail: str) -> FieldError:
    return FieldError(ErrorType.INVALID, path, value, detail)


def required(path: str, detail: str = "") -> FieldError:
    return FieldError(ErrorType.REQUIRED, path, "", detail)


def forbidden(path: str, detail: str) -> FieldError:
    return FieldError(ErrorType.FORBIDDEN, path, "", detail)


def duplicate(path: str, value: Any, detail: str = "") -> FieldError:
    return FieldError(ErrorType.DUPLICATE, path, value, detail)


def not_found(path: str, value: Any) -> FieldError:
    return FieldError(ErrorType.NOT_FOUND, path, value)


def internal(path: str, detail: str) -> FieldError:
    return FieldError(ErrorType.INTERNAL, path, None, detail)


def too_long(path: str, limit: int) -> FieldError:
    return FieldError(ErrorType.TOO_LONG, path, "", f"may not be more than {limit} bytes")


def too_many(path: str, actual: int, limit: int) -> FieldError:
    return FieldError(ErrorType.TOO_MANY, path, actual, f"must have at most {limit} items")


def not_supported(path: str, value: Any, supported: Iterable[str], *, keep_order: bool = False) -> FieldError:
    """Supported values are listed sorted, but for the few fields where upstream keeps its own order."""
    names = list(supported) if keep_order else sorted(supported)
    text = ", ".join(quoted(name) for name in names)
    return FieldError(ErrorType.NOT_SUPPORTED, path, value, f"supported values: {text}" if names else "")
