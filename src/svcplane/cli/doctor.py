"""`svcplane doctor`: what is wrong with this node, each finding with its remedy."""

import asyncio
import sys

import click

from svcplane.cli.examining import examine
from svcplane.cli.nodeview import CLUSTER_CIDR, MODE, NODE
from svcplane.cli.output import OUTPUT, console, emit, show_findings
from svcplane.cli.reading import KUBECONFIG
from svcplane.understand.doctor.diagnose import diagnose
from svcplane.understand.doctor.examined import Examined
from svcplane.understand.finding import Finding, Severity, has_problem


@click.command(short_help="Find what is wrong with this node, with remedies.")
@MODE
@NODE
@CLUSTER_CIDR
@KUBECONFIG
@click.option("--notes", is_flag=True, help="Show what is only worth knowing, too.")
@OUTPUT
def doctor(mode: str, node_name: str, cluster_cidr: str, kubeconfig: str, notes: bool, output: str) -> None:
    """Examine this node: kernel, tools, settings, the proxy, other proxies, other people's rules, stale flows.

    The exit status is 1 where a problem was found, 0 where there are warnings at most.
    """
    seen = asyncio.run(examine(kubeconfig, mode, node_name, cluster_cidr))
    findings = diagnose(seen)
    if output == "table":
        show(seen, findings, notes=notes)
    else:
        emit({"node": seen.node, "mode": seen.mode, "findings": findings}, output)
    sys.exit(1 if has_problem(findings) else 0)


def show(seen: Examined, findings: tuple[Finding, ...], *, notes: bool) -> None:
    out, facts = console(), seen.facts
    services = len({name.service for state in seen.states.values() for name in state.services})
    out.print(f"[bold]Node {seen.node}[/bold]  mode {seen.mode}, {services} Services, kernel {facts.release}")
    out.print(f"tools       {', '.join(f'{name} {version}' for name, version in facts.tools.items()) or 'none'}")
    out.print(f"connections {facts.conntrack_count} of at most {facts.conntrack_max} tracked")
    out.print()
    shown = [finding for finding in findings if notes or finding.severity is not Severity.NOTE]
    show_findings(out, shown, none="no problem found")
    hidden = len(findings) - len(shown)
    if hidden:
        what = "note is" if hidden == 1 else "notes are"
        out.print(f"{hidden} {what} not shown (--notes)", style="dim")
