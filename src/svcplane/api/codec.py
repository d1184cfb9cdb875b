"""Bytes <-> object trees, as a typed Go server reads and writes them.  Pure.

`decode` checks types, reports unknown and duplicate fields, and normalises: what a Go round trip would drop is
dropped.  `encode_stored` puts `metadata` first and leaves `resourceVersion` out, so that a stored object becomes
a response by splicing bytes in front (`splice_object`, `splice_item`), never by decoding it.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any

import msgspec
import yaml

from svcplane.api import protobuf
from svcplane.api.resources import BY_KIND, Resource
from svcplane.api.schema import Field, Type, fields_of
from svcplane.api.status import StatusError, bad_request
from svcplane.api.strategy import Tree

_encoder = msgspec.json.Encoder()
_HEAD = b'{"metadata":{'


@dataclass(slots=True)
class Decoded:
    """`problems`: texts of unknown and duplicate fields, in the order met."""

    tree: Tree
    problems: list[str] = field(default_factory=list)


class _Mismatch(Exception):
    """A value of the wrong JSON type, told as Go's decoder tells it."""


def parse_body(body: bytes, content_type: str) -> tuple[Any, list[str]]:
    """The raw value and duplicate fields of a JSON, YAML or protobuf body.  Raises ValueError."""
    if content_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(body), []
    if content_type in ("application/yaml", "application/apply-patch+yaml"):
        try:
            return yaml.safe_load(body), []
        except yaml.YAMLError as error:
            raise ValueError(f"error converting YAML to JSON: {' '.join(str(error).split())}") from error
    try:
        value = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ValueError(str(error)) from error
    return value, _duplicates(body, value)


#: A text in JSON, and whether it is the name of a field.
_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"(\s*:)?', re.S)


def _field_count(value: Any) -> int:
    """How many fields the objects of a decoded value have."""
    if isinstance(value, dict):
        return len(value) + sum(_field_count(inner) for inner in value.values() if isinstance(inner, dict | list))
    return sum(_field_count(inner) for inner in value if isinstance(inner, dict | list))


class _Pairs(list[tuple[str, Any]]):
    """An object's fields as written, repeated ones included."""


def _duplicates(body: bytes, value: Any) -> list[str]:
    """Paths of fields given twice.  A body with as many fields written as decoded has none, and is not read again."""
    if not isinstance(value, dict | list) or sum(map(bool, _TEXT.findall(body))) == _field_count(value):
        return []
    found: list[str] = []

    def walk(value: Any, path: str) -> None:
        if isinstance(value, _Pairs):
            seen: set[str] = set()
            for key, inner in value:
                place = f"{path}.{key}" if path else key
                if key in seen:
                    found.append(f'duplicate field "{place}"')
                seen.add(key)
                walk(inner, place)
        elif isinstance(value, list):
            for index, inner in enumerate(value):
                walk(inner, f"{path}[{index}]")

    walk(json.loads(body, object_pairs_hook=_Pairs), "")
    return found


def decode(body: bytes, content_type: str, resource: Resource) -> Decoded:
    """A request body as an object of `resource`.  Raises StatusError 400 as upstream words it."""
    try:
        value, duplicates = parse_body(body, content_type)
        if not isinstance(value, dict):
            raise ValueError("cannot unmarshal into Go value of type struct")
    except ValueError as error:
        raise bad_request(
            f"the object provided is unrecognized (must be of type {resource.kind}): "
            f"couldn't get version/kind; json parse error: {error}"
        ) from error
    check_kind(value, resource)
    decoded = convert(value, resource)
    decoded.problems[:0] = duplicates
    return decoded


def check_kind(value: Tree, resource: Resource) -> None:
    """apiVersion and kind, where given, must be the resource's."""
    api_version, kind = value.get("apiVersion") or resource.api_version, value.get("kind") or resource.kind
    if (api_version, kind) == (resource.api_version, resource.kind):
        return
    head = f'{kind} in version "{str(api_version).rpartition("/")[2]}" cannot be handled as a {resource.kind}'
    if (api_version, kind) in BY_KIND:
        group = resource.group.split(".")[0] or "core"
        other = str(api_version).rpartition("/")[2]
        raise bad_request(f"{head}: converting ({other}.{kind}) to ({group}.{resource.kind}): unknown conversion")
    raise bad_request(
        f'{head}: no kind "{kind}" is registered for version "{api_version}" in scheme '
        '"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"'
    )


def convert(value: Tree, resource: Resource) -> Decoded:
    """Type-check and normalise a raw tree.  Raises StatusError 400."""
    decoded = Decoded({})
    try:
        tree = _struct(value, resource.kind, "", decoded.problems)
    except _Mismatch as error:
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
            f"json: cannot unmarshal {error}"
        ) from error
    tree["apiVersion"], tree["kind"] = resource.api_version, resource.kind
    tree.setdefault("metadata", {})
    decoded.tree = tree
    return decoded


def _struct(value: Any, name: str, path: str, problems: list[str]) -> Tree:
    if not isinstance(value, dict):
        raise _Mismatch(
            f"{_json_type(value)} into Go value of type v1.{name}" if not path else _into(value, path, name)
        )
    fields = fields_of(name)
    result: Tree = {}
    for key in sorted(value):
        inner = value[key]
        spec = fields.get(key)
        place = f"{path}.{key}" if path else key
        if spec is None:
            problems.append(f'unknown field "{place}"')
            continue
        if inner is None:
            if key == "ports" and name == "EndpointSlice":
                result[key] = None
            continue
        read = _value(inner, spec.type, place, problems)
        if not _is_dropped(read, spec):
            result[key] = read
    return result


