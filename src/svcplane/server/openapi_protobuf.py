"""The OpenAPI v2 document as protobuf, the only form in which kubectl up to 1.27 asks for it.  Pure.

Covers what `discovery.openapi_v2` holds.  Values of unknown shape, such as extensions, travel as YAML text, of which
JSON is a part.  Source: openapi.v2 of google/gnostic, OpenAPIv2.proto.
"""

import functools
import json
from collections.abc import Iterable
from typing import Any

from svcplane.server import discovery

#: Clients ask with an at sign, which is no media type that they could read in the answer.
ACCEPTED = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
MEDIA_TYPE = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
_METHODS = {"get": 2, "put": 3, "post": 4, "delete": 5, "patch": 8}
_Tree = dict[str, Any]


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _field(number: int, value: bytes | str) -> bytes:
    """A length-delimited field."""
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(raw)) + raw


def _texts(number: int, values: Iterable[str]) -> bytes:
    return b"".join(_field(number, value) for value in values)


def _named(number: int, name: str, value: bytes) -> bytes:
    """An entry of what is a map in JSON."""
    return _field(number, _field(1, name) + _field(2, value))


def _extensions(number: int, tree: _Tree) -> bytes:
    found = ((key, value) for key, value in tree.items() if key.startswith("x-"))
    return b"".join(_named(number, key, _field(2, json.dumps(value))) for key, value in found)


def _schema(tree: _Tree) -> bytes:
    parts = [
        _field(number, tree[key]) for key, number in (("$ref", 1), ("format", 2), ("description", 4)) if key in tree
    ]
    parts.append(_texts(19, tree.get("required", ())))
    if "additionalProperties" in tree:
        parts.append(_field(21, _field(1, _schema(tree["additionalProperties"]))))
    if "type" in tree:
        parts.append(_field(22, _field(1, tree["type"])))
    if "items" in tree:
        parts.append(_field(23, _field(1, _schema(tree["items"]))))
    if "properties" in tree:
        named = (_named(1, name, _schema(inner)) for name, inner in tree["properties"].items())
        parts.append(_field(25, b"".join(named)))
    parts.append(_extensions(31, tree))
    return b"".join(parts)


def _parameter(tree: _Tree) -> bytes:
    """A query parameter."""
    query = _field(2, tree["in"]) + _field(4, tree["name"]) + _field(6, tree["schema"]["type"])
    return _field(1, _field(2, _field(3, query)))


def _operation(tree: _Tree) -> bytes:
    parts = [_field(5, tree["operationId"])]
    parts += [_field(8, _parameter(parameter)) for parameter in tree["parameters"]]
    responses = (
        _named(1, code, _field(1, _field(1, response["description"]))) for code, response in tree["responses"].items()
    )
    parts += [_field(9, b"".join(responses)), _extensions(13, tree)]
    return b"".join(parts)


def _path(tree: _Tree) -> bytes:
    return b"".join(_field(number, _operation(tree[method])) for method, number in _METHODS.items() if method in tree)


@functools.cache
def openapi_v2() -> bytes:
    """The whole document."""
    tree = discovery.openapi_v2()
    info = _field(1, tree["info"]["title"]) + _field(2, tree["info"]["version"])
    paths = b"".join(_named(2, path, _path(inner)) for path, inner in tree["paths"].items())
    definitions = b"".join(_named(1, name, _schema(inner)) for name, inner in tree["definitions"].items())
    return _field(1, tree["swagger"]) + _field(2, info) + _field(8, paths) + _field(9, definitions)
