"""`svcplane node` and its end, in a network namespace of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.root, pytest.mark.tools("ip", "unshare")]

PROGRAM = ["unshare", "--net", sys.executable, "-c", "from svcplane.cli.main import main; main()"]


def test_node_agent_that_waits_for_its_server_can_be_stopped(tmp_path: Path) -> None:
    kubeconfig = tmp_path / "kubeconfig"
    cluster = '{name: a, cluster: {server: "http://127.0.0.1:1"}}'  # out of reach: this network has nothing
    kubeconfig.write_text(
        f"clusters: [{cluster}]\ncontexts: [{{name: a, context: {{cluster: a}}}}]\ncurrent-context: a\n"
    )
    argv = [*PROGRAM, "node", "--kubeconfig", str(kubeconfig), "--state-dir", str(tmp_path / "state")]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as agent:
        assert agent.stderr is not None
        try:
            assert any("node not registered yet" in line for line in agent.stderr)
            agent.terminate()
            assert "stopped before the node was up" in agent.stderr.read()
            assert agent.wait(timeout=20) == 0
        finally:
            agent.kill()
