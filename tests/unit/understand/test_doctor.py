"""Each thing that may be wrong with a node is found, named and given a remedy; a good node has no problem."""

from dataclasses import replace
from typing import Any

import pytest

from svcplane.base.net import Family
from svcplane.kernel.host.objects import HostFacts, HostLink, HostRoute
from svcplane.kernel.ruleset import xtables
from svcplane.kernel.ruleset.objects import ForeignChain, Ruleset
from svcplane.proxy.conntrack import Flow
from svcplane.proxy.model import (
    DetectLocal,
    Endpoint,
    NodeConfig,
    NodeState,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
)
from svcplane.understand.doctor.diagnose import diagnose
from svcplane.understand.doctor.examined import Examined
from svcplane.understand.finding import Finding, Severity
from svcplane.understand.view import from_trees

NAME = ServicePortName("shop", "dns", "dns", Protocol.UDP)
STATE = ProxyState(
    NodeConfig("node1", Family.IPV4, DetectLocal.CLUSTER_CIDR, ("10.244.0.0/16",), primary_ips=("172.30.0.11",)),
    NodeState("node1", "", ("127.0.0.1", "172.30.0.11")),
    {NAME: ServicePort(NAME, "10.96.0.10", 53, node_port=30053)},
    {NAME: (Endpoint("10.244.2.6", 5353, "node2"),)},
)
SYSCTLS = {
    "net.ipv4.ip_forward": "1",
    "net.ipv4.ip_local_port_range": "32768 60999",
    "net.bridge.bridge-nf-call-iptables": "1",
}
FACTS = HostFacts(
    release="6.1.0",
    capabilities=frozenset({"NET_ADMIN"}),
    tools={"ip": "6", "nft": "1", "iptables": "1", "conntrack": "1"},
    sysctls=SYSCTLS,
    conntrack_count=10,
    conntrack_max=1000,
    links=(HostLink("lo", 65536), HostLink("eth0", 1500, addresses=("172.30.0.11/24",))),
    routes=(HostRoute("default", "eth0", "172.30.0.1"),),
    clock_synchronized=True,
)
GOOD = Examined("node1", "nftables", FACTS, Ruleset(), {Family.IPV4: STATE}, {Family.IPV4: STATE})


def having(**facts: Any) -> Examined:
    return replace(GOOD, facts=replace(FACTS, **facts))


def sysctls(**values: str) -> Examined:
    return having(sysctls={**SYSCTLS, **{name.replace("__", "."): value for name, value in values.items()}})


def one(seen: Examined, code: str) -> Finding:
    matching = [finding for finding in diagnose(seen) if finding.code == code]
    assert len(matching) == 1, diagnose(seen)
    assert matching[0].remedy
    return matching[0]


def test_a_good_node_has_no_finding() -> None:
    assert diagnose(GOOD) == ()


def test_problems_come_first() -> None:
    found = diagnose(replace(having(tools={"ip": "6"}), programmed=None))
    assert [finding.code for finding in found] == ["proxy-stopped", "tool-missing", "tool-missing"]
    assert [finding.severity for finding in found] == [Severity.PROBLEM, Severity.WARNING, Severity.WARNING]


def test_forwarding_off() -> None:
    finding = one(sysctls(net__ipv4__ip_forward="0"), "forwarding-off")
    assert "sysctl -w net.ipv4.ip_forward=1" in finding.remedy
    assert finding.severity is Severity.PROBLEM
    assert diagnose(sysctls(net__ipv6__conf__all__forwarding="0")) == ()  # nobody uses IPv6 here


def test_permissions_features_and_tools() -> None:
    assert "run this as root" in one(having(capabilities=frozenset()), "no-permission").remedy
    assert one(having(lacking={"nf_tables": "x", "ip_vs": "y"}), "kernel-feature").subject == "nf_tables"
    ipvs = replace(having(lacking={"nf_tables": "x", "ip_vs": "y"}), mode="ipvs")
    assert one(ipvs, "kernel-feature").subject == "ip_vs"
    missing = replace(having(tools={"ip": "6", "nft": "1", "conntrack": "1"}), mode="iptables")
    assert one(missing, "tool-missing").severity is Severity.PROBLEM
    assert "5.13" in one(having(release="5.4.0-42"), "kernel-old").text


