"""The userspace plane's relay beside HAProxy (`mode tcp`) and, for UDP, nginx's stream module.

One process each, the same Pods and clients, everything of ours on: affinity, counters, time-outs, the mark.  The
relays are measured in turn, in an order that is shuffled for each round; a figure is the median of its rounds, and is
compared, round by round, with that of HAProxy's settings which is the best for that figure: a machine that others use
too is slower or faster in one round than in another.
"""

import asyncio
import contextlib
import json
import random
import re
import statistics
import sys
import tempfile
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from pathlib import Path

from benchmarks import relay_peers as peers
from benchmarks.figures import Figure, Scale
from benchmarks.load import resident_mb
from svcplane.base.errors import EnvironmentProblem

TITLE = "Relay of userspace mode, one worker, beside HAProxy and nginx"
CROWD_WORKERS = 2  # so that each is within 20,000 descriptors
REQUESTS, NEW, ONE, FOUR, CPU, PACKETS = "requests", "new", "one", "four", "cpu", "packets"
BARE = "bare"
Figures = Mapping[str, float]
Rounds = Mapping[str, list[float]]


async def run(scale: Scale) -> list[Figure]:
    rounds, seconds = scale.of(7, 1), scale.of(12, 3) / 10
    crowd = scale.of(10_000, 200)
    found: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    with tempfile.TemporaryDirectory(prefix="svcplane-bench-") as name:
        directory = Path(name)
        free = peers.free_ports(6)
        pods = peers.Pods((free[0], free[1]), (free[2], free[3]), (free[4], free[5]))
        async with _pods(directory, pods), _relays(directory, pods) as (tcp, udp), _bare(pods) as bare:
            for _ in range(rounds):
                for relay in random.sample([*tcp, BARE], len(tcp) + 1):
                    if relay == BARE:
                        found[BARE][BARE].append(await _wrk(bare, seconds))
                        continue
                    for figure, value in (await _tcp(tcp[relay], seconds)).items():
                        found[figure][relay].append(value)
                for relay in random.sample(list(udp), len(udp)):
                    found[PACKETS][relay].append(await _udp(udp[relay], seconds))
        async with _pods(directory, pods), peers.ours(pods, workers=CROWD_WORKERS, affinity_s=0) as (ports, pids):
            idle = sum(map(resident_mb, pids()))
            answered, full = await _crowd(ports["echo"], pids, crowd)
    return [
        *_figures(found),
        Figure(f"memory of {CROWD_WORKERS} workers, idle", idle, "MB"),
        Figure(f"the same, {crowd:,} connections", full, "MB", 500),
        Figure("of these answered", answered, "", crowd, more=True),
    ]


def _beside(rows: Rounds, name: str, unit: str, times: float, *, more: bool = True) -> list[Figure]:
    """A figure of ours and its ratio to the best of the peer's, which must be `times` or better."""
    peer = {relay: statistics.median(values) for relay, values in rows.items() if relay != peers.OURS}
    best = (max if more else min)(peer, key=lambda relay: peer[relay])
    ours = rows[peers.OURS]
    ratio = statistics.median(own / its for own, its in zip(ours, rows[best], strict=True))
    return [
        Figure(name, statistics.median(ours), unit, floor=peer[best], floor_name=best),
        Figure("  ratio of neighbouring turns", ratio, "x", times, more),
    ]


def _figures(found: Mapping[str, Rounds]) -> list[Figure]:
    requests = _beside(found[REQUESTS], "requests over kept connections", "/s", 0.95)
    bare = statistics.median(found[BARE][BARE])
    return [
        *requests,
        Figure("  a bare loop of Python", bare, "/s", floor=requests[0].floor, floor_name=requests[0].floor_name),
        *_beside(found[NEW], "new connections", "/s", 0.8),
        *_beside(found[ONE], "bulk, one stream", "GB/s", 1.0),
        *_beside(found[FOUR], "bulk, four streams", "GB/s", 1.0),
        *_beside(found[CPU], "processor time of the machine", "s/GB", 1.1, more=False),
        *_beside(found[PACKETS], "UDP packets and answers", "/s", 1.1),
    ]


