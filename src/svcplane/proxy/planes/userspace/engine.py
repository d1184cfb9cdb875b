"""One epoll loop with timers: what all relays of a worker run on.

Handlers are called with the events of their descriptor and must not block.  Descriptors of relayed data are watched
edge-triggered, once: a handler remembers what is ready and asks by `again` to be called after the others where it
stopped before all was moved, so that a busy connection cannot starve the rest.
"""

import _socket
import logging
import select
import time
from collections import deque
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from svcplane.proxy.planes.userspace.exchange import Exchange

log = logging.getLogger(__name__)
EVENTS = 512  # of one wake-up
IN, OUT, ERROR = select.EPOLLIN, select.EPOLLOUT, select.EPOLLERR
HANG_UP, READ_HANG_UP, URGENT, EDGE = select.EPOLLHUP, select.EPOLLRDHUP, select.EPOLLPRI, select.EPOLLET

Handler = Callable[[int], None]
Call = Callable[[object], None]


class Engine:
    """`now` is the monotonic second of the present wake-up."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._handlers: dict[int, Handler] = {}
        self._again: list[tuple[Call, object]] = []
        self._delayed: dict[float, deque[tuple[float, Call, object]]] = {}
        self._next = inf  # when the first of these is due
        self._dead: list[_socket.socket] = []
        self._running = True
        self.exchange: Exchange | None = None  # of a worker
        self.now = time.monotonic()

    @property
    def descriptor(self) -> int:
        """Can be read when anything watched has something."""
        return self._epoll.fileno()

    def watch(self, descriptor: int, events: int, handler: Handler) -> None:
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, events)

    def change(self, descriptor: int, events: int) -> None:
        """Watch for other events than so far.  What is ready already is told again."""
        self._epoll.modify(descriptor, events)

    def forget(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    def bury(self, end: _socket.socket) -> None:
        """Forget a socket and close it after this wake-up, so that no later event of it meets a new descriptor of
        the same number.  Nobody else may have it open: closing is what makes epoll forget it."""
        self._handlers.pop(end.fileno(), None)
        self._dead.append(end)

    def again(self, call: Call, argument: object) -> None:
        """Call after the other events of this wake-up and before waiting."""
        self._again.append((call, argument))

    def later(self, delay_s: float, call: Call, argument: object) -> None:
        """Call once after a delay.  Delays should be few different values: each has a queue of its own."""
        queue = self._delayed.get(delay_s)
        if queue is None:
            queue = self._delayed[delay_s] = deque()
        due = self.now + delay_s
        queue.append((due, call, argument))
        if due < self._next:
            self._next = due

    def every(self, period_s: float, call: Callable[[], None]) -> None:
        def run(_: object) -> None:
            self.later(period_s, run, None)
            call()

        self.later(period_s, run, None)

    def stop(self) -> None:
        self._running = False

    def close(self) -> None:
        if self.exchange is not None:
            self.exchange.close()
        self._epoll.close()

    def run(self) -> None:
        """Until `stop`.  A handler that fails is told about and ends nothing but itself."""
        poll, get, monotonic = self._epoll.poll, self._handlers.get, time.monotonic
        exchange = self.exchange
        while self._running:
            if exchange is None or not exchange.busy:
                ready = poll(self._patience(), EVENTS)
                self.now = monotonic()
            else:
                exchange.wait(self._patience())
                self.now = monotonic()
                ready = poll(0, EVENTS) if exchange.relay(self.now) else []
            for descriptor, events in ready:
                handler = get(descriptor)
                if handler is None:  # closed by an earlier handler of this wake-up
                    continue
                try:
                    handler(events)
                except Exception:
                    log.exception("a relay failed: descriptor=%d", descriptor)
            if self._again or self._next <= self.now:
                self._run_due()
            if self._dead:
                if exchange is not None:
                    exchange.submit()  # what names these sockets by descriptors that may be others' after this
                for end in self._dead:
                    end.close()
                self._dead.clear()

    def _patience(self) -> float:
        """Seconds to wait for events; -1: for ever."""
        if self._again:
            return 0
        if self._next == inf:
            return -1
        return max(0.0, self._next - time.monotonic())  # epoll counts milliseconds and rounds up

    def _run_due(self) -> None:
        calls, self._again = self._again, []
        if self._next <= self.now:
            for queue in self._delayed.values():
                while queue and queue[0][0] <= self.now:
                    _, call, argument = queue.popleft()
                    calls.append((call, argument))
            self._next = min((queue[0][0] for queue in self._delayed.values() if queue), default=inf)
        for call, argument in calls:
            try:
                call(argument)
            except Exception:
                log.exception("a relay failed: call=%r", call)
