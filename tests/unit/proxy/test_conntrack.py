"""Which tracked flows are stale."""

from dataclasses import replace

import msgspec
import pytest

from svcplane.base.net import Family
from svcplane.proxy.conntrack import ANNOTATION, Flow, concerned, end_tcp, stale
from svcplane.proxy.model import (
    Endpoint,
    EndTcp,
    NodeConfig,
    NodeState,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
)

NAME = ServicePortName("default", "dns", "", Protocol.UDP)
PORT = ServicePort(NAME, "10.96.0.10", 53, node_port=30053, external_ips=("198.51.100.1",))
SERVING = Endpoint("10.244.1.11", 5353)
STATE = ProxyState(NodeConfig("n", Family.IPV4), NodeState("n"), services={NAME: PORT}, endpoints={NAME: (SERVING,)})
TO_GONE = Flow(Protocol.UDP, "10.244.1.12", 4000, "10.96.0.10", 53, "10.244.1.99", 5353)


@pytest.mark.parametrize(("dst", "dport"), [("10.96.0.10", 53), ("198.51.100.1", 53), ("172.30.0.11", 30053)])
def test_a_flow_to_an_endpoint_that_is_gone_is_stale(dst: str, dport: int) -> None:
    flow = replace(TO_GONE, dst=dst, dport=dport)
    assert stale([flow], STATE) == [flow]


def test_a_flow_to_a_serving_endpoint_is_kept() -> None:
    assert not stale([replace(TO_GONE, reply_src="10.244.1.11")], STATE)


def test_a_flow_to_an_endpoint_that_terminates_but_serves_is_kept() -> None:
    ending = msgspec.structs.replace(SERVING, ready=False, terminating=True)
    assert not stale([replace(TO_GONE, reply_src=ending.ip)], replace(STATE, endpoints={NAME: (ending,)}))


def test_flows_of_a_service_without_serving_endpoints_are_kept() -> None:
    assert not stale([TO_GONE], replace(STATE, endpoints={}))


def test_a_flow_that_concerns_no_service_is_kept() -> None:
    assert not stale([replace(TO_GONE, dst="10.96.0.99")], STATE)


HERE_ALSO = replace(STATE, node=NodeState("n", local_addresses=("127.0.0.1", "172.30.0.11")))
SILENT = Endpoint("10.244.1.98", 5353, ready=False, serving=False)


@pytest.mark.parametrize(
    ("dst", "dport", "reply", "is_stale"),
    [
        ("10.96.0.10", 53, ("10.244.1.11", 5353), False),
        ("10.96.0.10", 53, ("10.244.1.11", 8080), True),  # the address is the same, its port is not
        ("10.96.0.10", 53, ("10.244.1.98", 5353), True),  # is there, but does not serve
        ("10.96.0.10", 54, ("10.244.1.99", 5353), False),  # not a port of the Service
        ("198.51.100.1", 53, ("10.244.1.11", 8080), True),
        ("198.51.100.1", 30053, ("198.51.100.1", 30053), False),
        # not translated: the flow is older than the Service
        ("10.96.0.10", 53, ("10.96.0.10", 53), True),
        ("198.51.100.1", 53, ("198.51.100.1", 53), True),
        ("172.30.0.11", 30053, ("172.30.0.11", 30053), True),
        ("127.0.0.1", 30053, ("127.0.0.1", 30053), True),
        ("172.30.0.99", 30053, ("172.30.0.99", 30053), False),  # passes through, to somebody who has that number too
        ("172.30.0.11", 30053, ("10.244.1.11", 5353), False),
        ("172.30.0.11", 30053, ("10.244.1.11", 8080), True),
        ("172.30.0.11", 30054, ("10.244.1.99", 5353), False),
    ],
)
def test_a_flow_is_stale_where_no_serving_endpoint_answers(
    dst: str, dport: int, reply: tuple[str, int], is_stale: bool
) -> None:
    state = replace(HERE_ALSO, endpoints={NAME: (SERVING, SILENT)})
    flow = Flow(Protocol.UDP, "10.244.1.12", 4000, dst, dport, *reply)
    assert bool(stale([flow], state)) is is_stale
    for other in (Protocol.TCP, Protocol.SCTP):
        assert not stale([replace(flow, protocol=other)], state)
    assert not stale([flow], replace(state, endpoints={NAME: (SILENT,)}))


def test_flows_of_a_relay_are_stale_where_it_listens_no_more() -> None:
    """It moves the clients of a port it has from endpoint to endpoint by itself."""
    relay, before = ("172.30.0.11", 40001), ("172.30.0.11", 40000)
    flows = [replace(TO_GONE, reply_src=ip, reply_sport=port) for ip, port in (relay, before, ("10.96.0.10", 53))]
    assert stale(flows, STATE, relays=lambda _: {relay}) == flows[1:]
    assert not stale(flows, STATE, relays=lambda _: set())


WEB = ServicePortName("default", "web", "", Protocol.TCP)
GONE = Flow(Protocol.TCP, "10.244.1.12", 4000, "10.96.0.11", 80, "10.244.1.99", 8080)


def web(asked: str | None, default: EndTcp, *endpoints: Endpoint) -> ProxyState:
    annotations = ((ANNOTATION, asked),) if asked is not None else ()
    port = ServicePort(WEB, "10.96.0.11", 80, annotations=annotations)
    config = NodeConfig("n", Family.IPV4, end_tcp_connections=default)
    return ProxyState(config, NodeState("n"), services={WEB: port}, endpoints={WEB: endpoints})


HERE = Endpoint("10.244.1.11", 8080)
UNREADY = Endpoint("10.244.1.99", 8080, ready=False, serving=False)


@pytest.mark.parametrize(
    ("asked", "default", "behind", "ended"),
    [
        (None, EndTcp.NEVER, (HERE,), False),
        (None, EndTcp.REMOVED, (HERE,), True),
        ("never", EndTcp.REMOVED, (HERE,), False),
        ("removed", EndTcp.NEVER, (HERE,), True),
        ("removed", EndTcp.NEVER, (HERE, UNREADY), False),
        ("not-serving", EndTcp.NEVER, (HERE, UNREADY), True),
        ("not-serving", EndTcp.NEVER, (UNREADY,), False),  # nowhere else to go
        ("sometimes", EndTcp.REMOVED, (HERE,), True),
    ],
)
def test_connections_end_where_the_service_or_the_proxy_asks_for_it(
    asked: str | None, default: EndTcp, behind: tuple[Endpoint, ...], ended: bool
) -> None:
    part = concerned(web(asked, default, *behind), None, Protocol.TCP)
    assert bool(stale([GONE], part, Protocol.TCP)) is ended


def test_what_an_annotation_may_say_is_told() -> None:
    state = web("sometimes", EndTcp.NEVER)
    assert end_tcp(state.services[WEB], EndTcp.NEVER)[1].endswith(
        "must be one of never, removed, not-serving; it is passed over"
    )
