"""What the relay is told of a service port."""

from dataclasses import replace

import msgspec
import pytest

from svcplane.base.net import Family
from svcplane.proxy.model import Endpoint, NodeConfig, NodeState, Protocol, ServicePort, ServicePortName
from svcplane.proxy.planes.userspace.compile import compile_port
from svcplane.proxy.topology import categorize

NODE, CONFIG = NodeState("node1", "a"), NodeConfig("node1", Family.IPV4)
DNS = ServicePort(ServicePortName("default", "dns", "", Protocol.UDP), "10.96.0.10", 53)
HERE, AWAY = Endpoint("10.244.1.1", 53, "node1", is_local=True), Endpoint("10.244.2.1", 53, "node2")
ENDING = msgspec.structs.replace(HERE, ready=False, terminating=True)
DEAD = msgspec.structs.replace(ENDING, serving=False)


@pytest.mark.parametrize(
    ("port", "endpoints", "kept"),
    [
        (DNS, (HERE, AWAY), ()),
        (DNS, (ENDING, AWAY), (ENDING,)),
        (DNS, (DEAD, AWAY), ()),
        (DNS, (ENDING,), ()),  # the last one is in use
        (replace(DNS, internal_policy_local=True), (HERE, AWAY), (AWAY,)),
        (replace(DNS, node_port=30053, external_policy_local=True), (HERE, AWAY), ()),
    ],
)
def test_udp_clients_stay_at_what_serves_though_it_is_not_chosen(
    port: ServicePort, endpoints: tuple[Endpoint, ...], kept: tuple[Endpoint, ...]
) -> None:
    found = compile_port(port, categorize(port, endpoints, NODE), CONFIG, endpoints).serve
    assert found is not None
    assert found.kept == tuple((endpoint.ip, endpoint.port) for endpoint in kept)
    tcp = replace(port, name=msgspec.structs.replace(port.name, protocol=Protocol.TCP))
    over_tcp = compile_port(tcp, categorize(tcp, endpoints, NODE), CONFIG, endpoints).serve
    assert over_tcp is not None
    assert not over_tcp.kept  # connections stay where they are anyway


@pytest.mark.parametrize(
    ("protocol", "options", "annotation", "idle_s"),
    [
        (Protocol.UDP, (), "", 120),
        (Protocol.UDP, (("udp-timeout", "0.25s"),), "", 0.25),
        (Protocol.UDP, (("udp-timeout", "0.25s"),), "7", 7),
        (Protocol.TCP, (("udp-timeout", "0.25s"),), "", 86_400),
    ],
)
def test_idle_times(protocol: Protocol, options: tuple[tuple[str, str], ...], annotation: str, idle_s: float) -> None:
    annotations = (("svcplane.dev/idle-timeout", annotation),) if annotation else ()
    name = msgspec.structs.replace(DNS.name, protocol=protocol)
    port = replace(DNS, name=name, annotations=annotations)
    found = compile_port(port, categorize(port, (HERE,), NODE), replace(CONFIG, mode_options=options)).serve
    assert found is not None
    assert found.idle_timeout_s == idle_s
