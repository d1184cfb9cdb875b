"""`svcplane wait svc/NAME --programmed`: returns when every node has programmed a Service's present endpoints.

`svcplane wait KIND/NAME --for CONDITION` waits for what an object says of itself, as kubectl's.
"""

import asyncio
import sys
import time
from collections.abc import Sequence
from dataclasses import replace

import click
import msgspec

from svcplane.api.core import Service
from svcplane.api.discovery import EndpointSlice
from svcplane.api.resources import ENDPOINT_SLICES, LEASES, NODES, SERVICES
from svcplane.api.status import StatusError
from svcplane.base.errors import ConfigError
from svcplane.cli.conditions import Condition, parse, until
from svcplane.cli.objects import complete_objects, end, seconds, shown, wanted, with_client
from svcplane.cli.output import OUTPUT, console, emit, show_table
from svcplane.cli.reading import KUBECONFIG, NAMESPACE, service_name
from svcplane.client.api import ApiClient
from svcplane.client.informer import Informer
from svcplane.proxy.programmed import LABEL, LEASE_NAMESPACE
from svcplane.proxy.tracker import SERVICE_NAME_LABEL
from svcplane.understand.programmed import NodeProgress, is_done, progress
from svcplane.understand.view import ClusterView, Lease, from_trees


@click.command(short_help="Wait until every node has programmed a Service; or for a condition of objects.")
@click.argument("words", metavar="svc/NAME | KIND/NAME...", nargs=-1, required=True, shell_complete=complete_objects)
@click.option("--programmed", is_flag=True, help="Until all nodes have programmed the Service as it is now.")
@click.option("--for", "condition", default="", help="Until `condition=NAME[=VALUE]`, `create` or `delete` is so.")
@click.option("--timeout", default="30s", show_default=True, help="How long to wait at most; 0: look once.")
@KUBECONFIG
@NAMESPACE
@OUTPUT
def wait(
    words: tuple[str, ...],
    programmed: bool,
    condition: str,
    timeout: str,
    kubeconfig: str,
    namespace: str,
    output: str,
) -> None:
    """Return when the proxies of all nodes have programmed a Service as it is now, or objects are as asked.

    Exit status 1 where that has not come in time.  Nodes whose proxy does not report are left out.
    """
    limit_s = seconds(timeout, "--timeout")
    if programmed == bool(condition):
        raise ConfigError("give either --programmed or --for CONDITION")
    if condition:
        _await_objects(words, parse(condition), limit_s, kubeconfig, namespace)
        return
    if len(words) != 1:
        raise ConfigError("--programmed: give one Service, svc/NAME")
    name = service_name(words[0])

    async def work(client: ApiClient, default: str) -> tuple[str, tuple[NodeProgress, ...]]:
        where = namespace or default
        return where, await _wait(client, where, name, limit_s)

    where, found = with_client(kubeconfig, work)
    done = is_done(found)
    if output != "table":
        emit({"service": f"{where}/{name}", "programmed": done, "nodes": found}, output)
    else:
        out = console()
        out.print(f"svc/{name} {'is programmed on every node' if done else 'is not programmed everywhere'}")
        show_table(out, "Nodes", ("NAME", "STATE"), [(node.node, node.said) for node in found])
        if found and all(node.state == "unknown" for node in found):
            out.print("no proxy of this cluster reports what it has programmed")
    sys.exit(0 if done else 1)


def _await_objects(
    words: tuple[str, ...], condition: Condition, limit_s: float, kubeconfig: str, namespace: str
) -> None:
    async def work(client: ApiClient, default: str) -> int:
        failed = 0
        for target in await wanted(client, words, namespace or default):
            if not target.names:
                raise ConfigError(f"say which {target.resource.plural}: KIND/NAME")
            for name in target.names:
                if await until(client, target.resource, target.namespace, name, condition, limit_s):
                    click.echo(f"{shown(target.resource, name)} {condition.met}")
                else:
                    text = f"{shown(target.resource, name)} is not as asked after {limit_s:g} s: {condition}"
                    click.echo(f"svcplane: {text}", err=True)
                    failed += 1
        return failed

    end(with_client(kubeconfig, work))


async def _wait(client: ApiClient, namespace: str, name: str, timeout_s: float) -> tuple[NodeProgress, ...]:
    """The Service and its slices are read once: later changes are another wait's."""
    service, slices, view = await _target(client, namespace, name)
    leases: Informer[Lease] = Informer(client, LEASES, Lease, namespace=LEASE_NAMESPACE, labels=f"{LABEL}=proxy")
    changed = asyncio.Event()
    leases.on_change(lambda old, new: changed.set())
    leases.start()

    def present() -> tuple[NodeProgress, ...]:
        return progress(service, slices, replace(view, leases=tuple(leases.items.values()), now_s=time.time()))

    try:
        async with asyncio.timeout(timeout_s or 10.0):
            await leases.synced.wait()
            while not is_done(present()) and timeout_s:
                changed.clear()
                await changed.wait()
    except TimeoutError:
        pass
    finally:
        await leases.close()
    return present()


async def _target(client: ApiClient, namespace: str, name: str) -> tuple[Service, Sequence[EndpointSlice], ClusterView]:
    try:
        tree = await client.get(SERVICES, namespace, name)
    except StatusError as error:
        if error.code == 404:
            raise ConfigError(f"there is no Service {name} in namespace {namespace}") from error
        raise
    listed = await client.list(ENDPOINT_SLICES, namespace, labels=f"{SERVICE_NAME_LABEL}={name}")
    slices = [msgspec.convert(item, EndpointSlice) for item in listed.get("items") or []]
    if not slices:  # the last one may have been deleted: everything up to now must be programmed
        version = str(listed.get("metadata", {}).get("resourceVersion", ""))
        gone = EndpointSlice()
        gone.metadata.resource_version = version
        slices = [gone]
    nodes = [{**item, "kind": "Node"} for item in (await client.list(NODES)).get("items") or []]
    return msgspec.convert(tree, Service), slices, from_trees(nodes, live=True, now_s=time.time())
