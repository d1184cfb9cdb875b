"""Services from files, with real packets."""

import pytest

from noderig import ENDPOINTS, NODE_IP, Rig

pytestmark = [pytest.mark.root, pytest.mark.tools("ip", "nft", "conntrack"), pytest.mark.xdist_group("proxy")]


def test_files_become_services_and_edits_follow(rig: Rig) -> None:
    rig.write(ENDPOINTS[0])
    proxy = rig.proxy()
    proxy.ready()
    assert rig.ask() == ENDPOINTS[0]
    assert rig.ask(NODE_IP, 30080) == ENDPOINTS[0]
    rig.write(ENDPOINTS[1])
    proxy.until(lambda: rig.ask() == ENDPOINTS[1])
    rig.write("10.201.0.3.4")
    proxy.until(lambda: "endpoints[0].addresses[0]: Invalid value" in proxy.log)
    assert rig.ask() == ENDPOINTS[1]
    (rig.manifests / "web.json").unlink()
    proxy.until(lambda: "manifest removed" in proxy.log)
    proxy.until(lambda: "10.96.0.10" not in rig.on_node("nft", "list", "ruleset"))
    assert proxy.end() == 0


def test_a_mistake_at_the_start_leaves_the_kernel_as_it_was(rig: Rig) -> None:
    rig.write(ENDPOINTS[0])
    proxy = rig.proxy()
    proxy.ready()
    proxy.end()
    rig.write("10.201.0.3.4")
    again = rig.run("--manifests", str(rig.manifests))
    assert again.returncode == 2
    lines = [line for line in again.stderr.splitlines() if "oom_score_adj" not in line]
    assert len(lines) == 1, again.stderr
    assert "web.json: EndpointSlice web-1: endpoints[0].addresses[0]: Invalid value" in again.stderr
    assert rig.ask() == ENDPOINTS[0]
    assert rig.run("--cleanup").returncode == 0
    assert rig.on_node("nft", "list", "ruleset") == ""
