"""YAML as Kubernetes reads it: what JSON can hold, and nothing that a few bytes blow up.  Pure.

Names become text and times stay text; an alias counts as all that it stands for.
Source: sigs.k8s.io/yaml, gopkg.in/yaml.v2 (decode.go, resolve.go).
"""

import re
from collections.abc import Iterator
from typing import Any

import msgspec
import yaml

from svcplane.api import fields, go_json, go_syntax

#: Reading a megabyte takes a second in which nobody else is served.  JSON has no such limit.
MAX_BYTES = 512 << 10
#: Values that a document with aliases may come to.
MAX_EXPANDED = 100_000
#: libyaml's composer calls itself for each level, and some ten thousand of them end the process.
MAX_DEPTH = 200
TOO_DEEP = "yaml: document is nested too deeply"
_SCALARS = (str, bool, int, float, type(None))


class _Loader(yaml.CSafeLoader):  # type: ignore[misc, unused-ignore]
    """Without times: they are text."""


_TAG = "tag:yaml.org,2002:"
_LEFT_OUT = {_TAG + name for name in ("timestamp", "int", "float")}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag not in _LEFT_OUT]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
# Exponents of whole numbers make numbers; sexagesimal ones (`12:30`) are text.
_Loader.add_implicit_resolver(
    _TAG + "int", re.compile(r"^[-+]?(0b[01_]+|0x[0-9a-fA-F_]+|0o?[0-7_]+|0|[1-9][0-9_]*)$"), list("-+0123456789")
)
_Loader.add_implicit_resolver(
    _TAG + "float",
    re.compile(r"^([-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN))$"),
    list("-+.0123456789"),
)
for _name_of in ("value", "merge"):  # `=` and, as a value, `<<` are text to upstream
    _Loader.add_constructor(_TAG + _name_of, lambda _loader, node: node.value)


def parse(body: bytes) -> Any:
    """Raises ValueError."""
    return parse_strictly(body)[0]


def parse_strictly(body: bytes) -> tuple[Any, list[str]]:
    """The value, and a line for each field that is given again.  Raises ValueError."""
    if body[:1] in (b"{", b"["):  # most clients send JSON, which is read a hundred times faster
        try:
            value = msgspec.json.decode(body)
            if not go_json.has_repeated(body, value):
                return value, []
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            pass
    if len(body) > MAX_BYTES:
        raise ValueError(f"yaml: the document is larger than {MAX_BYTES} bytes; send it as JSON")
    try:
        _check_depth(body)
        loader = _Loader(body)
        try:
            node = loader.get_single_node()
            loaded = None if node is None else loader.construct_document(node)
        finally:
            loader.dispose()
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(go_syntax.yaml_fault(error, body)) from error
    return _Plain().of(loaded, 0), list(_repeated(node, set()))


def _repeated(node: Any, known: set[int]) -> Iterator[str]:
    """Fields given again, as upstream's parser tells of them: inner ones first."""
    if id(node) in known:
        return
    known.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            yield from _repeated(item, known)
    elif isinstance(node, yaml.MappingNode):
        seen: set[tuple[str, str]] = set()
        for key, value in node.value:
            yield from _repeated(value, known)
            if not isinstance(key, yaml.ScalarNode):
                continue
            if (key.tag, key.value) in seen:
                name = fields.quoted(key.value) if key.tag == _TAG + "str" else key.value
                yield f"line {value.start_mark.line + 1}: key {name} already set in map"
            seen.add((key.tag, key.value))


def _check_depth(body: bytes) -> None:
    depth = 0
    for event in yaml.parse(body, _Loader):
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > MAX_DEPTH:
                raise ValueError(TOO_DEEP)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


class _Plain:
    """Makes plain JSON values of what the loader made; shared ones are counted each time."""

    def __init__(self) -> None:
        self._count = 0

    def of(self, value: Any, depth: int) -> Any:
        self._count += 1
        if self._count > MAX_EXPANDED:
            raise ValueError("yaml: document contains excessive aliasing")
        if depth > MAX_DEPTH:
            raise ValueError(TOO_DEEP)  # an alias may stand for what it stands in
        if isinstance(value, _SCALARS):
            return value
        if isinstance(value, dict):
            return {_name(key): self.of(inner, depth + 1) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.of(inner, depth + 1) for inner in value]
        raise ValueError(f"yaml: a value of the kind {type(value).__name__} cannot be told in JSON")


def _name(key: Any) -> str:
    """The name of a field, as JSON would write a value that is no text."""
    if isinstance(key, str):
        return key
    if isinstance(key, bool | int | float | None):
        return msgspec.json.encode(key).decode()
    raise ValueError("yaml: the name of a field must be a text")
