"""Datagrams by the batch, over the loopback interface."""

import socket
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svcplane.proxy.planes.userspace.datagrams import MOST, Datagrams, address_of, datagrams

Ends = tuple[socket.socket, socket.socket]


@pytest.fixture(params=[(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")], ids=["IPv4", "IPv6"], scope="module")
def ends(request: pytest.FixtureRequest) -> Iterator[Ends]:
    """A socket, and one that is connected to it."""
    family, address = request.param
    with socket.socket(family, socket.SOCK_DGRAM) as here, socket.socket(family, socket.SOCK_DGRAM) as there:
        for end in (here, there):
            end.bind((address, 0))
            end.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
            end.settimeout(5)
        there.connect(here.getsockname())
        yield here, there


def bodies(sizes: list[int]) -> list[bytes]:
    return [bytes((number % 256,)) * size for number, size in enumerate(sizes)]


def test_addresses_and_bodies_are_those_that_were_sent(ends: Ends) -> None:
    here, there = ends
    room = datagrams(here.family)
    sent = bodies([1, 0, 5, 1400, 60_000])
    for body in sent:
        there.send(body)
    count = room.receive_from(here.fileno())
    assert [room.body(at) for at in range(count)] == sent
    assert {address_of(room.name(at)) for at in range(count)} == {there.getsockname()[:2]}
    assert room.size(2, 4) == 1405
    with pytest.raises(BlockingIOError):
        room.receive_from(here.fileno())


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([0, 1, 64, 64, 64, 65, 1200, 1472, 9000, 30_000]), min_size=1, max_size=12))
def test_whatever_the_sizes_are_each_datagram_arrives_as_it_was(ends: Ends, sizes: list[int]) -> None:
    here, there = ends
    room, sent = Datagrams(here.family), bodies(sizes)
    for body in sent:
        there.send(body)
    count = room.receive_from(here.fileno())
    room.send_to(here.fileno(), room.name(0), count)
    assert [there.recv(65_536) for _ in sent] == sent
    room.send_on(there.fileno(), 0, count)
    assert [here.recv(65_536) for _ in sent] == sent


def test_many_of_one_size_are_more_than_one_call_takes(ends: Ends) -> None:
    here, there = ends
    room = datagrams(here.family)
    for body in bodies([100] * (MOST + 1)):
        there.send(body)
    assert room.receive_from(here.fileno()) == MOST
    room.send_on(there.fileno(), 0, MOST)
    assert room.receive_from(here.fileno()) == MOST
    assert room.receive_from(here.fileno()) == 1


def test_refusal_is_told(ends: Ends) -> None:
    here, there = ends
    room = datagrams(here.family)
    there.send(b"x")
    room.receive_from(here.fileno())
    with socket.socket(here.family, socket.SOCK_DGRAM) as other:
        with socket.socket(here.family, socket.SOCK_DGRAM) as gone:
            gone.bind((here.getsockname()[0], 0))
            other.connect(gone.getsockname())
        room.send_on(other.fileno(), 0, 1)
        with pytest.raises(ConnectionRefusedError):
            room.receive(other.fileno())
