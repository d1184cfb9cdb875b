"""One relay worker's process, as the proxy sees it."""

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress

from svcplane.base.errors import EnvironmentProblem, KernelError
from svcplane.proxy.planes.userspace import handover, wire

log = logging.getLogger(__name__)
ANSWER_WITHIN_S = 20.0
END_WITHIN_S = 2.0
LINGER_S = 60.0  # how long a worker serves on for a proxy that does not come back
Batch = list[tuple[wire.ToWorker, socket.socket | None]]


class Process:
    """One worker.  Not safe for concurrent exchanges."""

    def __init__(self, scope: str) -> None:
        ours, theirs = socket.socketpair()
        with theirs:
            argv = [sys.executable, "-m", "svcplane.proxy.planes.userspace.worker"]
            argv += [str(theirs.fileno()), str(LINGER_S), scope]
            try:
                self._process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, pass_fds=(theirs.fileno(),))
            except OSError as error:
                ours.close()
                raise EnvironmentProblem(f"cannot start a relay worker: {error.strerror}") from error
        ours.settimeout(ANSWER_WITHIN_S)
        self.began = time.monotonic()
        self._socket = ours
        self._buffer = bytearray()
        self._broken = False

    @property
    def is_alive(self) -> bool:
        return not self._broken and self._process.poll() is None

    @property
    def pid(self) -> int:
        return self._process.pid

    def exchange(self, batch: Sequence[tuple[wire.ToWorker, socket.socket | None]]) -> list[wire.Answer]:
        """Send a batch and wait for it to be done.  Blocks.  Raises KernelError."""
        try:
            for message, lent in batch:
                handover.send(self._socket, message, lent.fileno() if lent is not None else None)
            handover.send(self._socket, wire.Done())
            return self._receive()
        except (OSError, EOFError) as error:
            self._broken = True
            raise KernelError(f"relay worker {self.pid} does not answer: {error or 'it ended'}") from error

    def _receive(self) -> list[wire.Answer]:
        answers: list[wire.Answer] = []
        while True:
            for body in wire.frames(self._buffer):
                message = wire.from_worker(body)
                if isinstance(message, wire.Done):
                    for problem in message.problems:
                        log.warning("%s", problem)
                    return answers
                if isinstance(message, wire.Answer):
                    answers.append(message)
            data = self._socket.recv(1 << 18)
            if not data:
                raise EOFError
            self._buffer += data

    def exit_notice(self) -> int:
        """A descriptor that is readable once the process has ended; the caller closes it."""
        return os.pidfd_open(self.pid)

    def end(self, within_s: float = END_WITHIN_S) -> None:
        """End it, and wait for that.  Blocks."""
        with suppress(OSError):
            handover.send(self._socket, wire.Drain(0.0))
        self._socket.close()
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def let_go(self, drain_s: float = 0.0) -> None:
        """Leave it to itself: to the next proxy or, with `drain_s`, to its end with its last connection."""
        if drain_s:
            with suppress(OSError):
                handover.send(self._socket, wire.Drain(drain_s))
        self._socket.close()
        threading.Thread(target=self._process.wait, daemon=True).start()  # else it stays as a zombie
