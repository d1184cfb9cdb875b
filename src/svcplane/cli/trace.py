"""`svcplane trace --from SOURCE DST:PORT[/udp]`: what becomes of a connection on this node, rule by rule."""

import asyncio
import sys
from dataclasses import dataclass, replace

import click
from rich.console import Console
from rich.markup import escape

from svcplane.base.errors import ConfigError, EnvironmentProblem, SvcplaneError
from svcplane.base.net import Family, canonical_ip, family_of
from svcplane.cli.examining import examined_of
from svcplane.cli.nodeview import CLUSTER_CIDR, MODE, NODE, NodeView, node_view, plane_of, remembered
from svcplane.cli.output import OUTPUT, console, emit, show_findings, show_table
from svcplane.cli.reading import KUBECONFIG, NAMESPACE
from svcplane.kernel.host.run import read_facts
from svcplane.kernel.probing import run as probing
from svcplane.kernel.routes import way_to
from svcplane.kernel.ruleset.run import read as read_rules
from svcplane.proxy.family import RELAYING
from svcplane.proxy.model import Origin, Packet, Protocol, ProxyState
from svcplane.proxy.oracle import frontend_of
from svcplane.understand.doctor.rivals import drop_findings, dropped
from svcplane.understand.doctor.way import way_findings
from svcplane.understand.finding import has_problem, worst_first
from svcplane.understand.probing import GOOD, judge
from svcplane.understand.tracing import Trace, destination, origin_of, traits_of, ways, with_drops
from svcplane.understand.tracing import trace as tell

DIRECT_LIMIT, DIRECT_AT_ONCE = 50, 10


@dataclass(frozen=True, slots=True)
class Report:
    """A trace, and what a real connection did (`--probe`)."""

    trace: Trace
    probe: probing.Probe | None = None
    direct: dict[str, str] | None = None


@click.command(short_help="Say what becomes of a connection on this node, rule by rule.")
@click.argument("target", metavar="DST:PORT[/PROTOCOL]")
@click.option("--from", "source", default="node", show_default=True, help="pod/NAME, node, or an IP address.")
@click.option("--probe", is_flag=True, help="Send a real connection too, and compare.")
@click.option(
    "--timeout",
    default=3.0,
    show_default=True,
    type=click.FloatRange(0, 3600, min_open=True),
    help="Seconds a probe may take.",
)
@MODE
@NODE
@CLUSTER_CIDR
@KUBECONFIG
@NAMESPACE
@OUTPUT
def trace(
    target: str,
    source: str,
    probe: bool,
    timeout: float,
    mode: str,
    node_name: str,
    cluster_cidr: str,
    kubeconfig: str,
    namespace: str,
    output: str,
) -> None:
    """Trace a new connection from SOURCE to DST:PORT (or svc/NAME:PORT) through this node's live rules.

    The exit status is 1 where it fails, or the kernel does not do what is desired.
    """
    wanted = destination(target)

    async def work() -> Report:
        view = await node_view(kubeconfig, mode, node_name, cluster_cidr)
        report = await _trace(view, source, wanted, namespace or "default")
        if probe:
            report = await _with_probe(report, timeout)
        return await _with_node(view, report)

    report = asyncio.run(work())
    if output == "table":
        show(report)
    else:
        emit(report, output)
    sys.exit(1 if has_problem(report.trace.findings) else 0)


async def _trace(view: NodeView, source: str, wanted: tuple[str, int, Protocol], namespace: str) -> Report:
    host, port, protocol = wanted
    ip = canonical_ip(_address(view, host, namespace, source))
    if ip is None:
        raise ConfigError(f"{host}: is no IP address, and no svc/NAME")
    state = view.states.get(family_of(ip))
    if state is None:
        raise ConfigError(f"{ip}: the proxy of this node does not serve {family_of(ip).api_name}")
    packet, label = await _packet(view, state, source, ip, namespace)
    packet = replace(packet, dport=port, protocol=protocol)
    traits = traits_of(view.mode)
    live, unread = None, ""
    try:
        async with plane_of(view.mode, state.config) as plane:
            packet = replace(packet, remembered=await _remembered(view, state, packet))
            live = await plane.trace(state, packet)
    except SvcplaneError as error:
        unread = str(error)
    return Report(tell(state, packet, view.mode, traits, source=label, live=live, unread=unread))


