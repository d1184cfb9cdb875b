"""What writes of Services are answered: what is accepted, what is refused, what they are warned of."""

from typing import Any

import pytest

from svcplane.testing.server import Caller

SERVICES = "/api/v1/namespaces/default/services"
MERGE = {"Content-Type": "application/merge-patch+json"}


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


async def test_load_balancers_may_serve_the_port_of_kubelets(admin: Caller) -> None:
    body = service(type="LoadBalancer", ports=[{"port": 10250}])
    assert (await admin.call("POST", SERVICES, body))[0] == 201


@pytest.mark.parametrize(
    ("ip", "warnings"),
    [
        ("2001:db8::1", ()),
        (
            "2001:DB8::1",
            (
                'status.loadBalancer.ingress[0]: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format '
                '("2001:db8::1")',
            ),
        ),
    ],
)
async def test_status_updates_warn_of_addresses(admin: Caller, ip: str, warnings: tuple[str, ...]) -> None:
    await admin.call("POST", SERVICES, service(type="LoadBalancer"))
    patch = {"status": {"loadBalancer": {"ingress": [{"ip": ip}]}}}
    response = await admin.send("PATCH", f"{SERVICES}/web/status", patch, MERGE)
    assert (response.status, response.warnings) == (200, warnings)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"clusterIP": "10.96.0.1"}, ""),  # taken, which a dry run does not see
        ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}, ""),  # nor the range of node ports
        (
            {"clusterIP": "192.0.2.1"},
            'spec.clusterIPs: Invalid value: ["192.0.2.1"]: failed to allocate IP 192.0.2.1: the provided IP '
            "(192.0.2.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16",
        ),
    ],
)
async def test_dry_runs_look_at_less(admin: Caller, spec: dict[str, Any], why: str) -> None:
    status, body = await admin.call("POST", f"{SERVICES}?dryRun=All", service(**spec))
    assert (status, body.get("message")) == ((422, f'Service "web" is invalid: {why}') if why else (201, None))


async def test_automatic_node_ports_of_dry_runs(admin: Caller) -> None:
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    _, body = await admin.call("POST", f"{SERVICES}?dryRun=All", service(type="NodePort", ports=ports))
    assert [port["nodePort"] for port in body["spec"]["ports"]] == [32769, 32770]


async def test_addresses_asked_for_without_a_name(admin: Caller) -> None:
    _, body = await admin.call("POST", SERVICES, service("", clusterIP="10.96.0.40"))
    assert body["message"] == (
        'Service "" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.40"]: failed to allocate IP 10.96.0.40: '
        'IPAddress.networking.k8s.io "10.96.0.40" is invalid: spec.parentRef.name: Required value'
    )
