"""The gRPC health call on the wire: what is said, and what is read of the answer."""

import asyncio

import pytest

from svcplane.node import grpchealth as g

OK = b"\0\0\0\0\x02\x08\x01"
HEAD = g.frame(g.HEADERS, g.END_HEADERS, 1, b"\x88")
TRAILERS = g.frame(g.HEADERS, g.END_HEADERS | g.END_STREAM, 1, b"")


async def answered(*frames: bytes) -> tuple[tuple[bool, str], bytes]:
    """What the call makes of an answer, and what it said."""
    said = bytearray()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(frames))
        while data := await reader.read(65536):
            said.extend(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            async with asyncio.timeout(10):
                verdict = await g.ask(reader, writer, "10.0.0.1:9", "my.Service")
            writer.write_eof()
            await reader.read()
            return verdict, bytes(said)
        finally:
            writer.close()


async def test_serving_is_success_and_settings_and_pings_are_acknowledged() -> None:
    ping = g.frame(g.PING, 0, 0, b"12345678")
    verdict, said = await answered(g.frame(g.SETTINGS, 0, 0), ping, HEAD, g.frame(g.DATA, 0, 1, OK), TRAILERS)
    assert verdict == (True, "")
    assert said.startswith(g.request("10.0.0.1:9", "my.Service"))
    rest = said.removeprefix(g.request("10.0.0.1:9", "my.Service"))
    assert rest == g.frame(g.SETTINGS, g.ACK, 0) + g.frame(g.PING, g.ACK, 0, b"12345678")


@pytest.mark.parametrize(
    ("frames", "text"),
    [
        ([HEAD, g.frame(g.DATA, 0, 1, b"\0\0\0\0\x02\x08\x02"), TRAILERS], "NOT_SERVING"),
        ([HEAD, g.frame(g.DATA, g.END_STREAM, 1, b"\0\0\0\0\0")], '"UNKNOWN"'),
        ([TRAILERS], "no health status"),
    ],
)
async def test_what_does_not_serve_says_why(frames: list[bytes], text: str) -> None:
    (ok, said), _ = await answered(*frames)
    assert not ok
    assert text in said


async def test_padding_and_pieces_of_the_message_are_put_together() -> None:
    first = g.frame(g.DATA, g.PADDED, 1, b"\x03" + OK[:4] + b"\0\0\0")
    verdict, _ = await answered(HEAD, first, g.frame(g.DATA, g.END_STREAM, 1, OK[4:]))
    assert verdict == (True, "")


@pytest.mark.parametrize("frames", [[g.frame(g.RST_STREAM, 0, 1, b"\0" * 4)], [b"HTTP/1.1 400 Bad Request\r\n\r\n"]])
async def test_other_answers_are_errors(frames: list[bytes]) -> None:
    with pytest.raises(OSError):
        await answered(*frames)
