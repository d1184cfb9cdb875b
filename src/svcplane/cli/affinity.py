"""`svcplane affinity list|evict`: which client sticks to which Pod, for how long, and how to part them."""

import asyncio
import sys
from dataclasses import dataclass

import click

from svcplane.base.errors import ConfigError
from svcplane.base.net import canonical_ip, family_of
from svcplane.cli.nodeview import CLUSTER_CIDR, MODE, NODE, NodeView, forget, node_view, remembered
from svcplane.cli.output import OUTPUT, console, emit, show_findings, show_table
from svcplane.cli.reading import KUBECONFIG
from svcplane.kernel.probing import run as probing
from svcplane.proxy.model import ProxyState
from svcplane.proxy.plane import AffinityEntry
from svcplane.understand.affinity import Sticking, dead_findings, describe
from svcplane.understand.finding import Finding, has_problem
from svcplane.understand.tracing import destination

AT_ONCE = 10


@dataclass(frozen=True, slots=True)
class Listing:
    clients: tuple[Sticking, ...]
    findings: tuple[Finding, ...] = ()


@click.group(short_help="Which client sticks to which Pod; part them.")
def affinity() -> None:
    """Session affinity as this node's kernel remembers it."""


@affinity.command(name="list")
@click.option("--service", default="", help="NAMESPACE/NAME, or with :PORT; only this one.")
@click.option("--probe", is_flag=True, help="Connect to each remembered Pod from this node.")
@click.option("--timeout", default=2.0, show_default=True, help="Seconds a probe may take.")
@MODE
@NODE
@CLUSTER_CIDR
@KUBECONFIG
@OUTPUT
def list_(service: str, probe: bool, timeout: float, output: str, **flags: str) -> None:
    """List remembered clients.  With --probe the exit status is 1 where one sticks to a dead Pod."""

    async def work() -> Listing:
        view = await node_view(flags["kubeconfig"], flags["mode"], flags["node_name"], flags["cluster_cidr"])
        found: list[Sticking] = []
        for state in view.states.values():
            found += [describe(entry, state) for entry in await _entries(view, state, service)]
        answers = await _probe(found, timeout) if probe else {}
        return Listing(tuple(sorted(found, key=lambda one: (one.service, one.client))), dead_findings(found, answers))

    listing = asyncio.run(work())
    if output != "table":
        emit(listing, output)
    else:
        out = console()
        if probe:
            show_findings(out, listing.findings, none="every remembered Pod answers")
        rows = [
            (one.client, one.service, one.endpoint, one.pod or "-", f"{one.expires_in_s:.0f} s", one.state)
            for one in listing.clients
        ]
        show_table(out, "", ("CLIENT", "SERVICE PORT", "ENDPOINT", "POD", "FORGOTTEN AFTER", "STATE"), rows)
        if not rows:
            out.print("no client is remembered on this node")
    sys.exit(1 if has_problem(listing.findings) else 0)


@affinity.command()
@click.argument("client")
@click.option("--service", default="", help="NAMESPACE/NAME, or with :PORT; otherwise all of them.")
@MODE
@NODE
@CLUSTER_CIDR
@KUBECONFIG
def evict(client: str, service: str, **flags: str) -> None:
    """Forget CLIENT (an IP address): its next connection may get any Pod."""
    ip = canonical_ip(client)
    if ip is None:
        raise ConfigError(f"{client}: must be an IP address")

    async def work() -> list[AffinityEntry]:
        view = await node_view(flags["kubeconfig"], flags["mode"], flags["node_name"], flags["cluster_cidr"])
        state = view.states.get(family_of(ip))
        if state is None:
            return []
        entries = await remembered(view, state)
        doomed = [entry for entry in entries if entry.client == ip and _is_of(entry, service)]
        for entry in doomed:
            await forget(view, state, entry)
        return doomed

    gone = asyncio.run(work())
    for entry in gone:
        click.echo(f"forgot {entry.client} of {entry.service}, which stuck to {entry.endpoint}")
    if not gone:
        click.echo(f"{ip} is not remembered on this node" + (f" for {service}" if service else ""))
        sys.exit(1)


def _is_of(entry: AffinityEntry, service: str) -> bool:
    return not service or service in (str(entry.service), "/".join(entry.service.service))


async def _entries(view: NodeView, state: ProxyState, service: str) -> list[AffinityEntry]:
    if not any(port.affinity_timeout_s for port in state.services.values()):
        return []
    return [entry for entry in await remembered(view, state) if _is_of(entry, service)]


async def _probe(found: list[Sticking], timeout_s: float) -> dict[str, str]:
    """Endpoint -> how it answers this node."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(endpoint: str, protocol: str) -> tuple[str, str]:
        async with gate:
            ip, port, _ = destination(endpoint)
            return endpoint, (await probing.probe(probing.HERE, ip, port, protocol, timeout_s)).result

    targets = {entry.endpoint: entry.protocol for entry in found}
    return dict(await asyncio.gather(*(one(*target) for target in targets.items())))
