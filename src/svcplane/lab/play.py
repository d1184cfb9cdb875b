"""Bringing a scenario about on a lab that runs, up to its symptom.

The caller's thread reaches the lab's API server.
"""

import asyncio
import subprocess
import time
from collections.abc import Awaitable, Callable

import msgspec

from svcplane.api.core import Service
from svcplane.api.discovery import SERVICE_NAME, EndpointSlice
from svcplane.api.resources import BY_KIND, ENDPOINT_SLICES, LEASES, NODES, PODS, SERVICES
from svcplane.api.status import StatusError
from svcplane.base.errors import ConfigError, EnvironmentProblem, TransportError
from svcplane.client.api import ApiClient
from svcplane.kernel.links.run import command_in
from svcplane.lab.client import answered, ask
from svcplane.lab.cluster import Cluster
from svcplane.lab.scenario import Connect, Run, Scenario, Step, Tree, place, resource_named
from svcplane.proxy.model import Protocol
from svcplane.proxy.programmed import LEASE_NAMESPACE
from svcplane.understand.programmed import is_done, progress
from svcplane.understand.view import from_trees

NAMESPACE = "default"
WAIT_S, TRY_S, AGAIN_S = 30.0, 1.0, 0.1
RUN_TIMEOUT_S = 30.0


async def play(cluster: Cluster, api: ApiClient, scenario: Scenario) -> str:
    """All steps, then until the symptom is seen; what was seen.  Raises EnvironmentProblem where it is not."""
    for step in scenario.steps:
        await _play(cluster, api, scenario, step)
    return await connect(cluster, api, scenario.symptom)


async def _play(cluster: Cluster, api: ApiClient, scenario: Scenario, step: Step) -> None:
    if step.apply is not None:
        await apply(api, scenario.objects[step.apply])
    elif step.running is not None:
        names = step.running
        await _until(f"Pods {', '.join(names)} run", lambda: _running(api, names))
    elif step.connect is not None:
        await connect(cluster, api, step.connect)
    elif step.programmed is not None:
        service = step.programmed
        await _until(f"the proxies are done with svc/{service}", lambda: _programmed(api, service))
    elif step.run is not None:
        _run(cluster, step.run)
    elif step.delete is not None:
        await _delete(api, step.delete)
    elif step.stop_proxy is not None:
        await cluster.stop_proxy(step.stop_proxy)
    elif step.start_proxy is not None:
        await cluster.start_proxy(step.start_proxy.member, *step.start_proxy.flags)


async def apply(api: ApiClient, trees: list[Tree]) -> None:
    """Server-side apply under the name of `svcplane apply`, so that a person goes on with the same fields."""
    query = {"fieldManager": "svcplane", "force": "true"}
    for tree in trees:
        resource = BY_KIND[tree["apiVersion"], tree["kind"]]
        namespace = tree["metadata"].get("namespace", NAMESPACE) if resource.namespaced else ""
        await api.patch(resource, namespace, tree["metadata"]["name"], tree, kind="apply", query=query)


async def _running(api: ApiClient, names: tuple[str, ...]) -> str:
    pods = {pod["metadata"]["name"]: pod.get("status", {}) for pod in (await api.list(PODS, NAMESPACE))["items"]}
    for name in names:
        status = pods.get(name, {})
        if status.get("phase") != "Running" or not status.get("podIP"):
            return f"{name} is {status.get('phase') or 'not there'}"
    return ""


async def _programmed(api: ApiClient, name: str) -> str:
    """A proxy reports after it has looked for stale flows, too."""
    service = msgspec.convert(await api.get(SERVICES, NAMESPACE, name), Service)
    listed = await api.list(ENDPOINT_SLICES, NAMESPACE, labels=f"{SERVICE_NAME}={name}")
    slices = [msgspec.convert(item, EndpointSlice) for item in listed["items"]]
    trees = [{**item, "kind": "Node"} for item in (await api.list(NODES))["items"]]
    trees += [{**item, "kind": "Lease"} for item in (await api.list(LEASES, LEASE_NAMESPACE))["items"]]
    found = progress(service, slices, from_trees(trees, live=True, now_s=time.time()))
    return "" if is_done(found) else ", ".join(f"{node.node}: {node.said}" for node in found)


async def _delete(api: ApiClient, what: str) -> None:
    kind, _, name = what.partition("/")
    resource = resource_named(kind)
    where = NAMESPACE if resource.namespaced else ""
    await api.delete(resource, where, name, grace_s=0)

    async def gone() -> str:
        try:
            await api.get(resource, where, name)
        except StatusError as error:
            if error.code == 404:
                return ""
            raise
        return "it is still there"

    await _until(f"{what} is gone", gone)


def _run(cluster: Cluster, run: Run) -> None:
    shown = " ".join(run.command)
    try:
        done = subprocess.run(
            command_in(cluster.namespace(run.member), run.command),
            capture_output=True,
            text=True,
            timeout=RUN_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise EnvironmentProblem(f"`{shown}` on {run.member}: {error}") from error
    if done.returncode:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise EnvironmentProblem(f"`{shown}` on {run.member}: {said[-1] if said else f'status {done.returncode}'}")


async def connect(cluster: Cluster, api: ApiClient, wanted: Connect) -> str:
    """Connect until it ends as wanted; how it ended."""
    seen = ""

    async def tried() -> str:
        nonlocal seen
        namespace = cluster.namespace(wanted.source)
        ip, port, protocol = await target(cluster, api, wanted.to)
        seen = await ask(namespace, ip, port, TRY_S, udp=protocol is Protocol.UDP, source_port=wanted.port)
        return "" if seen == wanted.sees or (wanted.sees == "answer" and answered(seen)) else f"seen: {seen}"

    await _until(f"{wanted}: {wanted.sees}", tried)
    return seen


async def target(cluster: Cluster, api: ApiClient, text: str) -> tuple[str, int, Protocol]:
    """Address, port and protocol of svc/NAME:PORT, MEMBER:PORT or IP:PORT.  Raises ConfigError."""
    host, number, protocol = place(text)
    found = host
    if host.startswith("svc/"):
        try:
            spec = (await api.get(SERVICES, NAMESPACE, host.removeprefix("svc/")))["spec"]
        except StatusError as error:
            raise ConfigError(f"{text}: {error}") from error
        found = spec.get("clusterIP") or ""
        if found in ("", "None"):
            raise ConfigError(f"{text}: this Service has no ClusterIP")
    elif (ip := cluster.address(host)) is not None:
        found = ip
    return found.strip("[]"), number, protocol


async def _until(what: str, missing: Callable[[], Awaitable[str]]) -> None:
    """Wait until `missing` has nothing to say.  Raises EnvironmentProblem with its last word."""
    last = ""
    try:
        async with asyncio.timeout(WAIT_S):
            while True:
                try:
                    last = await missing()
                except (TransportError, StatusError) as error:
                    last = str(error)
                if not last:
                    return
                await asyncio.sleep(AGAIN_S)
    except TimeoutError:
        raise EnvironmentProblem(f"not within {WAIT_S:g} s: {what} ({last or 'no answer'})") from None
