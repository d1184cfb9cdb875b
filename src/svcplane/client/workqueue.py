"""Keys that want work: each at most once in the queue and once under way, failures tried again with back-off.

Source: k8s.io/client-go/util/workqueue.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from svcplane.client.metrics import QueueMetrics

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """`first_s`, `max_s`: the back-off of a key that fails."""

    def __init__(self, *, first_s: float = 1.0, max_s: float = 1000.0) -> None:
        self._first_s, self._max_s = first_s, max_s
        self._ready: dict[K, None] = {}
        self._busy: set[K] = set()
        self._again: set[K] = set()
        self._failures: dict[K, int] = {}
        self._timers: dict[K, asyncio.TimerHandle] = {}
        self._wake = asyncio.Event()
        self._metrics: QueueMetrics | None = None

    def measured(self, name: str) -> None:
        """From now on, in the metrics of this process."""
        self._metrics = QueueMetrics(name)

    def add(self, key: K) -> None:
        """Now; while the key is under way, once more after it."""
        if key in self._busy:
            self._again.add(key)
            return
        fresh = key not in self._ready
        self._ready[key] = None
        if fresh and self._metrics is not None:
            self._metrics.added(key, len(self._ready))
        self._wake.set()

    def add_after(self, key: K, seconds: float) -> None:
        """Then, or earlier where it is due earlier already."""
        loop = asyncio.get_running_loop()
        old = self._timers.get(key)
        if old is not None:
            if old.when() <= loop.time() + seconds:
                return
            old.cancel()
        self._timers[key] = loop.call_later(seconds, self._due, key)

    def _due(self, key: K) -> None:
        self._timers.pop(key, None)
        self.add(key)

    def __len__(self) -> int:
        return len(self._ready)

    async def _next(self) -> K:
        while not self._ready:
            self._wake.clear()
            await self._wake.wait()
        key = next(iter(self._ready))
        del self._ready[key]
        self._busy.add(key)
        if self._metrics is not None:
            self._metrics.begun(key, len(self._ready))
        return key

    async def work(self, handle: Callable[[K], Awaitable[bool]]) -> None:
        """Handle keys for ever; several may run at once.  `handle` returns False for "failed, again later"."""
        while True:
            key = await self._next()
            done = False
            try:
                done = await handle(key)
            finally:
                self._busy.discard(key)
                if self._metrics is not None:
                    self._metrics.ended(key, done=done)
                if done:
                    self._failures.pop(key, None)
                else:
                    count = self._failures.get(key, 0)
                    self._failures[key] = count + 1
                    self.add_after(key, min(self._max_s, self._first_s * 2**count))
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
