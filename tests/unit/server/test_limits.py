"""What clients may not do to a server that others need: over real sockets, as an attacker would."""

import asyncio
import gzip
import json
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from svcplane.server import http
from svcplane.server.app import ApiServer
from svcplane.store.contract import KeyValue
from svcplane.store.memory import MemoryStore
from svcplane.testing.server import Caller, in_process_server
from svcplane.testing.waiting import until

PATH = "/api/v1/namespaces/default/services"
SERVICE = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}


class Stalling(MemoryStore):
    """Answers no `get` while `held`."""

    def __init__(self) -> None:
        super().__init__()
        self.free = asyncio.Event()
        self.free.set()

    async def get(self, key: str) -> KeyValue | None:
        await self.free.wait()
        return await super().get(key)


@dataclass
class Place:
    server: ApiServer
    store: Stalling

    async def connect(self, context: ssl.SSLContext | None = None) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if context is None:
            context = ssl.create_default_context(cafile=str(self.server.ca_file))
        return await asyncio.open_connection("127.0.0.1", self.server.port, ssl=context, server_hostname="localhost")

    async def send(self, method: str, path: str, body: bytes = b"", **headers: str | bytes) -> tuple[int, bytes, bytes]:
        """(status, header, body)."""
        reader, writer = await self.connect()
        writer.write(self.request(method, path, body, **headers))
        try:
            async with asyncio.timeout(10):
                head = await reader.readuntil(b"\r\n\r\n")
                status = int(head.split()[1])
                length = next(
                    (line for line in head.split(b"\r\n") if line.lower().startswith(b"content-length")), b":0"
                )
                return status, head, await reader.readexactly(int(length.split(b":")[1]))
        finally:
            writer.close()

    def request(self, method: str, path: str, body: bytes = b"", **headers: str | bytes) -> bytes:
        wanted: dict[str, str | bytes] = {"Host": "localhost", "Content-Type": "application/json"}
        wanted |= {"Authorization": f"Bearer {self.server.token}", "Content-Length": str(len(body))}
        wanted |= {name.replace("_", "-"): value for name, value in headers.items()}
        lines = [f"{method} {path} HTTP/1.1".encode()]
        for name, value in wanted.items():
            if value:
                lines.append(name.encode() + b": " + (value if isinstance(value, bytes) else value.encode()))
        return b"\r\n".join(lines) + b"\r\n\r\n" + body


@pytest.fixture
async def place(tmp_path: Path) -> AsyncIterator[Place]:
    store = Stalling()
    async with in_process_server(
        store=store, secure_port=0, bind_address="127.0.0.1", data_dir=tmp_path, max_in_flight=3
    ) as server:
        yield Place(server, store)


async def lives(place: Place) -> bool:
    return (await place.send("GET", "/readyz"))[0] == 200


@pytest.mark.parametrize(
    ("size", "who", "status"),
    [
        (http.MAX_BODY + 1, {}, 413),
        (http.MAX_ANONYMOUS_BODY + 1, {"Authorization": ""}, 413),
        (http.MAX_ANONYMOUS_BODY, {"Authorization": ""}, 401),
        (http.MAX_ANONYMOUS_BODY + 1, {}, 400),
    ],
)
async def test_bodies_have_a_limit(place: Place, size: int, who: dict[str, str], status: int) -> None:
    found, _, body = await place.send("POST", PATH, b"x" * size, **who)
    assert (found, json.loads(body)["kind"]) == (status, "Status")


async def test_a_compressed_body_counts_as_what_it_unpacks_to(place: Place) -> None:
    found, _, _ = await place.send("POST", PATH, gzip.compress(b"0" * (256 << 20), 1), Content_Encoding="gzip")
    assert found == 413
    assert await lives(place)


async def test_headers_have_a_limit(place: Place) -> None:
    found, _, _ = await place.send("GET", PATH, X_Large="x" * (http_header_limit() + 1))
    assert found in (400, 431)
    assert await lives(place)


def http_header_limit() -> int:
    return 64 << 10