def _address(view: NodeView, host: str, namespace: str, source: str) -> str:
    """The address of `svc/NAME`: of the source's family where it has one."""
    if not host.startswith("svc/"):
        return host
    name = host.removeprefix("svc/")
    preferred = family_of(source) if canonical_ip(source) else Family.IPV4
    for family in sorted(view.states, key=lambda family: family is not preferred):
        for port in view.states[family].services.values():
            if port.name.service == (namespace, name):
                return port.cluster_ip
    raise ConfigError(f"there is no Service {name} with an address in namespace {namespace}")


async def _packet(view: NodeView, state: ProxyState, source: str, ip: str, namespace: str) -> tuple[Packet, str]:
    """The packet but for its port, and its source for people."""
    blank = Packet(Origin.NODE, ip, ip, Protocol.TCP, 1)
    if source == "node":
        way = await way_to(ip)
        src = way.source if way is not None and way.source else _own(state, ip)
        return replace(blank, src=src), f"node {view.name} ({src})"
    pods, node = _pods(view, state), ""
    if source.startswith("pod/"):
        name = source.removeprefix("pod/")
        key = name if "/" in name else f"{namespace}/{name}"
        found = [(address, node) for address, (pod, node) in pods.items() if pod == key]
        found = [entry for entry in found if family_of(entry[0]) is family_of(ip)]
        if not found:
            raise ConfigError(f"--from {source}: there is no Pod {key} with an {family_of(ip).api_name} address")
        src, node = found[0]
    else:
        src = canonical_ip(source) or ""
        if not src or family_of(src) is not family_of(ip):
            raise ConfigError(f"--from {source}: must be pod/NAME, node, or an {family_of(ip).api_name} address")
        key, node = pods.get(src, ("", ""))
    origin = origin_of(src, state, node)
    way = await way_to(src) if origin is not Origin.NODE else None
    place = {
        Origin.NODE: "an address of this node",
        Origin.POD: "a Pod of this node",
        Origin.OUTSIDE: f"a Pod of node {node}" if node else "outside the cluster's Pods",
    }[origin]
    packet = replace(blank, origin=origin, src=src, in_interface=way.interface if way is not None else "")
    return packet, f"{'pod ' + key + ' ' if key else ''}({src}, {place})"


def _own(state: ProxyState, ip: str) -> str:
    """The node's own address towards an address without a route: as it reaches itself."""
    if ip in state.node.local_addresses:
        return ip
    primary = [*state.config.primary_ips, *state.node.local_addresses]
    if not primary:
        raise EnvironmentProblem(f"this node has no {family_of(ip).api_name} address and no route to {ip}")
    return primary[0]


def _pods(view: NodeView, state: ProxyState) -> dict[str, tuple[str, str]]:
    """Address -> (namespace/name, node) of Pods with networks of their own."""
    if view.cluster is not None:
        return {
            address: (pod.key, pod.spec.node_name)
            for pod in view.cluster.pods
            if not pod.spec.host_network
            for entry in (pod.status.pod_ips or [])
            if (address := canonical_ip(entry.ip)) is not None
        }
    return {e.ip: (e.pod, e.node_name) for group in state.endpoints.values() for e in group if e.pod}


async def _remembered(view: NodeView, state: ProxyState, packet: Packet) -> str:
    """The endpoint affinity holds for the source, where the Service has affinity."""
    front = frontend_of(state, packet, traits_of(view.mode))
    if front is None or not front.port.affinity_timeout_s:
        return ""
    for entry in await remembered(view, state):
        if entry.client == packet.src and entry.service == front.port.name:
            return str(entry.endpoint)
    return ""


# -- a real connection -------------------------------------------------------------------------------------------


async def _with_probe(report: Report, timeout_s: float) -> Report:
    """Connect from where the source is; then to each endpoint from here, to tell a dead one from a broken way."""
    found = report.trace
    where = probing.namespace_of(found.client)
    if where is None:
        text = f"--probe: {found.client} is on no network namespace of this host; run the probe where it is"
        raise EnvironmentProblem(text)
    ip, port, protocol = destination(found.destination)
    seen = await probing.probe(where, ip, port, protocol.value, timeout_s)
    gate = asyncio.Semaphore(DIRECT_AT_ONCE)

    async def direct(endpoint: str) -> tuple[str, str]:
        async with gate:
            host, number, _ = destination(endpoint)
            result = (await probing.probe(probing.HERE, host, number, protocol.value, timeout_s)).result
            return endpoint, result

    names = [share.endpoint for share in found.shares][:DIRECT_LIMIT]
    results = dict(await asyncio.gather(*(direct(name) for name in names)))
    held = found.shares[0].endpoint if len(found.shares) == 1 and "sticks to" in found.why else ""
    if found.mode in RELAYING:  # the kernel translates to the relay, which alone knows where it goes on
        seen = replace(seen, translated_to="")
    more = judge(found, seen.result, seen.translated_to, results, held)
    return Report(replace(found, findings=worst_first([*found.findings, *more])), seen, results)


