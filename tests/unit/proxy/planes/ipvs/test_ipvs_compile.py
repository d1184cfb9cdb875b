"""One service port as virtual servers and set entries; the kernel parameters; durations."""

from dataclasses import replace

import pytest

from svcplane.base.net import Family
from svcplane.proxy.model import Endpoint, NodeConfig, NodeState, Protocol, ServicePort, ServicePortName
from svcplane.proxy.planes.ipvs import policy
from svcplane.proxy.planes.ipvs.compile import compile_port, node_port_ips
from svcplane.proxy.planes.ipvs.names import Kind
from svcplane.proxy.planes.ipvs.system import parameters
from svcplane.proxy.topology import EndpointChoice, categorize

NAME = ServicePortName("default", "web", "", Protocol.TCP)
NODE = NodeState("node1", "", ("127.0.0.1", "172.30.0.11", "10.244.1.1"))
CONFIG = NodeConfig("node1", Family.IPV4, primary_ips=("172.30.0.11",))
HERE = Endpoint("10.244.1.11", 8080, is_local=True)
THERE = Endpoint("10.244.2.11", 8080)


def entries(port: ServicePort, *endpoints: Endpoint) -> set[str]:
    chosen = policy.choose(port, policy.Options(), Family.IPV4)
    found = compile_port(port, categorize(port, endpoints, NODE), chosen, CONFIG, NODE)
    assert {kind for kind, _ in found.entries if kind is Kind.CLUSTER_IP}
    return {f"{kind} {entry}" for kind, entry in found.entries}


def test_source_ranges_let_in_the_node_by_its_service_address() -> None:
    port = ServicePort(NAME, "10.96.0.10", 80, load_balancer_ips=("203.0.113.1",), source_ranges=("172.30.0.0/27",))
    found = entries(port, THERE)
    assert "GUARDED tcp 203.0.113.1:80" in found
    assert {text for text in found if text.startswith("ALLOWED")} == {
        "ALLOWED tcp 203.0.113.1:80 from 172.30.0.0/27",
        "ALLOWED tcp 203.0.113.1:80 from 203.0.113.1/32",
    }
    everybody = ServicePort(NAME, "10.96.0.10", 80, load_balancer_ips=("203.0.113.1",), source_ranges=("0.0.0.0/0",))
    assert not {text for text in entries(everybody, THERE) if text.startswith(("GUARDED", "ALLOWED"))}


@pytest.mark.parametrize(
    ("local", "endpoints", "kind"),
    [
        (False, [HERE, THERE], "EXTERNAL"),
        (True, [HERE, THERE], "LOCAL"),
        (True, [THERE], "ELSEWHERE"),
        (True, [], "LOCAL"),
    ],
)
def test_node_ports_by_policy(local: bool, endpoints: list[Endpoint], kind: str) -> None:
    port = ServicePort(NAME, "10.96.0.10", 80, node_port=30080, external_policy_local=local)
    found = {text for text in entries(port, *endpoints) if text.endswith(":30080")}
    assert found == {f"{kind} tcp 172.30.0.11:30080", f"{kind} tcp 10.244.1.1:30080"}


@pytest.mark.parametrize(
    ("family", "addresses", "answer"),
    [
        (Family.IPV4, ("127.0.0.1", "169.254.20.10", "172.30.0.11"), ("169.254.20.10", "172.30.0.11")),
        (Family.IPV6, ("::1", "fe80::1", "fd30::11"), ("fd30::11",)),
    ],
)
def test_addresses_where_node_ports_answer(family: Family, addresses: tuple[str, ...], answer: tuple[str, ...]) -> None:
    assert node_port_ips(NodeConfig("node1", family), NodeState("node1", "", addresses)) == answer


def test_health_checks_are_let_in_at_the_node_and_at_external_addresses() -> None:
    port = ServicePort(
        NAME,
        "10.96.0.10",
        80,
        node_port=30080,
        load_balancer_ips=("203.0.113.1",),
        external_policy_local=True,
        health_check_node_port=31000,
    )
    found = {text.removeprefix("HEALTH-CHECK ") for text in entries(port, HERE) if text.startswith("HEALTH-CHECK")}
    assert found == {"tcp 203.0.113.1:31000", "tcp 172.30.0.11:31000", "tcp 10.244.1.1:31000"}
    assert not [text for text in entries(replace(port, external_policy_local=False), HERE) if "31000" in text]


def test_a_port_without_endpoints_has_a_server_that_refuses() -> None:
    port = ServicePort(NAME, "10.96.0.10", 80)
    chosen = policy.choose(port, policy.Options(), Family.IPV4)
    ((key, wanted),) = compile_port(port, EndpointChoice((), (), ()), chosen, CONFIG, NODE).servers
    assert (str(key), wanted.targets) == ("tcp 10.96.0.10:80", frozenset())


@pytest.mark.parametrize(("release", "mode"), [("5.8.0-1-amd64", "0"), ("5.9.1", "1"), ("6.1.176", "1"), ("3.10", "1")])
def test_a_reused_client_port_never_waits(release: str, mode: str) -> None:
    found = parameters(policy.Options(), Family.IPV4, release)
    assert found["net/ipv4/vs/conn_reuse_mode"] == mode
    assert "net/ipv4/conf/all/arp_ignore" not in found


def test_strict_arp() -> None:
    found = parameters(policy.options((("ipvs-strict-arp", "true"),)), Family.IPV4, "6.1")
    assert (found["net/ipv4/conf/all/arp_ignore"], found["net/ipv4/conf/all/arp_announce"]) == ("1", "2")


@pytest.mark.parametrize(
    ("text", "seconds"), [("90", 90), ("90s", 90), ("1h30m", 5400), ("1.5m", 90), ("0s", 0), ("s", None), ("-1", None)]
)
def test_durations(text: str, seconds: float | None) -> None:
    assert policy.seconds(text) == seconds


def test_an_address_that_a_neighbour_may_have_is_taken_in_at_its_port_and_not_held() -> None:
    port = ServicePort(NAME, "10.96.0.10", 80, external_ips=("172.30.0.12", "198.51.100.1", "172.30.0.11"))
    node = replace(NODE, networks=("172.30.0.0/24",))
    chosen = policy.choose(port, policy.Options(), Family.IPV4)
    found = compile_port(port, categorize(port, [HERE], node), chosen, CONFIG, node)
    assert found.addresses == {"10.96.0.10", "198.51.100.1"}
    assert {str(entry) for kind, entry in found.entries if kind is Kind.NEIGHBOUR} == {"tcp 172.30.0.12:80"}
    assert {key.address for key, _ in found.servers} >= {"172.30.0.12", "172.30.0.11"}
