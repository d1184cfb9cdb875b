"""Connections that take turns, relayed through an io_uring: real sockets on the loopback interface."""

import errno
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest
from tests.relaybench import Bench, ask, read_all, say, wait_until

from svcplane.kernel import io_uring
from svcplane.proxy.planes.userspace import exchange, link
from svcplane.proxy.planes.userspace.balance import Address
from svcplane.proxy.planes.userspace.direction import Direction

pytestmark = pytest.mark.io_uring


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    made = Bench()
    made.with_exchange(monkeypatch)
    yield made
    made.close()


def connected(bench: Bench, address: Address) -> socket.socket:
    """A client whose connection is in the exchange."""
    client = socket.create_connection(address, 5)
    before = {one for one in bench.tcp.links if one.exchanging}
    for _ in range(20):
        client.sendall(b"turn")
        assert client.recv(100) == b"turn"
        if any(one.exchanging for one in list(bench.tcp.links) if one not in before):
            return client
    raise AssertionError("it never went to the exchange")


def test_who_takes_turns_goes_there_and_who_asks_once_does_not(bench: Bench) -> None:
    address = bench.start(bench.endpoint(say(b"")))
    assert ask(address) == b"hello"
    with connected(bench, address) as client:
        (taken,) = [one for one in bench.tcp.links if one.exchanging]
        for number in range(300):
            client.sendall(b"%d" % number)
            assert client.recv(100) == b"%d" % number
        assert taken.exchanging
        moved = taken.up.moved, taken.down.moved
        assert moved[0] == moved[1]
    wait_until(lambda: not bench.tcp.links)
    assert [backend.active for backend in bench.balance.backends.values()] == [0]
    assert sum(backend.received for backend in bench.balance.backends.values()) == moved[0] + len("hello")


def test_end_of_either_side_is_passed_on(bench: Bench) -> None:
    def serve(end: socket.socket) -> None:
        while data := end.recv(100):
            if data == b"leave":
                end.sendall(b"last words")
                end.shutdown(socket.SHUT_WR)
                assert read_all(end) == b"and mine"
                return
            end.sendall(data)
        end.sendall(b"after the end")

    address = bench.start(bench.endpoint(serve))
    with connected(bench, address) as client:
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"after the end"
    with connected(bench, address) as client:
        client.sendall(b"leave")
        assert read_all(client) == b"last words"
        client.sendall(b"and mine")
    wait_until(lambda: not bench.tcp.links)


def test_reset_of_either_side_is_passed_on(bench: Bench) -> None:
    seen: list[str] = []

    def serve(end: socket.socket) -> None:
        try:
            while (data := end.recv(100)) != b"reset":
                assert data
                end.sendall(data)
        except ConnectionResetError:
            seen.append("reset")
            return
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    address = bench.start(bench.endpoint(serve))
    with connected(bench, address) as client:
        client.sendall(b"reset")
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    client = connected(bench, address)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    wait_until(lambda: seen == ["reset"])
    wait_until(lambda: not bench.tcp.links)


def test_idle_connection_ends_and_leaves_nothing(bench: Bench) -> None:
    address = bench.start(bench.endpoint(say(b"")))
    with connected(bench, address) as client:
        bench.options.idle_timeout_s = 0.1
        began = time.monotonic()
        assert client.recv(10) == b""
        assert time.monotonic() - began < 5
    wait_until(lambda: not bench.tcp.links)
    found = bench.engine.exchange
    assert found is not None
    wait_until(lambda: not found.busy)


def test_side_that_does_not_read_holds_the_other_back_and_nothing_is_lost(bench: Bench) -> None:
    begun, go_on = threading.Event(), threading.Event()
    read: list[bytes] = []

    def serve(end: socket.socket) -> None:
        while (data := end.recv(100)) != b"begin":
            end.sendall(data)
        begun.set()
        go_on.wait(10)
        read.append(read_all(end))

    address = bench.start(bench.endpoint(serve))
    with connected(bench, address) as client:
        client.sendall(b"begin")
        assert begun.wait(5)
        client.setblocking(False)
        chunk, sent = random.Random(1).randbytes(1500), bytearray()
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 0.3:
            try:
                sent += chunk[: client.send(chunk)]
                quiet_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.002)
            assert len(sent) < 64 << 20, "nothing held the client back"
        go_on.set()
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: bool(read), 20)
    assert read == [bytes(sent)]


