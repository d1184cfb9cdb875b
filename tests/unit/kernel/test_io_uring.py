"""The ring with socket pairs; without root."""

import errno
import random
import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

import pytest

from svcplane.kernel.io_uring import BUFFER_SIZE, BUFFERS, COMPLETIONS, Left, Ring

pytestmark = pytest.mark.io_uring


@dataclass
class Way:
    goes_to: int
    moved: int = 0
    seen: float = 0.0


class Rig:
    """A ring, and pairs: what is said into `said(n)` is passed on to what `heard(n)` reads."""

    def __init__(self, count: int) -> None:
        self.ring = Ring()
        self.pairs = [(socket.socketpair(), socket.socketpair()) for _ in range(count)]
        self.flows: dict[int, Way] = {}
        self.left: list[Left] = []
        self._now = 0.0
        for number, ((_, source), (target, _)) in enumerate(self.pairs):
            self.flows[number + 1] = Way(target.fileno())
            self.ring.receive(source.fileno(), number + 1)

    def said(self, number: int) -> socket.socket:
        return self.pairs[number][0][0]

    def heard(self, number: int) -> socket.socket:
        return self.pairs[number][1][1]

    def round(self, within_s: float = 1.0) -> list[Left]:
        self._now += 1
        self.ring.wait(within_s)
        found = self.ring.pass_on(self.flows, self._now)
        self.left += found
        return found

    def close(self) -> None:
        self.ring.close()
        for pair in self.pairs:
            for ends in pair:
                for end in ends:
                    end.close()


@pytest.fixture
def rig(request: pytest.FixtureRequest) -> Iterator[Rig]:
    made = Rig(getattr(request, "param", 1))
    yield made
    made.close()


def test_what_is_said_is_passed_on(rig: Rig) -> None:
    rig.said(0).sendall(b"hello")
    assert rig.round() == []
    rig.ring.submit()
    assert rig.heard(0).recv(100) == b"hello"
    assert rig.flows[1].moved == 5


def test_waiting_ends_in_time(rig: Rig) -> None:
    began = time.monotonic()
    assert rig.round(0.05) == []
    assert 0.045 < time.monotonic() - began < 2
    assert rig.round(0) == []


def test_end_is_left_to_the_caller(rig: Rig) -> None:
    rig.said(0).close()
    assert rig.round() == [Left(1, 0, b"", sent=False, more=False)]
    assert rig.flows == {}


def test_more_than_a_buffer_is_left_with_its_bytes_and_all_after_it(rig: Rig) -> None:
    body = random.Random(1).randbytes(2 * BUFFER_SIZE + 100)
    rig.said(0).sendall(body)
    while sum(len(left.data) for left in rig.left) < len(body):
        assert rig.round(), "nothing came"
    assert b"".join(left.data for left in rig.left) == body
    assert all(left.more and not left.sent for left in rig.left)
    assert rig.flows == {}


def test_cancelled_receive_ends_and_the_socket_can_be_read_again(rig: Rig) -> None:
    rig.round(0)
    rig.ring.cancel(1)
    assert rig.round() == [Left(1, -errno.ECANCELED, b"", sent=False, more=False)]
    rig.said(0).sendall(b"hello")
    assert rig.pairs[0][0][1].recv(100) == b"hello"


def test_poll_tells_once(rig: Rig) -> None:
    one, other = socket.socketpair()
    with one, other:
        rig.ring.poll(one.fileno(), 77)
        assert rig.round(0) == []
        other.sendall(b"x")
        (left,) = rig.round()
        assert (left.token, left.more, left.sent) == (77, False, False)
        assert left.size > 0
        other.sendall(b"x")
        assert rig.round(0.02) == []


def test_rest_of_a_send_that_took_less_comes_back(rig: Rig) -> None:
    (target, heard) = rig.pairs[0][1]
    target.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    heard.settimeout(1)
    said = bytearray()
    for number in range(50):
        piece = random.Random(number).randbytes(12_000)
        rig.said(0).sendall(piece)
        said += piece
        rig.round()
        if rig.round(0):
            break
    (left,) = rig.left
    assert left.sent
    assert rig.flows == {}
    assert left.data == said[-len(left.data) :]
    assert 0 < left.size < 12_000
    assert left.size + len(left.data) == 12_000
    got = bytearray()
    while len(got) < len(said) - len(left.data):
        got += heard.recv(100_000)
    assert got + left.data == said


def test_gone_target_is_told(rig: Rig) -> None:
    rig.heard(0).close()
    rig.said(0).sendall(b"hello")
    assert rig.round() == []
    assert rig.round() == [Left(1, -errno.EPIPE, b"hello", sent=True, more=True)]


