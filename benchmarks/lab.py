"""From a Pod's turning ready to the first connection to its Service that it answers, in a lab of two nodes.

The clock starts when a watcher of Pods sees the Ready condition, and stops with the answer to a connection to the
ClusterIP, tried anew all the time: EndpointSlice controller, proxy and kernel are in between.  Needs root.
"""

import asyncio
import os
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec

from benchmarks.figures import Figure, Scale, percentile
from svcplane.api.resources import NODES, PODS, SERVICES
from svcplane.client.api import ApiClient, lines
from svcplane.kernel.links.run import enter, path_of
from svcplane.lab.client import ask
from svcplane.lab.cluster import Cluster
from svcplane.lab.topology import Lab

TITLE = "Lab: from a Pod turning ready to the first connection that it answers (nftables)"
NAMESPACE, NAME, PORT = "default", "bench", 80
TRY_EVERY_S = 0.002


def pod(number: int) -> dict[str, Any]:
    probe = {"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1, "failureThreshold": 1}
    container = {"name": "echo", "image": "svcplane/echo", "ports": [{"containerPort": 8080}], "readinessProbe": probe}
    meta = {"name": f"{NAME}-{number}", "labels": {"app": NAME}}
    return {"metadata": meta, "spec": {"terminationGracePeriodSeconds": 0, "containers": [container]}}


def is_ready(tree: dict[str, Any]) -> bool:
    conditions = tree.get("status", {}).get("conditions", [])
    return any((c["type"], c["status"]) == ("Ready", "True") for c in conditions)


@asynccontextmanager
async def cluster(nodes: int) -> AsyncIterator[tuple[Cluster, ApiClient]]:
    """A lab whose nodes are ready; this thread is in its client namespace meanwhile."""
    with tempfile.TemporaryDirectory(prefix="svcplane-bench-") as directory:
        made = Cluster(Lab("bench", nodes), "nftables", Path(directory))
        home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            await made.up()
            enter(path_of(made.namespace("client")))
            api, transport = made.client()
            try:
                async with asyncio.timeout(60):
                    while sum(is_ready(node) for node in (await api.list(NODES))["items"]) < nodes:
                        await asyncio.sleep(0.1)
                yield made, api
            finally:
                await transport.close()
        finally:
            enter(f"/proc/self/fd/{home}")
            os.close(home)
            await made.down()


async def turned_ready(api: ApiClient, name: str, version: str) -> float:
    """When a watcher sees the Pod ready."""
    query = {"resourceVersion": version, "fieldSelector": f"metadata.name={name}"}
    response = await api.watch(PODS, NAMESPACE, query)
    assert response.stream is not None
    async for line in lines(response.stream):
        if is_ready(msgspec.json.decode(line)["object"]):
            return time.perf_counter()
    raise AssertionError("the watch ended")


async def answered(namespace: str, ip: str) -> float:
    """When the first of ever new connections has its answer."""
    while not (await ask(namespace, ip, PORT, 0.2)).startswith(NAME):
        await asyncio.sleep(TRY_EVERY_S)
    return time.perf_counter()


async def run(scale: Scale) -> list[Figure]:
    async with cluster(scale.of(2, 1)) as (made, api):
        client = made.namespace("client")
        spec = {"selector": {"app": NAME}, "ports": [{"port": PORT, "targetPort": 8080}]}
        ip = (await api.create(SERVICES, NAMESPACE, {"metadata": {"name": NAME}, "spec": spec}))["spec"]["clusterIP"]
        times: list[float] = []
        settled: list[float] = []
        for number in range(scale.of(12, 1)):
            name = f"{NAME}-{number}"
            version = (await api.create(PODS, NAMESPACE, pod(number)))["metadata"]["resourceVersion"]
            async with asyncio.timeout(60):
                ready, answer = await asyncio.gather(turned_ready(api, name, version), answered(client, ip))
            times.append((answer - ready) * 1e3)
            began = time.perf_counter()
            assert await ask(client, ip, PORT) == name
            settled.append((time.perf_counter() - began) * 1e3)
            await api.delete(PODS, NAMESPACE, name, grace_s=0)
            async with asyncio.timeout(60):
                while (await ask(client, ip, PORT, 0.2)).startswith(NAME):
                    await asyncio.sleep(TRY_EVERY_S)
    floor = {"floor": percentile(settled, 0.5), "floor_name": "an answered connection"}
    return [
        Figure("first answer after ready, p50", percentile(times, 0.5), "ms", **floor),  # type: ignore[arg-type]
        Figure("first answer after ready, worst", max(times), "ms", **floor),  # type: ignore[arg-type]
    ]
