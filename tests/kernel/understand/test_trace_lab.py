"""`svcplane trace` on a node of a lab: the live rules, the oracle, and real connections."""

import json

import pytest

from labrig import LabRig
from svcplane.api.resources import SERVICES
from svcplane.lab.topology import CLIENT_IP

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.tools("ip", "nsenter", "nft", "conntrack"),
    pytest.mark.xdist_group("lab"),
]


def test_a_pod_reaches_a_service_and_a_real_connection_agrees(lab: LabRig) -> None:
    lab.until(
        lambda: "33.3%" in lab.run("node1", "svcplane trace svc/hello:80 --from pod/hello-1").stdout, "programmed"
    )
    done = lab.run("node1", "svcplane trace svc/hello:80 --from pod/hello-1 --probe")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "default/hello:http by its ClusterIP" in done.stdout
    assert "the kernel does what is desired" in done.stdout
    assert "probe    connected after" in done.stdout
    assert "no problem found" in done.stdout
    assert "cluster, external and load-balancer addresses" in done.stdout


def test_programs_get_the_outcomes_and_the_way(lab: LabRig) -> None:
    done = lab.run("node2", "svcplane trace svc/hello:80 --from 172.31.0.100 -o json")
    found = json.loads(done.stdout)["trace"]
    assert found["agree"] is True
    assert [round(share["probability"], 3) for share in found["shares"]] == [0.333] * 3
    assert all(outcome["masqueraded"] for outcome in found["live"])
    assert len(found["way"]) == 3


def test_affinity_is_seen_and_the_port_nobody_has_is_told(lab: LabRig) -> None:
    patch = {"spec": {"sessionAffinityConfig": {"clientIP": {"timeoutSeconds": 600}}}}  # outlasts a slow machine
    lab.api(lambda api: api.patch(SERVICES, "default", "sticky", patch))
    assert lab.run("control", "svcplane wait svc/sticky --programmed").returncode == 0
    node = lab.run("control", "kubectl get pod hello-2 -o jsonpath={.spec.nodeName}").stdout
    assert lab.run(node, "svcplane trace svc/sticky:80 --from pod/hello-2 --probe").returncode == 0
    again = lab.run(node, "svcplane trace svc/sticky:80 --from pod/hello-2")
    assert "sticks to" in again.stdout
    assert "affinity holds another" in again.stdout
    wrong = lab.run(node, "svcplane trace svc/hello:8080 --from pod/hello-2")
    assert wrong.returncode == 1
    assert "which has no port 8080/TCP: it has 80/TCP" in wrong.stdout


def test_flushed_rules_are_a_problem(lab: LabRig) -> None:
    """In the control namespace nobody programs anything: the desired state of node1 is not in its kernel."""
    done = lab.run("control", "svcplane trace svc/hello:80 --node node1 --cluster-cidr 10.244.0.0/16")
    assert done.returncode == 1
    assert "this node has no rules for it" in done.stdout
    assert "check that the proxy runs on this node" in done.stdout


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("trace svc/nothing:80", "there is no Service nothing with an address in namespace default"),
        ("trace svc/hello:80 --from pod/nobody", "there is no Pod default/nobody with an IPv4 address"),
        ("trace svc/hello:80 --from fd00::1", "must be pod/NAME, node, or an IPv4 address"),
    ],
)
def test_mistakes_are_one_line(lab: LabRig, command: str, said: str) -> None:
    done = lab.run("node1", f"svcplane {command}")
    assert (done.returncode, done.stderr.count("\n"), said in done.stderr) == (2, 1, True), done.stderr


@pytest.mark.parametrize(
    ("make", "unmake", "verdict"),
    [
        (
            (
                "nft add table inet guard",
                "nft add chain inet guard out '{ type filter hook postrouting priority 0; }'",
                "nft add rule inet guard out tcp dport 8080 drop",
            ),
            "nft delete table inet guard",
            "drop: by a rule that is not svcplane's, inet table guard, chain out (at postrouting): ",
        ),
        (
            ("iptables -A FORWARD -i eth0 -d HELLO-1 -p tcp --dport 8080 -j REJECT",),
            "iptables -F FORWARD",
            "deliver, reject: to 1 of 3 endpoints by a rule that is not svcplane's, ip table filter, chain FORWARD",
        ),
    ],
)
def test_a_rule_of_somebody_else_has_the_last_word(
    lab: LabRig, make: tuple[str, ...], unmake: str, verdict: str
) -> None:
    """Asked about, and probed, for a client in whose namespace no process is."""
    endpoint = lab.run("node1", "kubectl get pod hello-1 -o jsonpath={.status.podIP}").stdout
    for command in make:
        command = command.replace("HELLO-1", endpoint)
        assert lab.run("node1", command).returncode == 0
    try:
        done = lab.run("node1", f"svcplane trace svc/hello:80 --from {CLIENT_IP}")
        assert done.returncode == 1
        assert f"verdict  {verdict}" in done.stdout
        assert "svcplane's own rules do what is desired" in done.stdout
    finally:
        lab.run("node1", unmake)
    done = lab.run("node1", f"svcplane trace svc/hello:80 --from {CLIENT_IP} --probe")
    assert (done.returncode, "probe    connected after" in done.stdout) == (0, True), done.stdout + done.stderr