async def test_headers_that_are_no_text(place: Place) -> None:
    assert (await place.send("GET", PATH, Authorization=b"Bearer \xff\xfe"))[0] == 401
    body = json.dumps(SERVICE).encode()
    assert (await place.send("POST", PATH, body, User_Agent=b"\xff\xfe/1"))[0] == 201
    assert (await place.send("POST", PATH, body, Content_Type=b"application/\xff"))[0] == 415


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"metadata":' * 50_000, b'{"a":[' * 400 + b"]}" * 400])
async def test_deep_bodies_are_a_bad_request(place: Place, body: bytes) -> None:
    assert (await place.send("POST", PATH, body))[0] == 400
    deep = b'{"metadata":{"managedFields":[{"fieldsV1":' + b'{"f:a":' * 900 + b"{}" + b"}" * 900 + b"}]}}"
    assert (await place.send("POST", PATH, deep))[0] == 400


async def test_more_requests_than_may_be_in_flight_are_told_to_come_again(place: Place) -> None:
    place.store.free.clear()
    held = [asyncio.create_task(place.send("GET", f"{PATH}/kubernetes")) for _ in range(3)]

    async def refused() -> bytes:
        status, head, body = await place.send("GET", PATH)
        assert status in (200, 429)
        return head + body if status == 429 else b""

    answer = await until(refused)
    assert b"\r\nRetry-After: 1\r\n" in answer
    assert b'"reason":"TooManyRequests"' in answer
    place.store.free.set()
    assert [status for status, _, _ in await asyncio.gather(*held)] == [200] * 3
    assert (await place.send("GET", PATH))[0] == 200


async def test_watches_are_counted_until_they_are_closed_whether_or_not_they_were_read(place: Place) -> None:
    handler: Any = place.server.handle
    handler._max_watches = 2
    open_before = len(place.store._core._watches)
    caller = Caller(place.server.handle)
    first, second = [await caller.send("GET", f"{PATH}?watch=true") for _ in range(2)]
    full = await caller.send("GET", f"{PATH}?watch=true")
    assert (full.status, full.headers["Retry-After"]) == (429, "1")
    assert (await caller.send("GET", f"{PATH}?watch=true&resourceVersion=999999")).status != 200
    for response in (first, second):
        stream: Any = response.stream
        assert stream is not None
        await stream.aclose()  # nobody has read from it
        await stream.aclose()
    assert len(place.store._core._watches) == open_before
    for _ in range(3):
        again = await caller.send("GET", f"{PATH}?watch=true")
        assert again.status == 200
        stream = again.stream
        await anext(stream)
        await stream.aclose()


async def test_clients_that_leave_at_once_leave_no_watch_behind(place: Place) -> None:
    handler: Any = place.server.handle
    before = len(place.store._core._watches)
    for _ in range(20):
        _, writer = await place.connect()
        writer.write(place.request("GET", f"{PATH}?watch=true"))
        await writer.drain()
        writer.transport.abort()

    async def closed() -> bool:
        return handler._watches == 0 and len(place.store._core._watches) == before

    await until(closed)


async def test_a_watcher_that_does_not_read_is_cut_off_and_others_go_on(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(http, "SLOW_CLIENT_S", 0.5)
    handler: Any = place.server.handle
    _, slow = await place.connect()
    slow.transport.pause_reading()  # type: ignore[attr-defined]
    slow.write(place.request("GET", f"{PATH}?watch=true"))
    reader, other = await place.connect()
    other.write(place.request("GET", f"{PATH}?watch=true"))

    async def both() -> bool:
        return bool(handler._watches == 2)

    await until(both)
    caller, text, number = Caller(place.server.handle), "x" * 200_000, 0
    await caller.call("POST", PATH, SERVICE)

    async def cut_off() -> bool:
        nonlocal number
        number += 1
        patch = {"metadata": {"annotations": {"text": text, "number": str(number)}}}
        await caller.call("PATCH", f"{PATH}/web", patch, {"Content-Type": "application/merge-patch+json"})
        while f'"number":"{number}"'.encode() not in await reader.readuntil(b"}\n"):
            pass
        return bool(handler._watches == 1)

    reader._limit = 1 << 20  # type: ignore[attr-defined]
    await until(cut_off)
    connections: Any = place.server._http._runner.server  # type: ignore[union-attr]

    async def closed() -> bool:
        return len(connections.connections) == 1

    await until(closed)
    for writer in (slow, other):
        writer.transport.abort()


async def test_a_client_that_does_not_read_a_large_answer_is_cut_off(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    caller = Caller(place.server.handle)
    for number in range(60):
        body = {**SERVICE, "metadata": {"name": f"web-{number}", "annotations": {"text": "x" * 250_000}}}
        assert (await caller.call("POST", PATH, body))[0] == 201
    connections: Any = place.server._http._runner.server  # type: ignore[union-attr]

    async def cut_off() -> bool:
        return not connections.connections

    with monkeypatch.context() as soon:
        soon.setattr(http, "SLOW_CLIENT_S", 0.2)
        _, writer = await place.connect()
        writer.transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(place.request("GET", PATH))
        await until(cut_off)
        writer.transport.abort()
    status, _, whole = await place.send("GET", PATH)  # in the usual time, which a slow machine may need
    assert (status, len(json.loads(whole)["items"])) == (200, 61)


async def test_a_body_that_does_not_come_is_not_waited_for_long(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "BODY_S", 0.2)
    status, _, _ = await place.send("POST", PATH, b"{", Content_Length="1000")
    assert status == 408


@pytest.mark.parametrize("sent", [b"", b"GET / HTTP/1.1\r\nHost: x\r\n"])
async def test_a_connection_without_a_request_is_closed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: bytes
) -> None:
    monkeypatch.setattr(http, "IDLE_S", 0.3)
    async with in_process_server(secure_port=0, bind_address="127.0.0.1", data_dir=tmp_path) as server:
        reader, writer = await Place(server, Stalling()).connect()
        writer.write(sent)
        assert await asyncio.wait_for(reader.read(), 5) == b""
        writer.close()


@pytest.mark.filterwarnings("ignore:.*TLSv1_1 is deprecated:DeprecationWarning")
async def test_old_tls_is_refused(place: Place) -> None:
    def only(version: ssl.TLSVersion) -> ssl.SSLContext:
        context = ssl._create_unverified_context()
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        return context

    with pytest.raises((ssl.SSLError, ConnectionError)):
        await place.connect(only(ssl.TLSVersion.TLSv1_1))
    _, writer = await place.connect(only(ssl.TLSVersion.TLSv1_2))
    writer.close()
