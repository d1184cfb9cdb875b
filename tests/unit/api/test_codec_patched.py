"""What a patch has left alone is not read again, and nothing is in two places of the result."""

from typing import Any

import pytest

from svcplane.api import codec
from svcplane.api.patch.json import apply
from svcplane.api.resources import ENDPOINT_SLICES
from svcplane.api.status import StatusError
from svcplane.api.strategies.endpoints import EndpointSliceStrategy


def endpoint(address: str) -> dict[str, Any]:
    return {"addresses": [address], "conditions": {"ready": True}, "nodeName": "one"}


def stored(*addresses: str) -> dict[str, Any]:
    return {
        "metadata": {"name": "web-1", "namespace": "default"},
        "addressType": "IPv4",
        "endpoints": [endpoint(address) for address in addresses],
        "ports": [{"name": "", "protocol": "TCP", "port": 80}],
    }


def patched(current: dict[str, Any], *operations: dict[str, Any]) -> codec.Decoded:
    return codec.convert_patched(apply(current, list(operations)), ENDPOINT_SLICES, None, current)


def test_what_is_as_it_was_is_taken_over() -> None:
    current = stored("10.0.0.1", "10.0.0.2")
    tree = patched(current, {"op": "replace", "path": "/endpoints/1/addresses/0", "value": "10.0.0.3"}).tree
    assert tree["endpoints"] == [endpoint("10.0.0.1"), endpoint("10.0.0.3")]
    assert tree["endpoints"][0] is current["endpoints"][0]
    assert current == stored("10.0.0.1", "10.0.0.2")


def test_a_copy_is_an_object_of_its_own() -> None:
    current = stored("10.0.0.1", "10.0.0.2")
    endpoints = patched(current, {"op": "copy", "from": "/endpoints/0", "path": "/endpoints/-"}).tree["endpoints"]
    assert endpoints[2] == endpoints[0]
    assert endpoints[2] is not endpoints[0]
    assert endpoints[2]["conditions"] is not endpoints[0]["conditions"]


def test_what_moved_is_read_again() -> None:
    current = stored("10.0.0.1", "10.0.0.2", "10.0.0.3")
    tree = patched(current, {"op": "remove", "path": "/endpoints/0"}).tree
    assert tree["endpoints"] == [endpoint("10.0.0.2"), endpoint("10.0.0.3")]


def test_what_a_patch_puts_in_is_checked_and_cleaned() -> None:
    current = stored("10.0.0.1")
    decoded = patched(current, {"op": "add", "path": "/endpoints/-", "value": {**endpoint("10.0.0.2"), "x": 1}})
    assert decoded.tree["endpoints"][1] == endpoint("10.0.0.2")
    assert decoded.problems == ['unknown field "endpoints[1].x"']
    with pytest.raises(StatusError, match="cannot unmarshal number"):
        patched(current, {"op": "replace", "path": "/endpoints/0", "value": 1})


def test_endpoints_as_they_were_stored_are_not_looked_at_again() -> None:
    strategy, old = EndpointSliceStrategy(ENDPOINT_SLICES), stored("127.0.0.1", "10.0.0.2")
    assert strategy.validate_update(stored("127.0.0.1", "10.0.0.3"), old) == []
    faults = [error.path for error in strategy.validate_update(stored("10.0.0.2", "127.0.0.1"), old)]
    assert faults == ["endpoints[1].addresses[0]"]
    other = {**stored("127.0.0.1", "10.0.0.2"), "addressType": "IPv6"}
    assert any(error.path.startswith("endpoints[1]") for error in strategy.validate_update(other, old))
