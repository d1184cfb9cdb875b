"""Processes that are not ours to wait for: named by pid and start time, awaited through a pidfd."""

import asyncio
import contextlib
import os
import signal
from dataclasses import dataclass

from svcplane.node.launch import starttime_of


@dataclass(frozen=True, slots=True)
class ProcessId:
    """`starttime` tells a process from a later one with the same pid."""

    pid: int
    starttime: str

    @staticmethod
    def of(pid: int) -> "ProcessId":
        return ProcessId(pid, starttime_of(pid))

    @staticmethod
    def parse(text: str) -> "ProcessId | None":
        """From `PID STARTTIME`."""
        words = text.split()
        return ProcessId(int(words[0]), words[1]) if len(words) == 2 and words[0].isdigit() else None

    def __str__(self) -> str:
        return f"{self.pid} {self.starttime}"

    @property
    def alive(self) -> bool:
        """Whether it still runs; one that has ended but was not reaped does not."""
        if not self.starttime or starttime_of(self.pid) != self.starttime:
            return False
        with contextlib.suppress(OSError), open(f"/proc/{self.pid}/stat", encoding="latin-1") as file:
            return file.read().rpartition(")")[2].split()[0] not in "ZX"
        return False

    def send(self, number: int) -> None:
        """Signal it if it is still the same process."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    async def ended(self, timeout_s: float) -> bool:
        """Wait for its end; False if it still runs after the time."""
        if not self.alive:
            return True
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            return True
        loop = asyncio.get_running_loop()
        end = asyncio.Event()
        loop.add_reader(descriptor, end.set)
        try:
            async with asyncio.timeout(timeout_s):
                await end.wait()
        except TimeoutError:
            return not self.alive
        finally:
            loop.remove_reader(descriptor)
            os.close(descriptor)
        return True

    async def stop(self, grace_s: float) -> None:
        """TERM, then KILL after the grace period; returns when it has ended."""
        self.send(signal.SIGTERM)
        if not await self.ended(grace_s):
            self.send(signal.SIGKILL)
            await self.ended(grace_s)
