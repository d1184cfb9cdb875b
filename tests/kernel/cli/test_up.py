"""`svcplane up` as a person runs it, in a network namespace of its own: the host is left alone."""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from svcplane.kernel.links.objects import DEFAULT, Address, DeleteNamespace, NetworkSpace, Route, Veth
from svcplane.kernel.links.run import KernelLinks, command_in, ensure, pids_in
from svcplane.lab.client import ask_many
from svcplane.node.processes import ProcessId
from svcplane.node.run import namespace_prefix

pytestmark = [pytest.mark.root, pytest.mark.slow, pytest.mark.tools("ip", "nft", "nsenter")]

SPACE = f"svcup{os.getpid()}"
NODE = "solo"
WAIT_S = 90  # of a machine that does other things too
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
PROGRAM = [sys.executable, "-c", "from svcplane.cli.main import main; main()"]
PODS = ("hello-1", "hello-2", "hello-3")
APPLY = """
import sys
from kubernetes import client, config, utils
config.load_kube_config(sys.argv[1])
utils.create_from_directory(client.ApiClient(), sys.argv[2])
"""
GET = """
import asyncio, sys
from urllib.parse import parse_qsl
from svcplane.api.http import Request
from svcplane.client.http import HttpTransport
from svcplane.client.kubeconfig import load

async def main():
    transport = HttpTransport(load(sys.argv[1]))
    path, _, query = sys.argv[2].partition("?")
    answer = await transport.send(Request("GET", path, tuple(parse_qsl(query))))
    print(answer.body.decode())
    await transport.close()

asyncio.run(main())
"""


@pytest.fixture
def space() -> Iterator[str]:
    """A namespace with an address on a link, as a host has."""
    links = KernelLinks()
    link = Veth("peer", "eth0", SPACE, f"svcplane test {os.getpid()}")
    outside = f"{SPACE}o"
    address = (Address("eth0", "172.30.0.1/24"),)
    route = (Route.to(DEFAULT, "eth0", via="172.30.0.254"),)
    spaces = [NetworkSpace(outside, links=(link,)), NetworkSpace(SPACE, up=("eth0",), addresses=address, routes=route)]
    ensure(links, spaces, fresh=True)
    yield SPACE
    links.apply([DeleteNamespace(SPACE), DeleteNamespace(outside)])


class Up:
    """One run of `svcplane up`."""

    def __init__(self, data: Path, *more: str) -> None:
        self.data, self.kubeconfig = data, data / "kubeconfig"
        self.output = data.parent / "up.log"
        flags = ["--data-dir", str(data), "--hostname-override", NODE, *more]
        with open(self.output, "wb") as log:
            argv = command_in(SPACE, [*PROGRAM, "up", *flags])
            self.process = subprocess.Popen(argv, stdout=log, stderr=log, start_new_session=True)

    def run(self, *argv: str) -> str:
        """A command in the namespace; its output."""
        environment = os.environ | {"KUBECONFIG": str(self.kubeconfig)}
        done = subprocess.run(
            command_in(SPACE, argv), env=environment, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, (argv, done.stderr, self.output.read_text())
        return done.stdout

    def get(self, path: str) -> dict:
        return json.loads(self.run(sys.executable, "-c", GET, str(self.kubeconfig), path))

    def apply(self) -> None:
        if shutil.which("kubectl"):
            self.run("kubectl", "apply", "-f", str(EXAMPLES))
        else:
            self.run(sys.executable, "-c", APPLY, str(self.kubeconfig), str(EXAMPLES))

    async def until(self, condition: Callable[[], bool], what: str) -> None:
        try:
            async with asyncio.timeout(WAIT_S):
                while not condition():
                    assert self.process.poll() is None, self.output.read_text()
                    await asyncio.sleep(0.1)
        except TimeoutError:
            pytest.fail(f"{what}: not within {WAIT_S} seconds; {self.output.read_text()}")

    def addresses(self) -> dict[str, str]:
        """ClusterIPs by Service."""
        services = self.get("/api/v1/namespaces/default/services")["items"]
        return {item["metadata"]["name"]: item["spec"]["clusterIP"] for item in services}

    def pods(self) -> dict[str, str]:
        """UIDs of the Pods that are ready."""
        items = self.get("/api/v1/namespaces/default/pods")["items"]
        ready = {"type": "Ready", "status": "True"}.items()
        return {
            item["metadata"]["name"]: item["metadata"]["uid"]
            for item in items
            if any(ready <= condition.items() for condition in item.get("status", {}).get("conditions", []))
        }

    async def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)
        assert await asyncio.to_thread(self.process.wait, 30) == 0, self.output.read_text()


