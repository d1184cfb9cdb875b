"""One Pod's supervisor: a small program that outlives the agent.

Started as `python -I -S supervisor.py DIR` with a session of its own.  It moves into the Pod's network
namespace, starts the containers' processes when told to, reaps them and everything they leave behind, writes
their output to log files, and remembers every exit until the agent asks.  Of svcplane it imports `capture`,
`launch` and `mounts` only, which import nothing more, and it keeps working while no agent is connected.

Wire: DIR/ctl.sock, JSON lines.  On connecting, {"event": "state", "runs": [...]}.  Requests: start, signal, exec,
forget, shutdown.  Events: started, exited, exec.  "ready" on standard output once it listens.
DIR/pid holds `PID STARTTIME`.

Invariants: a container's process never outlives its supervisor (parent-death signal); what a container leaves
behind when its main process ends is killed; an exit is reported to every agent that ever connects.
"""

from __future__ import annotations

import ctypes
import errno
import functools
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import time

if __name__ == "__main__":  # run with -I -S, which leaves the package out of the path
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from svcplane.node import mounts
from svcplane.node.capture import Log, Pipe, outputs, readable
from svcplane.node.launch import libc, spawn, starttime_of, why

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself would double the time to start
    from collections.abc import Callable
    from typing import IO, Any

    Message = dict[str, Any]

CLONE_NEWNET, CLONE_NEWUTS = 0x40000000, 0x04000000
PR_SET_CHILD_SUBREAPER = 36
EXEC_OUTPUT_MAX = 10 * 1024
MARK = "SVCPLANE_RUN"
START_ERROR_CODE = 128


