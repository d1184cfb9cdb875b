"""Requests leave nothing behind for Python's collector: its pauses are what a watcher would wait for."""

import gc
from collections.abc import Iterator

import pytest

from svcplane.testing.server import Caller

SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
MERGE = {"Content-Type": "application/merge-patch+json"}
APPLY = {"Content-Type": "application/apply-patch+yaml"}
TIMES = 5


@pytest.fixture
def collector() -> Iterator[None]:
    gc.collect()
    gc.freeze()
    gc.disable()
    yield
    gc.enable()
    gc.unfreeze()


async def every_verb(admin: Caller, number: int) -> None:
    spec = {"type": "NodePort", "selector": {"a": "b"}, "ports": [{"port": 80}]}
    service = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"web-{number}"}, "spec": spec}
    path = f"{SERVICES}/web-{number}"
    endpoints = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"web-{number}"},
        "addressType": "IPv4",
        "endpoints": [{"addresses": ["10.1.2.3"]}],
    }
    for method, where, body, headers, expected in (
        ("POST", SERVICES, service, None, 201),
        ("POST", SERVICES, service, None, 409),
        ("POST", SERVICES, {"metadata": {"name": "No"}, "spec": {}}, None, 422),
        ("POST", SERVICES, b'{"kind":"Service","kind":"Service"}', None, 422),
        ("PATCH", path, {"metadata": {"labels": {"a": "b"}}}, MERGE, 200),
        ("PATCH", f"{path}?fieldManager=me&force=true", service, APPLY, 200),
        ("GET", path, None, None, 200),
        ("GET", SERVICES, None, None, 200),
        ("GET", f"{SERVICES}/none", None, None, 404),
        ("POST", SLICES, endpoints, None, 201),
        ("DELETE", path, None, None, 200),
        ("DELETE", f"{SLICES}/web-{number}", None, None, 200),
    ):
        assert (await admin.call(method, where, body, headers))[0] == expected, (method, where)


@pytest.mark.usefixtures("collector")
async def test_no_request_leaves_a_cycle(admin: Caller) -> None:
    await every_verb(admin, TIMES)  # what is made once and kept
    gc.collect()
    for number in range(TIMES):
        await every_verb(admin, number)
    assert gc.collect() < TIMES, "objects of each round wait for the collector"
