"""The words of a trace: who gets a connection and why, or why nobody does, and whether the kernel agrees."""

from dataclasses import replace

import pytest

from svcplane.base.errors import ConfigError
from svcplane.base.net import Family
from svcplane.kernel.ruleset.objects import ForeignChain, Verb
from svcplane.proxy.model import (
    PASSES,
    DetectLocal,
    Endpoint,
    NodeConfig,
    NodeState,
    Origin,
    Outcome,
    Packet,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
    Verdict,
)
from svcplane.proxy.oracle import IPTABLES, NFTABLES, decide
from svcplane.understand.foreign import Connection, Drop
from svcplane.understand.probing import judge
from svcplane.understand.tracing import Trace, destination, origin_of, trace, ways, with_drops

NAME = ServicePortName("shop", "web", "http", Protocol.TCP)
CONFIG = NodeConfig(
    "node1",
    Family.IPV4,
    DetectLocal.CLUSTER_CIDR,
    ("10.244.0.0/16",),
    primary_ips=("172.30.0.11",),
    service_cidrs=("10.96.0.0/16",),
)
NEAR = Endpoint("10.244.1.5", 8080, "node1", is_local=True, pod="shop/web-1")
FAR = Endpoint("10.244.2.5", 8080, "node2", pod="shop/web-2")
DOWN = Endpoint("10.244.2.6", 8080, "node2", ready=False, serving=False, pod="shop/web-3")


def state(*endpoints: Endpoint, **fields: object) -> ProxyState:
    port = ServicePort(NAME, "10.96.0.10", 80, node_port=30080, **fields)  # type: ignore[arg-type]
    node = NodeState("node1", "", ("127.0.0.1", "172.30.0.11"))
    return ProxyState(CONFIG, node, {NAME: port}, {NAME: endpoints} if endpoints else {})


def packet(dst: str = "10.96.0.10", dport: int = 80, **fields: object) -> Packet:
    chosen = {"origin": Origin.POD, "src": "10.244.1.9", **fields}
    return Packet(dst=dst, dport=dport, protocol=Protocol.TCP, **chosen)  # type: ignore[arg-type]


def traced(desired: ProxyState, sent: Packet, live: frozenset[Outcome] | None = None) -> Trace:
    seen = decide(desired, sent, NFTABLES) if live is None else live
    return trace(desired, sent, "nftables", NFTABLES, source="here", live=(seen, ["a -> b => end"]))


def test_probabilities_sum_to_one_and_the_unready_is_passed_over() -> None:
    found = traced(state(NEAR, FAR, DOWN), packet())
    assert [(share.endpoint, share.pod, share.probability) for share in found.shares] == [
        ("10.244.1.5:8080", "shop/web-1", 0.5),
        ("10.244.2.5:8080", "shop/web-2", 0.5),
    ]
    assert found.passed_over == (("10.244.2.6:8080", "not ready"),)
    assert (found.verdict, found.agree, found.findings) == ("deliver", True, ())
    assert found.way == (("a", "b => end"),)


def test_a_pod_that_reaches_itself_is_masqueraded() -> None:
    found = traced(state(NEAR, FAR), packet(src="10.244.1.5"))
    assert [share.sees for share in found.shares] == ["this node's address", "the client's address, 10.244.1.5"]


@pytest.mark.parametrize(
    ("desired", "sent", "why"),
    [
        (state(), packet(), "shop/web:http has no endpoint at all"),
        (state(DOWN), packet(), "none of the 1 endpoints of shop/web:http is ready"),
        (state(FAR, internal_policy_local=True), packet(), "internalTrafficPolicy Local, and no usable endpoint is on"),
        (state(NEAR), packet(dport=81), "belongs to Service shop/web, which has no port 81/TCP: it has 80/TCP"),
        (state(NEAR), packet("10.96.0.99"), "is in the Service range, and no Service has it"),
        (
            state(NEAR, load_balancer_ips=("203.0.113.1",), source_ranges=("192.0.2.0/24",)),
            packet("203.0.113.1", origin=Origin.OUTSIDE, src="198.51.100.1"),
            "198.51.100.1 is in none of the loadBalancerSourceRanges (192.0.2.0/24)",
        ),
    ],
)
def test_a_refusal_says_why(desired: ProxyState, sent: Packet, why: str) -> None:
    found = traced(desired, sent)
    assert why in found.why
    assert [finding.code for finding in found.findings] == ["refused-as-desired"]
    assert why in found.findings[0].text


