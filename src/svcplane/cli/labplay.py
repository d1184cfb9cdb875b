"""`svcplane lab play|connect|proxy`: situations on a lab that runs, connections in it, and its proxies."""

import asyncio
import os
import sys
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from svcplane.cli.labs import NAME, begin, until_done

if TYPE_CHECKING:
    from svcplane.client.api import ApiClient
    from svcplane.lab.cluster import Cluster
    from svcplane.lab.scenario import Scenario

T = TypeVar("T")
SCENARIO = click.Path(path_type=Path)


@click.command()
@NAME
@click.argument("scenario", type=SCENARIO)
def play(name: str, scenario: Path) -> None:
    """Bring SCENARIO (a directory such as examples/broken/NAME) about on a lab that runs."""
    from svcplane.lab.cluster import find
    from svcplane.lab.scenario import read

    situation = read(scenario)
    begin(name)
    cluster = find(name)

    async def work() -> int:
        await tell(cluster, situation)
        return 0

    sys.exit(until_done(work()))


async def tell(cluster: "Cluster", situation: "Scenario") -> None:
    """Bring it about, and say what is seen."""
    from svcplane.lab.play import play as bring_about

    seen = await _in_lab(cluster, lambda api: bring_about(cluster, api, situation))
    click.echo(f"{situation.name}: a connection from {situation.symptom} ends with {seen}")


async def _in_lab(cluster: "Cluster", work: Callable[["ApiClient"], Coroutine[Any, Any, T]]) -> T:
    """`work(api)` with this thread in the lab's control namespace, where its API server is."""
    from svcplane.kernel.links.run import enter, path_of

    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(path_of(cluster.namespace("control")))
        api, transport = cluster.client()
        try:
            return await work(api)
        finally:
            await transport.close()
    finally:
        enter(f"/proc/self/fd/{home}")
        os.close(home)


@click.command()
@NAME
@click.argument("member")
@click.argument("target", metavar="DST:PORT[/udp]")
@click.option("--count", default=1, show_default=True, type=click.IntRange(1, 10_000), help="Connections to make.")
@click.option("--source-port", default=0, type=click.IntRange(0, 65535), help="Where it matters; one connection.")
def connect(name: str, member: str, target: str, count: int, source_port: int) -> None:
    """Connect from a member (client, node1, pod/NAME, ...) and say who answered.

    DST is svc/NAME, a member, or an address.  The exit status is 1 where a connection was not answered.
    """
    from svcplane.lab.client import answered, ask, ask_many
    from svcplane.lab.cluster import find
    from svcplane.lab.play import target as found
    from svcplane.proxy.model import Protocol

    begin(name)
    cluster = find(name)
    namespace = cluster.namespace(member)

    async def work(api: "ApiClient") -> int:
        ip, port, protocol = await found(cluster, api, target)
        udp = protocol is Protocol.UDP
        if source_port:
            seen = Counter([await ask(namespace, ip, port, udp=udp, source_port=source_port)])
        else:
            seen = await ask_many(namespace, ip, port, count, udp=udp)
        for answer, times in sorted(seen.items()):
            click.echo(f"{answer}" + (f"  {times} times" if count > 1 else ""))
        return 1 if not all(map(answered, seen)) else 0

    sys.exit(until_done(_in_lab(cluster, work)))


@click.group()
def proxy() -> None:
    """Stop a node's proxy, or (re)start it with other flags."""


@proxy.command()
@NAME
@click.argument("node")
def stop(name: str, node: str) -> None:
    """End the proxy of NODE; its rules stay."""
    from svcplane.lab.cluster import find

    begin(name)
    asyncio.run(find(name).stop_proxy(node))


@proxy.command(context_settings={"ignore_unknown_options": True})
@NAME
@click.argument("node")
@click.argument("flags", nargs=-1, type=click.UNPROCESSED)
def start(name: str, node: str, flags: tuple[str, ...]) -> None:
    """Start the proxy of NODE (again); FLAGS of `svcplane proxy` overrule the lab's."""
    from svcplane.lab.cluster import find

    begin(name)
    asyncio.run(find(name).start_proxy(node, *flags))
