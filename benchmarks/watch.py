"""How long after a write was sent its watchers have it, with 1 and with 100 of them, at 200 writes a second.

The 100 once see everything, and once have the selector with which a proxy on each node watches Services.
"""

import asyncio
import gc
import re
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import aiohttp

from benchmarks import floors, load
from benchmarks.figures import Figure, Scale, percentile
from svcplane.testing.process import ApiServerProcess

TITLE = "API server: from sending a write to its watchers, 200 writes a second"
RATE = 200
#: A write says in a label when it was sent, in nanoseconds of this machine's monotonic clock.
SENT = re.compile(rb'"sent":"t(\d+)"')
OBJECTS = 50
#: Of kube-proxy and ours.
PROXYS = "%21service.kubernetes.io%2Fheadless%2C%21service.kubernetes.io%2Fservice-proxy-name"


class Watcher(asyncio.Protocol):
    """A watch that only looks for marks: so light that a hundred of them are no load of their own."""

    def __init__(self, request: bytes) -> None:
        self._request, self._rest = request, b""
        self.delays: list[float] = []
        self.open = asyncio.Event()

    def connection_made(self, transport: Any) -> None:
        transport.write(self._request)

    def data_received(self, data: bytes) -> None:
        now = time.monotonic_ns()
        self.open.set()  # the status line has come: the watch is registered
        data = self._rest + data
        end = 0
        for found in SENT.finditer(data):
            self.delays.append((now - int(found[1])) / 1e6)
            end = found.end()
        self._rest = data[max(end, len(data) - 64) :]


@asynccontextmanager
async def watchers(running: ApiServerProcess, count: int, selector: str) -> AsyncIterator[list[Watcher]]:
    place = urlsplit(running.url)
    context = ssl.create_default_context(cafile=running.ca_file)
    async with load.session(running) as client, client.get(f"{load.SERVICES}?limit=1") as answer:
        version = (await answer.json())["metadata"]["resourceVersion"]
    query = f"watch=true&resourceVersion={version}&labelSelector={selector}"
    request = (
        f"GET {load.SERVICES}?{query} HTTP/1.1\r\nHost: {place.netloc}\r\nAuthorization: Bearer {running.token}\r\n\r\n"
    ).encode()
    loop = asyncio.get_running_loop()
    made = [
        await loop.create_connection(lambda: Watcher(request), place.hostname, place.port, ssl=context)
        for _ in range(count)
    ]
    try:
        protocols = [protocol for _, protocol in made]
        await asyncio.gather(*(protocol.open.wait() for protocol in protocols))
        yield protocols
    finally:
        for transport, _ in made:
            transport.abort()


async def write(client: aiohttp.ClientSession, count: int) -> list[float]:
    """Patches at a steady rate, however long each takes; how long each took, in ms."""
    took: list[float] = []

    async def one(number: int) -> None:
        sent = time.monotonic_ns()
        body = b'{"metadata":{"labels":{"sent":"t%d"}}}' % sent
        headers = {"Content-Type": "application/merge-patch+json"}
        async with client.patch(f"{load.SERVICES}/svc-{number % OBJECTS}", data=body, headers=headers) as answer:
            raw = await answer.read()
            assert answer.status == 200, raw
        took.append((time.monotonic_ns() - sent) / 1e6)

    began = time.monotonic()
    async with asyncio.TaskGroup() as group:
        for number in range(count):
            await asyncio.sleep(max(0.0, began + number / RATE - time.monotonic()))
            group.create_task(one(number))
    return took


async def measure(
    running: ApiServerProcess, count: int, writes: int, selector: str = ""
) -> tuple[list[float], list[float]]:
    """Delays to the watchers and the writes' own times, in ms."""
    async with watchers(running, count, selector) as following, load.session(running) as client:
        await load.warm(client, f"{load.SERVICES}/svc-0")
        took = await write(client, writes)
        async with asyncio.timeout(10):
            while any(len(watcher.delays) < writes for watcher in following):
                await asyncio.sleep(0.01)
        return [delay for watcher in following for delay in watcher.delays], took


@contextmanager
def without_collections() -> Iterator[None]:
    """The watchers' own collections, tens of milliseconds each, are not the server's delay."""
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        gc.unfreeze()


async def run(scale: Scale) -> list[Figure]:
    writes, many = scale.of(2_000, 20), scale.of(100, 3)
    with tempfile.TemporaryDirectory(prefix="svcplane-bench-") as directory, load.server() as running:
        commit = 1e3 / floors.commits_per_second(Path(directory), scale.of(1_000, 20))
        async with load.session(running) as client:
            await load.post_all(client, [(load.SERVICES, load.service(n)) for n in range(OBJECTS)])
        with without_collections():
            one, _ = await measure(running, 1, writes)
            hundred, took = await measure(running, many, writes)
            nodes, _ = await measure(running, many, writes, PROXYS)

    def figure(name: str, value: float, limit: float | None = None) -> Figure:
        return Figure(name, value, "ms", limit, floor=commit, floor_name="one fsync commit")

    return [
        figure("1 watcher, p50", percentile(one, 0.5)),
        figure("1 watcher, p99", percentile(one, 0.99)),
        figure(f"{many} watchers, p50", percentile(hundred, 0.5)),
        figure(f"{many} watchers, p99", percentile(hundred, 0.99), 10),
        figure(f"{many} watchers with a proxy's selector, p50", percentile(nodes, 0.5)),
        figure(f"{many} watchers with a proxy's selector, p99", percentile(nodes, 0.99), 10),
        figure("a write's own answer meanwhile, p50", percentile(took, 0.5)),
        figure("a write's own answer meanwhile, p99", percentile(took, 0.99)),
    ]
