"""How listening sockets outlive the proxy that opened them.

A worker whose proxy has gone goes on as it was told last, and waits at an abstract Unix socket of the network namespace
for the next proxy of the same user.  That one gets the listening sockets, so that no client meets a closed door, the
affinity and the UDP sessions; TCP connections stay where they are until they end.
"""

import array
import logging
import os
import socket
import struct
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field

import msgspec

from svcplane.proxy.planes.userspace import wire
from svcplane.proxy.planes.userspace.balance import Address

log = logging.getLogger(__name__)
PREFIX = "svcplane-userspace/"
WITHIN_S = 5.0
LISTENING = 0x10000  # __SO_ACCEPTCON in /proc/net/unix
Slot = tuple[str, bool]


class Descriptors:
    """Those that came beside the bytes and were not claimed yet."""

    def __init__(self) -> None:
        self._numbers: list[int] = []

    def receive(self, end: socket.socket, size: int, flags: int = 0) -> bytes:
        """Read from a stream as `recv` does."""
        data, ancillary, _, _ = end.recvmsg(size, 4096, flags | socket.MSG_CMSG_CLOEXEC)
        for level, kind, payload in ancillary:
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
                found = array.array("i")
                found.frombytes(payload[: len(payload) - len(payload) % found.itemsize])
                self._numbers.extend(found)
        return data

    def claim(self) -> int:
        return self._numbers.pop(0)

    def close(self) -> None:
        for number in self._numbers:
            os.close(number)
        self._numbers.clear()


def send(end: socket.socket, message: wire.ToWorker | wire.FromWorker, lent: int | None = None) -> None:
    """Blocks."""
    data = memoryview(wire.frame(message))
    if lent is not None:
        rights = array.array("i", [lent])
        sent = end.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
        data = data[sent:]
    end.sendall(data)


def is_ours(end: socket.socket) -> bool:
    """Whether the other side runs as the same user."""
    _, uid, _ = struct.unpack("iII", end.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))
    return bool(uid == os.geteuid())


def doorstep(scope: str) -> socket.socket:
    """Where a worker without a proxy waits for the next one of its scope."""
    end = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    end.bind(f"\0{PREFIX}{scope}/{uuid.uuid4().hex}")
    end.listen(4)
    end.setblocking(False)
    return end


def waiting(scope: str) -> list[str]:
    """Names of those who wait in this network namespace."""
    with open("/proc/thread-self/net/unix") as file:
        rows = [line.split() for line in file]
    return sorted(row[7][1:] for row in rows[1:] if len(row) > 7 and row[7].startswith(f"@{PREFIX}{scope}/"))


# -- the next proxy's side -------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Heir:
    """A listening socket, and the UDP sessions over it."""

    listener: socket.socket
    sessions: list[tuple[wire.Session, socket.socket]] = field(default_factory=list)

    def close(self) -> None:
        self.listener.close()
        self.close_sessions()

    def close_sessions(self) -> None:
        for _, end in self.sessions:
            end.close()


@dataclass(slots=True)
class Estate:
    """What was handed over and not claimed yet."""

    slots: dict[Slot, list[Heir]] = field(default_factory=dict)
    affinity: dict[str, tuple[tuple[str, Address, float], ...]] = field(default_factory=dict)

    def discard(self, prefix: str) -> None:
        """Nobody wants what is left of these services."""
        for slot in [slot for slot in self.slots if slot[0].startswith(prefix)]:
            for heir in self.slots.pop(slot):
                heir.close()
        for key in [key for key in self.affinity if key.startswith(prefix)]:
            del self.affinity[key]


def take_over(scope: str) -> Estate:
    """Of all who wait.  Blocks, for a moment."""
    estate = Estate()
    for name in waiting(scope):
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as end:
                end.settimeout(WITHIN_S)
                end.connect(f"\0{name}")
                if is_ours(end):
                    _receive(end, estate)
                    send(end, wire.Done())
        except (
            OSError,
            EOFError,
            LookupError,
            msgspec.MsgspecError,
        ) as error:  # another version, or no descriptors left
            log.warning("a relay worker did not hand over: %s", error or "it ended")
    return estate


def _receive(end: socket.socket, estate: Estate) -> None:
    descriptors = Descriptors()
    last: dict[Slot, Heir] = {}
    try:
        send(end, wire.TakeOver())
        for message in _messages(end, descriptors):
            match message:
                case wire.Listen(key, local):
                    heir = last[key, local] = Heir(socket.socket(fileno=descriptors.claim()))
                    estate.slots.setdefault((key, local), []).append(heir)
                case wire.Session():
                    lent = socket.socket(fileno=descriptors.claim())
                    last[message.key, message.local].sessions.append((message, lent))
                case wire.Recall(key, entries):
                    estate.affinity[key] = estate.affinity.get(key, ()) + entries
    finally:
        descriptors.close()


def _messages(end: socket.socket, descriptors: Descriptors) -> Iterator[wire.FromWorker]:
    buffer = bytearray()
    while True:
        data = descriptors.receive(end, 1 << 16)
        if not data:
            raise EOFError
        buffer += data
        for body in wire.frames(buffer):
            message = wire.from_worker(body)
            if isinstance(message, wire.Done):
                return
            yield message