@pytest.mark.parametrize(("ahead", "severity"), [(-6.0, Severity.WARNING), (400.0, Severity.PROBLEM)])
def test_clocks_that_differ(ahead: float, severity: Severity) -> None:
    assert one(replace(GOOD, clock_ahead_s=ahead), "clock-skew").severity is severity
    assert diagnose(replace(GOOD, clock_ahead_s=1.5)) == ()


def test_reverse_path_filters_are_a_warning_with_several_uplinks_only() -> None:
    strict = {"net.ipv4.conf.all.rp_filter": "1"}
    assert one(having(sysctls=SYSCTLS | strict), "rp-filter-strict").severity is Severity.NOTE
    routes = (*FACTS.routes, HostRoute("default", "eth1", "192.0.2.1"))
    assert one(having(sysctls=SYSCTLS | strict, routes=routes), "rp-filter-strict").severity is Severity.WARNING
    assert diagnose(having(sysctls=SYSCTLS | {"net.ipv4.conf.all.rp_filter": "2"})) == ()


def test_tunnels_need_room() -> None:
    links = (*FACTS.links, HostLink("flannel.1", 1500, "vxlan"))
    finding = one(having(links=links), "mtu")
    assert (finding.severity, "ip link set flannel.1 mtu 1450" in finding.remedy) == (Severity.PROBLEM, True)
    assert diagnose(having(links=(*FACTS.links, HostLink("flannel.1", 1450, "vxlan")))) == ()
    jumbo = (*FACTS.links, HostLink("veth1", 9000, "veth"))
    assert one(having(links=jumbo), "mtu").severity is Severity.WARNING


def test_ports_that_outgoing_connections_may_take() -> None:
    wide = "1024 65535"
    finding = one(sysctls(net__ipv4__ip_local_port_range=wide), "port-range-overlap")
    assert finding.severity is Severity.PROBLEM
    assert "ip_local_reserved_ports=30000-32767" in finding.remedy
    reserved = sysctls(net__ipv4__ip_local_port_range=wide, net__ipv4__ip_local_reserved_ports="22,30000-32767")
    assert diagnose(reserved) == ()


def test_a_program_on_a_node_port() -> None:
    assert "the node port of shop/dns:dns" in one(having(listening=frozenset({("udp", 30053)})), "node-port-taken").text
    assert diagnose(having(listening=frozenset({("tcp", 30053)}))) == ()


@pytest.mark.parametrize(
    ("ephemeral", "options", "found"),
    [
        ("32768 60999", (), True),
        ("30000 60999", (), False),  # it may be the relay's own
        ("32768 60999", (("proxy-port-range", "30000-31000"),), False),
    ],
)
def test_a_program_on_a_node_port_that_cannot_be_the_relay(
    ephemeral: str, options: tuple[tuple[str, str], ...], found: bool
) -> None:
    state = replace(STATE, config=replace(STATE.config, mode_options=options))
    values = {**SYSCTLS, "net.ipv4.ip_local_port_range": ephemeral}
    seen = having(listening=frozenset({("udp", 30053)}), sysctls=values)
    seen = replace(seen, mode="userspace", states={Family.IPV4: state}, programmed={Family.IPV4: state})
    assert ("node-port-taken" in {finding.code for finding in diagnose(seen)}) is found


@pytest.mark.parametrize(("count", "severity"), [(850, Severity.WARNING), (990, Severity.PROBLEM)])
def test_a_full_connection_table(count: int, severity: Severity) -> None:
    finding = one(having(conntrack_count=count), "conntrack-full")
    assert (finding.severity, "nf_conntrack_max=2000" in finding.remedy) == (severity, True)


def test_xt_recent_matters_in_iptables_mode_only() -> None:
    full = having(recent_limit=100, recent_used={"KUBE-SEP-A": 100})
    assert diagnose(full) == ()
    assert "KUBE-SEP-A is full" in one(replace(full, mode="iptables"), "recent-full").text


def test_a_bridge_whose_pods_bypass_the_translation() -> None:
    links = (*FACTS.links, HostLink("cni0", 1500, "bridge", addresses=("10.244.1.1/24",)))
    values = {name: value for name, value in SYSCTLS.items() if "bridge" not in name}
    assert "modprobe br_netfilter" in one(having(links=links, sysctls=values), "bridge-bypasses").remedy


