"""Connections whose sides take turns with small messages, relayed through an io_uring.

A connection comes here once it has taken some turns, and goes back to epoll with the first thing that is not one: an
end, an error, more than a buffer, a target that does not take all, two messages of a side at once.  Nothing is lost
on the way: what has been received meanwhile waits in the direction's `pending`.  Where the kernel has no such ring or
forbids it, all stay with epoll.
"""

import errno
import logging
from typing import TYPE_CHECKING

from svcplane.kernel.io_uring import Left, Ring
from svcplane.proxy.planes.userspace.direction import Direction

if TYPE_CHECKING:
    from svcplane.proxy.planes.userspace.link import Link

log = logging.getLogger(__name__)
EPOLL = 0  # the token of epoll itself; receives count from 1


class Exchange:
    """The links of one worker that are relayed through the ring.  `descriptor`: epoll's, which is waited for too."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._ring: Ring | None = None
        self._refused = False
        self._flows: dict[int, Direction] = {}
        self._directions: dict[int, Direction | None] = {}  # None: its link is closed, the ring has yet to let go
        self._leaving: list[Link] = []
        self._tokens = EPOLL
        self._polling = False

    @property
    def busy(self) -> bool:
        """Whether it is the ring that is to be waited for."""
        return bool(self._directions)

    def ready(self) -> bool:
        """Whether there is a ring; it is made for the first who asks."""
        if self._ring is None and not self._refused:
            try:
                self._ring = Ring()
            except OSError as problem:
                self._refused = True
                log.info("no io_uring here, epoll does it all: %s", problem.strerror)
        return self._ring is not None

    def close(self) -> None:
        if self._ring is not None:
            self._ring.close()

    # -- links -----------------------------------------------------------------------------------------------------

    def take(self, link: "Link") -> None:
        """Relay a link that epoll does not watch any more.  Both its directions are at rest."""
        for direction in (link.up, link.down):
            if direction.target is None:
                continue
            self._tokens += 1
            direction.token, direction.seen = self._tokens, 0.0
            direction.goes_to = direction.target.fileno()
            self._directions[direction.token] = direction
            self._receive(direction)

    def _receive(self, direction: Direction) -> None:
        if self._ring is not None and direction.source is not None:
            direction.receiving = True
            self._flows[direction.token] = direction
            self._ring.receive(direction.source.fileno(), direction.token)

    def leave(self, link: "Link", *, closed: bool = False) -> None:
        """Receive nothing more.  `link.left_exchange` is called once that is so, but not of one that is closed."""
        for direction in (link.up, link.down):
            self._flows.pop(direction.token, None)
            if direction.receiving and self._ring is not None:
                self._ring.cancel(direction.token)
                if closed:
                    self._directions[direction.token] = None
            elif closed:
                self._directions.pop(direction.token, None)
        if not closed:
            self._leaving.append(link)

    @property
    def _settled(self) -> bool:
        return self._ring is not None and self._ring.settled

    # -- rounds ----------------------------------------------------------------------------------------------------

    def submit(self) -> None:
        """What was asked for, before its sockets are closed."""
        if self._ring is not None:
            self._ring.submit()

    def wait(self, within_s: float) -> None:
        """Until there is something, or epoll has."""
        assert self._ring is not None
        if not self._polling:
            self._ring.poll(self._descriptor, EPOLL)
            self._polling = True
        self._ring.wait(0 if self._leaving else within_s)

    def relay(self, now: float) -> bool:
        """Pass on what has come; whether epoll has something too.  `now` is another one each time."""
        assert self._ring is not None
        polled = False
        for left in self._ring.pass_on(self._flows, now):
            if left.token == EPOLL:
                polled, self._polling = True, False
                continue
            try:
                self._leftover(left, now)
            except Exception:
                log.exception("a relay failed: token=%d", left.token)
        if self._leaving and self._settled:
            self._let_go(now)
        return polled

    def _leftover(self, left: Left, now: float) -> None:
        """What is not usual ends the link's stay, but for want of a buffer."""
        direction = self._directions.get(left.token)
        if direction is None:
            if not left.more:
                self._directions.pop(left.token, None)
            return
        link = direction.link
        if not left.more:
            direction.receiving = False
        if left.sent:
            self._sent_less(direction, left, now)
        elif left.data:
            direction.moved += left.size
            direction.pending += left.data
            link.used_at = now
        elif left.size == -errno.ENOBUFS and not link.leaving and self._settled and direction.seen != now:
            self._receive(direction)
            return
        elif not left.size:
            direction.ended = True
        elif left.size not in (-errno.ECANCELED, -errno.ENOBUFS):
            link.failed = True
        if not link.leaving:
            link.leaving = True
            self.leave(link)

    @staticmethod
    def _sent_less(direction: Direction, left: Left, now: float) -> None:
        """The rest waits until the target takes it; what has been received since comes after it."""
        if (left.size < 0 and left.size != -errno.EAGAIN) or direction.seen == now:  # that is on its way already
            direction.link.failed = True
        direction.pending = left.data + direction.pending
        direction.writable, direction.armed = False, True

    def _let_go(self, now: float) -> None:
        """Of links for which the ring has nothing more, and no send whose end is not known."""
        staying = []
        for link in self._leaving:
            if not link.exchanging:  # closed
                continue
            up, down = link.up, link.down
            if up.receiving or down.receiving or now in (up.seen, down.seen):
                staying.append(link)
                continue
            for direction in (up, down):
                del self._directions[direction.token]
            try:
                link.left_exchange()
            except Exception:
                log.exception("a relay failed: client=%s", link.client_address)
        self._leaving = staying
