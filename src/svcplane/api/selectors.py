"""Label and field selectors.  Pure.

Source: k8s.io/apimachinery/pkg/labels and pkg/fields (grammar and error texts).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

from svcplane.api.fields import quoted
from svcplane.api.status import StatusError, bad_request
from svcplane.api.validation.names import label_value, qualified_name


@dataclass(frozen=True, slots=True)
class Requirement:
    """`operator`: `=`, `!=`, `in`, `notin`, `exists`, `!`, `gt`, `lt`."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def matches(self, labels: Mapping[str, str]) -> bool:
        value = labels.get(self.key)
        match self.operator:
            case "=" | "in":
                return value is not None and value in self.values
            case "!=" | "notin":
                return value is None or value not in self.values
            case "exists":
                return value is not None
            case "!":
                return value is None
        bound, found = int(next(iter(self.values))), _whole(value or "")
        return found is not None and (found > bound if self.operator == "gt" else found < bound)


def _whole(text: str) -> int | None:
    """A number of 64 bits."""
    number = int(text) if re.fullmatch(r"[+-]?\d{1,19}", text, re.ASCII) else None
    return number if number is not None and -(1 << 63) <= number < 1 << 63 else None


@dataclass(frozen=True, slots=True)
class LabelSelector:
    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __bool__(self) -> bool:
        return bool(self.requirements)


_SPECIAL = frozenset("=!(),><")
_OPERATORS = {
    "in": "in",
    "notin": "notin",
    "=": "=",
    "==": "=",
    "!=": "!=",
    ">": "gt",
    "<": "lt",
}
_SYMBOLS = frozenset({"=", "==", "!=", "!", "(", ")", ",", ">", "<"})


def _tokens(text: str) -> list[str]:
    """Names and symbols; of symbols the longest that is one."""
    found: list[str] = []
    at = 0
    while at < len(text):
        char = text[at]
        if char in " \t\r\n":
            at += 1
        elif char in _SPECIAL:
            symbol = text[at : at + 2] if text[at : at + 2] in _SYMBOLS else char
            found.append(symbol)
            at += len(symbol)
        else:
            end = at
            while end < len(text) and text[end] not in _SPECIAL and text[end] not in " \t\r\n":
                end += 1
            found.append(text[at:end])
            at = end
    return found


