"""One direction of a connection without sockets: whatever comes when, all of it goes on, in order, and then the end."""

import socket
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from svcplane.proxy.planes.userspace.direction import READ_SIZE, Direction

CHUNKS = st.lists(st.one_of(st.integers(1, 300), st.integers(READ_SIZE - 1, 3 * READ_SIZE)), max_size=6)
ROOM = st.lists(st.integers(0, 2 * READ_SIZE), max_size=12)


class Source:
    """`arrived`: what the kernel has; `fin`: and the end behind it."""

    def __init__(self) -> None:
        self.arrived, self.fin = b"", False

    def recv(self, size: int, _: int) -> bytes:
        if not self.arrived and not self.fin:
            raise BlockingIOError
        data, self.arrived = self.arrived[:size], self.arrived[size:]
        return data


class Target:
    """Takes as much as it has room for."""

    def __init__(self) -> None:
        self.taken, self.room, self.corked, self.ended = bytearray(), 0, False, False

    def send(self, data: bytes, flags: int) -> int:
        assert not self.ended
        size = min(self.room, len(data))
        if not size:
            raise BlockingIOError
        self.taken += data[:size]
        self.room -= size
        self.corked = bool(flags & socket.MSG_MORE) and size == len(data)
        return size


class Link:
    keeps_request = urgent = False
    relay = SimpleNamespace(pipes=SimpleNamespace(take=lambda: None))

    def __init__(self) -> None:
        self.again = False

    def arm(self, direction: Direction) -> None:
        direction.armed = True

    def continue_later(self) -> None:
        self.again = True

    def ended(self, direction: Direction) -> None:
        direction.shut = True
        target: Any = direction.target
        target.ended, target.corked = True, False


def pump(direction: Direction, link: Link) -> None:
    link.again = True
    while link.again:
        link.again = False
        direction.pump()


@settings(max_examples=300, deadline=None)
@given(CHUNKS, ROOM, st.booleans(), st.integers(0, 1 << 20))
def test_all_goes_on_in_order_and_then_the_end(chunks: list[int], rooms: list[int], at_once: bool, first: int) -> None:
    source, target, link = Source(), Target(), Link()
    direction = Direction(link, source, target)  # type: ignore[arg-type]
    direction.writable, target.room = True, first
    said = b""
    for number, size in enumerate(chunks):
        data = bytes((number + 1,)) * size
        said += data
        source.arrived += data
        direction.readable = True
        if at_once and number == len(chunks) - 1:
            source.fin = direction.closing = True
        pump(direction, link)
        assert not target.corked, "it waits for more that does not come"
        if rooms:
            target.room += rooms.pop()
            if direction.armed and target.room:
                direction.writable = True
                pump(direction, link)
        assert said.startswith(target.taken)
    source.fin = direction.closing = direction.readable = True
    pump(direction, link)
    target.room = 1 << 30
    direction.writable = True
    pump(direction, link)
    assert bytes(target.taken) == said
    assert target.ended
    assert not target.corked
    assert direction.moved == len(said)


def test_end_goes_out_with_the_last_bytes() -> None:
    source, target, link = Source(), Target(), Link()
    flags: list[int] = []
    target.send = lambda data, flag: flags.append(flag) or len(data)  # type: ignore[func-returns-value, method-assign]
    direction = Direction(link, source, target)  # type: ignore[arg-type]
    source.arrived, source.fin = b"bye", True
    direction.writable = direction.readable = direction.closing = True
    pump(direction, link)
    assert flags == [socket.MSG_DONTWAIT | socket.MSG_MORE]
    assert target.ended


def test_urgent_data_may_hide_more() -> None:
    """A read stops before urgent data: that it was short does not tell of the end."""
    source, target, link = Source(), Target(), Link()
    link.urgent, target.room = True, 100
    parts = [b"", b"behind", b"before"]
    source.recv = lambda size, flags: parts.pop()  # type: ignore[method-assign]
    direction = Direction(link, source, target)  # type: ignore[arg-type]
    direction.writable = direction.readable = direction.closing = True
    pump(direction, link)
    assert bytes(target.taken) == b"beforebehind"
    assert target.ended
