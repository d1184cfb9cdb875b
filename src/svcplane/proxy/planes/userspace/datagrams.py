"""Many datagrams with one system call: recvmmsg(2) and sendmmsg(2), and the memory they need.

Structures are laid out once and point to one another; what changes from call to call are lengths and, for answers,
the one address they all go to.  A run of datagrams of one size passes through the kernel as one that it cuts at the end
(UDP_SEGMENT).
"""

import ctypes
import errno
import socket
from functools import cache

MOST = 64  # of one call
LARGEST = 65_536
SEGMENTS_SIZE = 60_000  # bytes of a run
SOL_UDP, UDP_SEGMENT = 17, 103
DONTWAIT = int(socket.MSG_DONTWAIT)


class _Vector(ctypes.Structure):
    """struct iovec"""

    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Message(ctypes.Structure):
    """struct msghdr"""

    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_int),
    )


class _Header(ctypes.Structure):
    """struct mmsghdr"""

    _fields_ = (("message", _Message), ("length", ctypes.c_uint32))


class _Segment(ctypes.Structure):
    """struct cmsghdr with the size of the datagrams that the kernel is to cut"""

    _pack_ = 2
    _fields_ = (
        ("length", ctypes.c_size_t),
        ("level", ctypes.c_int),
        ("kind", ctypes.c_int),
        ("size", ctypes.c_uint16),
        ("padding", ctypes.c_uint16 * 3),
    )


_HEADER, _VECTOR = ctypes.sizeof(_Header), ctypes.sizeof(_Vector)
_LENGTH, _LENGTHS = _Header.length.offset // 4, _HEADER // 4
_libc = ctypes.CDLL(None, use_errno=True)
_recvmmsg, _sendmmsg, _sendmsg = _libc.recvmmsg, _libc.sendmmsg, _libc.sendmsg
_recvmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
_sendmsg.argtypes, _sendmsg.restype = (ctypes.c_int, ctypes.c_void_p, ctypes.c_int), ctypes.c_ssize_t
_sendmmsg.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)


def _address(memory: bytearray) -> int:
    return ctypes.addressof(ctypes.c_char.from_buffer(memory))


