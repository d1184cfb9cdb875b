"""A relay with real sockets on the loopback interface: its engine in a thread, endpoints in threads."""

import _socket
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress

import pytest

from svcplane.proxy.planes.userspace import link
from svcplane.proxy.planes.userspace.balance import Address, Balance
from svcplane.proxy.planes.userspace.engine import Engine
from svcplane.proxy.planes.userspace.exchange import Exchange
from svcplane.proxy.planes.userspace.pipes import PipePool
from svcplane.proxy.planes.userspace.tcp import Options, TcpRelay
from svcplane.proxy.planes.userspace.udp import UdpRelay

Serve = Callable[[socket.socket], None]


def wait_until(condition: Callable[[], bool], seconds: float = 5.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it never came true"
        time.sleep(0.005)


class Bench:
    """An engine in a thread, endpoints in threads; everything ends with the test."""

    def __init__(self) -> None:
        self.engine, self.balance, self.options = Engine(), Balance(), Options()
        self.tcp = TcpRelay(self.engine, PipePool(), self.balance, self.balance.cluster, self.options)
        self.udp = UdpRelay(self.engine, self.balance, self.balance.cluster, self.options)
        self._ends: list[socket.socket] = []
        self._thread = threading.Thread(target=self.engine.run)
        self.engine.every(0.02, self._tick)

    def with_exchange(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """As a worker has one, but every connection goes there with its first turn, and again and again."""
        self.engine.exchange = Exchange(self.engine.descriptor)
        monkeypatch.setattr(link, "TURNS", 1)
        monkeypatch.setattr(link, "MOST_TURNS", 1)

    def _tick(self) -> None:
        self.tcp.sweep()
        self.udp.sweep()

    def endpoint(self, serve: Serve, kind: int = socket.SOCK_STREAM) -> Address:
        listener = socket.socket(socket.AF_INET, kind)
        listener.bind(("127.0.0.1", 0))
        self._ends.append(listener)
        if kind == socket.SOCK_DGRAM:
            threading.Thread(target=serve, args=(listener,), daemon=True).start()
            address: Address = listener.getsockname()
            return address
        listener.listen()

        def run(end: socket.socket) -> None:
            with end, suppress(OSError):
                serve(end)

        def accept() -> None:
            while True:
                try:
                    end, _ = listener.accept()
                except OSError:
                    return
                threading.Thread(target=run, args=(end,), daemon=True).start()

        threading.Thread(target=accept, daemon=True).start()
        found: Address = listener.getsockname()
        return found

    def start(self, *endpoints: Address, kind: int = socket.SOCK_STREAM, **balance: object) -> Address:
        self.balance.update(endpoints, (), **balance)  # type: ignore[arg-type]
        listener = _socket.socket(socket.AF_INET, kind)
        listener.bind(("127.0.0.1", 0))
        if kind == socket.SOCK_STREAM:
            listener.listen(128)
            self.tcp.listen(listener)
        else:
            self.udp.listen(listener)
        self._thread.start()
        address: Address = listener.getsockname()
        return address

    def close(self) -> None:
        self.engine.stop()
        if self._thread.is_alive():
            self._thread.join(5)
        self.tcp.close()
        self.udp.close()
        self.engine.close()
        for end in self._ends:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)  # wakes up who waits for it
            end.close()

    def silent(self) -> Address:
        """An address that does not answer a dial: a listener whose backlog is full."""
        listener = socket.socket()
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address: Address = listener.getsockname()
        self._ends.append(listener)
        for _ in range(4):
            filler = socket.socket()
            filler.setblocking(False)
            filler.connect_ex(address)
            self._ends.append(filler)
        return address


def closed() -> Address:
    """An address that refuses."""
    with socket.socket() as end:
        end.bind(("127.0.0.1", 0))
        address: Address = end.getsockname()
        return address


def say(text: bytes) -> Serve:
    """Answers each request with `text` and the request."""

    def serve(end: socket.socket) -> None:
        while data := end.recv(65536):
            end.sendall(text + data)

    return serve


def ask(address: Address, request: bytes = b"hello", timeout_s: float = 5.0) -> bytes:
    with socket.create_connection(address, timeout_s) as client:
        client.sendall(request)
        return client.recv(65536)


def read_all(end: socket.socket) -> bytes:
    found = bytearray()
    while data := end.recv(1 << 20):
        found += data
    return bytes(found)
