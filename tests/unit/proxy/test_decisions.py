"""What becomes of a packet: who sends it, to which address of a Service, under which policy, and what is behind it.

The tables have the cases of kube-proxy's own tests of packet flow, in this project's terms.
"""

from dataclasses import replace
from typing import Any

import msgspec
import pytest

from svcplane.base.net import Family
from svcplane.proxy.model import (
    DetectLocal,
    Endpoint,
    NodeConfig,
    NodeState,
    Origin,
    Packet,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
)
from svcplane.proxy.oracle import IPTABLES, NFTABLES, ModeTraits, decide

NAME = ServicePortName("ns1", "svc1", "p80", Protocol.TCP)
CLUSTER, EXTERNAL, BALANCER, NODE, SECOND = "172.30.0.41", "192.168.99.11", "1.2.3.4", "192.168.0.2", "192.168.1.2"
POD, CLIENT, BLOCKED = "10.0.0.2", "203.0.113.2", "203.0.113.130"
HERE = Endpoint("10.180.0.1", 80, "node1", is_local=True)
AWAY = Endpoint("10.180.2.1", 80, "node2")
PORT = ServicePort(NAME, CLUSTER, 80, 3001, (EXTERNAL,), (BALANCER,))
CONFIG = NodeConfig("node1", Family.IPV4, DetectLocal.CLUSTER_CIDR, ("10.0.0.0/8",), primary_ips=(NODE,))
LOCAL = NodeState("node1", "a", ("127.0.0.1", NODE, SECOND))
STATE = ProxyState(CONFIG, LOCAL, {NAME: PORT}, {NAME: (HERE, AWAY)})
both_modes = pytest.mark.parametrize("traits", [IPTABLES, NFTABLES], ids=["iptables", "nftables"])


def ending(endpoint: Endpoint, *, serving: bool = True) -> Endpoint:
    return msgspec.structs.replace(endpoint, ready=False, serving=serving, terminating=True)


def having(*endpoints: Endpoint, config: NodeConfig = CONFIG, **fields: Any) -> ProxyState:
    return replace(STATE, config=config, services={NAME: replace(PORT, **fields)}, endpoints={NAME: endpoints})


def sent(src: str, dst: str, port: int = 80, protocol: Protocol = Protocol.TCP) -> Packet:
    origin = Origin.NODE if src in (*LOCAL.local_addresses, BALANCER) else Origin.OUTSIDE
    origin = Origin.POD if src.startswith("10.") else origin
    return Packet(origin, src, dst, protocol, port)


def outcome(state: ProxyState, traits: ModeTraits, packet: Packet) -> str:
    """`here`, `away` or both, with `masked` where they see the node; else the verdict."""
    found = decide(state, packet, traits)
    names = {str(HERE): "here", str(AWAY): "away"}
    ends = sorted((names.get(one.endpoint, one.endpoint or str(one.verdict)) for one in found), reverse=True)
    masked = {one.masqueraded for one in found}
    assert len(masked) == 1
    return " ".join(sorted(ends, key=["here", "away"].index) if len(ends) > 1 else ends) + " masked" * masked.pop()


INSIDE_OUT = {  # sender and address, in the order of the columns below
    "pod cluster": sent(POD, CLUSTER),
    "pod nodeport": sent(POD, NODE, 3001),
    "pod balancer": sent(POD, BALANCER),
    "pod external": sent(POD, EXTERNAL),
    "node cluster": sent(NODE, CLUSTER),
    "node nodeport": sent(NODE, NODE, 3001),
    "node balancer": sent(NODE, BALANCER),
    "client cluster": sent(CLIENT, CLUSTER),
    "client nodeport": sent(CLIENT, NODE, 3001),
    "client balancer": sent(CLIENT, BALANCER),
    "client external": sent(CLIENT, EXTERNAL),
}
B, BM, H, HM = "here away", "here away masked", "here", "here masked"
NO_DETECTION = replace(CONFIG, detect_local=DetectLocal.NONE, local_cidrs=())
MASQUERADE_ALL = replace(CONFIG, masquerade_all=True)
NEITHER = replace(NO_DETECTION, masquerade_all=True)  # nobody is known for a Pod, and everybody is masqueraded
EXTERNAL_LOCAL, INTERNAL_LOCAL = {"external_policy_local": True}, {"internal_policy_local": True}
BOTH_LOCAL = EXTERNAL_LOCAL | INTERNAL_LOCAL


