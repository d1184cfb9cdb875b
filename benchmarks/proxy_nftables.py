"""The proxy in nftables mode at many Services: start, one change, bursts, memory; and kube-proxy's layout beside it.

API server, proxy and this program are three processes in one network namespace; a change is timed from the
acknowledged write to the kernel's notice of its transaction.  Needs root, nft and iproute2.
"""

import asyncio
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path

import uvloop

import benchmarks.kube_proxy_layout as peer
from benchmarks.cluster_load import (
    Generations,
    answers,
    api_server,
    cluster_ip,
    endpoint_ip,
    memory_mb,
    process,
    processor_s,
    slice_name,
)
from benchmarks.connections import POD, TURNS, Node, compare, node
from benchmarks.figures import Figure, Scale, percentile
from benchmarks.watch_source import source
from svcplane.api.resources import ENDPOINT_SLICES
from svcplane.base.net import Family
from svcplane.client.api import ApiClient
from svcplane.client.http import HttpTransport
from svcplane.client.kubeconfig import load
from svcplane.kernel.links.run import inside
from svcplane.kernel.nft.run import NftSocket
from svcplane.proxy.model import (
    DetectLocal,
    Endpoint,
    NodeConfig,
    NodeState,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
)
from svcplane.proxy.planes.nftables.plane import NftablesPlane

TITLE = "Proxy in nftables mode, 10 endpoints a Service"
ENDPOINTS = 10
COLD_S, CHANGE_MS, OWN_MS, MEMORY_MB = 2.0, 5.0, 1.0, 160.0
BURST, BURST_S, BEHIND_MS = 1000, 5, 100.0
CONNECTIONS = 1.0
PARTIAL = "kubeproxy_sync_partial_proxy_rules_duration_seconds"
SEEN = "kubeproxy_sync_proxy_rules_endpoint_changes_total"


def metric(name: str) -> float:
    """Sum over the labels."""
    with urllib.request.urlopen("http://127.0.0.1:10249/metrics") as page:
        lines = page.read().decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith((f"{name}{{", f"{name} ")))


@contextmanager
def proxy(kubeconfig: Path, log: Path) -> Iterator[subprocess.Popen[bytes]]:
    flags = ["--kubeconfig", str(kubeconfig), "--cluster-cidr", "10.128.0.0/9", "--proxy-mode", "nftables"]
    with process("proxy", *flags, log=log) as child:
        yield child


@asynccontextmanager
async def client_of(kubeconfig: Path) -> AsyncIterator[ApiClient]:
    transport = HttpTransport(load(str(kubeconfig)))
    try:
        yield ApiClient(transport, "benchmark")
    finally:
        await transport.close()


@dataclass(slots=True)
class Changes:
    """Writes in which one endpoint of one Service becomes another."""

    client: ApiClient
    services: int
    serial: int = 0

    async def write(self) -> None:
        self.serial += 1
        name = slice_name(self.serial * 37 % self.services)
        fresh = f"10.64.{self.serial >> 8 & 255}.{self.serial & 255}"
        patch = [{"op": "replace", "path": "/endpoints/0/addresses/0", "value": fresh}]
        await self.client.patch(ENDPOINT_SLICES, "default", name, patch, kind="json")


async def run(scale: Scale) -> list[Figure]:
    return await asyncio.to_thread(_measure, scale)  # a thread of its own may enter namespaces


def _measure(scale: Scale) -> list[Figure]:
    many, more = scale.of(5_000, 40), scale.of(50_000, 80)
    changes = scale.of(200, 10)
    with node() as here, inside(here.name):
        found = uvloop.run(_at(many, changes, scale))
    with node() as here, inside(here.name):
        found += uvloop.run(_told(many, scale))
    with node() as here, inside(here.name):
        found += uvloop.run(_one_change_at(more, changes))
    with node("ours") as ours, node("peer") as theirs:
        found += _layout(theirs, many, found)
        with inside(ours.name):
            asyncio.run(_program(_state(many)))
        speed = compare(ours, theirs, cluster_ip(many), *TURNS[scale.tiny])
    return found + speed.figures("new connections", CONNECTIONS, "kube-proxy's layout")