def test_rivals() -> None:
    assert one(having(programs=("kube-proxy",)), "rival-running")
    table = Ruleset({("ip", "kube-proxy", "services"): ForeignChain("ip", "kube-proxy", "services")})
    assert "nft delete table ip kube-proxy" in one(replace(GOOD, rules=table), "rival-rules").remedy
    text = "*nat\n:KUBE-SERVICES - [0:0]\n:KUBE-SVC-AAAA - [0:0]\n-A KUBE-SERVICES -j KUBE-SVC-AAAA\nCOMMIT\n"
    iptables = Ruleset(xtables.parse(text, "ip"))
    assert "1 KUBE-SVC chains" in one(replace(GOOD, rules=iptables), "rival-rules").text
    assert [f.code for f in diagnose(replace(GOOD, rules=iptables, mode="iptables"))] == []
    links = (*FACTS.links, HostLink("kube-ipvs0", 1500, "dummy"))
    assert "ip link delete kube-ipvs0" in one(having(links=links), "rival-ipvs").remedy


def test_a_foreign_rule_that_drops_names_rule_and_service() -> None:
    text = "*filter\n:FORWARD ACCEPT [0:0]\n-A FORWARD -d 10.244.2.0/24 -p udp -j DROP\nCOMMIT\n"
    finding = one(replace(GOOD, rules=Ruleset(xtables.parse(text, "ip"))), "foreign-rule-drops")
    assert "drops packets of shop/dns:dns" in finding.text
    assert "-A FORWARD -d 10.244.2.0/24 -p udp -j DROP" in finding.text


def test_a_stopped_proxy_says_whether_rules_were_left() -> None:
    assert "it has no rules here" in one(replace(GOOD, programmed=None), "proxy-stopped").text
    table = Ruleset({("ip", "svcplane", "services"): ForeignChain("ip", "svcplane", "services")})
    assert "follow no change" in one(replace(GOOD, programmed=None, rules=table), "proxy-stopped").text


def test_a_proxy_that_is_behind_names_the_services() -> None:
    old = replace(STATE, endpoints={})
    assert "shop/dns:dns" in one(replace(GOOD, programmed={Family.IPV4: old}), "proxy-behind").text
    assert "does not answer: down" in one(replace(GOOD, unreachable="down"), "api-unreachable").text


def pod(ip: str) -> dict[str, Any]:
    return {"kind": "Pod", "metadata": {"name": "web-1"}, "status": {"podIPs": [{"ip": ip}]}}


def test_a_wrong_cluster_cidr() -> None:
    outside = from_trees([pod("10.0.3.4")], live=True, now_s=0.0)
    finding = one(replace(GOOD, cluster=outside), "cluster-cidr-wrong")
    assert "does not hold the Pod address 10.0.3.4 (pod/web-1)" in finding.text
    wide = replace(STATE, config=replace(STATE.config, local_cidrs=("0.0.0.0/1", "128.0.0.0/1")))
    seen = replace(GOOD, states={Family.IPV4: wide}, programmed={Family.IPV4: wide})
    assert "holds the node address 172.30.0.11" in one(seen, "cluster-cidr-wrong").text
    none = replace(STATE, config=replace(STATE.config, detect_local=DetectLocal.NONE))
    seen = replace(GOOD, states={Family.IPV4: none}, programmed={Family.IPV4: none})
    assert one(seen, "cluster-cidr-missing").severity is Severity.WARNING


def test_a_flow_to_an_endpoint_that_is_gone() -> None:
    flow = Flow(Protocol.UDP, "10.244.1.5", 4000, "10.96.0.10", 53, "10.244.9.9", 5353)
    finding = one(replace(GOOD, udp_flows=(flow,)), "stale-udp-flow")
    assert "10.244.1.5:4000 to 10.96.0.10:53 goes to 10.244.9.9:5353" in finding.text
    assert finding.remedy == "conntrack -D -p udp -s 10.244.1.5 --sport 4000 -d 10.96.0.10 --dport 53"
    alive = replace(flow, reply_src="10.244.2.6")
    assert diagnose(replace(GOOD, udp_flows=(alive,))) == ()
