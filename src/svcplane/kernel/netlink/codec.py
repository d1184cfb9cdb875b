"""Netlink messages and attributes as bytes.  Pure.  Source: include/uapi/linux/netlink.h."""

import struct
from collections.abc import Iterator

NLM_F_REQUEST, NLM_F_MULTI, NLM_F_ACK = 0x1, 0x2, 0x4
NLM_F_DUMP, NLM_F_REPLACE, NLM_F_EXCL, NLM_F_CREATE = 0x300, 0x100, 0x200, 0x400
NLMSG_ERROR, NLMSG_DONE = 2, 3
NESTED, NET_BYTEORDER = 0x8000, 0x4000
TYPE_MASK = 0x3FFF

_HEAD = struct.Struct("=HH")
_MESSAGE = struct.Struct("=IHHII")
_PAD = (b"", b"\0\0\0", b"\0\0", b"\0")


def attr(kind: int, payload: bytes) -> bytes:
    """One attribute, padded."""
    length = len(payload)
    return _HEAD.pack(length + 4, kind) + payload + _PAD[length & 3]


def nest(kind: int, *parts: bytes) -> bytes:
    return attr(kind | NESTED, b"".join(parts))


def text(kind: int, value: str) -> bytes:
    return attr(kind, value.encode() + b"\0")


def u8(kind: int, value: int) -> bytes:
    return attr(kind, bytes((value,)))


def u16(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("=H", value))


def u32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack("=I", value))


def be16(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack(">H", value))


def be32(kind: int, value: int) -> bytes:
    return attr(kind, struct.pack(">I", value))


def message(kind: int, flags: int, seq: int, body: bytes) -> bytes:
    return _MESSAGE.pack(16 + len(body), kind, flags, seq, 0) + body


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence number, body) of each message of one datagram."""
    at = 0
    while at + 16 <= len(data):
        length, kind, flags, seq, _ = _MESSAGE.unpack_from(data, at)
        if length < 16:
            return
        yield kind, flags, seq, data[at + 16 : at + length]
        at += (length + 3) & ~3


def each(data: bytes, offset: int = 0) -> Iterator[tuple[int, bytes]]:
    """(kind without flags, payload) of each attribute."""
    at = offset
    while at + 4 <= len(data):
        length, kind = _HEAD.unpack_from(data, at)
        if length < 4:
            return
        yield kind & TYPE_MASK, data[at + 4 : at + length]
        at += (length + 3) & ~3


def attributes(data: bytes, offset: int = 0) -> dict[int, bytes]:
    """The attributes by kind; of several of one kind the last."""
    return dict(each(data, offset))


def string(payload: bytes) -> str:
    return payload.split(b"\0", 1)[0].decode(errors="replace")


def native(payload: bytes) -> int:
    """A number in this host's byte order."""
    return int.from_bytes(payload, "little" if struct.pack("=H", 1)[0] else "big")


def big(payload: bytes) -> int:
    """A number in network byte order."""
    return int.from_bytes(payload, "big")
