"""A relay worker: the process that relays.  Run as `python -m svcplane.proxy.planes.userspace.worker FD SECONDS SCOPE`.

FD is a stream socket to the proxy (see `wire`).  When the proxy goes without a word, the worker serves on for SECONDS
and waits for the next proxy (see `handover`); then it takes nobody new and ends with its last connection.  Signals of
a terminal are the proxy's business.
"""

import _socket
import gc
import logging
import os
import signal
import socket
import sys
from collections.abc import Iterator

from svcplane.base.net import join_host_port
from svcplane.proxy.planes.userspace import handover, wire
from svcplane.proxy.planes.userspace.balance import Balance, Strategy
from svcplane.proxy.planes.userspace.engine import IN, Engine
from svcplane.proxy.planes.userspace.exchange import Exchange
from svcplane.proxy.planes.userspace.limits import raise_descriptor_limit
from svcplane.proxy.planes.userspace.pipes import PipePool
from svcplane.proxy.planes.userspace.tcp import Options, TcpRelay
from svcplane.proxy.planes.userspace.udp import UdpRelay

log = logging.getLogger(__name__)
SWEEP_S = 1.0
DRAIN_S = 900.0
ANSWER_ROWS = 1000
Relay = TcpRelay | UdpRelay


def socket_mark(mark: int) -> int:
    """A mark of 32 bits as the signed number that setsockopt(2) takes."""
    return mark - (1 << 32) if mark >> 31 else mark


class Service:
    """One service port of this worker."""

    def __init__(self, worker: "Worker", serve: wire.Serve) -> None:
        self.balance, self.options = Balance(int.from_bytes(os.urandom(2))), Options()
        self._worker, self._protocol = worker, serve.protocol
        self.relays: dict[bool, Relay] = {}
        self.update(serve)

    def update(self, serve: wire.Serve) -> None:
        self.balance.update(
            serve.cluster,
            serve.local,
            kept=serve.kept,
            strategy=Strategy(serve.strategy),
            weights=serve.weights,
            affinity_timeout_s=serve.affinity_timeout_s,
        )
        options = self.options
        options.mark, options.idle_timeout_s = socket_mark(serve.mark), serve.idle_timeout_s
        options.proxy_protocol, options.retry_unanswered = serve.proxy_protocol, serve.retry_unanswered

    def relay(self, local: bool) -> Relay:
        found = self.relays.get(local)
        if found is None:
            engine, pool = self._worker.engine, self.balance.local if local else self.balance.cluster
            if self._protocol == "TCP":
                found = TcpRelay(engine, self._worker.pipes, self.balance, pool, self.options)
            else:
                found = UdpRelay(engine, self.balance, pool, self.options)
            self.relays[local] = found
        return found


