"""`svcplane wait`, `history` and the nodes' part of `explain`, with proxies that run, lag and stop."""

import json
import signal
import time

import pytest

from labrig import LabRig
from svcplane.api.resources import SERVICES

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.tools("ip", "nsenter", "nft", "conntrack"),
    pytest.mark.xdist_group("lab"),
]


def test_wait_returns_when_all_nodes_have_it(lab: LabRig) -> None:
    began = time.monotonic()
    done = lab.run("client", "svcplane wait svc/hello --programmed")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("current, mode nftables") == 2
    assert time.monotonic() - began < 15
    told = lab.run("client", "svcplane explain svc/hello")
    assert told.stdout.count("current, mode nftables") == 2


def test_history_tells_what_was_done_and_what_was_wanted(lab: LabRig) -> None:
    done = lab.run("node1", "svcplane history svc/hello --operations")
    assert "default/hello" in done.stdout
    assert "service-ips" in done.stdout
    moment = time.time()
    time.sleep(0.01)  # moments are compared
    patch = {"spec": {"ports": [{"name": "http", "port": 81, "targetPort": 8080}]}}
    lab.api(lambda api: api.patch(SERVICES, "default", "hello", patch))
    lab.run("client", "svcplane wait svc/hello --programmed")
    now = json.loads(lab.run("node1", "svcplane history svc/hello --at 0s -o json").stdout)
    iso = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(moment)) + f"{moment % 1:.6f}"[1:] + "Z"
    then = json.loads(lab.run("node1", f"svcplane history svc/hello --at {iso} -o json").stdout)
    assert [entry["port"]["port"] for entry in now] == [81]
    assert [entry["port"]["port"] for entry in then] == [80]
    wrong = lab.run("node1", "svcplane history --at yesterday")
    assert (wrong.returncode, "must be a span" in wrong.stderr) == (2, True)
    nobody = lab.run("control", "svcplane history")
    assert (nobody.returncode, "no svcplane proxy runs on this node" in nobody.stderr) == (3, True)


def test_wait_ends_with_1_where_a_proxy_hangs(lab: LabRig) -> None:
    proxy = lab.cluster._children["node2-proxy"]
    proxy.send_signal(signal.SIGSTOP)
    try:
        patch = {"spec": {"ports": [{"name": "http", "port": 80, "targetPort": 8080}]}}
        lab.api(lambda api: api.patch(SERVICES, "default", "hello", patch))
        done = lab.run("client", "svcplane wait svc/hello --programmed --timeout 3")
        assert done.returncode == 1
        assert "behind: Services up to version" in done.stdout
    finally:
        proxy.send_signal(signal.SIGCONT)
    assert lab.run("client", "svcplane wait svc/hello --programmed").returncode == 0