async def _with_node(view: NodeView, report: Report) -> Report:
    """What is wrong with this node and bears on the way, other people's rules first."""
    found = report.trace
    seen = await examined_of(view, await read_facts(), await read_rules())
    ip, port, protocol = destination(found.destination)
    here = {address for state in view.states.values() for address in state.node.local_addresses}
    own, answered = found.client in here, report.probe is not None and report.probe.result in GOOD
    ends = list(ways(found, own=own, local=here, iifname="", oifname=""))[:DIRECT_LIMIT]
    towards = {host: await _interface(host) for host in {found.client, *(end.endpoint for end in ends)}}
    ends = [replace(end, iifname=towards[end.client], oifname=towards[end.endpoint]) for end in ends]
    drops = dropped(seen.rules, ends, seen.mode, seen.is_ours, possible=not answered)
    more = way_findings(seen, found.client, (ip, port, protocol.value), own=own, forwarded=bool(found.shares))
    lost = report.probe is not None and not answered
    told = [(end, drop) for end, drop in drops if drop.sure or lost]
    causes = [*drop_findings(told), *more]
    if has_problem(causes):  # one is named: not to look for one any more
        found = replace(found, findings=tuple(one for one in found.findings if one.code != "lost-on-the-way"))
    return replace(report, trace=with_drops(found, drops, causes))


async def _interface(ip: str) -> str:
    """By which packets to an address leave; empty where that is not known."""
    try:
        way = await way_to(ip)
    except SvcplaneError:
        return ""
    return way.interface if way is not None else ""


# -- for people ----------------------------------------------------------------------------------------------------


def show(report: Report) -> None:
    out, found = console(), report.trace
    out.print(f"from     {escape(found.source)}")
    means = f"  [bold]{escape(found.service)}[/bold] by its {found.by}" if found.service else ""
    out.print(f"to       {escape(found.destination)}{means}")
    out.print(f"mode     {found.mode}")
    colour, but = "red", ""
    if found.verdict == "deliver":
        but = ", but see the problem below" if has_problem(found.findings) else ""
        colour = "yellow" if but else "green"
    out.print(f"verdict  [{colour}]{found.verdict}{but}[/{colour}]: {escape(found.why)}")
    unsure = [block for block in found.blocked if not block.sure]
    if unsure and report.probe is None:
        first = unsure[0]
        where = f"{first.family} table {first.table}, chain {first.chain}"
        out.print(
            f"         [yellow]a rule that is not svcplane's may {first.verb} it[/yellow]; --probe tells: "
            f"{escape(where)}: {escape(first.rule)}"
        )
    whose = "svcplane's own rules do" if any(block.sure for block in found.blocked) else "the kernel does"
    agrees = {True: f"{whose} what is desired", False: "[red]the kernel does not do what is desired[/red]"}
    out.print(f"kernel   {agrees[found.agree] if found.agree is not None else escape(f'not read: {found.unread}')}")
    if report.probe is not None:
        to = f", translated to {report.probe.translated_to}" if report.probe.translated_to else ""
        out.print(f"probe    {report.probe.result} after {report.probe.seconds:.3f} s{escape(to)}")
    out.print()
    show_findings(out, found.findings, none="no problem found")
    heads = ["ENDPOINT", "POD", "NODE", "PROBABILITY", "THE POD SEES"]
    rows = [[s.endpoint, s.pod or "-", s.node or "-", f"{s.probability:.1%}", s.sees] for s in found.shares]
    if report.direct is not None:
        heads.append("ANSWERS THIS NODE")
        rows = [[*row, (report.direct or {}).get(row[0], "not tried")] for row in rows]
    show_table(out, "Endpoints a new connection may get", heads, rows)
    show_table(out, "Endpoints passed over", ("ENDPOINT", "WHY"), found.passed_over)
    _show_way(out, found)


def _show_way(out: Console, found: Trace) -> None:
    if not found.way:
        return
    out.print()
    out.print("[bold]Way through the live rules[/bold]")
    for depth, step in enumerate(found.way[0]):
        out.print(f"  {'  ' if depth else ''}{escape(step)}")
    if len(found.way) > 1:
        out.print(f"  and {len(found.way) - 1} more ways, to the other endpoints (-o json has them)")
