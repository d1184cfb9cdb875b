"""One relayed TCP connection: the client's, and the one to the endpoint that answered.

The usual connection is over in few system calls: the client's first bytes are sent as soon as the endpoint's
connection stands, where that is at once; readiness to take more is asked for only after a socket took less than all;
the last bytes of a side go out together with its end.
"""

import _socket
import errno
import logging
import socket
import struct
from typing import TYPE_CHECKING, Any

from svcplane.proxy.planes.userspace.balance import Address, Backend
from svcplane.proxy.planes.userspace.dial import Dialing
from svcplane.proxy.planes.userspace.direction import NOW, READ_SIZE, Direction
from svcplane.proxy.planes.userspace.engine import EDGE, ERROR, HANG_UP, IN, OUT, READ_HANG_UP, URGENT
from svcplane.proxy.planes.userspace.proxyprotocol import header

if TYPE_CHECKING:
    from svcplane.proxy.planes.userspace.tcp import TcpRelay

log = logging.getLogger(__name__)
KEPT_REQUEST = 65_536  # bytes
EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
EXHAUSTED_PAUSE_S = 0.1
#: Our own shortage: another endpoint would not help, and this one is not to blame.
LOCAL_PROBLEMS = (errno.EADDRNOTAVAIL, errno.EAGAIN)
WATCHED = IN | READ_HANG_UP | URGENT | EDGE
ENDS = READ_HANG_UP | HANG_UP
STREAM = socket.SOCK_STREAM | socket.SOCK_NONBLOCK
SO_ORIGINAL_DST = 80
TCP_CLOSE = 7
IP6T_SO_ORIGINAL_DST = 80
#: So many messages of a client, and it is taken for one that takes turns; and twice as many each time it was not.
TURNS, MOST_TURNS = 16, 1 << 20
RESET = struct.pack("ii", 1, 0)  # struct linger: close with a reset