@contextlib.asynccontextmanager
async def _pods(directory: Path, pods: peers.Pods) -> AsyncIterator[None]:
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(peers.web(directory, pods.web))
        for what, pair in (("source", pods.source), ("echo", pods.echo)):
            for port in pair:
                words = (sys.executable, "-m", "benchmarks.relay_load", what, str(port))
                await stack.enter_async_context(peers.program(*words))
                await peers.listens(port)
        yield


@contextlib.asynccontextmanager
async def _relays(
    directory: Path, pods: peers.Pods
) -> AsyncIterator[tuple[dict[str, Mapping[str, int]], dict[str, int]]]:
    """Ports by relay: for TCP by kind of Pod, and for UDP."""
    async with contextlib.AsyncExitStack() as stack:
        tcp: dict[str, Mapping[str, int]] = {}
        for setting in peers.HAPROXY:
            tcp[f"HAProxy, {setting}"] = await stack.enter_async_context(peers.haproxy(directory, setting, pods))
        udp = {"nginx": await stack.enter_async_context(peers.nginx_stream(directory, pods))}
        ports, _ = await stack.enter_async_context(peers.ours(pods))
        tcp[peers.OURS], udp[peers.OURS] = ports, ports["datagrams"]
        yield tcp, udp


@contextlib.asynccontextmanager
async def _bare(pods: peers.Pods) -> AsyncIterator[int]:
    (port,) = peers.free_ports(1)
    words = (sys.executable, "-m", "benchmarks.relay_load", "bare", str(port), str(pods.web[0]))
    async with peers.program(*words):
        await peers.listens(port)
        yield port


async def _tcp(ports: Mapping[str, int], seconds: float) -> Figures:
    kept = await _wrk(ports["web"], seconds)
    new = await _wrk(ports["web"], seconds, "-H", "Connection: close")
    one, cpu = await _sink(ports["source"], 1, seconds)
    four, _ = await _sink(ports["source"], 4, seconds)
    return {REQUESTS: kept, NEW: new, ONE: one, FOUR: four, CPU: cpu}


async def _wrk(port: int, seconds: float, *options: str) -> float:
    """Requests answered a second, over 32 connections."""
    try:
        process = await asyncio.create_subprocess_exec(
            *("wrk", "-t", "1", "-c", "32", "-d", "60s", *options, f"http://{peers.HOST}:{port}/"),
            stdout=asyncio.subprocess.PIPE,
        )
    except FileNotFoundError as error:
        raise EnvironmentProblem("wrk is not installed; tools/install dev does it") from error
    await asyncio.sleep(seconds)  # it counts whole seconds only, but tells what it has when it is interrupted
    process.send_signal(2)
    text = (await process.communicate())[0].decode()
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    if rate is None or "Socket errors" in text or "Non-2xx" in text:
        raise EnvironmentProblem(f"wrk: {text}")
    return float(rate[1])


async def _load(*words: object) -> dict[str, float]:
    arguments = (sys.executable, "-m", "benchmarks.relay_load", *(str(word) for word in words))
    process = await asyncio.create_subprocess_exec(*arguments, stdout=asyncio.subprocess.PIPE)
    out = (await process.communicate())[0]
    if process.returncode:
        raise EnvironmentProblem(f"benchmarks.relay_load {words[0]} failed")
    found: dict[str, float] = json.loads(out)
    return found


async def _sink(port: int, streams: int, seconds: float) -> tuple[float, float]:
    """GB/s, and processor seconds of the machine for each GB."""
    row = await _load("sink", port, streams, seconds)
    gigabytes = row["bytes"] / 1e9
    return gigabytes / row["seconds"], row["busy"] / gigabytes


async def _udp(port: int, seconds: float) -> float:
    row = await _load("ping", port, 16, seconds)
    return row["answers"] / row["seconds"]


async def _crowd(port: int, pids: Callable[[], Sequence[int]], count: int) -> tuple[float, float]:
    """Connections that were answered while all were open, and the memory of the workers then."""
    words = (sys.executable, "-m", "benchmarks.relay_load", "crowd", str(port), str(count))
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*words, stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    async with asyncio.timeout(60):
        line = await process.stdout.readline()
        memory = sum(map(resident_mb, pids()))
        if process.returncode is None:
            await process.communicate(b"\n")
    if not line:
        raise EnvironmentProblem("not all connections were served; see above")
    return json.loads(line)["answered"], memory
