"""Names and rules of the iptables plane's pure part."""

from svcplane.base.net import Family
from svcplane.kernel.iptables.text import parse, restore
from svcplane.proxy.model import Endpoint, NodeConfig, NodeState, Protocol, ServicePort, ServicePortName
from svcplane.proxy.planes.iptables import names as n
from svcplane.proxy.planes.iptables.compile import compile_port
from svcplane.proxy.topology import categorize

NAME = ServicePortName("ns1", "svc1", "p80", Protocol.TCP)
CONFIG, NODE = NodeConfig("n1", Family.IPV4), NodeState("n1")


def test_port_chain_is_hashed_as_kube_proxy_does() -> None:
    assert n.port_chain("SVC", NAME) == "KUBE-SVC-XPGD46QRK7WJZT7O"


def test_two_endpoints_are_picked_evenly() -> None:
    port = ServicePort(NAME, "10.96.0.1", 80)
    endpoints = (Endpoint("10.244.1.1", 8080), Endpoint("10.244.1.2", 8080))
    fragment = compile_port(port, categorize(port, endpoints, NODE), CONFIG)
    rules = fragment.chains[n.port_chain("SVC", NAME)]
    assert rules[0].startswith("-m statistic --mode random --probability 0.5000000000 -j KUBE-SEP-")
    assert rules[1].startswith("-j KUBE-SEP-")


def test_no_endpoints_anywhere_rejects() -> None:
    port = ServicePort(NAME, "10.96.0.1", 80)
    fragment = compile_port(port, categorize(port, (), NODE), CONFIG)
    assert not fragment.services
    assert fragment.refuse_internal == ["-d 10.96.0.1 -p tcp -m tcp --dport 80 -j REJECT"]


def test_external_policy_local_without_local_endpoints_drops_but_short_cuts() -> None:
    port = ServicePort(NAME, "10.96.0.1", 80, node_port=30100, external_policy_local=True)
    fragment = compile_port(port, categorize(port, (Endpoint("10.244.2.1", 80),), NODE), CONFIG)
    assert fragment.refuse_external == ["-m addrtype --dst-type LOCAL -p tcp -m tcp --dport 30100 -j DROP"]
    assert any("--src-type LOCAL -j KUBE-SVC-" in rule for rule in fragment.chains[n.port_chain("EXT", NAME)])


def test_restore_text_reads_back_as_written() -> None:
    text = restore("nat", {"KUBE-A": ("-s 10.0.0.1 -j KUBE-B",), "KUBE-B": ()})
    assert parse(text) == {"nat": {"KUBE-A": ("-s 10.0.0.1 -j KUBE-B",), "KUBE-B": ()}}