class Link:
    """One client's connection and the endpoint's."""

    __slots__ = (
        "_kept",
        "backend",
        "client",
        "client_address",
        "connected",
        "continuing",
        "dialing",
        "dials",
        "down",
        "exchanging",
        "failed",
        "keeps_request",
        "leaving",
        "opened_at",
        "relay",
        "server",
        "tuned",
        "turns",
        "turns_wanted",
        "up",
        "urgent",
        "used_at",
    )

    def __init__(self, relay: "TcpRelay", client: _socket.socket, client_address: Any) -> None:
        self.relay, self.client, self.client_address = relay, client, client_address
        self.server: _socket.socket | None = None
        self.backend: Backend | None = None
        self.dialing: Dialing | None = None  # from the first failure on
        self.dials = 0
        self.connected = False
        self.opened_at = self.used_at = relay.engine.now
        self.keeps_request = relay.options.retry_unanswered
        self.continuing = False  # `move` will be called
        self.tuned = False  # whether small packets to the endpoint go out without waiting
        self.urgent = False  # urgent data was there: a short read may not be all
        self.turns, self.turns_wanted = 0, TURNS
        self.exchanging = self.leaving = self.failed = False  # in the exchange; on its way out of it; broken there
        self._kept = b""
        self.up = Direction(self, client, None)
        self.down = Direction(self, None, client)
        self.down.writable = True

    @property
    def half_closed(self) -> bool:
        return self.up.shut or self.down.shut

    @property
    def last_used(self) -> float:
        """When either side last said something."""
        return max(self.used_at, self.up.seen, self.down.seen)

    def begin(self) -> None:
        relay = self.relay
        relay.links.add(self)
        self.dial()
        if self in relay.links:
            relay.engine.watch(self.client.fileno(), WATCHED, self.on_client)

    # -- dialing -------------------------------------------------------------------------------------------------------

    def dial(self, _: object = None) -> None:
        """Dial endpoints until a dial is under way, or give up."""
        relay = self.relay
        now = relay.engine.now
        while self.server is None and self in relay.links:
            dialing = self.dialing
            if dialing is None:
                timeout_s: float | None = relay.options.dial_timeouts_s[0]
            else:
                timeout_s = dialing.next_timeout_s(len(relay.pool.backends))
            tried = dialing.tried if dialing is not None else ()
            backend = None
            if timeout_s is not None:
                backend = relay.balance.choose(relay.pool, self.client_address[0], now, tried)
            if backend is None or timeout_s is None:
                self._give_up()
                return
            problem = self._connect(backend)
            if not problem:
                self.dials += 1
                if not self._send_at_once() and self in relay.links:
                    relay.engine.later(timeout_s, self.on_dial_due, self.dials)
            elif problem in EXHAUSTED:  # it waits, as those do that were not accepted yet
                relay.pause()
                relay.engine.later(EXHAUSTED_PAUSE_S, self.dial, None)
                return
            elif problem in LOCAL_PROBLEMS:
                log.warning("cannot dial %s: %s", backend.address, errno.errorcode.get(problem, problem))
                self._give_up()
                return
            else:
                self._dial_failed(backend, timed_out=False)

    def _connect(self, backend: Backend) -> int:
        """Begin to connect; an errno, or 0."""
        relay, address = self.relay, backend.address
        try:
            server = _socket.socket(socket.AF_INET6 if ":" in address[0] else socket.AF_INET, STREAM)
        except OSError as error:
            return error.errno or errno.EMFILE
        if relay.options.mark:
            server.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, relay.options.mark)
        problem = server.connect_ex(address)
        if problem not in (0, errno.EINPROGRESS):
            server.close()
            return problem
        self.server, self.backend = server, backend
        backend.active += 1
        backend.connections += 1
        self.up.set_target(server)
        self.down.set_source(server)
        return 0

    def _send_at_once(self) -> bool:
        """Send what the client has said already: an endpoint near by has its connection as soon as it was dialed.

        Whether that is so; in any case epoll tells from now on what the endpoint does.
        """
        up, server = self.up, self.server
        established = False
        if server is None or (not up.pending and not self._read_early()):
            return False
        if up.pending:
            try:
                sent = server.send(up.pending, NOW)
            except OSError:  # not connected yet; what becomes of it, epoll tells
                pass
            else:
                established = True
                up.pending = up.pending[sent:]
                up.writable = not up.pending
        up.armed = not up.writable
        self.relay.engine.watch(server.fileno(), WATCHED | OUT if up.armed else WATCHED, self.on_server)
        if established:
            self._established()
            if up.readable:  # epoll may have told of it during an earlier dial
                self.continue_later()
        return established

    def _read_early(self) -> bool:
        """Read what the client has sent before anybody listens to it; False where it is gone."""
        up = self.up
        if up.moved or up.ended or self.keeps_request or self.relay.options.proxy_protocol:
            return True
        try:
            data = self.client.recv(READ_SIZE, NOW)
        except BlockingIOError:
            return True
        except OSError:
            self.close(reset=True)
            return False
        up.pending = data
        up.moved = len(data)
        up.ended = not data
        up.readable = len(data) == READ_SIZE or up.closing or self.urgent
        return True

    def on_dial_due(self, number: object) -> None:
        """The time for a dial is over."""
        if self.connected or number != self.dials or self.backend is None:
            return
        backend = self.backend
        self._drop_server()
        self._dial_failed(backend, timed_out=True)
        self.dial()

    def _dial_failed(self, backend: Backend, *, timed_out: bool) -> None:
        if self.dialing is None:
            self.dialing = Dialing(self.relay.options.dial_timeouts_s)
        self.dialing.failed(backend, timed_out=timed_out)
        self.relay.balance.failed(backend, self.relay.engine.now)

    def _drop_server(self) -> None:
        if self.server is not None:
            self.relay.engine.bury(self.server)
        if self.backend is not None:
            self.backend.active -= 1
            if self.connected:
                self.backend.sent += self.up.moved
                self.backend.received += self.down.moved
        self.server = self.backend = None
        self.connected = self.tuned = False
        self.up.set_target(None)
        self.down.set_source(None)
        self.up.writable = self.down.readable = False

    def _give_up(self) -> None:
        self.relay.refused += 1
        self.close(reset=True)

    def _established(self) -> None:
        self.connected = True
        backend, options = self.backend, self.relay.options
        if backend is not None and backend.failures:
            self.relay.balance.answered(backend)
        first = self._kept
        if options.proxy_protocol:
            first = header(options.proxy_protocol, self.client_address, self._original_destination()) + first
        if first:
            self.up.pending = first + self.up.pending

    def _original_destination(self) -> Address:
        """The address the client dialed, before it was captured."""
        client = self.client
        try:
            if client.family == socket.AF_INET6:
                raw = client.getsockopt(socket.IPPROTO_IPV6, IP6T_SO_ORIGINAL_DST, 28)
                return socket.inet_ntop(socket.AF_INET6, raw[8:24]), int.from_bytes(raw[2:4], "big")
            raw = client.getsockopt(socket.IPPROTO_IP, SO_ORIGINAL_DST, 16)
            return socket.inet_ntop(socket.AF_INET, raw[4:8]), int.from_bytes(raw[2:4], "big")
        except OSError:  # it came straight to our port
            found: Address = client.getsockname()[:2]
            return found

    # -- moving --------------------------------------------------------------------------------------------------------

    def on_client(self, events: int) -> None:
        up, down = self.up, self.down
        if events == IN and self.tuned and not self.continuing:  # the usual
            self.used_at = self.relay.engine.now
            try:
                up.arrived()
            except OSError:
                self._broken()
            self.turns += 1
            if self.turns >= self.turns_wanted:
                self._take_turns()
            return
        if events & ERROR:
            self.close(reset=True)
            return
        if events & (IN | ENDS):
            up.readable = True
            if events & ENDS:
                up.closing = True
        if events & URGENT:
            self.urgent = True
        takes_again = events & OUT and not down.writable
        if takes_again:
            down.writable = True
        if not self.connected:
            return
        self.used_at = self.relay.engine.now
        try:
            if (
                not self.tuned and up.moved and not up.closing and self.server is not None
            ):  # one request alone does not wait for another
                self.tuned = True
                self.server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self.continuing:
                return
            if up.readable:
                up.pump()
            if takes_again and down.waiting:
                down.pump()
        except OSError:
            self._broken()

    def on_server(self, events: int) -> None:
        up, down = self.up, self.down
        if events == IN and self.connected and not self.continuing:  # the usual
            self.used_at = self.relay.engine.now
            try:
                down.arrived()
            except OSError:
                self._broken()
            return
        if not self.connected:
            if events & (ERROR | HANG_UP):
                backend = self.backend
                self._drop_server()
                if backend is not None:
                    self._dial_failed(backend, timed_out=False)
                self.dial()
                return
            if not events & OUT:
                return
            self._established()
        elif events & ERROR:
            self._broken()
            return
        if events & (IN | ENDS):
            down.readable = True
            if events & ENDS:
                down.closing = True
        if events & URGENT:
            self.urgent = True
        takes_again = events & OUT and not up.writable
        if takes_again:
            up.writable = True
        self.used_at = self.relay.engine.now
        try:
            if self.continuing:
                return
            if down.readable:
                down.pump()
            if takes_again and up.waiting:
                up.pump()
        except OSError:
            self._broken()

    def move(self, _: object = None) -> None:
        """Both directions, from where they stopped."""
        self.continuing = False
        if not self.connected or self.exchanging:
            return
        try:
            self.up.pump()
            self.down.pump()
        except OSError:
            self._broken()

    # -- taking turns --------------------------------------------------------------------------------------------------

    def _take_turns(self) -> None:
        """Go to the exchange, where there is one and nothing is under way."""
        self.turns = 0
        engine, server = self.relay.engine, self.server
        exchange = engine.exchange
        if exchange is None or server is None or self.keeps_request or self not in self.relay.links:
            return
        if self.up.at_rest and self.down.at_rest and exchange.ready():
            engine.forget(self.client.fileno())
            engine.forget(server.fileno())
            self.exchanging, self.leaving = True, False
            exchange.take(self)

    def left_exchange(self) -> None:
        """Back to epoll, with what waits in the directions."""
        self.exchanging = False
        self.turns_wanted = min(MOST_TURNS, 2 * self.turns_wanted)
        up, down, server, engine = self.up, self.down, self.server, self.relay.engine
        if self.failed or server is None:
            self._broken()
            return
        engine.watch(self.client.fileno(), WATCHED | OUT if down.armed else WATCHED, self.on_client)
        engine.watch(server.fileno(), WATCHED | OUT if up.armed else WATCHED, self.on_server)
        up.readable = down.readable = True
        self.move()

    # -- ends ----------------------------------------------------------------------------------------------------------

    def arm(self, direction: Direction) -> None:
        """Let epoll tell from now on when the target takes more."""
        target = self.client if direction is self.down else self.server
        if target is not None:
            direction.armed = True
            self.relay.engine.change(target.fileno(), WATCHED | OUT)

    def continue_later(self) -> None:
        """Once for both directions, and not for each event that comes before."""
        if self.continuing:
            return
        self.continuing = True
        self.relay.engine.again(self.move, None)

    def ended(self, direction: Direction) -> None:
        """A side has sent its end, and all before it was passed on."""
        if direction.shut:
            return
        if direction is self.down and self._send_again():
            return
        direction.shut = True
        if self.up.shut and self.down.shut:
            self.close()
        elif direction.target is not None:
            direction.target.shutdown(socket.SHUT_WR)

    def keep(self, direction: Direction, data: bytes) -> None:
        """Keep a request until its answer begins, to send it again if the endpoint goes away before."""
        if direction is self.down or len(self._kept) + len(data) > KEPT_REQUEST:
            self.keeps_request, self._kept = False, b""
        else:
            self._kept += data

    def _send_again(self, *, reset: bool = False) -> bool:
        """The endpoint went away.  Whether the request goes to another one.

        Where the client has said nothing yet, no endpoint can have acted on it: after a reset another one is dialed.
        """
        backend = self.backend
        untold = reset and not self.up.moved and not self.up.ended
        if self.down.moved or backend is None or not (untold or (self.keeps_request and self._kept)):
            return False
        self._drop_server()
        self.up.pending, self.up.shut = b"", False
        self.down.ended = self.down.closing = False
        self._dial_failed(backend, timed_out=False)
        self.dial()
        return True

    def _broken(self) -> None:
        """A socket failed.  The endpoint's failure may be mended; else the other side learns by a reset."""
        state = self.client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0]
        if state == TCP_CLOSE or not self._send_again(reset=True):
            self.close(reset=True)

    def close(self, *, reset: bool = False) -> None:
        """End both sides; `reset`: not as if all had been said."""
        if self not in self.relay.links:
            return
        self.relay.links.discard(self)
        if self.exchanging and self.relay.engine.exchange is not None:
            self.relay.engine.exchange.leave(self, closed=True)
            self.exchanging = False
        self.up.release_pipe()
        self.down.release_pipe()
        if reset:
            for end in (self.client, self.server):
                if end is not None:
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._drop_server()
        self.relay.engine.bury(self.client)
        del self.up.link, self.down.link  # so that no cycle waits for the garbage collector