@both_modes
@pytest.mark.parametrize(
    ("config", "policy", "expected"),
    [
        (CONFIG, {}, [B, BM, BM, BM, BM, BM, BM, BM, BM, BM, BM]),
        (CONFIG, EXTERNAL_LOCAL, [B, B, B, B, BM, BM, BM, BM, H, H, H]),
        (CONFIG, INTERNAL_LOCAL, [H, BM, BM, BM, HM, BM, BM, HM, BM, BM, BM]),
        (CONFIG, BOTH_LOCAL, [H, B, B, B, HM, BM, BM, HM, H, H, H]),
        (NO_DETECTION, {}, [B, BM, BM, BM, B, BM, BM, B, BM, BM, BM]),
        (NO_DETECTION, EXTERNAL_LOCAL, [B, H, H, H, B, BM, BM, B, H, H, H]),
        (NO_DETECTION, INTERNAL_LOCAL, [H, BM, BM, BM, H, BM, BM, H, BM, BM, BM]),
        (MASQUERADE_ALL, {}, [BM, BM, BM, BM, BM, BM, BM, BM, BM, BM, BM]),
        (MASQUERADE_ALL, EXTERNAL_LOCAL, [BM, B, B, B, BM, BM, BM, BM, H, H, H]),
        (MASQUERADE_ALL, INTERNAL_LOCAL, [HM, BM, BM, BM, HM, BM, BM, HM, BM, BM, BM]),
        (NEITHER, {}, [BM, BM, BM, BM, BM, BM, BM, BM, BM, BM, BM]),
        (NEITHER, EXTERNAL_LOCAL, [BM, H, H, H, BM, BM, BM, BM, H, H, H]),
    ],
)
def test_who_is_served_by_whom_and_seen_as_whom(
    traits: ModeTraits, config: NodeConfig, policy: dict[str, bool], expected: list[str]
) -> None:
    state = having(HERE, AWAY, config=config, **policy)
    found = {what: outcome(state, traits, packet) for what, packet in INSIDE_OUT.items()}
    assert found == dict(zip(INSIDE_OUT, expected, strict=True))


#: To the ClusterIP from a Pod; to the node port from a Pod, from the node and from outside.
WAYS = [sent(POD, CLUSTER), sent(POD, NODE, 3001), sent(NODE, NODE, 3001), sent(CLIENT, NODE, 3001)]
ENDING_HERE, ENDING_AWAY, DEAD_HERE = ending(HERE), ending(AWAY), ending(HERE, serving=False)
UNREADY = msgspec.structs.replace(HERE, ready=False, serving=False)


@both_modes
@pytest.mark.parametrize(
    ("endpoints", "policy", "expected"),
    [
        ((), {}, ["reject"] * 4),
        ((), BOTH_LOCAL, ["reject"] * 4),
        ((UNREADY,), BOTH_LOCAL, ["reject"] * 4),
        ((msgspec.structs.replace(UNREADY, serving=True),), {}, ["reject"] * 4),  # not ready, and does not terminate
        ((DEAD_HERE,), {}, ["reject"] * 4),
        ((DEAD_HERE, AWAY), {}, ["away", "away masked", "away masked", "away masked"]),
        ((ENDING_HERE, AWAY), {}, ["away", "away masked", "away masked", "away masked"]),
        ((ENDING_HERE, ENDING_AWAY), {}, [B, BM, BM, BM]),
        ((AWAY,), EXTERNAL_LOCAL, ["away", "away", "away masked", "drop"]),
        ((AWAY,), INTERNAL_LOCAL, ["drop", "away masked", "away masked", "away masked"]),
        ((AWAY,), BOTH_LOCAL, ["drop", "away", "away masked", "drop"]),
        ((DEAD_HERE, AWAY), BOTH_LOCAL, ["drop", "away", "away masked", "drop"]),
        ((ENDING_HERE, AWAY), BOTH_LOCAL, [H, "away", "away masked", H]),  # what ends here, though another is ready
        ((ENDING_HERE, ENDING_AWAY), BOTH_LOCAL, [H, B, BM, H]),
        ((ENDING_AWAY,), BOTH_LOCAL, ["drop", "away", "away masked", "drop"]),
    ],
)
def test_endpoints_that_end_or_are_elsewhere(
    traits: ModeTraits, endpoints: tuple[Endpoint, ...], policy: dict[str, bool], expected: list[str]
) -> None:
    state = having(*endpoints, **policy)
    assert [outcome(state, traits, packet) for packet in WAYS] == expected


@both_modes
def test_internal_policy_local_alone_knows_that_others_have_endpoints(traits: ModeTraits) -> None:
    inside = {"node_port": 0, "external_ips": (), "load_balancer_ips": (), "internal_policy_local": True}
    for endpoints, expected in (((), "reject"), ((AWAY,), "drop"), ((HERE, AWAY), "here"), ((ENDING_AWAY,), "drop")):
        assert outcome(having(*endpoints, **inside), traits, WAYS[0]) == expected


