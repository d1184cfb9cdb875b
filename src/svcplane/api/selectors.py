"""Label and field selectors.  Pure.

Source: k8s.io/apimachinery/pkg/labels and pkg/fields (grammar and error texts).
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass

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
        try:
            bound = int(next(iter(self.values)))
            return value is not None and (int(value) > bound if self.operator == "gt" else int(value) < bound)
        except ValueError:
            return False


@dataclass(frozen=True, slots=True)
class LabelSelector:
    requirements: tuple[Requirement, ...] = ()

    def matches(self, labels: Mapping[str, str]) -> bool:
        return all(requirement.matches(labels) for requirement in self.requirements)

    def __bool__(self) -> bool:
        return bool(self.requirements)


_TOKEN = re.compile(r"\s*(!=|==|=|>|<|,|\(|\)|!|[^\s!=<>,()]+)")


class _Parser:
    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = [match for match in _TOKEN.findall(text) if match]
        self._at = 0

    def peek(self) -> str:
        return self._tokens[self._at] if self._at < len(self._tokens) else ""

    def take(self) -> str:
        token = self.peek()
        self._at += 1
        return token

    def parse(self) -> LabelSelector:
        found: list[Requirement] = []
        while self.peek():
            found.append(self._requirement())
            token = self.take()
            if not token:
                break
            if token != ",":  # noqa: S105 - punctuation
                raise ValueError(f"found '{token}', expected: ',' or 'end of string'")
            if not self.peek():
                raise ValueError("found '', expected: identifier after ','")
        return LabelSelector(tuple(found))

    def _requirement(self) -> Requirement:
        negated = self.peek() == "!"
        if negated:
            self.take()
        key = self.take()
        if not re.match(r"[^\s!=<>,()]", key or "!"):
            raise ValueError(f"found '{key}', expected: !, identifier, or 'end of string'")
        problems = qualified_name(key)
        if problems:
            raise ValueError(f'key: Invalid value: "{key}": {"; ".join(problems)}')
        token = self.peek()
        if negated or token in ("", ","):
            return Requirement(key, "!" if negated else "exists")
        self.take()
        if token in ("=", "==", "!="):
            value = "" if self.peek() in ("", ",") else self.take()
            operator = {"!=": "!="}.get(token, "=")
            return _checked(key, operator, {value})
        if token in ("in", "notin"):
            return _checked(key, token, self._values())
        if token in (">", "<"):
            value = self.take()
            if not re.fullmatch(r"-?\d+", value):
                detail = "for 'Gt', 'Lt' operators, the value must be an integer"
                raise ValueError(f'values[0][{key}]: Invalid value: "{value}": {detail}')
            return Requirement(key, {">": "gt"}.get(token, "lt"), frozenset({value}))
        raise ValueError(f"found '{token}', expected: in, notin, =, ==, !=, gt, lt")

    def _values(self) -> set[str]:
        token = self.take()
        if token != "(":  # noqa: S105 - punctuation
            raise ValueError(f"found '{token}' expected: '('")
        values: set[str] = set()
        expect_value = True
        while True:
            token = self.take()
            if token == ")":  # noqa: S105
                if expect_value:
                    values.add("")
                return values
            if token == ",":  # noqa: S105
                if expect_value:
                    values.add("")
                expect_value = True
            elif token and expect_value:
                values.add(token)
                expect_value = False
            else:
                raise ValueError(f"found '{token}', expected: ',', or ')'")


def _checked(key: str, operator: str, values: set[str]) -> Requirement:
    for index, value in enumerate(sorted(values)):
        problems = label_value(value)
        if problems:
            raise ValueError(f'values[{index}][{key}]: Invalid value: "{value}": {"; ".join(problems)}')
    return Requirement(key, operator, frozenset(values))


def parse_label_selector(text: str) -> LabelSelector:
    """Raises StatusError 400 with upstream's words."""
    try:
        return _Parser(text).parse()
    except ValueError as error:
        raise bad_request(
            f"unable to parse requirement: {error}"
            if "Invalid value" in str(error)
            else f'couldn\'t parse the selector string "{text}": {error}'
        ) from error


@dataclass(frozen=True, slots=True)
class FieldTerm:
    field: str
    equal: bool
    value: str


FieldSelector = tuple[FieldTerm, ...]


def parse_field_selector(text: str, supported: frozenset[str]) -> FieldSelector:
    """Terms joined by commas; backslash escapes.  Raises StatusError 400."""
    terms: list[FieldTerm] = []
    for part in re.split(r"(?<!\\),", text):
        if not part:
            continue
        match = re.match(r"(.*?)(!=|==|=)(.*)", part, re.S)
        if match is None:
            raise bad_request(f"invalid selector: '{text}'; can't understand '{part}'")
        field, operator, value = match.groups()
        value = re.sub(r"\\([\\,=])", r"\1", value)
        if field not in supported:
            raise _unsupported(field)
        terms.append(FieldTerm(field, operator != "!=", value))
    return tuple(terms)


def _unsupported(field: str) -> StatusError:
    return bad_request(f"field label not supported: {field}")


def fields_match(selector: FieldSelector, values: Mapping[str, str]) -> bool:
    return all((values.get(term.field, "") == term.value) == term.equal for term in selector)