@pytest.mark.parametrize("size", [700, 9000])
def test_what_is_not_taken_whole_is_sent_later_before_all_else(
    bench: Bench, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    go_on = threading.Event()
    read: list[bytes] = []
    short: list[int] = []
    whole = exchange.Exchange._sent_less

    def sent_less(direction: Direction, left: io_uring.Left, now: float) -> None:
        short.append(left.size)
        whole(direction, left, now)

    monkeypatch.setattr(exchange.Exchange, "_sent_less", staticmethod(sent_less))

    def serve(end: socket.socket) -> None:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        while (data := end.recv(100)) != b"begin":
            end.sendall(data)
        go_on.wait(10)
        read.append(read_all(end))

    with connected(bench, bench.start(bench.endpoint(serve))) as client:
        (one,) = bench.tcp.links
        assert one.server is not None
        one.server.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        said, numbers, arrived = bytearray(b"begin"), random.Random(size), list[int]()
        client.sendall(said)
        wait_until(lambda: one.last_used > 0 and one.up.moved % 4 == 1)
        before = one.up.moved - len(said)
        while not short:
            piece = numbers.randbytes(size)
            client.sendall(piece)
            said += piece
            arrived.append(before + len(said))
            wait_until(lambda: bool(short) or one.up.moved == arrived[-1])
            assert len(said) < 10 << 20, "everything was taken"
        for _ in range(5):
            piece = numbers.randbytes(size)
            client.sendall(piece)
            said += piece
        go_on.set()
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: bool(read))
    assert read == [bytes(said[len(b"begin") :])]
    assert len(short) == 1
    assert 0 < short[0] < size or short[0] == -errno.EAGAIN


class Party:
    """Says pieces of all sizes at its own pace and remembers what it hears."""

    def __init__(self, end: socket.socket, seed: int) -> None:
        self._end, self._random = end, random.Random(seed)
        self.said, self.heard, self.done = bytearray(), b"", False

    def talk(self) -> None:
        listener = threading.Thread(target=self._listen)
        listener.start()
        for _ in range(self._random.randrange(1, 60)):
            size = self._random.choice((1, 20, 500, 3000, 16_383, 16_384, 16_385, 70_000, 300_000))
            piece = self._random.randbytes(self._random.randrange(1, size + 1))
            self.said += piece
            self._end.sendall(piece)
            if self._random.random() < 0.3:
                time.sleep(self._random.random() * 0.003)
        self._end.shutdown(socket.SHUT_WR)
        listener.join()
        self.done = True

    def _listen(self) -> None:
        pace, heard = random.Random(self._random.random()), bytearray()
        while data := self._end.recv(pace.choice((100, 5000, 1 << 20))):
            heard += data
            if pace.random() < 0.05:
                time.sleep(pace.random() * 0.003)
        self.heard = bytes(heard)


@pytest.mark.parametrize("seed", range(4))
def test_all_that_both_say_arrives_in_order(bench: Bench, seed: int) -> None:
    there: dict[bytes, Party] = {}

    def serve(end: socket.socket) -> None:
        for _ in range(4):
            end.sendall(end.recv(100))
        number = end.recv(4, socket.MSG_WAITALL)
        there[number] = Party(end, seed * 1000 + 500 + int(number))
        there[number].talk()

    address = bench.start(bench.endpoint(serve))
    here: dict[bytes, Party] = {}

    def client(number: int) -> None:
        with socket.create_connection(address, 10) as end:
            for _ in range(4):
                end.sendall(b"turn")
                assert end.recv(100) == b"turn"
            end.sendall(b"%04d" % number)
            party = here[b"%04d" % number] = Party(end, seed * 1000 + number)
            party.talk()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    wait_until(lambda: not bench.tcp.links, 20)
    assert len(here) == len(there) == len(threads)
    wait_until(lambda: all(party.done for party in (*here.values(), *there.values())))
    for number, party in here.items():
        assert party.heard == there[number].said, number
        assert there[number].heard == party.said, number


def test_more_at_once_than_there_are_buffers(bench: Bench) -> None:
    address = bench.start(bench.endpoint(say(b"")))
    clients = [connected(bench, address) for _ in range(io_uring.BUFFERS + 60)]
    asleep, awake = threading.Event(), threading.Event()

    def sleep(_: object) -> None:
        asleep.set()
        awake.wait(10)

    for turn in range(3):
        asleep.clear()
        awake.clear()
        bench.engine.later(0.02, sleep, None)
        asleep.wait(5)
        for number, one in enumerate(clients):
            one.sendall(b"%d %d" % (turn, number))
        awake.set()
        assert [one.recv(100) for one in clients] == [b"%d %d" % (turn, number) for number in range(len(clients))]
    assert sum(one.exchanging for one in bench.tcp.links) == len(clients)
    for one in clients:
        one.close()
    wait_until(lambda: not bench.tcp.links)


def test_without_a_ring_epoll_does_it_all(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def refused() -> io_uring.Ring:
        tried.append(1)
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(exchange, "Ring", refused)
    with socket.create_connection(bench.start(bench.endpoint(say(b""))), 5) as client:
        for number in range(50):
            client.sendall(b"%d" % number)
            assert client.recv(100) == b"%d" % number
        assert not any(one.exchanging for one in bench.tcp.links)
    assert tried == [1]


def test_each_stay_that_ends_makes_the_next_later(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link, "MOST_TURNS", 1 << 20)
    address = bench.start(bench.endpoint(say(b"")))
    with connected(bench, address) as client:
        (one,) = bench.tcp.links
        wanted = [one.turns_wanted]
        for _ in range(3):
            client.sendall(b"x" * 100_000)
            left = 100_000
            while left:
                left -= len(client.recv(left))
            wait_until(lambda: not one.exchanging)
            wanted.append(one.turns_wanted)
            for _ in range(200):
                client.sendall(b"turn")
                assert client.recv(100) == b"turn"
                if one.exchanging:
                    break
        assert all(later >= 2 * earlier for earlier, later in pairwise(wanted))
