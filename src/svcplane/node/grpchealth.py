"""One call of grpc.health.v1.Health/Check: as much of HTTP/2 and gRPC as it needs.

Source: RFC 9113 (frames), RFC 7541 (literal header fields), gRPC over HTTP/2, grpc/health/v1/health.proto.
"""

import asyncio
import struct

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PATH = "/grpc.health.v1.Health/Check"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY = 0, 1, 3, 4, 6, 7
ACK = END_STREAM = 1
END_HEADERS, PADDED = 4, 8
FRAME_MAX = 1 << 14
STATUSES = {0: "UNKNOWN", 1: "SERVING", 2: "NOT_SERVING", 3: "SERVICE_UNKNOWN"}
SERVING = 1


def frame(kind: int, flags: int, stream: int, body: bytes = b"") -> bytes:
    return struct.pack(">I", len(body))[1:] + struct.pack(">BBI", kind, flags, stream) + body


def _length(count: int) -> bytes:
    """An integer with a seven-bit prefix."""
    if count < 127:
        return bytes((count,))
    count, made = count - 127, bytearray((127,))
    while count >= 128:
        made.append(count % 128 + 128)
        count //= 128
    return bytes((*made, count))


def header_block(fields: dict[str, str]) -> bytes:
    """Literal fields that are not indexed and not compressed."""
    made = bytearray()
    for name, value in fields.items():
        made += b"\0" + _length(len(name)) + name.encode() + _length(len(value)) + value.encode()
    return bytes(made)


def request(authority: str, service: str) -> bytes:
    """All that a client says."""
    fields = {":method": "POST", ":scheme": "http", ":path": PATH, ":authority": authority}
    fields |= {"te": "trailers", "content-type": "application/grpc", "user-agent": "kube-probe/svcplane"}
    name = service.encode()
    message = b"\x0a" + _length(len(name)) + name if name else b""
    body = b"\0" + struct.pack(">I", len(message)) + message
    head = frame(HEADERS, END_HEADERS, 1, header_block(fields))
    return PREFACE + frame(SETTINGS, 0, 0) + head + frame(DATA, END_STREAM, 1, body)


def status_of(body: bytes) -> int | None:
    """The status in the response's message; None if there is no message."""
    if len(body) < 5:
        return None
    message = body[5 : 5 + struct.unpack(">I", body[1:5])[0]]
    return message[1] if len(message) >= 2 and message[0] == 0x08 else 0  # a zero is left out


def verdict(body: bytes) -> tuple[bool, str]:
    status = status_of(body)
    if status is None:
        return False, "error: the server has no health status: it lacks grpc.health.v1.Health, or the service"
    name = STATUSES.get(status, str(status))
    return status == SERVING, "" if status == SERVING else f'service unhealthy (responded with "{name}")'


async def ask(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, authority: str, service: str
) -> tuple[bool, str]:
    """Whether it is serving, and what is wrong if not.  Raises OSError, EOFError."""
    writer.write(request(authority, service))
    body = bytearray()
    while True:
        head = await reader.readexactly(9)
        size, kind, flags = int.from_bytes(head[:3], "big"), head[3], head[4]
        if size > FRAME_MAX:
            raise OSError("the answer is no HTTP/2")
        payload = await reader.readexactly(size)
        if kind == SETTINGS and not flags & ACK:
            writer.write(frame(SETTINGS, ACK, 0))
        elif kind == PING and not flags & ACK:
            writer.write(frame(PING, ACK, 0, payload))
        elif kind in (RST_STREAM, GOAWAY):
            raise OSError("the server ended the stream")
        elif kind == DATA:
            body += payload[1 : len(payload) - payload[0]] if flags & PADDED else payload
        if kind in (DATA, HEADERS) and flags & END_STREAM:
            return verdict(bytes(body))
