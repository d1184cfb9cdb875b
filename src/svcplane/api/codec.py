"""Bytes <-> object trees, as a typed Go server reads and writes them.  Pure.

`decode` checks types, reports unknown and duplicate fields, and normalises: what a Go round trip would drop is
dropped.  `encode_stored` puts `metadata` first and leaves `resourceVersion` out, so that a stored object becomes
a response by splicing bytes in front (`splice_object`, `splice_item`), never by decoding it.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import msgspec

from svcplane.api import fields, go_json, go_syntax, go_time, protobuf, quantity
from svcplane.api.resources import BY_KIND, Resource
from svcplane.api.schema import Field, Type, fields_of
from svcplane.api.status import StatusError, bad_request, invalid
from svcplane.api.strategy import Tree
from svcplane.api.yaml import parse_strictly as parse_yaml

_encoder = msgspec.json.Encoder(enc_hook=go_json.as_written)
_decoder = msgspec.json.Decoder(float_hook=go_json.Written)
_HEAD = b'{"metadata":{'
YAML = "application/yaml"
#: What upstream reads a kind into, as Go prints it.
KIND_STRUCT = r'struct { APIVersion string "json:\"apiVersion,omitempty\""; Kind string "json:\"kind,omitempty\"" }'
#: Before what keeps a kind from being read.
NO_KIND = "couldn't get version/kind; json parse error: "
#: Before the lines that say what YAML gives again.
YAML_ERRORS = "yaml: unmarshal errors:\n"


@dataclass(slots=True)
class Decoded:
    """`problems`: texts of unknown and duplicate fields, in the order met in JSON, by name in other bodies."""

    tree: Tree
    problems: list[str] = field(default_factory=list)


class _Mismatch(Exception):
    """A value of the wrong JSON type, told as Go's decoder tells it; `of_type`: the type's own decoder tells it.

    `restored`: as the conversion of an unstructured object tells it instead.  `place`: the field, below the struct
    that is innermost around it.
    """

    def __init__(self, found: str, place: str, target: str, restored: str, of_type: str = "") -> None:
        super().__init__()
        self._found, self._place, self._target, self._of_type = found, place, target, of_type
        self.restored = restored or f"error decoding from json: {of_type}"
        self.owner = ""

    @property
    def alone(self) -> str:
        """As it is told where no struct is around."""
        return f"json: cannot unmarshal {self._found} into Go value of type {self._target}"

    def __str__(self) -> str:
        if self._of_type:
            return self._of_type
        into = f"struct field {self.owner}.{self._place}" if self._place else "value"
        return f"json: cannot unmarshal {self._found} into Go {into} of type {self._target}"


def parse_body(body: bytes, content_type: str, *, written: bool = True) -> tuple[Any, list[str]]:
    """The raw value and duplicate fields of a JSON, YAML or protobuf body.  Raises ValueError.

    `written`: keep numbers of JSON that are not written as integers as they are written.
    """
    if content_type == protobuf.MEDIA_TYPE:
        return protobuf.decode(body), []
    if content_type in (YAML, "application/apply-patch+yaml"):
        value, repeated = parse_yaml(body)
        return value, [YAML_ERRORS + "\n".join(f"  {line}" for line in repeated)] if repeated else []
    try:
        value = _decoder.decode(body) if written else msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        fault = go_syntax.json_fault(body)
        if not fault and (better := go_json.repaired(body)) != body:
            return parse_body(better, content_type, written=written)
        raise ValueError(fault or str(error)) from error
    return value, _duplicates(body, value)


class _Pairs(list[tuple[str, Any]]):
    """An object's fields as written, repeated ones included."""


def _duplicates(body: bytes, value: Any) -> list[str]:
    """Paths of fields given twice.  A body with as many fields written as decoded has none, and is not read again."""
    if not go_json.has_repeated(body, value):
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

    walk(_pairs(body), "")
    return found


def _pairs(body: bytes) -> Any:
    return json.loads(go_json.repaired(body), object_pairs_hook=_Pairs, parse_float=go_json.Written)


