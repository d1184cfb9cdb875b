"""Names and rules of the iptables plane's pure part."""

import pytest

from svcplane.base.net import Family
from svcplane.kernel.iptables.text import TableChange, odds, parse, quoted, restore
from svcplane.proxy.model import Endpoint, NodeConfig, NodeState, Protocol, ServicePort, ServicePortName
from svcplane.proxy.planes.iptables import names as n
from svcplane.proxy.planes.iptables.compile import Fragment, compile_port
from svcplane.proxy.topology import categorize

NAME = ServicePortName("ns1", "svc1", "p80", Protocol.TCP)
CONFIG, NODE = NodeConfig("n1", Family.IPV4), NodeState("n1")
TWO = (Endpoint("10.244.1.1", 8080), Endpoint("10.244.1.2", 8080))


def compiled(port: ServicePort, endpoints: tuple[Endpoint, ...] = TWO) -> Fragment:
    return compile_port(port, categorize(port, endpoints, NODE), CONFIG)


def test_names_are_hashed_as_kube_proxy_does() -> None:
    assert n.port_chain("SVC", NAME) == "KUBE-SVC-XPGD46QRK7WJZT7O"


def test_two_endpoints_are_picked_evenly_by_one_rule_each() -> None:
    rules = compiled(ServicePort(NAME, "10.96.0.1", 80)).chains[n.port_chain("SVC", NAME)]
    assert rules == (
        "-p tcp -m statistic --mode random --probability 0.50000000000 -j DNAT --to-destination 10.244.1.1:8080",
        "-p tcp -j DNAT --to-destination 10.244.1.2:8080",
    )


def test_affinity_asks_each_endpoints_list_before_choosing() -> None:
    rules = compiled(ServicePort(NAME, "10.96.0.1", 80, affinity_timeout_s=600)).chains[n.port_chain("SVC", NAME)]
    assert ["--update --seconds 600 --reap" in rule for rule in rules] == [True, True, False, False]
    assert [n.endpoint_list(NAME, str(endpoint)) in rule for endpoint, rule in zip(TWO * 2, rules, strict=True)] == [
        True
    ] * 4


def test_without_endpoints_nothing_is_dispatched_and_the_address_refuses() -> None:
    fragment = compiled(ServicePort(NAME, "10.96.0.1", 80, node_port=30080), ())
    assert not fragment.chains
    assert {front.tree for front in fragment.fronts} == {"refuse-internal", "refuse-nodeports-tcp"}
    assert all(front.rule.endswith("-j REJECT --reject-with icmp-port-unreachable") for front in fragment.fronts)


@pytest.mark.parametrize("count", [1, 2, 3, 7, 1000])
def test_the_chances_of_all_are_equal(count: int) -> None:
    left = 1.0
    for index in range(count - 1):
        chance = float(odds(index, count).split()[-1])
        assert abs(left * chance - 1 / count) < 1e-8
        left *= 1 - chance
    assert abs(left - 1 / count) < 1e-8


def test_what_is_restored_is_what_is_parsed() -> None:
    change = TableChange(
        {"KUBE-A": ("-s 10.0.0.1/32 -j KUBE-B",), "KUBE-B": (), "KUBE-C": None}, ["-I INPUT -j KUBE-A"]
    )
    text = restore({"nat": TableChange(), "filter": change})
    assert text.startswith("*filter\n:KUBE-A - [0:0]\n")
    assert text.endswith("-X KUBE-C\nCOMMIT\n")
    assert parse(text)["filter"]["KUBE-A"] == ("-s 10.0.0.1/32 -j KUBE-B",)
    assert restore({"nat": TableChange()}) == ""


def test_quotes_in_a_comment_are_escaped() -> None:
    assert quoted('a "b" \\') == '"a \\"b\\" \\\\"'