@both_modes
@pytest.mark.parametrize("dst", [CLUSTER, EXTERNAL, BALANCER, NODE])
@pytest.mark.parametrize("src", [POD, CLIENT])
def test_without_endpoints_every_address_refuses(traits: ModeTraits, src: str, dst: str) -> None:
    assert outcome(having(), traits, sent(src, dst, 3001 if dst == NODE else 80)) == "reject"


@both_modes
@pytest.mark.parametrize(
    ("src", "dst", "policy", "expected"),
    [
        (POD, CLUSTER, {}, B),
        (CLIENT, NODE, {}, BM),
        (BLOCKED, NODE, {}, BM),  # node ports know no source ranges
        (BLOCKED, EXTERNAL, {}, BM),
        (CLIENT, BALANCER, {}, BM),
        (BLOCKED, BALANCER, {}, "drop"),
        (POD, BALANCER, {}, "drop"),
        (NODE, BALANCER, {}, BM),
        (BALANCER, BALANCER, {}, BM),  # the node, where the address is bound to it
        (CLIENT, BALANCER, EXTERNAL_LOCAL, H),
        (BLOCKED, BALANCER, EXTERNAL_LOCAL, "drop"),
        (POD, BALANCER, EXTERNAL_LOCAL, "drop"),  # the short cut comes after the source ranges
        (NODE, BALANCER, EXTERNAL_LOCAL, BM),
        (POD, NODE, EXTERNAL_LOCAL, B),
    ],
)
def test_source_ranges(traits: ModeTraits, src: str, dst: str, policy: dict[str, bool], expected: str) -> None:
    state = having(HERE, AWAY, source_ranges=("192.168.0.0/24", "203.0.113.0/25"), **policy)
    state = replace(state, node=replace(LOCAL, local_addresses=(*LOCAL.local_addresses, BALANCER)))
    assert outcome(state, traits, sent(src, dst, 3001 if dst == NODE else 80)) == expected


@both_modes
def test_source_ranges_where_endpoints_are_elsewhere(traits: ModeTraits) -> None:
    state = having(AWAY, source_ranges=("203.0.113.0/25", "10.0.0.0/8"), external_policy_local=True)
    found = [outcome(state, traits, sent(src, BALANCER)) for src in (CLIENT, BLOCKED, POD, NODE)]
    assert found == ["drop", "drop", "away", "drop"]


def test_source_ranges_without_endpoints() -> None:
    """The modes differ for whom the ranges leave out."""
    state = having(source_ranges=("203.0.113.0/25",))
    found = {
        mode: [outcome(state, traits, sent(src, BALANCER)) for src in (CLIENT, BLOCKED)]
        for mode, traits in (("iptables", IPTABLES), ("nftables", NFTABLES))
    }
    assert found == {"iptables": ["reject", "reject"], "nftables": ["reject", "drop"]}


PORTS = {
    ServicePortName("ns2", "svc2", name, protocol): (number, target)
    for name, protocol, number, target in (
        ("http", Protocol.TCP, 80, 80),
        ("https", Protocol.TCP, 443, 8443),
        ("dns-udp", Protocol.UDP, 53, 53),
        ("dns-tcp", Protocol.TCP, 53, 5353),
        ("dns-sctp", Protocol.SCTP, 53, 54),
    )
}
SEVERAL = ProxyState(
    replace(CONFIG, service_cidrs=("172.30.0.0/16",)),
    LOCAL,
    {name: ServicePort(name, "172.30.0.42", number) for name, (number, _) in PORTS.items()},
    {name: (msgspec.structs.replace(HERE, port=target),) for name, (_, target) in PORTS.items()},
)


@pytest.mark.parametrize(
    ("src", "dst", "port", "protocol", "iptables", "nftables"),
    [
        (POD, "172.30.0.42", 80, "TCP", "here", "here"),
        (HERE.ip, "172.30.0.42", 80, "TCP", "here masked", "here masked"),  # reaches itself
        (POD, "172.30.0.42", 443, "TCP", "10.180.0.1:8443", "10.180.0.1:8443"),
        (POD, "172.30.0.42", 53, "TCP", "10.180.0.1:5353", "10.180.0.1:5353"),
        (POD, "172.30.0.42", 53, "UDP", "10.180.0.1:53", "10.180.0.1:53"),
        (POD, "172.30.0.42", 53, "SCTP", "10.180.0.1:54", "10.180.0.1:54"),
        (POD, "172.30.0.42", 80, "UDP", "pass", "reject"),
        (POD, "172.30.0.42", 444, "TCP", "pass", "reject"),
        (POD, "172.30.0.50", 80, "TCP", "pass", "drop"),
        (POD, "172.31.0.50", 80, "TCP", "pass", "pass"),
    ],
)
def test_one_address_has_many_ports(src: str, dst: str, port: int, protocol: str, iptables: str, nftables: str) -> None:
    packet = sent(src, dst, port, Protocol(protocol))
    assert [outcome(SEVERAL, traits, packet) for traits in (IPTABLES, NFTABLES)] == [iptables, nftables]