@pytest.mark.parametrize("rig", [40], indirect=True)
@pytest.mark.parametrize("in_order", [True, False])
def test_buffers_are_used_again_and_hold_what_they_should(rig: Rig, in_order: bool) -> None:
    """Some thousand messages through 256 buffers, also where they are given back one by one."""
    rig.ring._in_order = in_order
    numbers = random.Random(3)
    heard = [0] * len(rig.pairs)
    for _ in range(200):
        chosen = numbers.sample(range(len(rig.pairs)), numbers.randrange(1, len(rig.pairs)))
        messages = {number: numbers.randbytes(numbers.randrange(1, 3000)) for number in chosen}
        for number, message in messages.items():
            rig.said(number).sendall(message)
            heard[number] += len(message)
        while any(rig.flows[number + 1].moved < heard[number] for number in chosen):
            assert rig.round() == []
        rig.ring.submit()
        for number, message in messages.items():
            assert rig.heard(number).recv(10_000) == message
    assert rig.ring._in_order == in_order
    assert sum(heard) > 10 * BUFFERS * 100


@pytest.mark.parametrize("rig", [BUFFERS + 100], indirect=True)
def test_more_sockets_than_buffers(rig: Rig) -> None:
    rig.round(0)
    for number in range(len(rig.pairs)):
        rig.said(number).sendall(b"%d" % number)
    while any(not way.moved for way in rig.flows.values()):
        assert rig.round() == []
    rig.ring.submit()
    heard = [rig.heard(number).recv(100) for number in range(len(rig.pairs))]
    assert heard == [b"%d" % number for number in range(len(rig.pairs))]


@pytest.mark.parametrize("rig", [19], indirect=True)
def test_want_of_buffers_is_told_and_nothing_is_lost(rig: Rig) -> None:
    rig.round(0)
    said = [bytearray() for _ in rig.pairs]
    for number, sent in enumerate(said):
        end, chunk = rig.said(number), random.Random(number).randbytes(50_000)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        end.setblocking(False)
        with suppress(BlockingIOError):
            while True:
                sent += chunk[: end.send(chunk)]
    assert sum(map(len, said)) > BUFFERS * BUFFER_SIZE
    got = [bytearray() for _ in rig.pairs]
    while any(len(part) < len(whole) for part, whole in zip(got, said, strict=True)):
        for left in rig.round():
            got[left.token - 1] += left.data
            if left.size == -errno.ENOBUFS:
                assert not left.more
                rig.ring.receive(rig.pairs[left.token - 1][0][1].fileno(), left.token)
    assert got == said
    assert -errno.ENOBUFS in {left.size for left in rig.left}


def ask_for_much(ring: Ring, descriptor: int, count: int) -> None:
    """Completions of another kind, at once."""
    for number in range(count):
        ring.poll(descriptor, 10_000 + number)
    ring.submit()


@pytest.mark.parametrize("rig", [BUFFERS], indirect=True)
def test_send_that_took_less_is_told_before_its_buffer_is_used_again(rig: Rig) -> None:
    """Also behind much else, and with others that wait for buffers."""
    rig.pairs[0][1][0].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4608)
    first, second = (random.Random(seed).randbytes(12_000) for seed in (1, 2))
    one, other = socket.socketpair()
    with one, other:
        other.sendall(b"x")
        for number in range(BUFFERS):
            rig.said(number).sendall(first)
        rig.ring.submit()
        ask_for_much(rig.ring, one.fileno(), 1500)
        rig.round(0)
        for number in range(BUFFERS):
            rig.said(number).sendall(second)
        while not any(left.sent for left in rig.left):
            rig.round(0)
    (told,) = [left for left in rig.left if left.sent]
    assert told.token == 1
    assert told.data == first[told.size :]


def test_more_complete_than_the_ring_holds_is_left_in_order(rig: Rig) -> None:
    one, other = socket.socketpair()
    with one, other:
        other.sendall(b"x")
        rig.said(0).sendall(b"first")
        rig.ring.submit()
        ask_for_much(rig.ring, one.fileno(), 2 * COMPLETIONS + 100)
        rig.said(0).sendall(b"second")
        settled = []
        for _ in range(4):
            rig.round(0)
            settled.append(rig.ring.settled)
    assert (settled[0], settled[-1]) == (False, True)
    assert [left.data for left in rig.left if left.token == 1] == [b"first", b"second"]
    assert len(rig.left) == 2 * COMPLETIONS + 102


def test_machine_of_the_other_byte_order_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svcplane.kernel.io_uring.sys.byteorder", "big")
    with pytest.raises(OSError, match="little-endian"):
        Ring()
