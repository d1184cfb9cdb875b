"""Objects of real size, and a client that sends them quickly over TLS."""

import asyncio
import contextlib
import json
import ssl
import tempfile
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from pathlib import Path

import aiohttp

from svcplane.testing.process import ApiServerProcess

SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
CONNECTIONS = 32


def service(number: int) -> bytes:
    return json.dumps(
        {
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": f"svc-{number}", "labels": {"app": f"app-{number}"}},
            "spec": {"selector": {"app": f"app-{number}"}, "ports": [{"name": "http", "port": 80, "targetPort": 8080}]},
        }
    ).encode()


def endpoint_slice(number: int, endpoints: int = 10) -> bytes:
    first = number * endpoints
    addresses = [f"10.{128 + (n >> 16)}.{n >> 8 & 255}.{n & 255}" for n in range(first, first + endpoints)]
    return json.dumps(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": f"svc-{number}", "labels": {"kubernetes.io/service-name": f"svc-{number}"}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
            "endpoints": [
                {
                    "addresses": [address],
                    "conditions": {"ready": True, "serving": True, "terminating": False},
                    "nodeName": f"node-{index % 5}",
                    "targetRef": {"kind": "Pod", "namespace": "default", "name": f"pod-{number}-{index}"},
                }
                for index, address in enumerate(addresses)
            ],
        }
    ).encode()


@contextlib.contextmanager
def server() -> Iterator[ApiServerProcess]:
    """A real API server with durable commits, on the disk that holds temporary files."""
    with tempfile.TemporaryDirectory(prefix="svcplane-bench-") as directory:
        flags = ("--service-cluster-ip-range=10.96.0.0/14", "--audit-log-path=/dev/null")
        with ApiServerProcess(Path(directory), *flags) as running:
            yield running


@contextlib.asynccontextmanager
async def session(running: ApiServerProcess) -> AsyncIterator[aiohttp.ClientSession]:
    context = ssl.create_default_context(cafile=running.ca_file)
    async with aiohttp.ClientSession(
        running.url,
        connector=aiohttp.TCPConnector(ssl=context, limit=CONNECTIONS),
        headers={"Authorization": f"Bearer {running.token}", "Content-Type": "application/json"},
        auto_decompress=False,
    ) as made:
        yield made


async def warm(client: aiohttp.ClientSession, path: str) -> None:
    """Open all connections, so that no TLS handshake is measured."""
    await asyncio.gather(*(get(client, path) for _ in range(CONNECTIONS)))


async def post_all(client: aiohttp.ClientSession, requests: Iterable[tuple[str, bytes]]) -> float:
    """Seconds that it takes to create all, 32 at a time."""
    left = iter(requests)

    async def work() -> None:
        for path, body in left:
            async with client.post(path, data=body) as answer:
                raw = await answer.read()
                assert answer.status == 201, raw

    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work())
    return time.perf_counter() - began


async def get(client: aiohttp.ClientSession, path: str, *, gzip: bool = False) -> tuple[float, int]:
    """Seconds until the last byte has come, and how many came."""
    began = time.perf_counter()
    async with client.get(path, headers={"Accept-Encoding": "gzip" if gzip else "identity"}) as answer:
        raw = await answer.read()
        assert answer.status == 200, raw[:200]
    return time.perf_counter() - began, len(raw)


def resident_mb(pid: int) -> float:
    """Memory that a process holds just now, in units of 10^6 bytes."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise AssertionError("no VmRSS")
