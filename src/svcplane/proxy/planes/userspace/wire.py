"""What the proxy and its relay workers say to each other, and how it is framed.  Pure.

A message is its length (four bytes, network order) and JSON.  Descriptors travel beside the bytes, in the order of the
`Listen` and `Session` messages that they belong to.  A worker whose proxy has gone says the same to the next one.
"""

import struct
from collections.abc import Iterator
from typing import Literal

import msgspec

from svcplane.proxy.planes.userspace.balance import Address

_LENGTH = struct.Struct(">I")


class Serve(msgspec.Struct, tag=True, frozen=True, omit_defaults=True):
    """A service port as it is now.  `key` names it; sent again whenever something of it changed.

    `kept`: endpoints that get nobody new, and keep the UDP clients they have.
    """

    key: str
    protocol: Literal["TCP", "UDP"]
    cluster: tuple[Address, ...] = ()
    local: tuple[Address, ...] = ()
    kept: tuple[Address, ...] = ()
    strategy: str = "round-robin"
    weights: tuple[tuple[Address, int], ...] = ()
    affinity_timeout_s: int = 0
    idle_timeout_s: float = 86_400
    proxy_protocol: int = 0
    retry_unanswered: bool = False
    mark: int = 0

    @property
    def one_worker(self) -> bool:
        """Whether one worker must see all its connections, to choose rightly."""
        return bool(self.affinity_timeout_s) or self.strategy != "round-robin"


class Listen(msgspec.Struct, tag=True, frozen=True):
    """Accept from the socket that comes with this, for one of the service port's pools."""

    key: str
    local: bool


class Drop(msgspec.Struct, tag=True, frozen=True, omit_defaults=True):
    """Close the sockets of a pool; what runs over it goes on.

    `shared`: others go on reading from the sockets, who would miss datagrams that are taken for sessions here.
    """

    key: str
    local: bool
    shared: bool = False


class Remove(msgspec.Struct, tag=True, frozen=True):
    """The service port is gone; what runs over it goes on."""

    key: str


class Recall(msgspec.Struct, tag=True, frozen=True):
    """Affinity of another process's relay: (client, endpoint, seconds left)."""

    key: str
    entries: tuple[tuple[str, Address, float], ...]


class Session(msgspec.Struct, tag=True, frozen=True):
    """A UDP session, whose socket comes with this, over the listening socket that came last."""

    key: str
    local: bool
    client: str  # its socket address, in hexadecimal
    endpoint: Address
    answered: bool


class TakeOver(msgspec.Struct, tag=True, frozen=True):
    """To a worker whose proxy has gone: answered by all it listens on, and Done; with Done in return it is given up."""


class Forget(msgspec.Struct, tag=True, frozen=True):
    """Forget a client's affinity."""

    key: str
    client: str


class Ask(msgspec.Struct, tag=True, frozen=True):
    """`connections`, `endpoints` or `affinity`: answered by Answer messages before Done."""

    what: Literal["connections", "endpoints", "affinity"]


class Drain(msgspec.Struct, tag=True, frozen=True):
    """Close all listening sockets; end when the last connection has ended or the time is over."""

    seconds: float


class Done(msgspec.Struct, tag=True, frozen=True):
    """Both ways: the end of a batch, and that all of it was done."""

    problems: tuple[str, ...] = ()


class Connection(msgspec.Struct, frozen=True, array_like=True):
    """One relayed connection, or UDP session.  Bytes as counted so far."""

    key: str
    client: str
    endpoint: str
    age_s: float
    idle_s: float
    to_endpoint: int
    to_client: int


class EndpointCount(msgspec.Struct, frozen=True, array_like=True):
    """What went to one endpoint of a service port since the relay began.  Bytes of ended connections.

    `failures`: dials failed in a row; `aside_s`: how long others are chosen for that.
    """

    key: str
    endpoint: str
    active: int
    connections: int
    to_endpoint: int
    to_client: int
    failures: int
    aside_s: float


class Remembered(msgspec.Struct, frozen=True, array_like=True):
    """One client held by affinity."""

    key: str
    client: str
    address: Address
    left_s: float


class Answer(msgspec.Struct, tag=True, frozen=True, omit_defaults=True):
    connections: tuple[Connection, ...] = ()
    endpoints: tuple[EndpointCount, ...] = ()
    affinity: tuple[Remembered, ...] = ()


ToWorker = Serve | Listen | Session | Drop | Remove | Recall | Forget | Ask | Drain | TakeOver | Done
FromWorker = Answer | Listen | Session | Recall | Done
_to_worker: msgspec.json.Decoder[ToWorker] = msgspec.json.Decoder(ToWorker)
_from_worker: msgspec.json.Decoder[FromWorker] = msgspec.json.Decoder(FromWorker)
_encoder = msgspec.json.Encoder()


def frame(message: ToWorker | FromWorker) -> bytes:
    body = _encoder.encode(message)
    return _LENGTH.pack(len(body)) + body


def frames(buffer: bytearray) -> Iterator[bytes]:
    """Take whole messages off the front of a buffer."""
    while len(buffer) >= 4:
        end = 4 + _LENGTH.unpack_from(buffer)[0]
        if len(buffer) < end:
            return
        body = bytes(buffer[4:end])
        del buffer[:end]
        yield body


def to_worker(body: bytes) -> ToWorker:
    return _to_worker.decode(body)


def from_worker(body: bytes) -> FromWorker:
    return _from_worker.decode(body)