class _Parser:
    """Upstream's grammar; errors are ValueErrors with its words."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def parse(self) -> LabelSelector:
        found: list[Requirement] = []
        while token := self.peek():
            if token in _SYMBOLS and token != "!":  # noqa: S105 - punctuation
                raise ValueError(f"found '{token}', expected: !, identifier, or 'end of string'")
            try:
                found.append(self._requirement())
            except ValueError as error:
                raise ValueError(f"unable to parse requirement: {error}") from error
            token = self.take()
            if not token:
                break
            if token != ",":  # noqa: S105
                raise ValueError(f"found '{token}', expected: ',' or 'end of string'")
            if not _is_name(self.peek()) and self.peek() != "!":
                raise ValueError(f"found '{self.peek()}', expected: identifier after ','")
        return LabelSelector(tuple(found))

    def _requirement(self) -> Requirement:
        negated = self.peek() == "!"
        if negated:
            self.take()
        key = self.take()
        if not _is_name(key):
            raise ValueError(f"found '{key}', expected: identifier")
        if problems := qualified_name(key):
            raise ValueError(f"<nil>: Invalid value: {quoted(key)}: {'; '.join(problems)}")
        if negated or self.peek() in ("", ","):
            return Requirement(key, "!" if negated else "exists")
        token = self.take()
        operator = _OPERATORS.get(token)
        if operator is None:
            raise ValueError(f"found '{token}', expected: in, notin, =, ==, !=, gt, lt")
        return _checked(key, operator, self._values() if operator in ("in", "notin") else {self._value()})

    def _value(self) -> str:
        if self.peek() in ("", ","):
            return ""
        token = self.take()
        if not _is_name(token):
            raise ValueError(f"found '{token}', expected: identifier")
        return token

    def _values(self) -> set[str]:
        token = self.take()
        if token != "(":  # noqa: S105 - punctuation
            raise ValueError(f"found '{token}' expected: '('")
        first = self.peek()
        if first == ")":
            self.take()
            return {""}
        if not _is_name(first) and first != ",":
            raise ValueError(f"found '{first}', expected: ',', ')' or identifier")
        values = self._names()
        if self.take() != ")":
            raise ValueError(f"found '{first}', expected: ')'")
        return values

    def _names(self) -> set[str]:
        values: set[str] = set()
        while True:
            token = self.take()
            if _is_name(token):
                values.add(token)
                if self.peek() == ")":
                    return values
                if self.peek() != ",":
                    raise ValueError(f"found '{self.peek()}', expected: ',' or ')'")
            elif token == ",":  # noqa: S105 - punctuation
                values |= set() if values else {""}
                if self.peek() == ")":
                    return values | {""}
                if self.peek() == ",":
                    self.take()
                    values.add("")
            else:
                raise ValueError(f"found '{token}', expected: ',', or identifier")


def _is_name(token: str) -> bool:
    return bool(token) and token not in _SYMBOLS


def _checked(key: str, operator: str, values: set[str]) -> Requirement:
    problems: list[str] = []
    for index, value in enumerate(sorted(values)):
        if operator in ("gt", "lt") and _whole(value) is None:
            detail = "for 'Gt', 'Lt' operators, the value must be an integer"
            problems.append(f"values[{index}]: Invalid value: {quoted(value)}: {detail}")
        if bad := label_value(value):
            problems.append(f"values[{index}][{key}]: Invalid value: {quoted(value)}: {'; '.join(bad)}")
    if problems:
        raise ValueError(problems[0] if len(problems) == 1 else f"[{', '.join(problems)}]")
    return Requirement(key, operator, frozenset(values))


def parse_label_selector(text: str) -> LabelSelector:
    """Raises StatusError 400 with upstream's words."""
    try:
        return _Parser(text).parse()
    except ValueError as error:
        raise bad_request(str(error)) from error


@dataclass(frozen=True, slots=True)
class FieldTerm:
    field: str
    equal: bool
    value: str


FieldSelector = tuple[FieldTerm, ...]


def parse_field_selector(text: str, supported: frozenset[str], *, own_labels: bool = True) -> FieldSelector:
    """Terms joined by commas; backslash escapes.  Raises StatusError 400.

    `own_labels`: the kind knows other fields than its name, which upstream words otherwise.
    """
    terms: list[FieldTerm] = []
    for part in sorted(_parts(text)):  # upstream sorts them before it looks at them
        if not part:
            continue
        match = re.match(r"(.*?)(!=|==|=)(.*)", part, re.S)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        field, operator, value = match.groups()
        terms.append(FieldTerm(field, operator != "!=", _unescaped(value)))
    for term in terms:
        if term.field not in supported:
            raise _unsupported(term.field, supported, own_labels=own_labels)
    return tuple(terms)


def _parts(text: str) -> list[str]:
    """At the commas before which there is no backslash that escapes them."""
    return re.findall(r"(?:\\.|[^,\\]|\\$)+", text, re.S)


def _unescaped(value: str) -> str:
    if "\\" not in value and "=" not in value:
        return value
    result, at = "", 0
    while at < len(value):
        char = value[at]
        if char == "\\":
            at += 1
            if value[at : at + 1] not in ("\\", ",", "="):
                raise bad_request(f"invalid field selector: invalid escape sequence: \\{value[at : at + 1]}")
        elif char == "=":  # upstream tells of its number
            raise bad_request(f"invalid field selector: unescaped character in value: {ord(char)}")
        result += value[at]
        at += 1
    return result


def _unsupported(field: str, supported: frozenset[str], *, own_labels: bool) -> StatusError:
    if own_labels:
        return bad_request(f"field label not supported: {field}")
    known = ", ".join(quoted(name) for name in sorted(supported))
    return bad_request(f"{quoted(field)} is not a known field selector: only {known}")


def fields_match(selector: FieldSelector, values: Mapping[str, str]) -> bool:
    return all((values.get(term.field, "") == term.value) == term.equal for term in selector)
