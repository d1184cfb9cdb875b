"""Request bodies in `application/vnd.kubernetes.protobuf` -> raw trees.  Pure; reading only.

Typed clients (kubectl's `create`, client-go) send protobuf and take JSON back.  `schema/protobuf.json` maps each
type's fields to their numbers; `+Name` marks a message that JSON shows inline.  Fields whose number is unknown
are passed over, as every protobuf reader does.  Source: generated.proto of k8s.io/api; runtime.Unknown.
"""

import functools
import importlib.resources
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from svcplane.api.schema import Type, fields_of

MEDIA_TYPE = "application/vnd.kubernetes.protobuf"
_MAGIC = b"k8s\x00"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_Raw = int | bytes


@functools.cache
def _numbers() -> dict[str, dict[int, str]]:
    raw = importlib.resources.files("svcplane.api.schema").joinpath("protobuf.json").read_bytes()
    table: dict[str, dict[str, int]] = msgspec.json.decode(raw)
    return {name: {number: field for field, number in row.items()} for name, row in table.items()}


def decode(body: bytes, kind: str = "") -> dict[str, Any]:
    """The raw tree with kind and apiVersion, of the message's own kind or, where it names none, `kind`.

    Raises ValueError for anything malformed or of a kind that is not known.
    """
    if not body.startswith(_MAGIC):
        raise ValueError("provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]")
    envelope = dict(_fields(body[len(_MAGIC) :]))
    names = {number: _text(value) for number, value in _fields(_bytes(envelope.get(1, b"")))}
    kind = names.get(2) or kind
    if kind not in _numbers():
        raise ValueError(f'no kind "{kind}" is registered for version "{names.get(1, "")}"')
    tree = _message(_bytes(envelope.get(2, b"")), kind, kind)
    if names.get(2):
        tree["kind"] = names[2]
    if names.get(1):
        tree["apiVersion"] = names[1]
    return tree


def _varint(data: bytes, at: int) -> tuple[int, int]:
    result = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise ValueError("proto: unexpected EOF")
        byte = data[at]
        at += 1
        result |= (byte & 0x7F) << shift
        if byte < 0x80:
            return result, at
        shift += 7


def _fields(data: bytes) -> Iterator[tuple[int, _Raw]]:
    """(number, value): integers, or the bytes of everything else."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        wire = tag & 7
        if wire == 0:
            number, at = _varint(data, at)
            yield tag >> 3, number
            continue
        if wire == 2:
            size, at = _varint(data, at)
        elif wire in (1, 5):
            size = 8 if wire == 1 else 4
        else:
            raise ValueError(f"proto: illegal wireType {wire}")
        if at + size > len(data):
            raise ValueError("proto: unexpected EOF")
        yield tag >> 3, data[at : at + size]
        at += size


def _bytes(value: _Raw) -> bytes:
    if isinstance(value, int):
        raise ValueError("proto: wrong wireType = 0")
    return value


def _int(value: _Raw) -> int:
    if isinstance(value, bytes):
        raise ValueError("proto: wrong wireType = 2")
    return value - (1 << 64) if value >= 1 << 63 else value


def _text(value: _Raw) -> str:
    return _bytes(value).decode()


def _message(data: bytes, wire_name: str, name: str) -> dict[str, Any]:
    """`wire_name`: whose numbers; `name`: whose fields, which differ for an inline message."""
    numbers, known = _numbers()[wire_name], fields_of(name)
    tree: dict[str, Any] = {}
    for number, raw in _fields(data):
        field = numbers.get(number)
        if field is None:
            continue
        if field.startswith("+"):
            tree.update(_message(_bytes(raw), field[1:], name))
            continue
        spec = known.get(field)
        if spec is None:
            continue
        if spec.type.shape == "list" and spec.type.item is not None:
            tree.setdefault(field, []).append(_value(raw, spec.type.item))
        elif spec.type.shape == "map" and spec.type.item is not None:
            entry = dict(_fields(_bytes(raw)))
            value = entry.get(2, b"")
            tree.setdefault(field, {})[_text(entry.get(1, b""))] = _value(value, spec.type.item)
        else:
            tree[field] = _value(raw, spec.type)
    return tree


def _value(raw: _Raw, type_: Type) -> Any:
    if type_.shape == "struct":
        return _message(_bytes(raw), type_.name, type_.name)
    if type_.shape == "list" and type_.item is not None:  # a list inside a map: a message `{items = 1}`
        return [_value(value, type_.item) for number, value in _fields(_bytes(raw)) if number == 1]
    match type_.name:
        case "int" | "long":
            return _int(raw)
        case "bool":
            return bool(_int(raw))
        case "time" | "microtime":
            return _time(_bytes(raw), micro=type_.name == "microtime")
        case "quantity":
            return _text(dict(_fields(_bytes(raw))).get(1, b""))
        case "intstr":
            parts = dict(_fields(_bytes(raw)))
            return _text(parts.get(3, b"")) if parts.get(1) else _int(parts.get(2, 0))
        case "any":  # FieldsV1
            inner = dict(_fields(_bytes(raw))).get(1, b"")
            return msgspec.json.decode(_bytes(inner)) if inner else {}
        case _:
            return _text(raw)


def _time(data: bytes, *, micro: bool) -> str | None:
    """None for the zero time, which Go writes as an empty message."""
    parts = dict(_fields(data))
    seconds, nanos = _int(parts.get(1, 0)), _int(parts.get(2, 0))
    if not seconds and not nanos:
        return None
    try:
        moment = _EPOCH + timedelta(seconds=seconds, microseconds=nanos // 1000)
    except OverflowError as error:
        raise ValueError(f"time: {seconds} seconds are out of range") from error
    return moment.strftime("%Y-%m-%dT%H:%M:%S.%fZ" if micro else "%Y-%m-%dT%H:%M:%SZ")
