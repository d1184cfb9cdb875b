"""The protobuf form of the OpenAPI document says what the JSON form says."""

import json
from collections import defaultdict
from typing import Any

from svcplane.server import discovery, openapi_protobuf
from svcplane.testing.server import Caller, in_process_server


def fields(data: bytes) -> dict[int, list[bytes]]:
    """Length-delimited fields by number; there are no others here."""
    found: dict[int, list[bytes]] = defaultdict(list)
    at = 0

    def varint() -> int:
        nonlocal at
        number = shift = 0
        while True:
            byte = data[at]
            at += 1
            number |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return number

    while at < len(data):
        tag = varint()
        assert tag & 7 == 2
        size = varint()
        found[tag >> 3].append(data[at : at + size])
        at += size
    assert at == len(data)
    return found


def named(entries: list[bytes]) -> dict[str, bytes]:
    return {fields(entry)[1][0].decode(): fields(entry)[2][0] for entry in entries}


def schema(data: bytes) -> dict[str, Any]:
    """Back to JSON, without descriptions."""
    raw = fields(data)
    tree: dict[str, Any] = {key: raw[number][0].decode() for number, key in ((1, "$ref"), (2, "format")) if raw[number]}
    if raw[19]:
        tree["required"] = [name.decode() for name in raw[19]]
    if raw[21]:
        tree["additionalProperties"] = schema(fields(raw[21][0])[1][0])
    if raw[22]:
        tree["type"] = fields(raw[22][0])[1][0].decode()
    if raw[23]:
        tree["items"] = schema(fields(raw[23][0])[1][0])
    if raw[25]:
        tree["properties"] = {name: schema(inner) for name, inner in named(fields(raw[25][0])[1]).items()}
    return tree | {name: json.loads(fields(value)[2][0]) for name, value in named(raw[31]).items()}


def plain(tree: Any) -> Any:
    """What protobuf has room for."""
    if not isinstance(tree, dict):
        return tree
    return {
        key: {name: plain(inner) for name, inner in value.items()} if key == "properties" else plain(value)
        for key, value in tree.items()
        if key not in ("description", "oneOf") and value != {}
    }


def test_definitions_are_those_of_the_json_document() -> None:
    document = fields(openapi_protobuf.openapi_v2())
    found = {name: schema(value) for name, value in named(fields(document[9][0])[1]).items()}
    assert found == {name: plain(tree) for name, tree in discovery.openapi_v2()["definitions"].items()}
    assert found["io.k8s.api.core.v1.Service"]["properties"]["spec"] == {
        "$ref": "#/definitions/io.k8s.api.core.v1.ServiceSpec"
    }


def test_paths_are_those_of_the_json_document() -> None:
    document = fields(openapi_protobuf.openapi_v2())
    assert set(named(fields(document[8][0])[2])) == set(discovery.openapi_v2()["paths"])


async def test_it_is_served_to_who_asks_for_it() -> None:
    async with in_process_server() as server:
        headers = {"Accept": "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"}
        response = await Caller(server.handle).send("GET", "/openapi/v2", headers=headers)
    assert response.headers["Content-Type"] == "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
    assert response.body == openapi_protobuf.openapi_v2()


def test_documents_say_what_applies_take_for_one_value() -> None:
    found = discovery.definitions("#/definitions/")
    service = found["io.k8s.api.core.v1.ServiceSpec"]["properties"]
    assert service["selector"]["x-kubernetes-map-type"] == "atomic"
    assert service["ports"]["x-kubernetes-list-map-keys"] == ["port", "protocol"]
    assert found["io.k8s.apimachinery.pkg.apis.meta.v1.OwnerReference"]["x-kubernetes-map-type"] == "atomic"
