"""Health check node ports follow their Services."""

import asyncio
import socket
import time
from dataclasses import replace

import pytest

from svcplane.base.net import Family
from svcplane.proxy.health import CheckPorts, Health, HealthServer, check_hosts
from svcplane.proxy.model import NodeConfig, NodeState, Protocol, ProxyState, ServicePort, ServicePortName

FIRST, SECOND = (ServicePortName("default", "lb", name, Protocol.TCP) for name in ("a", "b"))


def listening(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(1.0)
        return probe.connect_ex(("127.0.0.1", port)) == 0


async def test_a_listener_stays_while_another_port_of_its_service_remains() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        number = free.getsockname()[1]
    port = ServicePort(FIRST, "10.96.0.10", 80, external_policy_local=True, health_check_node_port=number)
    both = {FIRST: port, SECOND: replace(port, name=SECOND, port=81)}
    state = ProxyState(NodeConfig("n", Family.IPV4), NodeState("n"), services=both)
    checks = CheckPorts(Health(families=("IPv4",), updated_wall={"IPv4": time.time()}))
    try:
        assert not await checks.update((state,), None)
        assert listening(number)
        await checks.update((replace(state, services={SECOND: both[SECOND]}),), {FIRST: None})
        assert listening(number)
        await checks.update((replace(state, services={}),), {SECOND: None})
        assert not listening(number)
    finally:
        await checks.close()


async def answers(host: str, port: int) -> bool:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError:
        return False
    writer.close()
    return True


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


async def test_they_answer_where_node_ports_do() -> None:
    number = free_port()
    port = ServicePort(FIRST, "10.96.0.10", 80, external_policy_local=True, health_check_node_port=number)
    config = NodeConfig("n", Family.IPV4, nodeport_addresses=("127.0.0.2/32",))
    local = NodeState("n", local_addresses=("127.0.0.1", "127.0.0.2"))
    state = ProxyState(config, local, services={FIRST: port})
    checks = CheckPorts(Health(families=("IPv4",), updated_wall={"IPv4": time.time()}))
    try:
        assert not await checks.update((state,), None)
        assert [await answers(host, number) for host in ("127.0.0.1", "127.0.0.2")] == [False, True]
        everywhere = replace(state, config=replace(config, nodeport_addresses=()))
        assert not await checks.update((everywhere,), None)
        assert [await answers(host, number) for host in ("127.0.0.1", "127.0.0.2")] == [True, True]
        primary = replace(config, nodeport_addresses=(), nodeport_primary_only=True, primary_ips=("127.0.0.1",))
        assert not await checks.update((replace(state, config=primary),), None)
        assert [await answers(host, number) for host in ("127.0.0.1", "127.0.0.2")] == [True, False]
    finally:
        await checks.close()


def test_a_family_that_is_not_restricted_is_open() -> None:
    four = ProxyState(
        NodeConfig("n", Family.IPV4, nodeport_primary_only=True, primary_ips=("192.0.2.1",)), NodeState("n")
    )
    six = ProxyState(NodeConfig("n", Family.IPV6), NodeState("n"))
    assert check_hosts((four, six)) == ("192.0.2.1", "::")
    assert check_hosts((six,)) == ("",)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", ""])
async def test_an_unspecified_host_is_every_address_of_both_families(host: str) -> None:
    server, number = HealthServer(), free_port()
    await server.listen(host, number, lambda path: (200, b"", "text/plain", {}))
    try:
        assert [await answers(address, number) for address in ("127.0.0.1", "::1")] == [True, True]
    finally:
        await server.close()