def test_affinity_says_whom_the_client_sticks_to() -> None:
    desired = state(NEAR, FAR, affinity_timeout_s=600)
    found = traced(desired, packet(remembered="10.244.2.5:8080"))
    assert found.why == "session affinity: 10.244.1.9 sticks to 10.244.2.5:8080"
    assert found.passed_over == (("10.244.1.5:8080", "affinity holds another"),)


def test_a_foreign_node_port_address_is_told() -> None:
    assert "is no address of this node" in traced(state(NEAR), packet("172.30.0.12", 30080)).why


def test_a_kernel_without_rules_is_a_problem_with_a_remedy() -> None:
    found = traced(state(NEAR), packet(), frozenset({PASSES}))
    assert found.agree is False
    assert [finding.code for finding in found.findings] == ["kernel-differs"]
    assert "this node has no rules for it" in found.findings[0].text
    assert "check that the proxy runs" in found.findings[0].remedy


def test_a_difference_in_masquerading_is_spelt_out() -> None:
    live = frozenset({Outcome(Verdict.DELIVER, "10.244.1.5:8080", masqueraded=True)})
    text = traced(state(NEAR), packet(), live).findings[0].text
    assert "lacking 10.244.1.5:8080; beyond that 10.244.1.5:8080 (masqueraded)" in text


@pytest.mark.parametrize(
    ("text", "parsed"),
    [
        ("10.96.0.10:80", ("10.96.0.10", 80, Protocol.TCP)),
        ("010.96.0.10:53/udp", ("10.96.0.10", 53, Protocol.UDP)),
        ("[fd00::1]:443/TCP", ("fd00::1", 443, Protocol.TCP)),
        ("svc/web:80/sctp", ("svc/web", 80, Protocol.SCTP)),
    ],
)
def test_destinations(text: str, parsed: tuple[str, int, Protocol]) -> None:
    assert destination(text) == parsed


@pytest.mark.parametrize("text", ["10.96.0.10", "10.96.0.10:0", "10.96.0.10:80/icmp", "fd00::1:443", ":80"])
def test_wrong_destinations_are_refused(text: str) -> None:
    with pytest.raises(ConfigError):
        destination(text)


def test_origins() -> None:
    desired = state(NEAR)
    assert origin_of("172.30.0.11", desired, "") is Origin.NODE
    assert origin_of("10.244.1.9", desired, "node1") is Origin.POD
    assert origin_of("10.244.2.9", desired, "node2") is Origin.OUTSIDE
    assert origin_of("192.0.2.1", desired, "") is Origin.OUTSIDE


def codes(found: Trace, result: str, to: str, direct: dict[str, str], remembered: str = "") -> list[str]:
    return [finding.code for finding in judge(found, result, to, direct, remembered)]


def test_a_probe_tells_a_dead_endpoint_from_a_broken_way() -> None:
    found = traced(state(NEAR, FAR), packet())
    near, far = "10.244.1.5:8080", "10.244.2.5:8080"
    alive = {near: "connected", far: "connected"}
    assert codes(found, "connected", near, alive) == []
    assert codes(found, "connected", "192.0.2.7:80", alive) == ["probe-elsewhere"]
    assert codes(found, "timeout", near, alive) == ["lost-on-the-way"]
    assert codes(found, "refused", near, {near: "refused", far: "connected"}) == ["endpoint-silent"]
    assert codes(found, "timeout", near, {near: "timeout", far: "connected"}, near) == ["affinity-to-dead-pod"]


