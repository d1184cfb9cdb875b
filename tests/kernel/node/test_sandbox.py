"""Sandboxes with real namespaces and processes."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from svcplane.kernel.links.run import KernelLinks, command_in, pids_in
from svcplane.node.model import Run
from svcplane.node.network import pod_network
from svcplane.node.processes import ProcessId
from svcplane.node.sandbox import Identity, Sandbox, load_identity, load_records, log_path
from svcplane.node.spec import DEFAULT_PATH, Process

pytestmark = [
    pytest.mark.root,
    pytest.mark.tools("ip"),
]

PREFIX = f"svt{os.getpid()}-"
CIDR = f"10.{os.getpid() % 200 + 20}.{os.getpid() // 200 % 250}.0/24"


def identity(uid: str) -> Identity:
    ips = (CIDR.replace(".0/24", ".2"),)
    network = pod_network(PREFIX, uid, "default", "web", ips, (CIDR,))
    return Identity(uid, "default", "web", "web", ips, network)


class Bench:
    """A sandbox and an event that tells of its changes.  Its node side is in a namespace of its own."""

    def __init__(self, directory: Path) -> None:
        self.event = asyncio.Event()
        self.directory = directory
        self.box = self.another()

    def another(self) -> Sandbox:
        return Sandbox(identity("0a1b2c3d-x"), self.directory, KernelLinks(), self.event.set)

    async def start(self, name: str, *argv: str, attempt: int = 0, **env: str) -> None:
        await self.box.start(name, attempt, Process(argv, {"PATH": DEFAULT_PATH} | env, ""))

    async def ended(self, name: str) -> Run:
        while True:
            run = self.box.book.newest.get(name)
            if run is not None and run.exit is not None:
                return run
            await self.change()

    async def started(self, name: str) -> Run:
        while name not in self.box.book.newest:
            await self.change()
        return self.box.book.newest[name]

    async def change(self) -> None:
        async with asyncio.timeout(20):
            await self.event.wait()
        self.event.clear()

    def log(self, name: str, attempt: int = 0) -> list[list[str]]:
        text = log_path(self.directory, name, attempt).read_text()
        return [line.split(" ", 3)[1:] for line in text.splitlines()]


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path / "pod")
    await made.box.create()
    yield made
    await made.box.remove()
    assert not KernelLinks().namespaces(PREFIX)


async def test_container_that_ends_reports_code_and_keeps_its_output(bench: Bench) -> None:
    await bench.start("main", "sh", "-c", "echo out; echo err >&2; printf partial; exit 7")
    run = await bench.ended("main")
    assert run.exit is not None
    assert (run.exit.code, run.exit.signal) == (7, 0)
    assert sorted(bench.log("main")) == [["stderr", "F", "err"], ["stdout", "F", "out"], ["stdout", "F", "partial"]]


async def test_signalled_container_reports_the_signal(bench: Bench) -> None:
    await bench.start("main", "sleep", "1000")
    bench.box.signal(await bench.started("main"), signal.SIGTERM)
    run = await bench.ended("main")
    assert run.exit is not None
    assert (run.exit.code, run.exit.signal) == (143, 15)


async def test_missing_program_is_a_start_error_that_names_it(bench: Bench) -> None:
    await bench.start("main", "no-such-program")
    run = await bench.ended("main")
    assert run.exit is not None
    assert (run.exit.code, run.exit.reason) == (128, "StartError")
    assert run.exit.message == 'exec: "no-such-program": executable file not found in $PATH'


async def test_container_sees_its_own_network_and_hostname(bench: Bench) -> None:
    await bench.start("main", "sh", "-c", "hostname; ip -o -4 address show dev eth0; ip route show default")
    await bench.ended("main")
    lines = [text for _, _, text in bench.log("main")]
    address, gateway = bench.box.identity.ips[0], CIDR.replace(".0/24", ".1")
    assert lines[0] == "web"
    assert f"{address}/32" in lines[1]
    assert lines[2].startswith(f"default via {gateway} dev eth0")


async def test_what_a_container_leaves_behind_dies_with_it(bench: Bench) -> None:
    await bench.start("main", "sh", "-c", "setsid sleep 1000 & setsid setsid sleep 1000 & sleep 0.2")
    await bench.ended("main")
    supervisor = bench.box.process()
    assert supervisor is not None
    async with asyncio.timeout(10):
        while pids_in(bench.box.namespace) != [supervisor.pid]:
            await asyncio.sleep(0.01)


async def test_exec_gives_code_and_output_and_ends_at_its_timeout(bench: Bench) -> None:
    await bench.start("main", "sleep", "1000")
    run = await bench.started("main")
    process = Process((), {"PATH": DEFAULT_PATH, "WORD": "hello"}, "")
    for _ in range(20):  # its end and its output are told to the supervisor in either order
        assert await bench.box.exec(run, process, ["sh", "-c", "echo $WORD; exit 3"], 10) == (3, "hello\n")
    code, _ = await bench.box.exec(run, process, ["sleep", "1000"], 0.2)
    assert code == 137


async def test_agent_that_returns_adopts_processes_and_learns_of_exits(bench: Bench) -> None:
    await bench.start("stays", "sleep", "1000")
    await bench.start("goes", "sh", "-c", "sleep 0.3; exit 5")
    await bench.started("stays")
    await bench.started("goes")
    await bench.box.disconnect()
    await asyncio.sleep(0.6)
    assert load_identity(bench.directory) == bench.box.identity
    bench.box = bench.another()
    assert await bench.box.adopt()
    goes = await bench.ended("goes")
    assert goes.exit is not None
    assert goes.exit.code == 5
    assert (await bench.started("stays")).running


async def test_lost_supervisor_takes_its_processes_along(bench: Bench) -> None:
    await bench.start("main", "sleep", "1000")
    await bench.started("main")
    process = bench.box.process()
    assert process is not None
    os.kill(process.pid, signal.SIGKILL)
    async with asyncio.timeout(10):
        while bench.box.alive:
            await bench.change()
        while pids_in(bench.box.namespace):
            await asyncio.sleep(0.01)


async def test_removed_sandbox_keeps_records_when_asked(bench: Bench) -> None:
    await bench.start("main", "sh", "-c", "echo done")
    await bench.ended("main")
    await bench.box.remove(forget=False)
    assert load_records(bench.directory).newest == bench.box.book.newest
    assert bench.log("main") == [["stdout", "F", "done"]]


async def test_log_rotates_by_size_and_keeps_its_newest_lines(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svcplane.node.sandbox.LOG_MAX_BYTES", 4096)
    monkeypatch.setattr("svcplane.node.sandbox.LOG_MAX_FILES", 3)
    await bench.start("main", "sh", "-c", "for i in $(seq 1000); do echo line $i; done")
    await bench.ended("main")
    path = log_path(bench.directory, "main", 0)
    assert sorted(file.name for file in path.parent.iterdir()) == ["0.log", "0.log.1", "0.log.2"]
    assert all(file.stat().st_size <= 4096 for file in path.parent.iterdir())
    assert bench.log("main")[-1][2] == "line 1000"


async def test_command_in_a_namespace_runs_there(bench: Bench) -> None:
    argv = command_in(bench.box.namespace, ["ip", "-o", "address", "show", "dev", "eth0"])
    process = await asyncio.create_subprocess_exec(*argv, stdout=asyncio.subprocess.PIPE)
    output, _ = await process.communicate()
    assert bench.box.identity.ips[0].encode() in output


async def test_process_id_of_a_reused_pid_is_not_alive() -> None:
    me = ProcessId.of(os.getpid())
    assert me.alive
    assert not ProcessId(me.pid, "1").alive
