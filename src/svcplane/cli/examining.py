"""Collects what the checks of a node look at: facts, everybody's rules, the desired state, flows, the clock."""

import time
from email.utils import parsedate_to_datetime

from svcplane.base.errors import EnvironmentProblem, SvcplaneError
from svcplane.base.net import Family
from svcplane.cli.nodeview import NodeView, node_view
from svcplane.cli.reading import HOME_CONFIG, access, connected
from svcplane.kernel.conntrack import run as conntrack
from svcplane.kernel.host.objects import HostFacts
from svcplane.kernel.host.run import read_facts
from svcplane.kernel.ruleset.objects import Ruleset
from svcplane.kernel.ruleset.run import read as read_rules
from svcplane.proxy.conntrack import Flow
from svcplane.proxy.model import Protocol
from svcplane.understand.doctor.examined import Examined


async def examine(kubeconfig: str, mode: str, node_name: str, cluster_cidr: str) -> Examined:
    """Whatever can be had; a node without a proxy and without a kubeconfig is examined as a host."""
    facts, rules = await read_facts(), await read_rules()
    try:
        view = await node_view(kubeconfig, mode, node_name, cluster_cidr)
    except EnvironmentProblem as error:
        asked = bool(kubeconfig) or HOME_CONFIG.expanduser().exists()
        why = str(error) if asked else ""
        return Examined(node_name or "this host", mode or "nftables", facts, rules, unreachable=why)
    return await examined_of(view, facts, rules, await _clock_ahead(kubeconfig))


async def examined_of(view: NodeView, facts: HostFacts, rules: Ruleset, clock_ahead_s: float | None = None) -> Examined:
    programmed = {s.config.family: s for s in view.running.states} if view.running is not None else None
    return Examined(
        view.name,
        view.mode,
        facts,
        rules,
        view.states,
        programmed,
        view.cluster,
        view.unreachable,
        await _udp_flows(),
        clock_ahead_s,
    )


async def _udp_flows() -> tuple[Flow, ...]:
    found: list[Flow] = []
    for family in Family:
        try:
            entries = await conntrack.flows(family, "udp")
        except SvcplaneError:
            continue  # a missing tool is a finding of its own
        found += [Flow(Protocol.UDP, e.src, e.sport, e.dst, e.dport, e.reply_src, e.reply_sport) for e in entries]
    return tuple(found)


async def _clock_ahead(kubeconfig: str) -> float | None:
    """Seconds of this host's clock before the API server's, by the Date of an answer (whole seconds)."""
    if not kubeconfig and not HOME_CONFIG.expanduser().exists():
        return None
    try:
        async with connected(access(kubeconfig)) as (client, _):
            answer = await client.call("GET", "/version")
    except SvcplaneError:
        return None
    date = {name.lower(): value for name, value in answer.headers.items()}.get("date", "")
    try:
        return time.time() - parsedate_to_datetime(date).timestamp()
    except (ValueError, TypeError):
        return None
