"""Bytes <-> object trees, as a typed Go server reads and writes them.  Pure.

`decode` checks types, reports unknown and duplicate fields, and normalises: what a Go round trip would drop is
dropped.  `encode_stored` puts `metadata` first and leaves `resourceVersion` out, so that a stored object becomes
a response by splicing bytes in front (`splice_object`, `splice_item`), never by decoding it.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import msgspec

from svcplane.api import fields, go_json, go_syntax, protobuf
from svcplane.api.conversion import Mismatch, struct
from svcplane.api.resources import BY_KIND, Resource
from svcplane.api.status import StatusError, bad_request, invalid
from svcplane.api.strategy import Tree
from svcplane.api.yaml import parse_strictly as parse_yaml

_encoder = msgspec.json.Encoder(enc_hook=go_json.as_written)
_decoder = msgspec.json.Decoder(float_hook=go_json.Written)
_HEAD = b'{"metadata":{'
YAML = "application/yaml"
#: So many unknown and duplicate fields are told of, as upstream's decoder does.
MAX_PROBLEMS = 100
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
    return list(_repeated(_pairs(body), ""))


def _repeated(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, _Pairs):
        seen: set[str] = set()
        for key, inner in value:
            place = f"{path}.{key}" if path else key
            if key in seen:
                yield f"duplicate field {fields.quoted(place)}"
            seen.add(key)
            yield from _repeated(inner, place)
    elif isinstance(value, list):
        for index, inner in enumerate(value):
            yield from _repeated(inner, f"{path}[{index}]")


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
            if (text := f"unknown field {fields.quoted(place)}") in unknown:
                if key not in seen:
                    yield text
            else:
                if key in seen:
                    yield f"duplicate field {fields.quoted(place)}"
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
        met = dict.fromkeys(_in_order(_pairs(body), set(decoded.problems)))
        decoded.problems = list(islice(met, MAX_PROBLEMS))
    else:
        decoded.problems[:] = [*duplicates, *decoded.problems[:MAX_PROBLEMS]]
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
    except Mismatch as error:
        raise bad_request(
            f'{resource.kind} in version "{resource.version}" cannot be handled as a {resource.kind}: {error}'
        ) from error


def convert_patched(value: Tree, resource: Resource, patch: Tree | None, known: Tree) -> Decoded:
    """The same for what a patch has made; `patch`: of a strategic merge patch.  Raises StatusError 422.

    `known` is what was patched.  It has been through this, and what a patch has left as it was (the very same
    object in the same place) is taken over, not read again.
    """
    try:
        decoded = _converted(value, resource, known)
    except Mismatch as error:
        raise unfit(value, patch, str(error) if patch is None else error.restored) from error
    del decoded.problems[MAX_PROBLEMS:]
    return decoded


def unfit(value: Tree, patch: Tree | None, why: str) -> StatusError:
    """422: a patch makes something that is no object of the kind."""
    shown = encode(dict(sorted(value.items()))).decode() if patch is None else go_json.printed(patch)
    return invalid("", "", [fields.invalid("patch", shown, why)])


def _converted(value: Tree, resource: Resource, known: Tree | None = None) -> Decoded:
    """Raises Mismatch."""
    decoded = Decoded({})
    tree = struct(value, resource.kind, "", decoded.problems, known)
    tree["apiVersion"], tree["kind"] = resource.api_version, resource.kind
    tree.setdefault("metadata", {})
    decoded.tree = tree
    return decoded


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
