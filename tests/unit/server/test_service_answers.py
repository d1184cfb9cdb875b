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
