"""Which tracked flows are stale."""

from dataclasses import replace

import pytest

from svcplane.base.net import Family
from svcplane.proxy.conntrack import Flow, stale
from svcplane.proxy.model import Endpoint, NodeConfig, NodeState, Protocol, ProxyState, ServicePort, ServicePortName

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
    ending = replace(SERVING, ready=False, terminating=True)
    assert not stale([replace(TO_GONE, reply_src=ending.ip)], replace(STATE, endpoints={NAME: (ending,)}))


def test_flows_of_a_service_without_serving_endpoints_are_kept() -> None:
    assert not stale([TO_GONE], replace(STATE, endpoints={}))


def test_a_flow_that_concerns_no_service_is_kept() -> None:
    assert not stale([replace(TO_GONE, dst="10.96.0.99")], STATE)
