"""/healthz, /livez and what health check node ports answer."""

import json
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace

import pytest

from svcplane.base.clock import rfc3339
from svcplane.base.net import Family
from svcplane.proxy.health import CheckPorts, Health, check_page, health_page, local_ready
from svcplane.proxy.model import Endpoint, NodeConfig, NodeState, Protocol, ProxyState, ServicePort, ServicePortName


def both() -> Health:
    return Health(timeout_s=60, families=("IPv4", "IPv6"))


def test_alive_once_every_family_has_been_synced() -> None:
    health = both()
    health.synced("IPv4", 1000.0)
    assert not health.is_alive(0.0)
    health.synced("IPv6", 1000.0)
    assert health.is_alive(0.0)


def test_a_family_that_waits_too_long_makes_the_proxy_dead() -> None:
    health = both()
    for family in health.families:
        health.synced(family, 1000.0)
    health.queued("IPv6", 10.0)
    health.queued("IPv6", 50.0)  # the oldest counts
    health.queued("IPv4", 60.0)
    assert health.is_alive(69.9)
    assert not health.is_alive(70.1)
    assert health.family_alive("IPv4", 70.1)
    health.synced("IPv6", 1001.0)
    assert health.is_alive(70.1)


def test_before_the_first_sync_the_proxy_is_alive_and_takes_no_traffic() -> None:
    health = both()
    assert health_page(health, "/livez")[0] == 200
    assert health_page(health, "/healthz")[0] == 503
    health.synced("IPv4", time.time())
    health.queued("IPv4", time.monotonic() - 61)
    assert health_page(health, "/livez")[0] == 503


def test_what_is_well_is_up_to_date() -> None:
    health = both()
    for family in health.families:
        health.synced(family, 1000.0)
    page = json.loads(health_page(health, "/livez")[1])
    assert page["lastUpdated"] == page["currentTime"]
    assert page["status"]["IPv4"]["lastUpdated"] == rfc3339(1000.0)


def test_a_node_about_to_go_is_alive_and_not_healthy() -> None:
    health = both()
    for family in health.families:
        health.synced(family, time.time())
    health.node_eligible = False
    status, body, kind, headers = health_page(health, "/healthz")
    assert (status, kind, headers["X-Content-Type-Options"]) == (503, "application/json", "nosniff")
    page = json.loads(body)
    assert (page["healthy"], page["nodeEligible"]) == (True, False)
    assert page["status"]["IPv6"]["healthy"] is True
    status, body, *_ = health_page(health, "/livez")
    assert status == 200
    assert "nodeEligible" not in json.loads(body)
    assert health_page(health, "/other")[0] == 404


@pytest.mark.parametrize(("count", "healthy", "status"), [(2, True, 200), (0, True, 503), (2, False, 503)])
def test_a_load_balancer_is_told_how_many_are_here(count: int, healthy: bool, status: int) -> None:
    code, body, _, headers = check_page(("default", "web"), count, healthy)
    assert code == status
    assert headers["X-Load-Balancing-Endpoint-Weight"] == str(count)
    assert json.loads(body) == {
        "service": {"namespace": "default", "name": "web"},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    }


class Guarded(Mapping[ServicePortName, ServicePort]):
    """Services that may be looked up by name and not walked."""

    def __init__(self, services: dict[ServicePortName, ServicePort]) -> None:
        self.services = services

    def __getitem__(self, name: ServicePortName) -> ServicePort:
        return self.services[name]

    def __iter__(self) -> Iterator[ServicePortName]:
        raise AssertionError("walked over all Services")

    def __len__(self) -> int:
        return len(self.services)


async def test_an_update_costs_what_was_touched() -> None:
    names = [ServicePortName("default", f"s{number}", "", Protocol.TCP) for number in range(3)]
    services = {name: ServicePort(name, "10.96.0.1", 80) for name in names}
    full = ProxyState(NodeConfig("n", Family.IPV4), NodeState("n"), services)
    checks = CheckPorts(both())
    assert await checks.update((full,), None) == []
    guarded = ProxyState(full.config, full.node, Guarded({}))
    assert await checks.update((guarded,), {names[0]: None}) == []
    await checks.close()


def test_addresses_here_are_counted_once_for_all_ports() -> None:
    names = tuple(ServicePortName("default", "web", port, Protocol.TCP) for port in ("a", "b"))
    here, other = Endpoint("10.0.0.1", 80, is_local=True), Endpoint("10.0.0.2", 80, is_local=True, ready=False)
    endpoints = {names[0]: (here, other), names[1]: (Endpoint("10.0.0.1", 81, is_local=True),)}
    state = ProxyState(NodeConfig("n", Family.IPV4), NodeState("n"), endpoints=endpoints)
    assert local_ready((state,), names) == 1


def test_a_pod_with_an_address_of_each_family_is_counted_once() -> None:
    name = ServicePortName("default", "web", "", Protocol.TCP)
    four, six = (
        ProxyState(
            NodeConfig("n", family),
            NodeState("n"),
            endpoints={name: tuple(Endpoint(ip, 80, is_local=True) for ip in addresses)},
        )
        for family, addresses in (
            (Family.IPV4, ("10.0.0.1", "10.0.0.2")),
            (Family.IPV6, ("fd00::1", "fd00::2")),
        )
    )
    assert local_ready((four, six), (name,)) == 2
    assert local_ready((replace(four, endpoints={}), six), (name,)) == 2
    assert local_ready((), (name,)) == 0


def test_endpoints_that_end_or_are_elsewhere_are_not_counted() -> None:
    name = ServicePortName("default", "web", "", Protocol.TCP)
    ends = Endpoint("10.0.0.1", 80, is_local=True, ready=False, terminating=True)
    away = Endpoint("10.0.0.2", 80)
    state = ProxyState(NodeConfig("n", Family.IPV4), NodeState("n"), endpoints={name: (ends, away)})
    assert local_ready((state,), (name,)) == 0
