"""The TCP relay of one pool of a service port: accepts clients, dials an endpoint, moves bytes both ways.

Half-close is kept and a reset is passed on, in both directions.  An endpoint that does not answer a dial is set
aside and another one dialed; the client does not notice.  Nothing is kept for a listener without clients but its
descriptor in epoll.
"""

import _socket
import logging
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, cast

from svcplane.proxy.planes.userspace.balance import Balance, Pool
from svcplane.proxy.planes.userspace.dial import DIAL_TIMEOUTS_S
from svcplane.proxy.planes.userspace.engine import IN, Engine
from svcplane.proxy.planes.userspace.link import EXHAUSTED, EXHAUSTED_PAUSE_S, STREAM, Link
from svcplane.proxy.planes.userspace.pipes import PipePool

log = logging.getLogger(__name__)
ACCEPTS = 64  # of one wake-up
HALF_CLOSED_S = 3600.0  # connection tracking's time for CLOSE_WAIT on a Kubernetes node


@dataclass(slots=True)
class Options:
    """Of one service port."""

    mark: int = 0  # of packets to endpoints, so that they are not captured again
    idle_timeout_s: float = 86_400
    proxy_protocol: int = 0
    retry_unanswered: bool = False
    dial_timeouts_s: tuple[float, ...] = DIAL_TIMEOUTS_S


class TcpRelay:
    """See the module's text.  `links` are the connections it has."""

    def __init__(self, engine: Engine, pipes: PipePool, balance: Balance, pool: Pool, options: Options) -> None:
        self.engine, self.pipes, self.balance, self.pool, self.options = engine, pipes, balance, pool, options
        self.links: set[Link] = set()
        self.refused = 0  # clients for whom no endpoint answered
        self._paused = False
        self._listeners: dict[int, tuple[_socket.socket, Any]] = {}

    # -- listening -----------------------------------------------------------------------------------------------------

    def listen(self, listener: _socket.socket) -> None:
        """Accept from a listening socket (which becomes ours), besides those there are."""
        listener.setblocking(False)
        family = listener.family

        def ready(_: int) -> None:
            self._accept(listener, family)

        self._listeners[listener.fileno()] = listener, ready
        if not self._paused:
            self.engine.watch(listener.fileno(), IN, ready)

    @property
    def listeners(self) -> Iterable[_socket.socket]:
        return [listener for listener, _ in self._listeners.values()]

    def close_listeners(self) -> None:
        """Connections that were accepted go on."""
        for descriptor, (listener, _) in self._listeners.items():
            self.engine.forget(descriptor)
            listener.close()
        self._listeners.clear()

    def _accept(self, listener: _socket.socket, family: int) -> None:
        accept = cast(Any, listener)._accept  # socket.accept wraps what it gets in objects that cost more than the call
        for _ in range(ACCEPTS):
            if self._paused:
                return
            try:
                descriptor, peer = accept()
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno in EXHAUSTED:
                    self.pause()
                    return
                continue  # the client went away before it was accepted
            client = _socket.socket(family, STREAM, 0, descriptor)
            Link(self, client, peer).begin()

    def pause(self) -> None:
        """No descriptors left: clients wait in the backlog until some are."""
        if self._paused:
            return
        log.warning("out of descriptors or memory, new connections wait: connections=%d", len(self.links))
        self._paused = True
        for descriptor in self._listeners:
            self.engine.forget(descriptor)
        self.engine.later(EXHAUSTED_PAUSE_S, self._resume, None)

    def _resume(self, _: object) -> None:
        self._paused = False
        for descriptor, (_listener, ready) in self._listeners.items():
            self.engine.watch(descriptor, IN, ready)

    # -- housekeeping --------------------------------------------------------------------------------------------------

    def sweep(self) -> None:
        """End connections that were idle for too long."""
        now, idle_s = self.engine.now, self.options.idle_timeout_s
        half_s = min(idle_s, HALF_CLOSED_S)
        for link in [link for link in self.links if now - link.last_used >= (half_s if link.half_closed else idle_s)]:
            link.close()

    def close(self) -> None:
        self.close_listeners()
        for link in list(self.links):
            link.close(reset=True)
