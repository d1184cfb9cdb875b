"""`svcplane up --proxy-mode ipvs` as a person runs it, and what the verbs that look at a node tell then."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.kernel.cli import test_up as rig

from svcplane.kernel.links.run import command_in
from svcplane.lab.client import ask

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.tools("linux.uml", "modprobe", "ipset", "nsenter"),
    pytest.mark.timeout(300),
]
space = rig.space


def told(*argv: str) -> str:
    return subprocess.run(command_in(rig.SPACE, argv), capture_output=True, text=True, check=True, timeout=60).stdout


def svcplane(*words: str) -> Any:
    """What a verb tells of this node."""
    return json.loads(told(*rig.PROGRAM, *words, "-o", "json"))


@pytest.mark.usefixtures("space")
async def test_up_serves_by_ipvs_and_leaves_nothing_behind(tmp_path: Path) -> None:
    links = rig.link_names()
    async with rig.started(tmp_path / "data", "--proxy-mode", "ipvs") as up:
        up.apply()
        await up.until(lambda: set(up.pods()) == set(rig.PODS), "three ready Pods")
        assert await rig.answers(up, up.addresses()["hello"]) == set(rig.PODS)
        assert "SVCPLANE-CLUSTER-IP" in told("ipset", "list", "-n")
        assert "kube-ipvs0" in rig.link_names()
        answered = await ask(rig.SPACE, up.addresses()["sticky"], 80)
        (stuck,) = svcplane("affinity", "list")["clients"]
        assert (stuck["service"].partition(":")[0], stuck["pod"]) == ("default/sticky", f"default/{answered}")
        traced = svcplane("trace", "svc/hello:80", "--from", "node")["trace"]
        assert (traced["mode"], traced["agree"]) == ("ipvs", True)
        assert {share["pod"] for share in traced["shares"]} == {f"default/{name}" for name in rig.PODS}
        assert svcplane("plan", "--drift")["operations"] == []
        await up.interrupt()
    assert told("ipset", "list", "-n") == ""
    assert "SVCPLANE" not in told("iptables-save")
    assert rig.link_names() == links
