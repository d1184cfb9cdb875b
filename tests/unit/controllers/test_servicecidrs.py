"""ServiceCIDRs: ready, used for addresses, held back while addresses need them."""

from typing import Any

import msgspec
import pytest

from svcplane.api.networking import IPAddress, ServiceCIDR
from svcplane.controllers import servicecidrs
from svcplane.controllers.servicecidrs import is_needed
from svcplane.testing.server import Caller
from svcplane.testing.waiting import until

CIDRS = "/apis/networking.k8s.io/v1/servicecidrs"
SERVICES = "/api/v1/namespaces/default/services"


def cidr(name: str, *cidrs: str, **meta: Any) -> ServiceCIDR:
    return msgspec.convert({"metadata": {"name": name, **meta}, "spec": {"cidrs": cidrs}}, ServiceCIDR)


def address(ip: str) -> IPAddress:
    return msgspec.convert({"metadata": {"name": ip}}, IPAddress)


@pytest.mark.parametrize(
    ("others", "ips", "needed"),
    [
        ([], ["10.1.0.5"], True),
        ([], ["10.2.0.5", "fd00::1"], False),
        ([cidr("wide", "10.0.0.0/8")], ["10.1.0.5"], False),
        ([cidr("wide", "10.0.0.0/8", deletionTimestamp="2026-01-01T00:00:00Z")], ["10.1.0.5"], True),
    ],
)
def test_needed_is_what_alone_holds_an_address(others: list[ServiceCIDR], ips: list[str], needed: bool) -> None:
    mine = cidr("mine", "10.1.0.0/24")
    assert is_needed(mine, [mine, *others], [address(ip) for ip in ips]) is needed


async def ready(cluster: Caller, name: str) -> dict[str, Any]:
    async def found() -> dict[str, Any]:
        _, tree = await cluster.call("GET", f"{CIDRS}/{name}")
        conditions = tree.get("status", {}).get("conditions", [])
        return tree if conditions and tree["metadata"].get("finalizers") else {}

    return await until(found)


async def test_a_new_servicecidr_becomes_ready_and_gives_addresses(cluster: Caller) -> None:
    await cluster.call("POST", CIDRS, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.50.0.0/24"]}})
    body = {"metadata": {"name": "s"}, "spec": {"clusterIP": "10.50.0.77", "ports": [{"port": 80}]}}
    tree = await ready(cluster, "more")
    assert tree["metadata"]["finalizers"] == ["networking.k8s.io/service-cidr-finalizer"]
    assert (tree["status"]["conditions"][0]["type"], tree["status"]["conditions"][0]["status"]) == ("Ready", "True")

    async def created() -> bool:
        return (await cluster.call("POST", SERVICES, body))[0] == 201

    await until(created)
    assert (await cluster.call("GET", "/apis/networking.k8s.io/v1/ipaddresses/10.50.0.77"))[0] == 200


async def test_deletion_waits_for_the_last_address(cluster: Caller, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(servicecidrs, "GRACE_S", 0.2)
    await cluster.call("POST", CIDRS, {"metadata": {"name": "more"}, "spec": {"cidrs": ["10.50.0.0/24"]}})
    await ready(cluster, "more")
    body = {"metadata": {"name": "s"}, "spec": {"clusterIP": "10.50.0.77", "ports": [{"port": 80}]}}

    async def created() -> bool:
        return (await cluster.call("POST", SERVICES, body))[0] == 201

    await until(created)
    await cluster.call("DELETE", f"{CIDRS}/more")

    async def blocked() -> bool:
        _, tree = await cluster.call("GET", f"{CIDRS}/more")
        return any(c["reason"] == "Terminating" for c in tree["status"]["conditions"])

    await until(blocked)
    other = {"metadata": {"name": "t"}, "spec": {"clusterIP": "10.50.0.78", "ports": [{"port": 80}]}}
    assert (await cluster.call("POST", SERVICES, other))[0] == 422
    await cluster.call("DELETE", f"{SERVICES}/s")

    async def gone() -> bool:
        return (await cluster.call("GET", f"{CIDRS}/more"))[0] == 404

    await until(gone)