class Datagrams:
    """Room for MOST datagrams and the socket addresses they come from.  What was received is sent on from there."""

    def __init__(self, family: int) -> None:
        self.name_size = 16 if family == socket.AF_INET else 28
        bodies, self._names, self._peer = (bytearray(size) for size in (MOST * LARGEST, MOST * self.name_size, 28))
        self._bodies = memoryview(bodies)
        bodies_at, names_at, peer_at = (_address(memory) for memory in (bodies, self._names, self._peer))
        room, filled = bytearray(MOST * _VECTOR), bytearray(MOST * _VECTOR)
        self._sizes = memoryview(filled).cast("Q" if ctypes.sizeof(ctypes.c_size_t) == 8 else "I")
        # to receive, with and without addresses; to send, to one address and over a connection
        blocks = [bytearray(MOST * _HEADER) for _ in range(4)]
        self._memory = (room, blocks)
        self._from_words, self._plain_words = (memoryview(block).cast("I") for block in blocks[:2])
        self._from_at, self._plain_at, self._to_at, self._on_at = map(_address, blocks)
        self._filled_at, self._peer_at = _address(filled), peer_at
        self._segment = _Segment(_Segment.size.offset + 2, SOL_UDP, UDP_SEGMENT)
        self._segmented = _Message(control=ctypes.addressof(self._segment), control_length=ctypes.sizeof(_Segment))
        self._segmented_at = ctypes.addressof(self._segmented)
        for at in range(MOST):
            for vectors in (room, filled):
                _Vector.from_buffer(vectors, at * _VECTOR).base = bodies_at + at * LARGEST
                _Vector.from_buffer(vectors, at * _VECTOR).length = LARGEST
            for block, vectors, name in (
                (blocks[0], room, names_at + at * self.name_size),
                (blocks[1], room, 0),
                (blocks[2], filled, peer_at),
                (blocks[3], filled, 0),
            ):
                message = _Header.from_buffer(block, at * _HEADER).message
                message.vectors, message.vector_count = _address(vectors) + at * _VECTOR, 1
                message.name, message.name_length = name or None, self.name_size if name else 0

    def receive_from(self, descriptor: int) -> int:
        """Receive with addresses; how many came.  Fewer than MOST: there are no more.  Raises OSError."""
        return self._received(_recvmmsg(descriptor, self._from_at, MOST, DONTWAIT, None), self._from_words)

    def receive(self, descriptor: int) -> int:
        """The same over a connected socket."""
        return self._received(_recvmmsg(descriptor, self._plain_at, MOST, DONTWAIT, None), self._plain_words)

    def _received(self, count: int, words: "memoryview[int]") -> int:
        if count < 0:
            number = ctypes.get_errno()
            raise OSError(number, "recvmmsg")
        sizes = self._sizes
        for at in range(count):
            sizes[2 * at + 1] = words[_LENGTHS * at + _LENGTH]
        return count

    def name(self, at: int) -> bytes:
        """The socket address, as the kernel has it, that a datagram came from."""
        return bytes(self._names[at * self.name_size : (at + 1) * self.name_size])

    def size(self, first: int, end: int) -> int:
        """Bytes in some of the datagrams."""
        return sum(self._sizes[2 * first + 1 : 2 * end : 2])

    def body(self, at: int) -> bytes:
        start = at * LARGEST
        return bytes(self._bodies[start : start + self._sizes[2 * at + 1]])

    def send_on(self, descriptor: int, first: int, end: int) -> None:
        """Send some over a connected socket.  Raises OSError, after which the rest was not sent."""
        self._send(descriptor, first, end, self._on_at, 0)

    def send_to(self, descriptor: int, name: bytes, count: int) -> None:
        """Send the first ones to one address.  Raises OSError, after which the rest was not sent."""
        self._peer[: len(name)] = name
        self._send(descriptor, 0, count, self._to_at, self.name_size)

    def _send(self, descriptor: int, first: int, end: int, headers_at: int, name_size: int) -> None:
        while first < end:
            run = self._run(first, end)
            if run > 1 and self._send_segments(descriptor, first, run, name_size):
                first += run
                continue
            sent = _sendmmsg(descriptor, headers_at + first * _HEADER, run, DONTWAIT)
            if sent < 0:
                raise OSError(ctypes.get_errno(), "sendmmsg")
            first += sent

    def _run(self, first: int, end: int) -> int:
        """How many from the first on are of the same size, and not too large together; the last may be smaller."""
        sizes, size = self._sizes, self._sizes[2 * first + 1]
        at, most = first + 1, min(end, first + SEGMENTS_SIZE // (size or SEGMENTS_SIZE))
        while at < most:
            other = sizes[2 * at + 1]
            if other != size:
                return at + 1 - first if 0 < other < size else at - first
            at += 1
        return at - first

    def _send_segments(self, descriptor: int, first: int, count: int, name_size: int) -> bool:
        """Let the kernel cut one large datagram into those of a run; False where it cannot, as beyond the MTU."""
        message = self._segmented
        message.vectors, message.vector_count = self._filled_at + first * _VECTOR, count
        message.name, message.name_length = (self._peer_at, name_size) if name_size else (None, 0)
        self._segment.size = self._sizes[2 * first + 1]
        if _sendmsg(descriptor, self._segmented_at, DONTWAIT) >= 0:
            return True
        number = ctypes.get_errno()
        if number in (errno.EAGAIN, errno.ECONNREFUSED):
            raise OSError(number, "sendmsg")
        return False


@cache
def datagrams(family: int) -> Datagrams:
    """This process's; what is in it counts until the next call that receives."""
    return Datagrams(family)


def address_of(name: bytes) -> tuple[str, int]:
    """(IP, port) of a socket address."""
    port = int.from_bytes(name[2:4], "big")
    if len(name) == 16:
        return socket.inet_ntop(socket.AF_INET, name[4:8]), port
    return socket.inet_ntop(socket.AF_INET6, name[8:24]), port