def _merged(value: Any) -> Any:
    """What a Go struct is after all of the fields were read into it, one after the other."""
    if isinstance(value, list) and not isinstance(value, _Pairs):
        return [_merged(inner) for inner in value]
    if not isinstance(value, _Pairs):
        return value
    found: dict[str, Any] = {}
    for key, inner in value:
        before = found.get(key)
        if isinstance(before, _Pairs) and isinstance(inner, _Pairs):
            inner = _Pairs([*before, *inner])
        if inner is not None or before is None or (isinstance(before, list) and not isinstance(before, _Pairs)):
            found[key] = inner
    return {key: _merged(inner) for key, inner in found.items()}


def _in_order(value: Any, unknown: set[str], path: str = "") -> Iterator[str]:
    """Texts of fields as they are met: the `unknown` ones, into which nobody looks, and those given again."""
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, inner in value:
            place = f"{path}.{key}" if path else key
            if (text := f'unknown field "{place}"') in unknown:
                if key not in seen:
                    yield text
            else:
                if key in seen:
                    yield f'duplicate field "{place}"'
                yield from _in_order(inner, unknown, place)
            seen.add(key)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _in_order(inner, unknown, f"{path}[{index}]")


def decode(body: bytes, content_type: str, resource: Resource) -> Decoded:
    """A request body as an object of `resource`.  Raises StatusError 400 as upstream words it."""
    in_json = content_type not in (YAML, protobuf.MEDIA_TYPE)
    try:
        why = NO_KIND if in_json else ""
        value, duplicates = parse_body(body, content_type)
        value = {} if value is None else _merged(_pairs(body)) if duplicates and in_json else value
        why = NO_KIND
        if not isinstance(value, dict):
            raise ValueError(f"json: cannot unmarshal {go_json.type_name(value)} into Go value of type {KIND_STRUCT}")
        if fault := kind_fault(value):
            raise ValueError(fault)
    except ValueError as error:
        what = f"the object provided is unrecognized (must be of type {resource.kind}): {why}{error}"
        raise bad_request(f"{what} ({go_syntax.summary(body)})") from error
    check_kind(value, resource)
    decoded = convert(value, resource)
    if in_json and (duplicates or decoded.problems):
        # one field may be met twice, but is told of once
        decoded.problems = list(dict.fromkeys(_in_order(_pairs(body), set(decoded.problems))))
    else:
        decoded.problems[:0] = duplicates
    return decoded


def kind_fault(value: Tree) -> str:
    """What Go says of an apiVersion or kind that is no text; nothing where both are, or are not given."""
    for key in ("apiVersion", "kind"):
        given = value.get(key)
        if given is not None and not isinstance(given, str):
            return f"json: cannot unmarshal {go_json.type_name(given)} into Go struct field .{key} of type string"
    return ""


def check_kind(value: Tree, resource: Resource) -> None:
    """apiVersion and kind, where given, must be the resource's."""
    if why := _other_kind(value, resource):
        version = str(value.get("apiVersion") or resource.api_version).rpartition("/")[2]
        kind = value.get("kind") or resource.kind
        raise bad_request(f'{kind} in version "{version}" cannot be handled as a {resource.kind}: {why}')


def check_patched_kind(value: Tree, resource: Resource) -> None:
    """The same for what a patch has made.  Raises StatusError 422."""
    fault = kind_fault(value)
    if why := NO_KIND + fault if fault else _other_kind(value, resource):
        raise unfit(value, None, why)


def _other_kind(value: Tree, resource: Resource) -> str:
    """Why an object is of another kind; nothing where it is not."""
    api_version, kind = value.get("apiVersion") or resource.api_version, value.get("kind") or resource.kind
    if (api_version, kind) == (resource.api_version, resource.kind):
        return ""
    if (api_version, str(kind).removesuffix("List")) in BY_KIND or (api_version, kind) == ("v1", "List"):
        other = str(api_version).rpartition("/")[2]
        return f"converting ({other}.{kind}) to ({resource.package}.{resource.kind}): unknown conversion"
    return (
        f'no kind "{kind}" is registered for version "{api_version}" in scheme '
        '"k8s.io/kubernetes/pkg/api/legacyscheme/scheme.go:30"'
    )