def _is_dropped(value: Any, spec: Field) -> bool:
    if value == "" or (isinstance(value, list | dict) and not value and spec.type.shape != "struct"):
        return not spec.keep_empty
    return spec.drop_zero and not value


def _value(value: Any, type_: Type, path: str, problems: list[str]) -> Any:
    if type_.shape == "struct":
        return _struct(value, type_.name, path, problems)
    if type_.shape == "list":
        if not isinstance(value, list):
            raise _Mismatch(_into(value, path, "[]"))
        item = type_.item
        assert item is not None
        return [
            _value(inner, item, f"{path}[{index}]", problems) if inner is not None else _zero(item)
            for index, inner in enumerate(value)
        ]
    if type_.shape == "map":
        if not isinstance(value, dict):
            raise _Mismatch(_into(value, path, "map"))
        item = type_.item
        assert item is not None
        return {
            key: _value(inner, item, f"{path}.{key}", problems) if inner is not None else _zero(item)
            for key, inner in value.items()
        }
    return _scalar(value, type_.name, path)


def _zero(type_: Type) -> Any:
    if type_.shape == "scalar":
        return {"int": 0, "bool": False, "float": 0}.get(type_.name, "")
    return {} if type_.shape in ("struct", "map") else []


def _scalar(value: Any, name: str, path: str) -> Any:
    match name:
        case "any":
            return value
        case "string" if isinstance(value, str):
            return value
        case "int" if isinstance(value, int) and not isinstance(value, bool):
            return value
        case "int" if isinstance(value, float) and value.is_integer():
            return int(value)
        case "bool" if isinstance(value, bool):
            return value
        case "float" if isinstance(value, int | float) and not isinstance(value, bool):
            return value
        case "intstr" if isinstance(value, int | str) and not isinstance(value, bool):
            return value
        case "quantity" if isinstance(value, int | float | str) and not isinstance(value, bool):
            return str(value)
        case "time" | "microtime" if isinstance(value, str):
            return _time(value, path, micro=name == "microtime")
        case _:
            raise _Mismatch(_into(value, path, {"int": "int32", "quantity": "Quantity"}.get(name, name)))


_RFC3339 = re.compile(r"(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d)(\.\d+)?(Z|[+-]\d\d:\d\d)")


def _time(value: str, path: str, *, micro: bool) -> str:
    if not value:
        return value
    match = _RFC3339.fullmatch(value)
    if match is None:
        raise _Mismatch(f"string into Go struct field {path} of type Time: parsing time {value!r} as RFC 3339")
    seconds, fraction, zone = match.groups()
    if zone != "Z":
        from datetime import UTC, datetime

        seconds = datetime.fromisoformat(seconds + zone).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{seconds}.{(fraction or '.')[1:7].ljust(6, '0')}Z" if micro else f"{seconds}Z"


def _json_type(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return {"str": "string", "list": "array", "dict": "object"}.get(type(value).__name__, "null")


def _into(value: Any, path: str, target: str) -> str:
    dotted = re.sub(r"\[\d+\]", "", path)
    return f"{_json_type(value)} into Go struct field {dotted} of type {target}"


def strict_error(resource: Resource, problems: list[str]) -> StatusError:
    """What `fieldValidation=Strict` answers."""
    return bad_request(
        f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: '
        f"strict decoding error: {', '.join(problems)}"
    )


# -- stored bytes --------------------------------------------------------------------------------------------------


def encode_stored(tree: Tree) -> bytes:
    """An object as it is stored: no apiVersion, kind or resourceVersion, metadata first."""
    metadata = {key: value for key, value in tree["metadata"].items() if key != "resourceVersion"}
    ordered = {"metadata": metadata}
    ordered.update((key, value) for key, value in tree.items() if key not in ("metadata", "apiVersion", "kind"))
    return _encoder.encode(ordered)


def load(stored: bytes, revision: int, resource: Resource) -> Tree:
    """A stored object as a whole tree."""
    tree: Tree = msgspec.json.decode(stored)
    tree["metadata"]["resourceVersion"] = str(revision)
    tree["apiVersion"], tree["kind"] = resource.api_version, resource.kind
    return tree


def _spliced(stored: bytes, revision: int) -> bytes:
    rest = stored[len(_HEAD) :]
    separator = b"" if rest[:1] == b"}" else b","
    return b'"metadata":{"resourceVersion":"%d"%s%s' % (revision, separator, rest)


def splice_object(stored: bytes, revision: int, resource: Resource) -> bytes:
    """The JSON of a whole object."""
    return b'{"kind":"%s","apiVersion":"%s",%s' % (
        resource.kind.encode(),
        resource.api_version.encode(),
        _spliced(stored, revision),
    )


def splice_item(stored: bytes, revision: int) -> bytes:
    """The JSON of a list item, which carries neither kind nor apiVersion."""
    return b"{" + _spliced(stored, revision)


def encode(tree: Any) -> bytes:
    """Any tree as JSON."""
    return _encoder.encode(tree)
