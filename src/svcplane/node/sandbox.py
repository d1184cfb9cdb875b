"""A Pod's sandbox as the agent sees it: network namespace, supervisor, runs.  I/O.

Directory of a Pod (`STATE/pods/UID`): sandbox.json (names and addresses), pid, ctl.sock, supervisor.log, records.json
(runs of a removed sandbox), logs/CONTAINER/ATTEMPT.log, volumes/NAME, root (empty: where a process's own view is
put together).  A sandbox lives as long as its supervisor.
"""

import asyncio
import contextlib
import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from svcplane.base.errors import KernelError
from svcplane.base.tasks import cancel_and_wait
from svcplane.kernel.links.objects import DeleteLink, DeleteNamespace, Links, Operation
from svcplane.kernel.links.run import path_of, pids_in
from svcplane.node import supervisor
from svcplane.node.model import Exit, Run
from svcplane.node.network import PodNetwork
from svcplane.node.processes import ProcessId
from svcplane.node.spec import Process

START_TIMEOUT_S, STOP_TIMEOUT_S = 20.0, 10.0
LOG_MAX_BYTES, LOG_MAX_FILES = 10 << 20, 5
KEPT_ATTEMPTS = 2
UNKNOWN_CODE = 137


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose sandbox it is.  Without a network the Pod shares the node's (hostNetwork)."""

    uid: str
    namespace: str
    name: str
    hostname: str
    ips: tuple[str, ...]
    network: PodNetwork | None


def run_id(uid: str, container: str, attempt: int) -> str:
    """64 hex digits, as container runtimes have them."""
    return hashlib.sha256(f"{uid}/{container}/{attempt}".encode()).hexdigest()


def run_of(record: Mapping[str, Any]) -> Run:
    """From the supervisor's record."""
    end = record["exit"]
    done = Exit(end["code"], end["signal"], end["finished"], end["reason"], end["message"]) if end else None
    return Run(record["run"], record["container"], record["attempt"], record["started"], done)


@dataclass(slots=True)
class Book:
    """The two newest runs of each container."""

    newest: dict[str, Run] = field(default_factory=dict)
    previous: dict[str, Run] = field(default_factory=dict)

    def note(self, run: Run) -> Run | None:
        """Record a run's start or end; returns a run that is no longer of interest."""
        now = self.newest.get(run.container)
        if now is None or now.id == run.id:
            self.newest[run.container] = run
            return None
        if run.attempt > now.attempt:
            gone = self.previous.get(run.container)
            self.previous[run.container], self.newest[run.container] = now, run
            return gone
        if run.attempt == now.attempt - 1:
            self.previous[run.container] = run
            return None
        return run

    def lost(self, now: float) -> None:
        """The supervisor is gone, and with it what ran: nobody saw the exits."""
        for name, run in self.newest.items():
            if run.exit is None:
                text = "The container could not be located when the pod was terminated"
                end = Exit(UNKNOWN_CODE, 0, now, "ContainerStatusUnknown", text)
                self.newest[name] = Run(run.id, name, run.attempt, run.started, end)


def pod_directory(state: Path, uid: str) -> Path:
    return state / "pods" / uid


def log_path(directory: Path, container: str, attempt: int) -> Path:
    return directory / "logs" / container / f"{attempt}.log"


