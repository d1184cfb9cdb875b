"""`svcplane doctor` on a node of a lab: it finds what is broken, and no problem where nothing is."""

import json

import pytest

from labrig import LabRig

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.tools("ip", "nsenter", "nft", "conntrack", "iptables"),
    pytest.mark.xdist_group("lab"),
]


def codes(lab: LabRig, member: str = "node1") -> set[str]:
    done = lab.run(member, "svcplane doctor -o json")
    found = json.loads(done.stdout)["findings"]
    problems = {finding["code"] for finding in found if finding["severity"] == "problem"}
    assert done.returncode == (1 if problems else 0), done.stderr
    return problems


def test_a_node_that_works_has_no_problem(lab: LabRig) -> None:
    lab.until(lambda: codes(lab) == set(), "no problem")
    done = lab.run("node1", "svcplane doctor")
    assert "Node node1  mode nftables, 3 Services" in done.stdout


def test_a_rule_of_somebody_else_is_found_by_doctor_and_trace(lab: LabRig) -> None:
    lab.run("node1", "nft add table inet guard")
    lab.run("node1", "nft add chain inet guard fwd0 '{ type filter hook forward priority 0; }'")
    try:
        rule = lab.run("node1", "nft add rule inet guard fwd0 ip daddr 10.244.2.0/24 tcp dport 8080 drop")
        assert rule.returncode == 0, rule.stderr
        done = lab.run("node1", "svcplane doctor")
        assert "chain fwd0 a rule that is not svcplane's drops packets of default/hello:http" in done.stdout
        assert "inet table guard" in done.stdout
        traced = lab.run("node1", "svcplane trace svc/hello:80 --from pod/hello-1")
        assert traced.returncode == 1
        assert "drops packets of 10.244.1" in traced.stdout
    finally:
        lab.run("node1", "nft delete table inet guard")
    assert codes(lab) == set()


def test_forwarding_off_and_a_proxy_that_competes(lab: LabRig) -> None:
    lab.run("node2", "sysctl -w net.ipv4.ip_forward=0")
    lab.run("node2", "iptables -t nat -N KUBE-SERVICES")
    lab.run("node2", "iptables -t nat -A KUBE-SERVICES -j ACCEPT")
    assert codes(lab, "node2") == {"forwarding-off", "rival-rules"}
    lab.run("node2", "iptables -t nat -F KUBE-SERVICES")
    lab.run("node2", "iptables -t nat -X KUBE-SERVICES")
    lab.run("node2", "sysctl -w net.ipv4.ip_forward=1")
    assert codes(lab, "node2") == set()


def test_a_place_without_a_proxy_says_so(lab: LabRig) -> None:
    done = lab.run("control", "svcplane doctor")
    assert "no svcplane proxy runs on this node: it has no rules here" in done.stdout
