"""What a Pod's process writes -> lines of its log file.  Part of the supervisor: no import of svcplane."""

from __future__ import annotations

import os
import select
import subprocess
import time

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself would double the time to start
    from collections.abc import Callable
    from typing import IO

LINE_MAX = 16 * 1024


class Log:
    """One run's log file: `TIME STREAM TAG TEXT` lines, rotated by size (`LOG`, `LOG.1`, ...; .1 is the newest)."""

    def __init__(self, path: str, max_bytes: int, max_files: int) -> None:
        self.path, self.max_bytes, self.max_files = path, max_bytes, max_files
        os.makedirs(os.path.dirname(path), exist_ok=True)
        self.file = open(path, "ab", buffering=0)  # noqa: SIM115 - lives as long as the run
        self.size = self.file.tell()

    def write(self, stream: bytes, tag: bytes, text: bytes) -> None:
        ns = time.time_ns()
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(ns // 1_000_000_000))
        line = b"%s.%09dZ %s %s %s\n" % (stamp.encode(), ns % 1_000_000_000, stream, tag, text)
        try:
            if self.size and self.size + len(line) > self.max_bytes:
                self.rotate()
            self.file.write(line)
            self.size += len(line)
        except OSError:
            pass  # a full disk must not stop the Pod

    def rotate(self) -> None:
        self.file.close()
        for number in range(self.max_files - 2, 0, -1):
            if os.path.exists(f"{self.path}.{number}"):
                os.replace(f"{self.path}.{number}", f"{self.path}.{number + 1}")
        if self.max_files > 1:
            os.replace(self.path, f"{self.path}.1")
        self.file = open(self.path, "wb", buffering=0)  # noqa: SIM115
        self.size = 0

    def close(self) -> None:
        self.file.close()


class Pipe:
    """One output stream of a process: split into lines, over-long ones into parts."""

    def __init__(self, descriptor: int, stream: bytes, sink: Callable[[bytes, bytes, bytes], None]) -> None:
        self.descriptor, self.stream, self.sink = descriptor, stream, sink
        self.rest = b""

    def read(self) -> bool:
        """False at the end of the stream."""
        try:
            data = os.read(self.descriptor, 65536)
        except BlockingIOError:
            return True
        except OSError:
            data = b""
        if not data:
            if self.rest:
                self.sink(self.stream, b"F", self.rest)
            return False
        *lines, self.rest = (self.rest + data).split(b"\n")
        for line in lines:
            self.put(line, b"F")
        while len(self.rest) >= LINE_MAX:
            self.sink(self.stream, b"P", self.rest[:LINE_MAX])
            self.rest = self.rest[LINE_MAX:]
        return True

    def put(self, line: bytes, tag: bytes) -> None:
        while len(line) > LINE_MAX:
            self.sink(self.stream, b"P", line[:LINE_MAX])
            line = line[LINE_MAX:]
        self.sink(self.stream, tag, line)


def outputs(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes]]:
    assert process.stdout is not None
    assert process.stderr is not None
    return process.stdout, process.stderr


def readable(file: IO[bytes]) -> bool:
    return bool(select.select([file], [], [], 0)[0])
