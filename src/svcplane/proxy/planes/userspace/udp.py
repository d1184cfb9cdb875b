"""The UDP relay of one pool of a service port: one session for each client, with a socket of its own to an endpoint.

A session ends when it was idle for the time-out, when its endpoint refuses, or when its endpoint serves no more
and another one does; the client's next datagram then begins a new one.  As long as nothing was answered, the last
datagram is kept and sent to the next endpoint where one refuses.  A listener that is retired serves the
sessions it has and takes no new ones; one that another process goes on reading from serves nobody.
"""

import _socket
import logging
import os
import socket
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from svcplane.proxy.planes.userspace.balance import Address, Backend, Balance, Pool
from svcplane.proxy.planes.userspace.datagrams import MOST, Datagrams, address_of, datagrams
from svcplane.proxy.planes.userspace.dial import Dialing
from svcplane.proxy.planes.userspace.engine import EDGE, IN, Engine
from svcplane.proxy.planes.userspace.link import EXHAUSTED
from svcplane.proxy.planes.userspace.tcp import Options

log = logging.getLogger(__name__)
SESSIONS = 16_384  # of one service port; the one idle for longest gives way
DATAGRAM = socket.SOCK_DGRAM | socket.SOCK_NONBLOCK


class UdpRelay:
    """See the module's text."""

    def __init__(self, engine: Engine, balance: Balance, pool: Pool, options: Options) -> None:
        self.engine, self.balance, self.pool, self.options = engine, balance, pool, options
        self.sessions: OrderedDict[bytes, Session] = (
            OrderedDict()
        )  # by the client's socket address, used longest ago first
        self.refused = 0
        self.retired = False
        self._listeners: dict[int, _socket.socket] = {}

    def listen(self, listener: _socket.socket) -> None:
        listener.setblocking(False)
        self._listeners[listener.fileno()] = listener

        def ready(_: object) -> None:
            self._receive(listener, ready)

        self.engine.watch(listener.fileno(), IN | EDGE, ready)

    def close_listeners(self) -> None:
        """Retire: open sessions are served until they end."""
        self.retired = True
        if not self.sessions:
            self._close_sockets()

    def leave(self) -> None:
        """Retire and end at once: another process reads from the same sockets, and has the sessions that it wants."""
        self.retired = True
        for session in list(self.sessions.values()):
            if session.server is not None:
                self.engine.forget(session.server.fileno())  # which closing does not, where another has it open
            session.close()
        self._close_sockets()

    @property
    def listeners(self) -> Iterable[_socket.socket]:
        return self._listeners.values()

    def sessions_over(self, listener: _socket.socket) -> list["Session"]:
        return [session for session in self.sessions.values() if session.listener is listener]

    def adopt(self, client: bytes, endpoint: Address, server: _socket.socket, *, answered: bool) -> None:
        """Go on with another process's session over the socket that was listened on last."""
        backend = self.balance.backends.get(endpoint)
        if backend is None or not self._listeners:
            server.close()
            return
        session = Session(self, next(reversed(self._listeners.values())), client)
        session.answered = answered
        session.take(server, backend)
        self.sessions[client] = session

    def _close_sockets(self) -> None:
        for descriptor, listener in self._listeners.items():
            self.engine.forget(descriptor)
            listener.close()
        self._listeners.clear()

    def _receive(self, listener: _socket.socket, again: Any) -> None:
        room = datagrams(listener.family)
        try:
            count = room.receive_from(listener.fileno())
        except BlockingIOError:
            return
        except OSError:  # an ICMP error of an earlier answer
            count = MOST
        else:
            self._distribute(listener, room, count)
        if count == MOST and listener.fileno() >= 0:  # there may be more
            self.engine.again(again, None)

    def _distribute(self, listener: _socket.socket, room: Datagrams, count: int) -> None:
        """Send each run of one client's datagrams to the client's endpoint."""
        first, name = 0, room.name(0)
        for at in range(1, count + 1):
            following = room.name(at) if at < count else b""
            if following == name:
                continue
            session = self.sessions.get(name)
            if session is None or session.misplaced():
                if session is not None:
                    session.close()
                session = self._open(listener, name)
            if session is not None:
                session.used_at = self.engine.now
                self.sessions.move_to_end(name)
                session.send(room, first, at)
            first, name = at, following

    def _open(self, listener: _socket.socket, client: bytes) -> "Session | None":
        if self.retired:
            return None
        session = Session(self, listener, client)
        if not session.connect():
            self.refused += 1
            return None
        if len(self.sessions) >= SESSIONS:
            next(iter(self.sessions.values())).close()
        self.sessions[client] = session
        return session

    def sweep(self) -> None:
        """End sessions that were idle for too long."""
        now, idle_s = self.engine.now, self.options.idle_timeout_s
        while self.sessions:
            session = next(iter(self.sessions.values()))
            if now - session.used_at < idle_s:
                break
            session.close()
        if self.retired and not self.sessions:
            self._close_sockets()

    def close(self) -> None:
        for session in list(self.sessions.values()):
            session.close()
        self._close_sockets()


