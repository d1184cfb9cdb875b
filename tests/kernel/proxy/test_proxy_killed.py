"""kill -9 at every point of a sync: the next start makes everything right, and finds nothing to do after that."""

import json
import signal
import time
from typing import Any

import pytest

from noderig import ENDPOINTS, PORT, Proxy, Rig
from svcplane.proxy.planes import PLANES

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.tools("ip", "nft", "iptables", "conntrack"),
    pytest.mark.xdist_group("proxy"),
]
MODES = tuple(mode for mode in ("nftables", "iptables", "userspace") if mode in PLANES)
SERVICES = 120
KILLS = {"nftables": 12, "iptables": 12, "userspace": 6}


def objects(generation: int) -> list[dict[str, Any]]:
    """Services of every kind; each generation differs from the one before in every one of them, and in their number."""
    found = []
    for number in range(SERVICES + 10 * (generation % 3)):
        spec: dict[str, Any] = {"clusterIP": f"10.96.{1 + number // 200}.{1 + number % 200}", "ports": [{"port": 80}]}
        match (number + generation) % 4:
            case 1:
                spec |= {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30100 + number}]}
                spec["externalTrafficPolicy"] = "Local"
            case 2:
                spec["sessionAffinity"] = "ClientIP"
            case 3:
                spec |= {"type": "LoadBalancer", "allocateLoadBalancerNodePorts": False}
                spec["loadBalancerSourceRanges"] = [f"10.{generation % 5}.0.0/16", "10.200.0.0/24"]
        service: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"s{number}"}}
        service["spec"] = spec
        if spec.get("type") == "LoadBalancer":
            service["status"] = {"loadBalancer": {"ingress": [{"ip": f"10.97.0.{1 + number % 200}"}]}}
        backends = [ENDPOINTS[generation % 2]] + [f"10.201.7.{1 + (number + generation + n) % 250}" for n in range(3)]
        ready = [{"addresses": [address], "conditions": {"ready": n == 0}} for n, address in enumerate(backends)]
        found += [service, slice_of(f"s{number}", ready)]
    return found


def slice_of(service: str, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {"name": f"{service}-1", "labels": {"kubernetes.io/service-name": service}},
        "addressType": "IPv4",
        "ports": [{"port": PORT}],
        "endpoints": endpoints,
    }


def write(rig: Rig, generation: int) -> None:
    fresh = rig.manifests / ".all.json"
    fresh.write_text(json.dumps({"apiVersion": "v1", "kind": "List", "items": objects(generation)}))
    fresh.rename(rig.manifests / "all.json")


def operations(proxy: Proxy) -> float:
    """Kernel changes this process has written."""
    lines = proxy.page("/metrics")[1].splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("svcplane_kernel_operations_total{"))


def kill_in(proxy: Proxy, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        time.sleep(0.001)
    proxy.end(signal.SIGKILL)


def assert_converged(rig: Rig, mode: str, generation: int) -> None:
    proxy = rig.proxy("--proxy-mode", mode)
    proxy.ready()
    for number in (0, 1, 2, 3, SERVICES - 1):
        assert rig.ask(f"10.96.{1 + number // 200}.{1 + number % 200}") == ENDPOINTS[generation % 2]
    proxy.end()
    again = rig.proxy("--proxy-mode", mode)
    again.ready()
    assert operations(again) == 0, again.log
    again.end()


@pytest.mark.parametrize("mode", MODES)
def test_killed_while_it_starts(rig: Rig, mode: str) -> None:
    write(rig, 0)
    began = time.monotonic()
    first = rig.proxy("--proxy-mode", mode)
    first.ready()
    whole = time.monotonic() - began
    assert operations(first) > SERVICES
    first.end()
    kills = KILLS[mode]
    for generation in range(1, kills + 1):
        write(rig, generation)
        # the first half of a start is Python's own
        kill_in(rig.proxy("--proxy-mode", mode), whole * (0.4 + 0.6 * generation / kills))
    assert_converged(rig, mode, kills)


@pytest.mark.parametrize("mode", MODES)
def test_killed_while_it_follows_changes(rig: Rig, mode: str) -> None:
    write(rig, 0)
    kills = KILLS[mode] // 2
    for generation in range(1, kills + 1):
        proxy = rig.proxy("--proxy-mode", mode)
        proxy.ready()
        write(rig, generation)
        kill_in(proxy, 0.05 + 0.03 * generation)  # edits settle for 0.05 s, then they are read and written
    assert_converged(rig, mode, kills)
