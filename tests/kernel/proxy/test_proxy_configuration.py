"""The proxy as kube-proxy's users run it: configuration files, flags, parameters, pages."""

import json
from pathlib import Path

import pytest

from noderig import ENDPOINTS, NODE_IP, Rig

pytestmark = [pytest.mark.root, pytest.mark.tools("ip", "nft", "conntrack"), pytest.mark.xdist_group("proxy")]
HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
TIMEOUT = "net.netfilter.nf_conntrack_tcp_timeout_established"


def test_a_configuration_file_is_followed(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    file.write_text(HEAD + "mode: nftables\nconntrack: {tcpEstablishedTimeout: 2h}\n")
    rig.write(ENDPOINTS[0])
    proxy = rig.proxy("--config", str(file), "--proxy-mode", "no-such-mode")
    proxy.ready()
    assert "--proxy-mode is passed over, for --config is given" in proxy.log
    proxy.until(lambda: f"set {TIMEOUT} to 7200" in proxy.log)
    assert rig.on_node("sysctl", "-n", TIMEOUT).strip() == "7200"
    rig.on_node("sysctl", "-qw", f"{TIMEOUT}=77")
    proxy.until(lambda: f"somebody changed {TIMEOUT}: set to 7200 again" in proxy.log)
    assert rig.on_node("sysctl", "-n", TIMEOUT).strip() == "7200"
    assert rig.ask(NODE_IP, 30080) == ENDPOINTS[0]
    status, body = proxy.page("/configz")
    assert status == 200
    assert json.loads(body)["kubeproxy.config.k8s.io"]["conntrack"]["tcpEstablishedTimeout"] == "2h0m0s"

    file.write_text(HEAD + "mode: nftables\nnodePortAddress: [192.0.2.0/24]\n")
    proxy.until(lambda: f"--config {file}: unknown field nodePortAddress; the configuration stays" in proxy.log)
    assert rig.ask(NODE_IP, 30080) == ENDPOINTS[0]

    file.write_text(HEAD + "mode: nftables\nnodePortAddresses: [192.0.2.0/24]\n")

    def closed() -> bool:
        try:
            return not rig.ask(NODE_IP, 30080, timeout=0.3)
        except OSError:
            return True

    proxy.until(closed)
    assert rig.ask() == ENDPOINTS[0]
    assert json.loads(proxy.page("/configz")[1])["kubeproxy.config.k8s.io"]["nodePortAddresses"] == ["192.0.2.0/24"]
    assert proxy.page("/proxyMode") == (200, "nftables")
    assert 'kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"} 2.0' in proxy.page("/metrics")[1]
    assert proxy.end() == 0


def test_init_only_sets_parameters_and_nothing_else(rig: Rig) -> None:
    rig.on_node("nft", "add table ip x; add chain ip x y { type nat hook output priority 0; }")  # conntrack is loaded
    done = rig.run("--init-only", "--conntrack-tcp-timeout-established=1h")
    assert done.returncode == 0, done.stderr
    assert rig.on_node("sysctl", "-n", TIMEOUT).strip() == "3600"
    assert "svcplane" not in rig.on_node("nft", "list", "ruleset")


def test_the_configuration_of_flags_can_be_written(rig: Rig, tmp_path: Path) -> None:
    file = tmp_path / "made.yaml"
    done = rig.run("--write-config-to", str(file), "--cluster-cidr=10.244.0.0/16", "--healthz-bind-address=127.0.0.1")
    assert done.returncode == 0, done.stderr
    text = file.read_text()
    assert "clusterCIDR: 10.244.0.0/16" in text
    assert "healthzBindAddress: 127.0.0.1:10256" in text
    rig.write(ENDPOINTS[0])
    rig.proxy("--config", str(file)).ready()


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--proxy-mode", "magic"], "svcplane: --proxy-mode magic: must be one of "),
        (["--nodeport-addresses", "10.0.0.1"], "svcplane: --nodeport-addresses 10.0.0.1: must be a valid CIDR"),
        (["--config", "/no/such/file"], "svcplane: --config /no/such/file: No such file or directory"),
        (["--manifests", "/no/such/directory"], "svcplane: --manifests /no/such/directory: is no directory"),
    ],
)
def test_what_is_wrong_is_told_in_one_line(rig: Rig, flags: list[str], told: str) -> None:
    done = rig.run(*flags)
    assert done.returncode == 2
    (line,) = [line for line in done.stderr.splitlines() if "oom_score_adj" not in line]
    assert line.startswith(told)


def test_a_port_that_is_taken_is_told_once_and_had_later(rig: Rig) -> None:
    rig.write(ENDPOINTS[0])
    first = rig.proxy("--metrics-bind-address", "")
    first.ready()
    second = rig.proxy("--metrics-bind-address", "127.0.0.1:10250")
    second.until(lambda: "cannot listen on 0.0.0.0:10256" in second.log)
    first.end()
    second.ready()
    assert second.log.count("cannot listen on 0.0.0.0:10256") == 1