@contextlib.asynccontextmanager
async def started(data: Path, *flags: str) -> AsyncIterator[Up]:
    up = Up(data, *flags)
    try:
        await up.until(lambda: "svcplane is up" in up.output.read_text(), "svcplane is up")
        assert up.kubeconfig.exists()
        yield up
    finally:
        if up.process.poll() is None:
            up.process.kill()
            up.process.wait()


def pod_spaces(data: Path) -> list[str]:
    return list(KernelLinks().namespaces(namespace_prefix(NODE, data / "node")))


def rules() -> str:
    return subprocess.run(
        command_in(SPACE, ["nft", "list", "ruleset"]), capture_output=True, text=True, check=True, timeout=10
    ).stdout


def link_names() -> set[str]:
    shown = subprocess.run(
        ["ip", "-n", SPACE, "-j", "link"], capture_output=True, text=True, check=True, timeout=10
    ).stdout
    return {entry["ifname"] for entry in json.loads(shown)}


async def answers(up: Up, ip: str) -> set[str]:
    """Who answers at a ClusterIP; waits until every Pod does."""
    found: set[str] = set()
    async with asyncio.timeout(WAIT_S):
        while not set(PODS) <= found:
            counted = await ask_many(SPACE, ip, 80, 20)
            found |= set(counted)
    return found & set(PODS)


@pytest.mark.usefixtures("space")
async def test_up_serves_goes_on_where_it_was_and_leaves_nothing_behind(tmp_path: Path) -> None:
    data = tmp_path / "data"
    links = link_names()
    async with started(data) as up:
        assert up.kubeconfig.stat().st_mode & 0o077 == 0
        up.apply()
        await up.until(lambda: set(up.pods()) == set(PODS), "three ready Pods")
        ips, uids = up.addresses(), up.pods()
        assert await answers(up, ips["hello"]) == set(PODS)
        assert up.run(*PROGRAM, "logs", "hello-1", "--tail", "1") == "hello-1 answers on TCP 8080\n"
        way = up.get("/console/api/trace?source=solo&target=default/hello&port=80")
        assert way["trace"]["verdict"] == "deliver"
        assert way["trace"]["agree"] is True, way["trace"]["unread"]  # the live rules do what is desired
        assert len(way["trace"]["shares"]) == len(PODS)
        assert way["trace"]["way"]
        assert "svcplane" in rules()
        spaces = pod_spaces(data)
        assert len(spaces) == len(PODS)
        running = [ProcessId.of(pid) for name in spaces for pid in pids_in(name)]
        assert len(running) >= len(PODS)
        await up.interrupt()
    assert pod_spaces(data) == []
    assert pids_in(SPACE) == []
    assert [process for process in running if process.alive] == []
    assert rules() == ""
    assert link_names() == links

    async with started(data) as up:
        await up.until(lambda: set(up.pods()) == set(PODS), "the same Pods, ready again")
        assert up.addresses() == ips
        assert up.pods() == uids
        assert await answers(up, ips["hello"]) == set(PODS)
        await up.interrupt()
    assert pod_spaces(data) == []
    assert rules() == ""
    assert link_names() == links