def convert(value: Tree, resource: Resource) -> Decoded:
    """Type-check and normalise a raw tree.  Raises StatusError 400."""
    try:
        return _converted(value, resource)
    except _Mismatch as error:
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {error}'
        ) from error


def convert_patched(value: Tree, resource: Resource, patch: Tree | None, known: Tree) -> Decoded:
    """The same for what a patch has made; `patch`: of a strategic merge patch.  Raises StatusError 422.

    `known` is what was patched.  It has been through this, and what a patch has left as it was (the very same
    object in the same place) is taken over, not read again.
    """
    try:
        return _converted(value, resource, known)
    except _Mismatch as error:
        raise unfit(value, patch, str(error) if patch is None else error.restored) from error


def unfit(value: Tree, patch: Tree | None, why: str) -> StatusError:
    """422: a patch makes something that is no object of the kind."""
    shown = encode(dict(sorted(value.items()))).decode() if patch is None else go_json.printed(patch)
    return invalid("", "", [fields.invalid("patch", shown, why)])


def _converted(value: Tree, resource: Resource, known: Tree | None = None) -> Decoded:
    """Raises _Mismatch."""
    decoded = Decoded({})
    tree = _struct(value, resource.kind, "", decoded.problems, known)
    tree["apiVersion"], tree["kind"] = resource.api_version, resource.kind
    tree.setdefault("metadata", {})
    decoded.tree = tree
    return decoded


_NOTHING: Tree = {}


def _struct(value: Any, name: str, path: str, problems: list[str], known: Any = None) -> Tree:
    if not isinstance(value, dict):
        raise _mismatch(value, path, f"v1.{name}", f"cannot restore struct from: {go_json.kind_name(value)}")
    specs = fields_of(name)
    before = known if isinstance(known, dict) else _NOTHING
    result: Tree = {}
    for key in sorted(value):
        inner = value[key]
        spec = specs.get(key)
        if spec is not None and spec.type.shape == "scalar" and spec.type.name == "string" and type(inner) is str:
            if inner or (spec.keep_empty and not spec.drop_zero):  # the usual field, told apart early
                result[key] = inner
            continue
        place = f"{path}.{key}" if path else key
        if spec is None:
            problems.append(f'unknown field "{place}"')
            continue
        if inner is None:
            if key == "ports" and name == "EndpointSlice":
                result[key] = None
            continue
        try:
            read = _value(inner, spec.type, place, problems, before.get(key))
        except _Mismatch as error:
            error.owner = error.owner or name
            raise
        if not _is_dropped(read, spec):
            result[key] = read
    return result


def _is_dropped(value: Any, spec: Field) -> bool:
    if value == "" or (isinstance(value, list | dict) and not value and spec.type.shape != "struct"):
        return not spec.keep_empty or spec.type.name in ("time", "microtime")  # the zero time, which no client can read
    return spec.drop_zero and not value


def _value(value: Any, type_: Type, path: str, problems: list[str], known: Any = None) -> Any:
    if value is known and isinstance(value, dict | list):
        return value
    if type_.shape == "struct":
        return _struct(value, type_.name, path, problems, known)
    if type_.shape == "list":
        if not isinstance(value, list):
            raise _mismatch(value, path, _go_type(type_), f"cannot restore slice from {go_json.kind_name(value)}")
        item = type_.item
        assert item is not None
        before = known if isinstance(known, list) else ()
        return [
            _value(inner, item, f"{path}[{index}]", problems, was) if inner is not None else _zero(item)
            for index, (inner, was) in enumerate(zip_longest(value, before[: len(value)]))
        ]
    if type_.shape == "map":
        if not isinstance(value, dict):
            raise _mismatch(value, path, _go_type(type_), f"cannot restore map from {go_json.kind_name(value)}")
        item = type_.item
        assert item is not None
        return {
            key: _value(inner, item, path if item.shape == "scalar" else f"{path}.{key}", problems)
            if inner is not None
            else _zero(item)
            for key, inner in value.items()
        }
    return _scalar(value, type_.name, path)


