"""`svcplane top`: connections a second, active connections and bytes of Services and endpoints on this node."""

import asyncio
import contextlib
from pathlib import Path

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from svcplane.base.net import Family
from svcplane.cli.nodeview import CLUSTER_CIDR, MODE, NODE, node_view
from svcplane.cli.output import OUTPUT, console, emit
from svcplane.cli.reading import KUBECONFIG
from svcplane.kernel.conntrack import run as conntrack
from svcplane.kernel.conntrack.text import Counted
from svcplane.proxy import pages
from svcplane.proxy.family import RELAYING
from svcplane.understand.top import Connection, Frontends, Row, connections, relayed_connections, relayed_rows, rows

ACCOUNTING = Path("/proc/sys/net/netfilter/nf_conntrack_acct")
SHOWN = 40


@click.command(short_help="Show connections and bytes of Services and endpoints, live.")
@click.option("--interval", default=1.0, show_default=True, type=click.FloatRange(0.1, 3600), help="Seconds.")
@click.option("--once", is_flag=True, help="Look for one interval, then end.")
@click.option("--connections", "each", is_flag=True, help="List each open connection with its bytes, then end.")
@MODE
@NODE
@CLUSTER_CIDR
@KUBECONFIG
@OUTPUT
def top(interval: float, once: bool, each: bool, output: str, **flags: str) -> None:
    """What goes over Services on this node, from the kernel's connection tracking, or the relay in userspace mode.

    Of tracked connections bytes are counted where net.netfilter.nf_conntrack_acct is 1.  ASIDE: seconds for which the
    relay chooses other endpoints, because this one did not answer.
    """
    live = not once and output == "table" and console().is_terminal

    async def work() -> None:
        if each:
            open_now = await _connections(flags)
            if output == "table":
                console().print(_connections_table(open_now))
            else:
                emit(open_now, output)
            return
        # the desired state is read anew with each look: Services come and go
        if not live:
            found = await _look(interval, flags)
            if output == "table":
                out = console()
                out.print(_table(found))
                _explain(out, found)
            else:
                emit(found, output)
            return
        with Live(console=console(), screen=True, auto_refresh=False) as screen:
            while True:
                screen.update(_table(await _look(interval, flags)), refresh=True)

    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(work())


async def _look(interval: float, flags: dict[str, str]) -> tuple[Row, ...]:
    view = await node_view(flags["kubeconfig"], flags["mode"], flags["node_name"], flags["cluster_cidr"])
    families = list(view.states)
    if view.mode in RELAYING:
        earlier = await pages.relayed()
        await asyncio.sleep(interval)
        return relayed_rows(earlier, await pages.relayed(), Frontends(view.states.values()).pods, interval)
    before = await _all(families)
    begun = await asyncio.gather(*(conntrack.new_flows(family, interval) for family in families))
    after = await _all(families)
    new = [flow for group in begun for flow in group]
    return rows(Frontends(view.states.values()), before, after, new, interval)


async def _connections(flags: dict[str, str]) -> tuple[Connection, ...]:
    view = await node_view(flags["kubeconfig"], flags["mode"], flags["node_name"], flags["cluster_cidr"])
    frontends = Frontends(view.states.values())
    if view.mode in RELAYING:
        return relayed_connections(await pages.relayed_connections(), frontends.pods)
    return connections(frontends, await _all(list(view.states)))


async def _all(families: list[Family]) -> list[Counted]:
    groups = await asyncio.gather(*(conntrack.counted(family) for family in families))
    return [flow for group in groups for flow in group]


def _table(found: tuple[Row, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in ("SERVICE PORT", "ENDPOINT", "POD"):
        table.add_column(head)
    aside = any(row.aside_s for row in found)
    for head in ("NEW/S", "ACTIVE", "SENT B/S", "RECEIVED B/S", *(["ASIDE"] if aside else [])):
        table.add_column(head, justify="right")
    for row in found[:SHOWN]:
        style = "" if row.endpoint else "bold"
        sent, received = (_bytes(n) for n in (row.sent_per_s, row.received_per_s))
        service = "" if row.endpoint else row.service
        cells = (service, row.endpoint, row.pod, f"{row.new_per_s:g}", str(row.active), sent, received)
        table.add_row(*cells, *([f"{row.aside_s:g} s" if row.aside_s else ""] if aside else []), style=style)
    return table


def _connections_table(found: tuple[Connection, ...]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for head in ("SERVICE PORT", "CLIENT", "ENDPOINT", "POD"):
        table.add_column(head)
    for head in ("AGE", "IDLE", "SENT", "RECEIVED"):
        table.add_column(head, justify="right")
    for one in found:
        times = (f"{value:g} s" if value is not None else "-" for value in (one.age_s, one.idle_s))
        table.add_row(one.service, one.client, one.endpoint, one.pod, *times, _bytes(one.sent), _bytes(one.received))
    return table


def _bytes(value: float | None) -> str:
    return "-" if value is None else f"{value:g}"


def _explain(out: Console, found: tuple[Row, ...]) -> None:
    if not found:
        out.print("no flow of a Service is tracked on this node")
    if any(row.sent_per_s is None for row in found):
        with contextlib.suppress(OSError):
            if ACCOUNTING.read_text().strip() == "0":
                out.print("bytes are not counted: sysctl -w net.netfilter.nf_conntrack_acct=1")