class Session:
    """One client's datagrams to and from one endpoint."""

    __slots__ = (
        "_dialing",
        "_last",
        "answered",
        "backend",
        "client",
        "client_address",
        "listener",
        "opened_at",
        "received",
        "relay",
        "sent",
        "server",
        "used_at",
    )

    def __init__(self, relay: UdpRelay, listener: _socket.socket, client: bytes) -> None:
        self.relay, self.listener, self.client = relay, listener, client
        self.client_address = address_of(client)
        self.backend: Backend | None = None
        self.server: _socket.socket | None = None
        self.opened_at = self.used_at = relay.engine.now
        self.sent = self.received = 0
        self.answered = False
        self._last = b""  # the last datagram, until something is answered
        self._dialing = Dialing(relay.options.dial_timeouts_s)

    def misplaced(self) -> bool:
        """The endpoint serves no more, and another one does, be it for others."""
        known, backend = self.relay.balance.backends, self.backend
        gone = backend is None or known.get(backend.address) is not backend
        return bool(known) and gone and not self.relay.retired

    def connect(self) -> bool:
        """A socket to the next endpoint that there is a way to; False where there is none."""
        relay = self.relay
        while self._dialing.next_timeout_s(len(relay.pool.backends)) is not None:
            backend = relay.balance.choose(relay.pool, self.client_address[0], relay.engine.now, self._dialing.tried)
            if backend is None:
                return False
            try:
                self.take(self._connected(backend), backend)
            except OSError as error:
                log.warning("cannot reach %s: %s", backend.address, error.strerror)
                if error.errno in EXHAUSTED:
                    return False
                relay.balance.failed(backend, relay.engine.now)
                self._dialing.failed(backend, timed_out=False)
            else:
                return True
        return False

    def _connected(self, backend: Backend) -> _socket.socket:
        """Raises OSError."""
        server = _socket.socket(socket.AF_INET6 if ":" in backend.address[0] else socket.AF_INET, DATAGRAM)
        try:
            if self.relay.options.mark:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, self.relay.options.mark)
            server.connect(backend.address)
        except OSError:
            server.close()
            raise
        return server

    def take(self, server: _socket.socket, backend: Backend) -> None:
        """Go on over a socket that is connected to an endpoint."""
        self.server, self.backend = server, backend
        backend.active += 1
        backend.connections += 1
        self.relay.engine.watch(server.fileno(), IN | EDGE, self.on_server)

    def send(self, room: Datagrams, first: int, end: int) -> None:
        """Send some of the datagrams in `room` to the endpoint."""
        server = self.server
        if server is None:
            return
        if not self.answered:
            self._last = room.body(end - 1)
        self.sent += room.size(first, end)
        try:
            room.send_on(server.fileno(), first, end)
        except BlockingIOError:
            pass  # as a full queue on the way would do
        except ConnectionRefusedError:
            self._refused()
        except OSError as error:
            log.debug("a datagram was lost: %s", os.strerror(error.errno or 0))

    def on_server(self, _: object) -> None:
        server = self.server
        if server is None:
            return
        room = datagrams(self.listener.family)
        try:
            count = room.receive(server.fileno())
        except BlockingIOError:
            return
        except ConnectionRefusedError:
            self._refused()
            return
        except OSError:
            return
        if not self.answered:
            self._mark_answered()
        self.used_at = self.relay.engine.now
        self.received += room.size(0, count)
        try:
            room.send_to(self.listener.fileno(), self.client, count)
        except OSError as error:  # the client is gone, or its queue is full
            log.debug("an answer was lost: %s", os.strerror(error.errno or 0))
        if count == MOST:
            self.relay.engine.again(self.on_server, None)

    def _mark_answered(self) -> None:
        self.answered, self._last = True, b""
        if self.backend is not None and self.backend.failures:
            self.relay.balance.answered(self.backend)

    def _refused(self) -> None:
        """Nobody listens at the endpoint (an ICMP error came back)."""
        backend, relay = self.backend, self.relay
        if backend is None:
            return
        relay.balance.failed(backend, relay.engine.now)
        if self.answered or relay.retired:
            self.close()
            return
        self._dialing.failed(backend, timed_out=False)
        self._drop_server()
        if self.connect():
            self._send_last()
        else:
            relay.refused += 1
            self.close()

    def _send_last(self) -> None:
        if self.server is None:
            return
        self.sent += len(self._last)
        try:
            self.server.send(self._last)
        except BlockingIOError:
            pass
        except ConnectionRefusedError:
            self._refused()
        except OSError as error:
            log.debug("a datagram was lost: %s", error.strerror)

    def _drop_server(self) -> None:
        if self.server is not None:
            self.relay.engine.bury(self.server)
        if self.backend is not None:
            self.backend.active -= 1
            self.backend.sent += self.sent
            self.backend.received += self.received
        self.server = self.backend = None
        self.sent = self.received = 0

    def close(self) -> None:
        self._drop_server()
        if self.relay.sessions.get(self.client) is self:
            del self.relay.sessions[self.client]
