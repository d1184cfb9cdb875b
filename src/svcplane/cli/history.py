"""`svcplane history`: what the proxy of this node did, when and why; what it wanted at a moment."""

import asyncio
import re
import time
from datetime import datetime

import click
import msgspec

from svcplane.base.clock import rfc3339_micro
from svcplane.base.errors import ConfigError, EnvironmentProblem
from svcplane.cli.output import OUTPUT, console, emit, show_table
from svcplane.cli.reading import NAMESPACE, service_name
from svcplane.proxy.history import Entry
from svcplane.proxy.inspect import look
from svcplane.proxy.plane import describe
from svcplane.proxy.snapshot import Snapshot, decode

_SPAN = re.compile(r"(\d+)([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}


@click.command(short_help="Say what the proxy of this node did, when and why.")
@click.argument("service", required=False, default="")
@click.option("--since", default="", help="A span (5m, 2h) or a time (2026-01-02T03:04:05Z).")
@click.option("--at", default="", help="Show what was desired at a moment instead: a span ago, or a time.")
@click.option("--operations", is_flag=True, help="Show what was changed in the kernel, too.")
@NAMESPACE
@OUTPUT
def history(service: str, since: str, at: str, operations: bool, namespace: str, output: str) -> None:
    """What the proxy that runs on this node has done; of SERVICE (svc/NAME) only, where one is given.

    The proxy keeps the last 1,000 entries in memory, from its start on.
    """
    key = f"{namespace or 'default'}/{service_name(service)}" if service else ""
    if at:
        _show_state(decode(_look("/state", {"at": str(moment(at, "--at"))})), key, output)
        return
    query = {"service": key} if key else {}
    if since:
        query["since"] = str(moment(since, "--since"))
    entries = msgspec.json.decode(_look("/history", query), type=tuple[Entry, ...])
    if output != "table":
        emit(entries, output)
        return
    _show(entries, operations=operations)


def moment(text: str, flag: str) -> float:
    """Wall seconds of a time, or of a span ago.  Raises ConfigError."""
    span = _SPAN.fullmatch(text)
    if span:
        return time.time() - int(span[1]) * _SECONDS[span[2]]
    try:
        found = datetime.fromisoformat(text.replace("Z", "+00:00"))
    except ValueError as error:
        raise ConfigError(
            f"{flag} {text}: must be a span such as 5m, or a time such as 2026-01-02T03:04:05Z"
        ) from error
    return found.timestamp()


def _look(path: str, query: dict[str, str]) -> bytes:
    body = asyncio.run(look(path, query))
    if body is None:
        raise EnvironmentProblem("no svcplane proxy runs on this node: start it, or run this where it runs")
    return body


def _show(entries: tuple[Entry, ...], *, operations: bool) -> None:
    out = console()
    if not entries:
        out.print("nothing has happened")
    rows = []
    for entry in entries:
        more = entry.service_count - len(entry.services[:3])
        services = ", ".join(entry.services[:3]) + (f" and {more} more" if more > 0 else "")
        count = str(entry.operation_count)
        rows.append((rfc3339_micro(entry.at_s), entry.family, entry.what, services or entry.why or "-", count))
        if operations:
            rows += [("", "", "", f"{op.verb} {op.object}: {op.reason}", "") for op in entry.operations]
    show_table(out, "", ("TIME", "FAMILY", "WHAT", "SERVICES, OR WHY", "OPERATIONS"), rows)


def _show_state(found: Snapshot, key: str, output: str) -> None:
    rows, trees = [], []
    for state in found.states:
        for name, port in sorted(state.services.items()):
            if key and "/".join(name.service) != key:
                continue
            endpoints = state.endpoints.get(name, ())
            rows.append(
                (str(name), f"{port.cluster_ip}:{port.port}/{port.protocol}", ", ".join(map(str, endpoints)) or "none")
            )
            trees.append({"name": str(name), "port": port, "endpoints": [describe(endpoint) for endpoint in endpoints]})
    if output != "table":
        emit(trees, output)
        return
    out = console()
    if not rows:
        out.print("no Service was desired")
    show_table(out, "", ("SERVICE PORT", "ADDRESS", "ENDPOINTS"), rows)
