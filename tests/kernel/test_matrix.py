"""Real packets through two nodes: what was recorded from kube-proxy, sent through this proxy."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent.parent / "matrix"
MODES = ("nftables",)
NOT_YET: dict[str, dict[str, str]] = json.loads((HERE / "not_yet.json").read_text())
SCENARIOS = sorted(json.loads(path.read_text())["name"] for path in (HERE / "data").glob("*.json"))
COMMAND = f"exec {sys.executable} -c 'from svcplane.cli.main import main; main()'"
APISERVER = (
    f"{COMMAND} apiserver --bind-address {{address}} --secure-port {{port}} --token-auth-file {{token_file}} "
    "--service-cluster-ip-range {service_cidr} --data-dir {work}/data"
)
PROXY = (
    f"{COMMAND} proxy --proxy-mode={{mode}} --hostname-override={{node}} --kubeconfig={{kubeconfig}} "
    "--cluster-cidr={cluster_cidr} {extra}"
)


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, str], str]:
    """(mode, scenario) -> `` where every cell was as recorded, else what the bench says."""
    results: dict[tuple[str, str], str] = {}
    for mode in MODES:
        command = [sys.executable, str(HERE / "bench" / "matrix.py"), "run", "--mode", mode]
        command += ["--prefix", f"m{os.getpid() % 100000}-", "--work", str(tmp_path_factory.mktemp(mode))]
        command += ["--apiserver-command", APISERVER, "--proxy-command", PROXY, str(HERE / "data")]
        run = subprocess.run(command, capture_output=True, text=True, timeout=900, check=False)
        current = ""
        for line in run.stdout.splitlines():
            if match := re.match(r"(PASS|FAIL) (\S+)", line):
                current = match[2].rstrip(":")
                results[mode, current] = "" if match[1] == "PASS" else line
            elif current and results.get((mode, current)):
                results[mode, current] += "\n" + line
        assert results, run.stdout + run.stderr
    return results


@pytest.mark.root
@pytest.mark.tools("ip", "nft", "conntrack")
@pytest.mark.xdist_group("matrix")
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_packets_go_where_kube_proxy_sends_them(mode: str, scenario: str, measured: dict[tuple[str, str], str]) -> None:
    difference = measured[mode, scenario]
    if scenario in NOT_YET.get(mode, {}):
        assert difference, f"{scenario} passes now: take it off tests/matrix/not_yet.json"
    else:
        assert not difference