async def _at(services: int, changes: int, scale: Scale) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with api_server(directory, services, ENDPOINTS) as kubeconfig:
            began = time.perf_counter()
            with proxy(kubeconfig, directory / "proxy.log") as child:
                await answers("http://127.0.0.1:10256/healthz", child)
                found = [
                    Figure("from a cold process to the kernel complete", time.perf_counter() - began, "s", COLD_S),
                    Figure("  the first sync", metric("kubeproxy_sync_full_proxy_rules_duration_seconds_sum"), "s"),
                ]
                async with client_of(kubeconfig) as client:
                    writes = Changes(client, services)
                    found += await _single_changes(writes, changes, child, f"{services:,} Services: ")
                    found += await _burst(writes, scale)
                found.append(Figure("memory", memory_mb(child), "MB", MEMORY_MB))
            began = time.perf_counter()
            with proxy(kubeconfig, directory / "proxy.log") as child:
                await answers("http://127.0.0.1:10256/healthz", child)
                found.append(Figure("restart, nothing to write", time.perf_counter() - began, "s", COLD_S))
                written = metric("svcplane_kernel_operations_total")
                found.append(Figure("  kernel changes it wrote", written, "", 0.0))
    return found


async def _one_change_at(services: int, changes: int) -> list[Figure]:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with api_server(directory, services, ENDPOINTS) as kubeconfig:
            with proxy(kubeconfig, directory / "proxy.log") as child:
                await answers("http://127.0.0.1:10256/healthz", child)
                async with client_of(kubeconfig) as client:
                    return await _single_changes(Changes(client, services), changes, child, f"{services:,} Services: ")