class Sandbox:
    """One Pod's running sandbox.  `changed` is called when a run starts or ends or the supervisor is lost."""

    def __init__(self, identity: Identity, directory: Path, links: Links, changed: Callable[[], None]) -> None:
        self.identity, self.directory = identity, directory
        self.book = Book()
        self.alive = False
        self._links, self._wake = links, changed
        self._news = asyncio.Event()
        self._writer: asyncio.StreamWriter | None = None
        self._reader_task: asyncio.Task[None] | None = None
        self._reaper: asyncio.Task[int] | None = None
        self._waiting: dict[str, asyncio.Future[tuple[int, str]]] = {}  # exec id ->
        self._starting: dict[str, asyncio.Future[None]] = {}  # run id ->
        self._counter = 0

    @property
    def namespace(self) -> str:
        """Name of the network namespace; "" is the node's."""
        return self.identity.network.namespace if self.identity.network else ""

    def _changed(self) -> None:
        self._news.set()
        self._wake()

    # -- creation and adoption -------------------------------------------------------------------------------

    async def create(self, memory: Sequence[tuple[str, int]] = ()) -> None:
        """Make the namespace and start the supervisor.  Raises KernelError; nothing is left then but volumes.

        `memory`: directories that are to be in memory, and how large (bytes, 0: any) for as long as the sandbox lives.
        """
        (self.directory / "root").mkdir(parents=True, exist_ok=True, mode=0o700)
        netns = path_of(self.namespace) if self.namespace else ""
        config = asdict(self.identity) | {"netns": netns, "memory": list(memory)}
        _write_json(self.directory / "sandbox.json", config)
        try:
            if self.identity.network is not None:
                await asyncio.to_thread(self._links.apply, self.identity.network.creation())
            await self._start_supervisor()
            await self._connect()
        except BaseException:
            await self.remove(forget=False)
            raise

    async def _start_supervisor(self) -> None:
        with open(self.directory / "supervisor.log", "ab") as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-S",
                supervisor.__file__,
                str(self.directory),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._reaper = asyncio.create_task(process.wait(), name=f"supervisor of {self.identity.name}")
        assert process.stdout is not None
        async with asyncio.timeout(START_TIMEOUT_S):
            line = await process.stdout.readline()
        if line != b"ready\n":
            said = (self.directory / "supervisor.log").read_text(errors="replace").strip().splitlines()
            raise KernelError(f"the Pod's supervisor did not start: {said[-1] if said else 'no message'}")

    async def adopt(self) -> bool:
        """Connect to a supervisor an earlier agent left running; False if there is none."""
        if self.process() is None:
            return False
        try:
            await self._connect()
        except (OSError, TimeoutError):
            return False
        return True

    def process(self) -> ProcessId | None:
        """The supervisor, if it runs."""
        with contextlib.suppress(OSError):
            found = ProcessId.parse((self.directory / "pid").read_text())
            return found if found is not None and found.alive else None
        return None

    async def _connect(self) -> None:
        holder = os.open(self.directory, os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                path = f"/proc/self/fd/{holder}/ctl.sock"
                reader, self._writer = await asyncio.open_unix_connection(path, limit=1 << 24)
                self._receive(json.loads(await reader.readline()))
        finally:
            os.close(holder)
        self.alive = True
        self._reader_task = asyncio.create_task(self._read(reader), name=f"sandbox of {self.identity.name}")

    # -- conversation ----------------------------------------------------------------------------------------

    async def _read(self, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while line := await reader.readline():
                self._receive(json.loads(line))
        self.alive = False
        for future in self._waiting.values():
            if not future.done():
                future.set_result((UNKNOWN_CODE, "the Pod's supervisor has ended"))
        for start in self._starting.values():
            if not start.done():
                start.set_result(None)
        self._changed()

    def _receive(self, message: Mapping[str, Any]) -> None:
        match message["event"]:
            case "state":
                for record in sorted(message["runs"], key=lambda record: int(record["attempt"])):
                    self.book.note(run_of(record))
            case "started" | "exited":
                old = self.book.note(run_of(message["run"]))
                if old is not None:
                    self._forget(old)
                start = self._starting.pop(message["run"]["run"], None)
                if start is not None and not start.done():
                    start.set_result(None)
                self._changed()
            case "exec":
                future = self._waiting.pop(message["id"], None)
                if future is not None and not future.done():
                    future.set_result((message["code"], message["output"]))

    def _send(self, **message: object) -> None:
        if self._writer is not None and self.alive:
            self._writer.write(json.dumps(message).encode() + b"\n")

    def _forget(self, run: Run) -> None:
        self._send(op="forget", run=run.id)
        for path in log_path(self.directory, run.container, run.attempt).parent.glob(f"{run.attempt}.log*"):
            path.unlink(missing_ok=True)

    async def start(self, container: str, attempt: int, process: Process) -> None:
        """Start a container; when this returns its run is in the book, started or failed to start.

        Nothing happens if the supervisor is lost meanwhile.
        """
        run = run_id(self.identity.uid, container, attempt)
        if not self.alive:
            return
        done = self._starting[run] = asyncio.get_running_loop().create_future()
        self._send(
            op="start",
            run=run,
            container=container,
            attempt=attempt,
            argv=process.argv,
            **_surroundings(process),
            staging=str(self.directory / "root"),
            log=str(log_path(self.directory, container, attempt)),
            max_log_bytes=LOG_MAX_BYTES,
            max_log_files=LOG_MAX_FILES,
        )
        await done

    def signal(self, run: Run, number: int) -> None:
        self._send(op="signal", run=run.id, signal=number)

    async def exec(self, run: Run, process: Process, argv: Sequence[str], timeout_s: float) -> tuple[int, str]:
        """Run a command beside a container: exit code and output (10 KiB at most)."""
        self._counter += 1
        name = f"{os.getpid()}-{self._counter}"
        future: asyncio.Future[tuple[int, str]] = asyncio.get_running_loop().create_future()
        if not self.alive:
            return UNKNOWN_CODE, "the Pod's sandbox is gone"
        self._waiting[name] = future
        self._send(op="exec", id=name, run=run.id, argv=list(argv), **_surroundings(process), timeout=timeout_s)
        try:
            return await future
        finally:
            self._waiting.pop(name, None)

    async def end_all(self, grace_s: float) -> None:
        """TERM to every running container; returns when all have ended or after the grace period."""
        running = [run for run in self.book.newest.values() if run.running]
        for run in running:
            self.signal(run, signal.SIGTERM)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(grace_s):
                while self.alive and any(run.running for run in self.book.newest.values()):
                    self._news.clear()
                    await self._news.wait()

    # -- removal ---------------------------------------------------------------------------------------------

    async def remove(self, *, forget: bool = True) -> None:
        """End every process and remove the network; `forget` the logs and records too.  Safe to call again."""
        running = self.process()
        self._send(op="shutdown")
        if running is not None and not await running.ended(STOP_TIMEOUT_S if self.alive else 0):
            await running.stop(1)
        await self.disconnect()
        await asyncio.to_thread(self._remove_network)
        if self._reaper is not None:
            await self._reaper
        if forget:
            await asyncio.to_thread(shutil.rmtree, self.directory, True)
        else:
            runs = [*self.book.previous.values(), *self.book.newest.values()]
            _write_json(self.directory / "records.json", [asdict(run) for run in runs])
            (self.directory / "sandbox.json").unlink(missing_ok=True)

    def _remove_network(self) -> None:
        net = self.identity.network
        if net is None:
            return
        for _ in range(50):
            left = pids_in(net.namespace)
            if not left:
                break
            for pid in left:
                ProcessId.of(pid).send(signal.SIGKILL)
        for operation in (DeleteLink("", net.link), DeleteNamespace(net.namespace)):
            _apply_if_there(self._links, operation)

    async def disconnect(self) -> None:
        """Leave the sandbox alone: it goes on, to be adopted."""
        await cancel_and_wait(self._reader_task)
        if self._writer is not None:
            self._writer.close()
            with contextlib.suppress(OSError):
                await self._writer.wait_closed()
        self._writer, self._reader_task, self.alive = None, None, False


def _surroundings(process: Process) -> dict[str, Any]:
    """Of a request: in what a command runs."""
    user = asdict(process.user) if process.user is not None else None
    mounts = [asdict(mount) for mount in process.mounts]
    return {"env": dict(process.env), "cwd": process.cwd, "user": user, "mounts": mounts}


def _apply_if_there(links: Links, operation: Operation) -> None:
    """Delete what may be gone already."""
    try:
        links.apply([operation])
    except KernelError as error:
        if not any(text in str(error) for text in ("Cannot find device", "No such file", "Cannot open")):
            raise


def _write_json(path: Path, value: object) -> None:
    temporary = path.with_name(path.name + ".new")
    temporary.write_text(json.dumps(value))
    os.replace(temporary, path)


def load_identity(directory: Path) -> Identity | None:
    """Whose sandbox a directory holds, or None."""
    try:
        config = json.loads((directory / "sandbox.json").read_text())
        net = config["network"]
        network = (
            PodNetwork(net["namespace"], net["link"], net["mark"], tuple(net["ips"]), tuple(net["cidrs"]))
            if net
            else None
        )
        names = (config["uid"], config["namespace"], config["name"], config["hostname"])
        return Identity(*names, tuple(config["ips"]), network)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def load_records(directory: Path) -> Book:
    """Runs of a sandbox that was removed while its Pod stayed."""
    book = Book()
    try:
        records = json.loads((directory / "records.json").read_text())
    except (OSError, ValueError):
        return book
    for record in records:
        end = record.pop("exit")
        book.note(Run(**record, exit=Exit(**end) if end else None))
    return book