def test_affinity_to_a_dead_pod_names_both_pods_and_how_to_evict() -> None:
    found = traced(state(NEAR, FAR, affinity_timeout_s=600), packet(remembered=str(FAR)))
    direct = {str(FAR): "timeout", str(NEAR): "connected"}
    finding = judge(found, "timeout", str(FAR), direct, str(FAR))[0]
    assert "holds the client to 10.244.2.5:8080, which does not answer (timeout); 10.244.1.5:8080 would" in finding.text
    assert "svcplane affinity evict 10.244.1.9 --service shop/web:http" in finding.remedy


def test_a_refused_probe_of_what_must_be_refused_is_no_further_finding() -> None:
    assert codes(traced(state(), packet()), "refused", "", {}) == []
    assert codes(traced(state(), packet()), "connected", "", {}) == ["probe-differs"]


GUARD = ForeignChain("inet", "guard", "forward", "forward")


def led(found: Trace) -> list[Connection]:
    return list(ways(found, own=False, local=(), iifname="", oifname=""))


def dropping(way: Connection, *, sure: bool = True, verb: Verb = Verb.DROP) -> tuple[Connection, Drop]:
    return way, Drop(GUARD, "ip daddr 10.244.2.5 drop", verb, sure, "forward")


def test_the_verdict_is_that_of_somebody_elses_rule() -> None:
    found = traced(state(FAR), packet())
    (way,) = led(found)
    told = with_drops(found, [dropping(way)], ())
    assert told.verdict == "drop"
    rule = "by a rule that is not svcplane's, inet table guard, chain forward: ip daddr 10.244.2.5 drop; without it: "
    assert told.why == rule + found.why
    (blocked,) = told.blocked
    assert (blocked.endpoint, blocked.hook, blocked.table, blocked.chain) == (str(FAR), "forward", "guard", "forward")
    assert with_drops(found, [dropping(way, verb=Verb.REJECT)], ()).verdict == "reject"
    unsure = with_drops(found, [dropping(way, sure=False)], ())
    assert (unsure.verdict, unsure.why, unsure.blocked[0].sure) == ("deliver", found.why, False)


def test_of_two_endpoints_one_may_be_cut_off() -> None:
    found = traced(state(NEAR, FAR), packet())
    near, far = led(found)
    told = with_drops(found, [dropping(far)], ())
    assert (told.verdict, told.why.startswith("to 1 of 2 endpoints by a rule")) == ("deliver, drop", True)
    both = with_drops(found, [dropping(near), dropping(far, verb=Verb.REJECT)], ())
    assert both.verdict == "drop, reject"


def test_what_no_service_has_goes_its_way_and_may_be_dropped_there() -> None:
    found = traced(state(FAR), packet("192.0.2.7", 443))
    (way,) = led(found)
    assert (way.endpoint, way.endpoint_port, way.vip) == ("192.0.2.7", 443, "192.0.2.7")
    assert with_drops(found, [dropping(way)], ()).verdict == "drop"
    assert led(traced(state(), packet())) == []  # refused, whatever others do


@pytest.mark.parametrize(
    ("endpoints", "verdict", "more"),
    [((NEAR,), "pass", ""), ((FAR,), "drop", "; while no endpoint here serves it, it is refused there too")],
)
def test_a_node_port_on_an_address_where_it_does_not_answer(
    endpoints: tuple[Endpoint, ...], verdict: str, more: str
) -> None:
    desired = state(*endpoints, external_policy_local=True)
    desired = replace(desired, config=replace(CONFIG, nodeport_addresses=("172.30.0.0/24",)))
    found = trace(desired, packet("127.0.0.1", 30080), "iptables", IPTABLES, source="here", live=None)
    words = f"30080 is the node port of shop/web:http, but node ports do not answer on 127.0.0.1{more}"
    assert (found.verdict, found.why) == (verdict, words)