async def _single_changes(writes: Changes, changes: int, child: subprocess.Popen[bytes], where: str) -> list[Figure]:
    """One after another, each waited for; the first ones, while the proxy still tidies up, are not counted."""
    seen = metric(SEEN)
    for _ in range(changes // 4):
        await writes.write()
    await _written(seen + changes // 4)
    generations = Generations()
    after, syncs, spent = [], metric(f"{PARTIAL}_count"), metric(f"{PARTIAL}_sum")
    used = processor_s(child)
    try:
        for _ in range(changes):
            await writes.write()
            acknowledged = time.perf_counter()
            committed = await asyncio.wait_for(generations.queue.get(), 10)
            after.append(max(0.0, committed - acknowledged) * 1000)
    finally:
        generations.close()
    used = (processor_s(child) - used) / changes * 1000
    mean = (metric(f"{PARTIAL}_sum") - spent) / max(1.0, metric(f"{PARTIAL}_count") - syncs) * 1000
    return [
        Figure(f"{where}one change, acknowledged to committed", statistics.median(after), "ms", CHANGE_MS),
        Figure("  of 100, the slowest but one", percentile(after, 0.99), "ms"),
        Figure("  of which compiling, encoding and the kernel, mean", mean, "ms"),
        Figure("  processor time of proxy and kernel, the watch included", used, "ms", OWN_MS),
    ]


async def _written(seen: float) -> None:
    """Wait until the proxy has seen so many changes, and written them."""
    while metric(SEEN) < seen or metric("kubeproxy_sync_proxy_rules_endpoint_changes_pending"):
        await asyncio.sleep(0.02)


async def _burst(writes: Changes, scale: Scale) -> list[Figure]:
    """Writes as fast as the server takes them, 64 at a time: server, proxy and this program share the machine."""
    total = scale.of(BURST * BURST_S, 50)
    generations, gate = Generations(), asyncio.Semaphore(64)

    async def change() -> None:
        async with gate:
            await writes.write()

    seen, began = metric(SEEN), time.perf_counter()
    try:
        await asyncio.gather(*(change() for _ in range(total)))
        acknowledged = time.perf_counter()
        await _written(seen + total)
        behind = max(0.0, generations.last - acknowledged) * 1000
    finally:
        generations.close()
    return [
        Figure(
            "burst: changes a second, written and acknowledged", total / (acknowledged - began), "/s", BURST, more=True
        ),
        Figure("  last acknowledged to last committed", behind, "ms", BEHIND_MS),
    ]


async def _told(services: int, scale: Scale) -> list[Figure]:
    """The proxy alone, told of changes by a source that can tell of BURST a second and does."""
    total = scale.of(BURST * BURST_S, 50)
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        async with source(directory, services, ENDPOINTS) as (told, kubeconfig):
            with proxy(kubeconfig, directory / "proxy.log") as child:
                await answers("http://127.0.0.1:10256/healthz", child)
                await told.watched.wait()
                seen, used, generations = metric(SEEN), processor_s(child), Generations()
                began = time.perf_counter()
                try:
                    for number in range(total):
                        await told.change()
                        ahead = began + number / BURST - time.perf_counter()
                        if ahead > 0.002:
                            await asyncio.sleep(ahead)
                    sent = time.perf_counter()
                    await _written(seen + total)
                    behind = max(0.0, generations.last - sent) * 1000
                finally:
                    generations.close()
                used = (processor_s(child) - used) / total * 1000
    return [
        Figure("the proxy alone, told of changes: a second", total / (sent - began), "/s", 0.99 * BURST, more=True),
        Figure("  last told to last committed", behind, "ms", BEHIND_MS),
        Figure("  processor time of the proxy for one", used, "ms"),
    ]


def _layout(where: Node, services: int, found: list[Figure]) -> list[Figure]:
    """The same Services and the same change in kube-proxy's layout, written as kube-proxy writes it."""
    with inside(where.name):
        began = time.perf_counter()
        peer.load(services, ENDPOINTS, {services - 1: [POD[0]]})
        loaded = time.perf_counter() - began
        times = []
        for turn in range(min(15, services - 1)):
            number = turn * 37 % (services - 1)
            before = [endpoint_ip(number, at) for at in range(ENDPOINTS)]
            text = peer.change(number, before, [f"10.64.1.{turn + 1}", *before[1:]])
            began = time.perf_counter()
            peer.write(text)
            times.append((time.perf_counter() - began) * 1000)
            peer.write(peer.change(number, [f"10.64.1.{turn + 1}", *before[1:]], before))
    mine = next(figure for figure in found if "compiling" in figure.name)
    return [
        Figure("kube-proxy's layout by nft: loading, in steps", loaded, "s"),
        Figure(
            "kube-proxy's layout by nft: one change",
            statistics.median(times),
            "ms",
            floor=mine.value,
            floor_name="svcplane",
        ),
    ]


def _state(services: int) -> ProxyState:
    """The Services of `cluster_load`; the last one leads to POD alone, to measure connections."""
    config = NodeConfig("node1", Family.IPV4, DetectLocal.CLUSTER_CIDR, ("10.128.0.0/9",), primary_ips=("10.250.0.1",))
    ports, behind = {}, {}
    for number in range(services):
        name = ServicePortName("default", f"svc-{number}", "http", Protocol.TCP)
        ports[name] = ServicePort(name, cluster_ip(number + 1), 80)
        behind[name] = tuple(Endpoint(endpoint_ip(number, at), 8080) for at in range(ENDPOINTS))
    behind[name] = (Endpoint(*POD),)
    return ProxyState(config, NodeState("node1"), ports, behind)


async def _program(wanted: ProxyState) -> None:
    plane = NftablesPlane(wanted.config, NftSocket())
    await plane.sync(wanted, None, now=0.0)
    await plane.close()