LOOPBACK = sent("127.0.0.1", "127.0.0.1", 3001)
TO_FIRST, TO_SECOND = sent(CLIENT, NODE, 3001), sent(CLIENT, SECOND, 3001)


@pytest.mark.parametrize(
    ("config", "expected"),
    [  # to the node's first address, to its second, and to loopback
        ({}, [BM, BM, BM]),
        ({"localhost_nodeports": False}, [BM, BM, "pass"]),
        ({"nodeport_addresses": ("192.168.0.0/24",)}, [BM, "pass", "pass"]),
        ({"nodeport_addresses": ("192.168.0.0/24", "127.0.0.1/32")}, [BM, "pass", BM]),
        ({"nodeport_addresses": ("192.168.0.0/24", "127.0.0.0/8"), "localhost_nodeports": False}, [BM, "pass", "pass"]),
        ({"nodeport_addresses": ("192.168.0.0/24", "192.168.1.0/24")}, [BM, BM, "pass"]),
        ({"nodeport_addresses": ("64.0.0.0/2",)}, ["pass", "pass", BM]),
        ({"nodeport_addresses": ("198.18.0.0/15",)}, ["pass", "pass", "pass"]),
        ({"nodeport_primary_only": True}, [BM, "pass", "pass"]),
    ],
)
def test_where_node_ports_answer(config: dict[str, Any], expected: list[str]) -> None:
    state = having(HERE, AWAY, config=replace(CONFIG, **config))
    packets = (TO_FIRST, TO_SECOND, LOOPBACK)
    assert [outcome(state, IPTABLES, packet) for packet in packets] == expected
    assert [outcome(state, NFTABLES, packet) for packet in packets] == [*expected[:2], "pass"]


@pytest.mark.parametrize(
    ("endpoints", "policy", "iptables"),
    [
        ((), {}, "reject"),
        ((), EXTERNAL_LOCAL, "reject"),
        ((AWAY,), EXTERNAL_LOCAL, "drop"),
        ((AWAY,), {}, "pass"),
        ((HERE,), EXTERNAL_LOCAL, "pass"),
        ((ENDING_HERE,), EXTERNAL_LOCAL, "pass"),
    ],
)
def test_a_node_port_that_is_refused_is_so_on_every_address_with_iptables(
    endpoints: tuple[Endpoint, ...], policy: dict[str, bool], iptables: str
) -> None:
    config = replace(CONFIG, nodeport_addresses=("192.168.0.0/24",))
    state = having(*endpoints, config=config, **policy)
    for packet in (TO_SECOND, sent(POD, SECOND, 3001), sent(NODE, SECOND, 3001), LOOPBACK):
        assert outcome(state, IPTABLES, packet) == iptables
        assert outcome(state, NFTABLES, packet) == "pass"


@both_modes
def test_an_external_address_may_be_the_nodes_own(traits: ModeTraits) -> None:
    state = having(HERE, AWAY, external_ips=(NODE,))
    found = [outcome(state, traits, sent(src, NODE, port)) for src in (POD, CLIENT) for port in (80, 3001, 81)]
    assert found == [BM, BM, "pass"] * 2
    empty = having(external_ips=(NODE,))
    assert [outcome(empty, traits, sent(src, NODE)) for src in (POD, CLIENT, NODE)] == ["reject"] * 3


@both_modes
def test_policy_local_does_not_count_what_hints_leave_out(traits: ModeTraits) -> None:
    """Hints are for policy Cluster alone."""
    here = msgspec.structs.replace(HERE, zone_hints=("b",))
    away = msgspec.structs.replace(AWAY, zone_hints=("a",))
    found = [outcome(having(here, away, **BOTH_LOCAL), traits, packet) for packet in WAYS]
    assert found == [H, "away", "away masked", H]


@both_modes
def test_affinity_is_each_service_ports_own_and_only_among_what_the_policy_allows(traits: ModeTraits) -> None:
    remembers = replace(sent(CLIENT, NODE, 3001), remembered=str(AWAY))
    sticky = having(HERE, AWAY, affinity_timeout_s=600)
    assert outcome(sticky, traits, remembers) == "away masked"
    assert outcome(sticky, traits, replace(remembers, dst=CLUSTER, dport=80)) == "away masked"
    assert outcome(having(HERE, AWAY, affinity_timeout_s=600, **EXTERNAL_LOCAL), traits, remembers) == H
    assert outcome(having(HERE, affinity_timeout_s=600), traits, remembers) == HM
    assert outcome(having(HERE, AWAY), traits, remembers) == BM