class Worker:
    """See the module's text."""

    def __init__(self, control: socket.socket, linger_s: float, scope: str) -> None:
        self.engine, self.pipes = Engine(), PipePool()
        self.engine.exchange = Exchange(self.engine.descriptor)
        self._control, self._linger_s, self._scope = control, linger_s, scope
        self._doorstep: socket.socket | None = None  # where the next proxy is waited for
        self._services: dict[str, Service] = {}
        self._retired: list[tuple[str, Relay]] = []  # without listeners, with connections
        self._buffer = bytearray()
        self._descriptors = handover.Descriptors()
        self._problems: list[str] = []
        self._draining_until: float | None = None
        self.engine.watch(control.fileno(), IN, self._on_control)
        self.engine.every(SWEEP_S, self._sweep)

    def run(self) -> None:
        self.engine.run()

    # -- being told ----------------------------------------------------------------------------------------------------

    def _on_control(self, _: int) -> None:
        try:
            data = self._descriptors.receive(self._control, 1 << 18, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            self._on_proxy_gone()
            return
        self._buffer += data
        for body in wire.frames(self._buffer):
            self._obey(wire.to_worker(body))

    # -- without a proxy -----------------------------------------------------------------------------------------------

    def _on_proxy_gone(self) -> None:
        self.engine.forget(self._control.fileno())
        self._control.close()
        if self._draining_until is not None:
            return
        if not any(relay.listeners for _, relay in self._relays()):
            self._drain(DRAIN_S)
            return
        self._doorstep = handover.doorstep(self._scope)
        self.engine.watch(self._doorstep.fileno(), IN, self._on_successor)
        self.engine.later(self._linger_s, lambda _: self._drain(DRAIN_S), None)

    def _on_successor(self, _: int) -> None:
        assert self._doorstep is not None
        end, _address = self._doorstep.accept()
        with end:
            end.settimeout(handover.WITHIN_S)
            try:
                if handover.is_ours(end) and self._hand_over(end):
                    for key, service in self._services.items():
                        for local in list(service.relays):
                            self._drop(key, local, shared=True)
                    self._drain(DRAIN_S)
            except OSError as error:
                log.warning("not handed over: %s", error)

    def _hand_over(self, end: socket.socket) -> bool:
        """Whether the other side has it all now.  Blocks."""
        now = self.engine.now
        for key, service in self._services.items():
            for local, relay in service.relays.items():
                for listener in relay.listeners:
                    handover.send(end, wire.Listen(key, local), listener.fileno())
                    for session in relay.sessions_over(listener) if isinstance(relay, UdpRelay) else ():
                        if session.server is not None and session.backend is not None:
                            said = wire.Session(
                                key, local, session.client.hex(), session.backend.address, session.answered
                            )
                            handover.send(end, said, session.server.fileno())
            if service.balance.affinity is not None:
                entries = list(service.balance.affinity.entries(now))
                for at in range(0, len(entries), ANSWER_ROWS):
                    handover.send(end, wire.Recall(key, tuple(entries[at : at + ANSWER_ROWS])))
        handover.send(end, wire.Done())
        buffer = bytearray()
        while data := end.recv(1 << 16):
            buffer += data
            if any(isinstance(wire.to_worker(body), wire.Done) for body in wire.frames(buffer)):
                return True
        return False

    def _drain(self, seconds: float) -> None:
        """Take nobody new; end with the last connection, or when the time is over."""
        if self._draining_until is not None:
            return
        self._draining_until = self.engine.now + seconds
        if self._doorstep is not None:
            self.engine.forget(self._doorstep.fileno())
            self._doorstep.close()
        for key in list(self._services):
            self._obey(wire.Remove(key))
        self.engine.later(0.0, lambda _: self._sweep(), None)

    # -- obeying -------------------------------------------------------------------------------------------------------

    def _obey(self, message: wire.ToWorker) -> None:
        match message:
            case wire.Serve():
                service = self._services.get(message.key)
                if service is None:
                    self._services[message.key] = Service(self, message)
                else:
                    service.update(message)
            case wire.Listen(key, local):
                self._services[key].relay(local).listen(_socket.socket(fileno=self._descriptors.claim()))
            case wire.Session():
                end = _socket.socket(fileno=self._descriptors.claim())
                relay = self._services[message.key].relay(message.local)
                if isinstance(relay, UdpRelay):
                    relay.adopt(bytes.fromhex(message.client), message.endpoint, end, answered=message.answered)
            case wire.Drop(key, local, shared):
                self._drop(key, local, shared=shared)
            case wire.Remove(key):
                for local in (False, True):
                    self._drop(key, local)
                self._services.pop(key, None)
            case wire.Recall(key, entries):
                self._recall(key, entries)
            case wire.Forget(key, client):
                service = self._services.get(key)
                if service is not None and service.balance.affinity is not None:
                    service.balance.affinity.forget(client)
            case wire.Ask(what):
                self._answer(what)
            case wire.Drain(seconds):
                self._drain(seconds)
            case wire.Done():
                self._say(wire.Done(tuple(self._problems)))
                self._problems.clear()
            case wire.TakeOver():
                pass  # said at the doorstep

    def _drop(self, key: str, local: bool, *, shared: bool = False) -> None:
        service = self._services.get(key)
        relay = service.relays.pop(local, None) if service is not None else None
        if relay is not None:
            if shared and isinstance(relay, UdpRelay):
                relay.leave()
            else:
                relay.close_listeners()
            if _open(relay):
                self._retired.append((key, relay))

    def _recall(self, key: str, entries: tuple[tuple[str, tuple[str, int], float], ...]) -> None:
        service = self._services.get(key)
        affinity = service.balance.affinity if service is not None else None
        if service is None or affinity is None:
            return
        for client, address, left_s in sorted(entries, key=lambda entry: entry[2]):
            backend = service.balance.backends.get(address)
            if backend is not None:
                affinity.remember(client, backend, self.engine.now - (affinity.timeout_s - left_s))

    # -- telling -------------------------------------------------------------------------------------------------------

    def _say(self, message: wire.FromWorker) -> None:
        self._control.sendall(wire.frame(message))

    def _answer(self, what: str) -> None:
        now = self.engine.now
        if what == "affinity":
            rows = [
                wire.Remembered(key, client, address, left_s)
                for key, service in self._services.items()
                if service.balance.affinity is not None
                for client, address, left_s in service.balance.affinity.entries(now)
            ]
            for at in range(0, len(rows), ANSWER_ROWS):
                self._say(wire.Answer(affinity=tuple(rows[at : at + ANSWER_ROWS])))
        elif what == "connections":
            connections = list(self._connections())
            for at in range(0, len(connections), ANSWER_ROWS):
                self._say(wire.Answer(connections=tuple(connections[at : at + ANSWER_ROWS])))
        else:
            counts = [
                wire.EndpointCount(
                    key,
                    join_host_port(*b.address),
                    *(b.active, b.connections, b.sent, b.received, b.failures),
                    max(0.0, b.aside_until - now),
                )
                for key, service in self._services.items()
                for b in service.balance.backends.values()
            ]
            for at in range(0, len(counts), ANSWER_ROWS):
                self._say(wire.Answer(endpoints=tuple(counts[at : at + ANSWER_ROWS])))

    def _connections(self) -> Iterator[wire.Connection]:
        now = self.engine.now
        for key, relay in self._relays():
            if isinstance(relay, TcpRelay):
                for link in relay.links:
                    moved = link.up.moved, link.down.moved
                    endpoint = join_host_port(*link.backend.address) if link.backend else ""
                    client = join_host_port(*link.client_address[:2])
                    yield wire.Connection(key, client, endpoint, now - link.opened_at, now - link.last_used, *moved)
            else:
                for session in relay.sessions.values():
                    moved = session.sent, session.received
                    endpoint = join_host_port(*session.backend.address) if session.backend else ""
                    client = join_host_port(*session.client_address)
                    yield wire.Connection(key, client, endpoint, now - session.opened_at, now - session.used_at, *moved)

    def _relays(self) -> Iterator[tuple[str, Relay]]:
        for key, service in self._services.items():
            for relay in service.relays.values():
                yield key, relay
        yield from self._retired

    # -- time ----------------------------------------------------------------------------------------------------------

    def _sweep(self) -> None:
        for _, relay in self._relays():
            if _open(relay):
                relay.sweep()
        for service in self._services.values():
            if service.balance.affinity:
                service.balance.affinity.expire(self.engine.now)
        if self._retired:
            for _, relay in self._retired:
                relay.sweep()
            self._retired = [(key, relay) for key, relay in self._retired if _open(relay)]
        if self._draining_until is not None and (not self._retired or self.engine.now >= self._draining_until):
            self.engine.stop()


def _open(relay: Relay) -> bool:
    return bool(relay.links if isinstance(relay, TcpRelay) else relay.sessions)


def main() -> None:
    logging.basicConfig(level=os.environ.get("SVCPLANE_LOG", "WARNING"), format="%(levelname)s %(name)s: %(message)s")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    raise_descriptor_limit()
    control = socket.socket(fileno=int(sys.argv[1]))
    gc.freeze()
    gc.set_threshold(50_000)  # ended connections leave no cycles behind
    try:
        Worker(control, float(sys.argv[2]), sys.argv[3]).run()
    except ConnectionError:
        pass  # the proxy is gone


if __name__ == "__main__":
    main()
