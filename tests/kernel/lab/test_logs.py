"""Logs of a lab's Pods, through the API server and the agent of the Pod's node."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from svcplane.lab.cluster import STATE

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.tools("ip", "nsenter")]

NAME = f"l{os.getpid()}"
PROGRAM = [sys.executable, "-c", "from svcplane.cli.main import main; main()"]
CREATE = """
import asyncio, sys, yaml
from svcplane.api.resources import PODS
from svcplane.client.api import ApiClient
from svcplane.client.http import HttpTransport
from svcplane.client.kubeconfig import load

async def main():
    transport = HttpTransport(load(sys.argv[1]))
    api = ApiClient(transport)
    await api.create(PODS, "default", yaml.safe_load(sys.stdin))
    async with asyncio.timeout(30):
        while (await api.get(PODS, "default", "talker"))["status"].get("phase") != "Running":
            await asyncio.sleep(0.1)
    await transport.close()

asyncio.run(main())
"""
SCRIPT = "trap 'exit 0' TERM; for i in 1 2 3; do echo line $i; done; read x < $PIPE; echo last"


def pod(pipe: Path) -> str:
    container = {
        "name": "sh",
        "image": "any",
        "command": ["/bin/sh", "-c", SCRIPT],
        "env": [{"name": "PIPE", "value": str(pipe)}],
    }
    spec = {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 1}
    return yaml.safe_dump({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "talker"}, "spec": spec})


@pytest.fixture
def lab() -> Iterator[Callable[..., list[str]]]:
    """A lab of one node; gives the command line of a program in its control namespace."""
    subprocess.run([*PROGRAM, "lab", "up", "--name", NAME, "--nodes", "1"], check=True, capture_output=True, timeout=60)
    try:
        yield lambda *argv: [*PROGRAM, "lab", "exec", "--name", NAME, "control", "--", *argv]
    finally:
        subprocess.run([*PROGRAM, "lab", "down", "--name", NAME], check=True, capture_output=True, timeout=60)


def test_logs_are_read_and_followed_through_the_nodes_agent(lab: Callable[..., list[str]], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    kubeconfig = str(STATE / NAME / "api" / "kubeconfig.lab")
    made = subprocess.run(
        lab(sys.executable, "-c", CREATE, kubeconfig),
        input=pod(pipe),
        text=True,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert made.returncode == 0, made.stderr

    def logs(*flags: str) -> str:
        return subprocess.run(
            lab(*PROGRAM, "logs", "talker", *flags), check=True, capture_output=True, text=True, timeout=20
        ).stdout

    assert logs() == "line 1\nline 2\nline 3\n"
    assert logs("--tail", "1") == "line 3\n"
    if shutil.which("kubectl"):
        shown = subprocess.run(
            lab("kubectl", "logs", "talker", "--tail=2"), check=True, capture_output=True, text=True, timeout=20
        )
        assert shown.stdout == "line 2\nline 3\n"

    follow = subprocess.Popen(lab(*PROGRAM, "logs", "talker", "-f"), stdout=subprocess.PIPE, text=True)
    assert follow.stdout is not None
    assert [follow.stdout.readline() for _ in range(3)] == ["line 1\n", "line 2\n", "line 3\n"]
    pipe.write_text("go\n")
    assert follow.stdout.read() == "last\n"  # to the end: the container has ended, so has the following
    assert follow.wait(20) == 0

    wrong = subprocess.run(lab(*PROGRAM, "logs", "nobody"), capture_output=True, text=True, timeout=20, check=False)
    assert wrong.returncode == 1
    assert wrong.stderr == 'svcplane: pods "nobody" not found\n'


def test_interrupted_following_ends_at_once(lab: Callable[..., list[str]], tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    kubeconfig = str(STATE / NAME / "api" / "kubeconfig.lab")
    subprocess.run(lab(sys.executable, "-c", CREATE, kubeconfig), input=pod(pipe), text=True, check=True, timeout=60)
    follow = subprocess.Popen(lab(*PROGRAM, "logs", "talker", "-f"), stdout=subprocess.PIPE, text=True)
    assert follow.stdout is not None
    assert follow.stdout.readline() == "line 1\n"
    follow.send_signal(signal.SIGINT)
    assert follow.wait(10) == 130