def _zero(type_: Type) -> Any:
    if type_.shape == "scalar":
        return {"int": 0, "long": 0, "bool": False, "float": 0, "quantity": "0"}.get(type_.name, "")
    return {} if type_.shape in ("struct", "map") else []


def _scalar(value: Any, name: str, path: str) -> Any:
    match name:
        case "any":
            return value
        case "string" if isinstance(value, str):
            return value
        case "int" | "long" if isinstance(value, int | float) and not isinstance(value, bool):
            return _whole(value, name, path)
        case "bool" if isinstance(value, bool):
            return value
        case "float" if isinstance(value, int | float) and not isinstance(value, bool):
            return value if isinstance(value, int) else float(value)
        case "intstr" if isinstance(value, str):
            return value
        case "intstr":
            return _number_or_name(value, path)
        case "quantity" | "time" | "microtime":
            try:
                return _read_by_itself(value, name)
            except ValueError as error:
                raise _Mismatch("", "", "", "", str(error)) from error
        case _:
            target = _GO_TYPES.get(name, name)
            # Go would make a text of an integer, and so tells of it apart
            number = target == "string" and isinstance(value, int) and not isinstance(value, bool)
            why = "cannot convert int64 to string" if number else f"unrecognized type: {target}"
            raise _mismatch(value, path, target, why)


def _read_by_itself(value: Any, name: str) -> str:
    """A value of a type that reads its own JSON.  Raises ValueError with its words."""
    if name == "quantity":
        plain = isinstance(value, int | float | str) and not isinstance(value, bool)
        return quantity.canonical(str(value).strip() if plain else "?")
    if not isinstance(value, str):
        raise ValueError(f"json: cannot unmarshal {go_json.type_name(value)} into Go value of type string")
    return go_time.read(value, micro=name == "microtime")


def _number_or_name(value: Any, path: str) -> int:
    """The number; a name was seen to.  The type's own decoder takes an int32 and tells of anything else."""
    try:
        return int(_scalar(value, "int", path))
    except _Mismatch as mismatch:
        mismatch.restored = f"error decoding from json: {mismatch.alone}"
        raise


_GO_TYPES = {"int": "int32", "long": "int64", "quantity": "Quantity"}


def _whole(value: int | float, name: str, path: str) -> int:
    """A number that fits its Go type.  One that YAML or a strategic patch has as a float may be whole."""
    limit = 1 << (31 if name == "int" else 63)
    odd = isinstance(value, float) and (isinstance(value, go_json.Written) or not value.is_integer())
    if odd or not -limit <= value < limit:
        raise _Mismatch(
            f"number {value}", _dotted(path), _GO_TYPES[name], f"cannot convert float64 to {_GO_TYPES[name]}"
        )
    return int(value)


def _dotted(path: str) -> str:
    return re.sub(r"\[\d+\]", "", path)


def _go_type(type_: Type) -> str:
    if type_.shape == "struct":
        return f"v1.{type_.name}"
    if type_.item is not None:
        return ("[]" if type_.shape == "list" else "map[string]") + _go_type(type_.item)
    return _GO_TYPES.get(type_.name, type_.name)


def _mismatch(value: Any, path: str, target: str, restored: str) -> _Mismatch:
    return _Mismatch(go_json.type_name(value), _dotted(path), target, restored)


def warnings_of(problems: list[str]) -> list[str]:
    """What `fieldValidation=Warn` answers: lines about YAML come one by one."""
    found: list[str] = []
    for text in problems:
        lines = text.removeprefix(YAML_ERRORS)
        found += [text] if lines == text else [line.strip() for line in lines.split("\n")]
    return found


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


def decode_tree(encoded: bytes) -> Tree:
    """What `encode` made of an object."""
    tree: Tree = _decoder.decode(encoded)
    return tree
