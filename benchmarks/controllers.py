"""How long the EndpointSlice controller takes, over a durable store in this process.

    python -m benchmarks.controllers [--pods N] [--many N]

Prints, in this order: a Service of N Pods from nothing to complete slices; the writes and the time of one Pod
turning ready among --many of one Service.
"""

import argparse
import asyncio
import contextlib
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from benchmarks.figures import Figure, Scale, percentile
from svcplane.api import codec
from svcplane.api.resources import ENDPOINT_SLICES, NODES, PODS
from svcplane.base.tasks import cancel_and_wait
from svcplane.client.transport import InProcessTransport
from svcplane.controllers.run import run_controllers
from svcplane.server.app import ApiServer
from svcplane.store.contract import Put, Store, Transaction
from svcplane.store.sqlite import SqliteStore
from svcplane.testing.server import Caller, in_process_server

TITLE = "EndpointSlice controller: a large Service, over a durable store in one process"
SERVICES = "/api/v1/namespaces/default/services"
NODE_COUNT = 20


def pod(number: int, *, ready: bool) -> dict[str, Any]:
    ip = f"10.{128 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"
    state = "True" if ready else "False"
    times = {"lastTransitionTime": "2026-01-01T00:00:00Z"}
    return {
        "metadata": {
            "name": f"web-{number}",
            "namespace": "default",
            "uid": f"00000000-0000-0000-0000-{number:012}",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "pod-template-hash": "5d4f8c7b9"},
        },
        "spec": {
            "nodeName": f"node-{number % NODE_COUNT}",
            "restartPolicy": "Always",
            "containers": [{"name": "web", "image": "web", "ports": [{"containerPort": 8080, "protocol": "TCP"}]}],
        },
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": state, **times}],
            "podIP": ip,
            "podIPs": [{"ip": ip}],
        },
    }


async def fill(store: Store, count: int, *, unready: int = -1) -> None:
    """Nodes and Pods, put straight into the store."""
    nodes = [{"metadata": {"name": f"node-{n}", "uid": str(n)}, "status": {}} for n in range(NODE_COUNT)]
    puts = [Put(NODES.key("", node["metadata"]["name"]), codec.encode_stored(node)) for node in nodes]
    for number in range(count):
        tree = pod(number, ready=number != unready)
        puts.append(Put(PODS.key("default", tree["metadata"]["name"]), codec.encode_stored(tree)))
    for start in range(0, len(puts), 500):
        await store.commit(Transaction(tuple(puts[start : start + 500])))


@contextlib.asynccontextmanager
async def cluster(pods: int, *, unready: int = -1) -> AsyncIterator[tuple[ApiServer, Caller, Store]]:
    with tempfile.TemporaryDirectory() as directory:
        store = await SqliteStore.open(Path(directory))
        try:
            await fill(store, pods, unready=unready)
            async with in_process_server(store=store) as server:
                transport = InProcessTransport(server.handle)
                task = asyncio.create_task(run_controllers(transport))
                try:
                    await asyncio.sleep(max(1.0, pods / 5000))  # the controllers list
                    yield server, Caller(server.handle), store
                finally:
                    await cancel_and_wait(task)
        finally:
            await store.close()


async def complete(store: Store, ready: int) -> list[int]:
    """Revisions of the slices once they hold `ready` ready endpoints."""
    while True:
        page = await store.list(ENDPOINT_SLICES.key_prefix("default"))
        items = [item for item in page.items if item.key.rpartition("/")[2].startswith("web-")]
        if sum(item.value.count(b'"ready":true') for item in items) == ready:
            return [item.revision for item in items]
        await asyncio.sleep(0.001 if ready < 10_000 else 0.05)


async def from_nothing(pods: int) -> float:
    async with cluster(pods) as (_, caller, store):
        started = time.perf_counter()
        spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
        await caller.call("POST", SERVICES, {"metadata": {"name": "web"}, "spec": spec})
        await complete(store, pods)
        return time.perf_counter() - started


async def one_ready(pods: int, rounds: int) -> tuple[list[float], int]:
    """Times of single Pods turning ready or unready, and the slice writes they caused in all."""
    async with cluster(pods, unready=7) as (_, caller, store):
        spec = {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}
        await caller.call("POST", SERVICES, {"metadata": {"name": "web"}, "spec": spec})
        await complete(store, pods - 1)
        await asyncio.sleep(5)
        revision = await store.revision()
        watch = await store.watch(ENDPOINT_SLICES.key_prefix("default"), revision)
        times: list[float] = []
        writes = 0
        merge = {"Content-Type": "application/merge-patch+json"}
        batches = watch.__aiter__()
        for number in range(rounds):
            state = "True" if number % 2 == 0 else "False"
            stamp = f"2026-01-01T00:{1 + number // 60:02}:{number % 60:02}Z"
            condition = {"type": "Ready", "status": state, "lastTransitionTime": stamp}
            path = "/api/v1/namespaces/default/pods/web-7/status"
            status, answer = await caller.call("PATCH", path, {"status": {"conditions": [condition]}}, merge)
            assert status == 200, answer
            started = time.perf_counter()
            writes += len(await anext(batches))
            times.append(time.perf_counter() - started)
            await asyncio.sleep(2)
        pending: Any = watch
        while pending.pending():
            writes += len(await anext(batches))
        await watch.aclose()
        return times, writes


async def run(scale: Scale) -> list[Figure]:
    """The group of `python -m benchmarks`."""
    pods, many, rounds = scale.of(5_000, 150), scale.of(50_000, 150), scale.of(6, 2)
    took = await from_nothing(pods)
    times, writes = await one_ready(many, rounds)
    milliseconds = [seconds * 1e3 for seconds in times]
    return [
        Figure(f"Service of {pods:,} Pods to complete slices", took, "s", 5),
        Figure(f"one Pod's readiness among {many:,}, p50", percentile(milliseconds, 0.5), "ms", 20),
        Figure(f"one Pod's readiness among {many:,}, worst", max(milliseconds), "ms", 20),
        Figure("slice writes for one such change", writes / len(times), "", 1),
    ]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pods", type=int, default=5000)
    parser.add_argument("--many", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    if options.pods:
        took = asyncio.run(from_nothing(options.pods))
        print(f"Service of {options.pods} Pods to complete slices: {took:.2f} s (at most 5)")
    if options.many:
        times, writes = asyncio.run(one_ready(options.many, options.rounds))
        worst, usual = max(times) * 1000, sorted(times)[len(times) // 2] * 1000
        print(
            f"one Pod's readiness among {options.many}: {usual:.1f} ms, at worst {worst:.1f} ms (at most 20); "
            f"{writes} slice writes for {len(times)} changes"
        )


if __name__ == "__main__":
    main()
