"""The API server with 5,000 Services and as many EndpointSlices: loading, lists, single reads, memory."""

import tempfile
from collections.abc import Sequence
from pathlib import Path

import aiohttp

from benchmarks import floors, load
from benchmarks.figures import Figure, Scale, percentile

ECHO, COMMITS = "raw aiohttp echo", "one fsync commit after another"
TITLE = "API server: 5,000 Services and 5,000 EndpointSlices of 10 endpoints, durable commits, 32 clients"


async def _best(client: aiohttp.ClientSession, path: str, times: int, *, gzip: bool = False) -> tuple[float, int]:
    found = [await load.get(client, path, gzip=gzip) for _ in range(times)]
    return percentile([seconds for seconds, _ in found], 0.5), found[0][1]


async def _singles(client: aiohttp.ClientSession, paths: Sequence[str]) -> list[float]:
    return [(await load.get(client, path))[0] for path in paths]


async def run(scale: Scale) -> list[Figure]:
    count, singles, times = scale.of(5_000, 50), scale.of(3_000, 50), scale.of(7, 1)
    with tempfile.TemporaryDirectory(prefix="svcplane-bench-") as name, load.server() as running:
        directory = Path(name)
        commits = floors.commits_per_second(directory, scale.of(1_000, 20))
        async with load.session(running) as client, floors.echo(directory) as echo:
            await load.warm(client, load.SERVICES)
            empty = load.resident_mb(running.pid)
            objects = [(load.SERVICES, load.service(n)) for n in range(count)]
            objects += [(load.SLICES, load.endpoint_slice(n)) for n in range(count)]
            took = await load.post_all(client, objects)
            memory = load.resident_mb(running.pid)
            services, services_size = await _best(client, f"{load.SERVICES}?resourceVersion=0", times)
            slices, slices_size = await _best(client, load.SLICES, times)
            zipped, _ = await _best(client, load.SLICES, times, gzip=True)
            single = await _singles(client, [f"{load.SERVICES}/svc-{n % count}" for n in range(singles)])
            size = (await load.get(client, f"{load.SERVICES}/svc-1"))[1]
            async with aiohttp.ClientSession(
                echo.url, connector=aiohttp.TCPConnector(ssl=echo.context, limit=load.CONNECTIONS)
            ) as raw:
                await load.warm(raw, "/1")
                floor_services, _ = await _best(raw, f"/{services_size}", times)
                floor_slices, _ = await _best(raw, f"/{slices_size}", times)
                floor_single = await _singles(raw, [f"/{size}"] * singles)
                floor_load = await load.post_all(raw, [("/0", body) for _, body in objects])
    p50, p99 = percentile(single, 0.5), percentile(single, 0.99)
    return [
        Figure("load of all", took, "s", 15, floor=floor_load, floor_name=ECHO),
        Figure(
            "durable writes",
            2 * count / took,
            "/s",
            floor=commits,
            floor_name="one fsync commit after another",
            more=True,
        ),
        Figure("memory, empty", empty, "MB"),
        Figure("memory after the load", memory, "MB", 400),
        Figure(f"list of {count:,} Services", services * 1e3, "ms", 150, floor=floor_services * 1e3, floor_name=ECHO),
        Figure(f"list of {count:,} EndpointSlices", slices * 1e3, "ms", 400, floor=floor_slices * 1e3, floor_name=ECHO),
        Figure("the same, compressed", zipped * 1e3, "ms"),
        Figure("single get p50", p50 * 1e3, "ms", floor=percentile(floor_single, 0.5) * 1e3, floor_name=ECHO),
        Figure("single get p99", p99 * 1e3, "ms", 3, floor=percentile(floor_single, 0.99) * 1e3, floor_name=ECHO),
    ]
