"""The traffic matrix in ipvs mode: real packets through two nodes, on a kernel that has IPVS.

Where this host's kernel has none, two user-mode Linux run half of the scenarios each.  `tests/matrix/ipvs.json` holds
the cells in which ipvs mode is not as recorded (null: not the same every time); docs/compatibility.md says the same
in words.
"""

import asyncio
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from svcplane.kernel import uml
from svcplane.kernel.ipvs.run import IpvsSocket

ROOT = Path(__file__).parents[2]
HERE = ROOT / "tests" / "matrix"
OWN: dict[str, Any] = json.loads((HERE / "ipvs.json").read_text())
RECORDED: dict[str, dict[str, Any]] = {
    scenario["name"]: scenario for path in (HERE / "data").glob("*.json") if (scenario := json.loads(path.read_text()))
}
SCENARIOS = sorted(RECORDED.keys() - OWN["left_out"].keys())
KERNELS = 2
TIMEOUT_S = 840
COMMAND = f"exec {sys.executable} -c 'from svcplane.cli.main import main; main()'"
APISERVER = (
    f"{COMMAND} apiserver --bind-address {{address}} --secure-port {{port}} --token-auth-file {{token_file}} "
    "--service-cluster-ip-range {service_cidr} --data-dir {work}/data"
)
PROXY = (
    f"{COMMAND} proxy --proxy-mode={{mode}} --hostname-override={{node}} --kubeconfig={{kubeconfig}} "
    "--cluster-cidr={cluster_cidr} {extra}"
)


def command(names: list[str], share: Path) -> list[str]:
    """The bench on these scenarios, with our own cells put in."""
    data = share / "scenarios"
    data.mkdir()
    for name in names:
        scenario = dict(RECORDED[name])
        cells = {key: cell for key, cell in OWN["cells"].get(name, {}).items() if key != "why"}
        known = scenario["expect"].keys() | scenario.get("expect_by_mode", {}).get("iptables", {}).keys()
        assert cells.keys() <= known | scenario.get("expect_by_mode", {}).get("ipvs", {}).keys(), name
        by_mode = scenario.get("expect_by_mode", {})
        expected = {**scenario["expect"], **by_mode.get("ipvs", {}), **cells}
        scenario["expect"] = {key: cell for key, cell in expected.items() if cell is not None}  # None: not compared
        scenario["expect_by_mode"] = {}
        (data / f"{name}.json").write_text(json.dumps(scenario))
    # user-mode Linux is slow: a little more time for what is under way
    return [
        *(sys.executable, str(HERE / "bench" / "matrix.py"), "run", "--mode", "ipvs", "--unrecorded"),
        *("--prefix", f"v{os.getpid() % 100000}-", "--work", str(share / "work")),
        *("--settle", "0.3", "--timeout", "0.8", "--sync-timeout", "60"),
        *("--apiserver-command", APISERVER, "--proxy-command", PROXY, str(data)),
    ]


def outputs(shares: list[Path]) -> list[str]:
    parts = [SCENARIOS[at :: len(shares)] for at in range(len(shares))]
    if os.geteuid() == 0 and asyncio.run(IpvsSocket().available()):
        done = [
            subprocess.run(command(part, share), capture_output=True, text=True, timeout=900, cwd=ROOT, check=False)
            for part, share in zip(parts, shares, strict=True)
        ]
        return [each.stdout + each.stderr for each in done]
    environment = {"PYTHONPATH": os.environ.get("PYTHONPATH", "")}
    running = [
        uml.Uml(command(part, share), share, cwd=ROOT, environment=environment)
        for part, share in zip(parts, shares, strict=True)
    ]
    try:
        return [each.wait(TIMEOUT_S).output for each in running]
    finally:
        for each in running:
            each.kill()


@pytest.fixture(scope="session")
def measured(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """scenario -> `` where every cell was as expected, else what the bench says."""
    results: dict[str, str] = {}
    for output in outputs([tmp_path_factory.mktemp(f"ipvs{number}") for number in range(KERNELS)]):
        current = ""
        for line in output.splitlines():
            if match := re.match(r"(PASS|FAIL) (\S+)", line):
                current = match[2].rstrip(":")
                results[current] = "" if match[1] == "PASS" else line
            elif results.get(current):
                results[current] += "\n" + line
        assert current, output
    return results


@pytest.mark.root
@pytest.mark.tools("ip", "ipset", "conntrack", "linux.uml", "modprobe")
@pytest.mark.timeout(900)
@pytest.mark.parametrize("scenario", SCENARIOS)
def test_packets_go_where_kube_proxy_sends_them(scenario: str, measured: dict[str, str]) -> None:
    assert not measured[scenario]