class Supervisor:
    def __init__(self, directory: str) -> None:
        self.directory = directory
        with open(os.path.join(directory, "sandbox.json"), encoding="utf-8") as file:
            self.config: Message = json.load(file)
        self.selector = selectors.DefaultSelector()
        self.runs: dict[str, Message] = {}  # run id -> dict as reported
        self.by_pid: dict[int, tuple[str, str]] = {}  # pid -> ("run", id) | ("exec", id)
        self.execs: dict[str, Message] = {}  # request id -> {pid, output, deadline, connection}
        self.logs: dict[str, list[Any]] = {}  # run id -> [Log, open pipes]
        self.connections: dict[socket.socket, bytes] = {}  # socket -> unread bytes
        self.pipes: dict[str, dict[IO[bytes], Callable[[], None]]] = {}  # run or request id -> {file: its reader}
        self.stopping = False

    # -- set-up ----------------------------------------------------------------------------------------------

    def prepare(self) -> None:
        path = self.config.get("netns")
        if path:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            if libc.setns(descriptor, CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns")
            os.close(descriptor)
            if self.config.get("hostname") and libc.unshare(CLONE_NEWUTS) == 0:
                socket.sethostname(self.config["hostname"])
        if self.config.get("memory"):
            mounts.own_view()  # so that what is in memory goes with this process
            for volume, size in self.config["memory"]:
                mounts.in_memory(volume, size)
        libc.prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for ignored in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(ignored, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, lambda *_: setattr(self, "stopping", True))
        wake_read, wake_write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        self.selector.register(wake_read, selectors.EVENT_READ, lambda: os.read(wake_read, 4096))
        self.listen()
        temporary = os.path.join(self.directory, "pid.new")
        with open(temporary, "w", encoding="ascii") as file:
            file.write(f"{os.getpid()} {starttime_of(os.getpid())}\n")
        os.replace(temporary, os.path.join(self.directory, "pid"))

    def listen(self) -> None:
        # Through the directory's descriptor: a socket's path may have 107 bytes only.
        holder = os.open(self.directory, os.O_DIRECTORY | os.O_CLOEXEC)
        path = f"/proc/self/fd/{holder}/ctl.sock"
        if os.path.exists(path):
            os.unlink(path)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        old = os.umask(0o177)
        server.bind(path)
        os.umask(old)
        server.listen(8)
        self.selector.register(server, selectors.EVENT_READ, lambda: self.accept(server))

    def accept(self, server: socket.socket) -> None:
        try:
            connection, _ = server.accept()
        except OSError:
            return
        connection.setblocking(False)
        self.connections[connection] = b""
        self.selector.register(connection, selectors.EVENT_READ, lambda: self.receive(connection))
        self.send(connection, {"event": "state", "runs": list(self.runs.values())})

    # -- wire ------------------------------------------------------------------------------------------------

    def send(self, connection: socket.socket, message: Message) -> None:
        try:
            connection.setblocking(True)
            connection.settimeout(5)
            connection.sendall(json.dumps(message).encode() + b"\n")
            connection.setblocking(False)
        except OSError:
            self.drop(connection)

    def drop(self, connection: socket.socket) -> None:
        if connection in self.connections:
            del self.connections[connection]
            self.selector.unregister(connection)
            connection.close()

    def broadcast(self, message: Message) -> None:
        for connection in list(self.connections):
            self.send(connection, message)

    def receive(self, connection: socket.socket) -> None:
        try:
            data = connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self.drop(connection)
            return
        *lines, self.connections[connection] = (self.connections[connection] + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            getattr(self, "do_" + request["op"])(request, connection)

    def do_start(self, request: Message, connection: socket.socket) -> None:
        run = request["run"]
        if run in self.runs:
            return
        record = {key: request[key] for key in ("run", "container", "attempt")}
        record |= {"started": time.time(), "pid": 0, "exit": None}
        self.runs[run] = record
        log = Log(request["log"], request["max_log_bytes"], request["max_log_files"])
        try:
            process = spawn(request, {MARK: run})
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            log.close()
            self.ended(
                record, {"code": START_ERROR_CODE, "signal": 0, "reason": "StartError", "message": why(error, request)}
            )
            return
        record["pid"] = process.pid
        self.by_pid[process.pid] = ("run", run)
        self.logs[run] = [log, 2]
        for file, stream in zip(outputs(process), (b"stdout", b"stderr"), strict=True):
            pipe = Pipe(file.fileno(), stream, log.write)
            ready = self.watch_pipe(file, pipe, functools.partial(self.pipe_closed, run))
            self.pipes.setdefault(run, {})[file] = ready
        self.broadcast({"event": "started", "run": record})

    def do_signal(self, request: Message, connection: socket.socket) -> None:
        record = self.runs.get(request["run"])
        if record is None or record["exit"] is not None:
            return
        try:
            os.kill(record["pid"], request["signal"])
            if request["signal"] == signal.SIGKILL:
                os.killpg(record["pid"], signal.SIGKILL)
        except ProcessLookupError:
            pass

    def do_exec(self, request: Message, connection: socket.socket) -> None:
        output: list[bytes] = []
        job: Message = {"output": output, "connection": connection, "deadline": time.monotonic() + request["timeout"]}
        beside = self.runs.get(request["run"], {}).get("pid", 0)
        try:
            process = spawn(request, {MARK: request["run"]}, beside=beside)
        except (OSError, ValueError, subprocess.SubprocessError) as error:
            self.send(connection, {"event": "exec", "id": request["id"], "code": 126, "output": why(error, request)})
            return
        job["pid"] = process.pid
        self.execs[request["id"]] = job
        self.by_pid[process.pid] = ("exec", request["id"])

        def keep(stream: bytes, tag: bytes, text: bytes) -> None:
            if sum(map(len, output)) < EXEC_OUTPUT_MAX:
                output.append(text + (b"\n" if tag == b"F" else b""))

        self.pipes[request["id"]] = {
            file: self.watch_pipe(file, Pipe(file.fileno(), b"", keep), lambda: None) for file in outputs(process)
        }

    def do_forget(self, request: Message, connection: socket.socket) -> None:
        record = self.runs.get(request["run"])
        if record is not None and record["exit"] is not None:
            del self.runs[request["run"]]

    def do_shutdown(self, request: Message, connection: socket.socket) -> None:
        self.stopping = True

    # -- processes -------------------------------------------------------------------------------------------

    def watch_pipe(self, file: IO[bytes], pipe: Pipe, at_end: Callable[[], None]) -> Callable[[], None]:
        os.set_blocking(file.fileno(), False)

        def ready() -> None:
            if not pipe.read():
                self.selector.unregister(file)
                file.close()
                at_end()

        self.selector.register(file, selectors.EVENT_READ, ready)
        return ready

    def pipe_closed(self, run: str) -> None:
        entry = self.logs.get(run)
        if entry is not None:
            entry[1] -= 1
            if entry[1] == 0:
                entry[0].close()
                del self.logs[run], self.pipes[run]

    def reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                break
            if pid == 0:
                break
            kind, name = self.by_pid.pop(pid, ("", ""))
            code = os.waitstatus_to_exitcode(status)
            if kind == "run":
                self.kill_group(pid)
                self.drain(name)
                ended = {"code": code if code >= 0 else 128 - code, "signal": max(0, -code)}
                self.ended(self.runs[name], {**ended, "reason": "", "message": ""})
            elif kind == "exec":
                self.kill_group(pid)
                self.drain(name)
                self.exec_ended(name, code if code >= 0 else 128 - code)
        self.sweep()

    def drain(self, name: str) -> None:
        """Read what the ended process still had in its pipes before its exit is told."""
        for file, ready in list(self.pipes.get(name, {}).items()):
            for _ in range(1024):  # a straggler that escaped its group may write for ever
                if file.closed or not readable(file):
                    break
                ready()

    def kill_group(self, pid: int) -> None:
        try:
            os.killpg(pid, signal.SIGKILL)
        except (ProcessLookupError, PermissionError):
            pass

    def ended(self, record: Message, how: Message) -> None:
        record["exit"] = {**how, "finished": time.time()}
        self.broadcast({"event": "exited", "run": record})

    def exec_ended(self, name: str, code: int) -> None:
        job = self.execs.pop(name)
        del self.pipes[name]
        text = b"".join(job["output"])[:EXEC_OUTPUT_MAX].decode("utf-8", "replace")
        if job["connection"] in self.connections:
            self.send(job["connection"], {"event": "exec", "id": name, "code": code, "output": text})

    def orphans(self) -> list[int]:
        """Children that are neither a run's nor an exec's main process: left behind by one and adopted."""
        try:
            with open(f"/proc/self/task/{os.getpid()}/children", encoding="ascii") as file:
                children = [int(word) for word in file.read().split()]
        except OSError:
            return []
        return [pid for pid in children if pid not in self.by_pid]

    def sweep(self, everything: bool = False) -> None:
        """Kill orphans of runs that have ended (all orphans when `everything`)."""
        for pid in self.orphans():
            try:
                with open(f"/proc/{pid}/environ", "rb") as file:
                    marks = [item for item in file.read().split(b"\0") if item.startswith(MARK.encode() + b"=")]
                run = marks[0].partition(b"=")[2].decode() if marks else ""
                record = self.runs.get(run)
                if everything or record is None or record["exit"] is not None:
                    os.kill(pid, signal.SIGKILL)
            except OSError as error:
                if error.errno not in (errno.ESRCH, errno.ENOENT, errno.EACCES, errno.EPERM):
                    raise

    # -- loop ------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        waits = [job["deadline"] for job in self.execs.values()]
        return max(0.0, min(waits) - time.monotonic()) if waits else None

    def kill_late_execs(self) -> None:
        now = time.monotonic()
        for job in self.execs.values():
            if job["deadline"] <= now:
                job["deadline"] = now + 1
                self.kill_group(job["pid"])

    def run(self) -> None:
        while not self.stopping:
            for key, _ in self.selector.select(self.next_deadline()):
                key.data()
            self.kill_late_execs()
            self.reap()
        self.finish()

    def finish(self) -> None:
        """Kill and reap everything below; called when nobody needs the exits any more."""
        for pid in list(self.by_pid):
            self.kill_group(pid)
        until = time.monotonic() + 5
        while time.monotonic() < until:
            self.sweep(everything=True)
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    time.sleep(0.005)  # killed, not yet reaped
            except ChildProcessError:
                return


if __name__ == "__main__":
    supervisor = Supervisor(sys.argv[1])
    supervisor.prepare()
    os.write(1, b"ready\n")
    os.close(1)
    supervisor.run()
