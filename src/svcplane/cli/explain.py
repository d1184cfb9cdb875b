"""`svcplane explain svc/NAME`: a Service's whole story on one screen, the problems first."""

import sys
from pathlib import Path

import click
from rich.markup import escape

from svcplane.cli.output import OUTPUT, console, emit, show_findings, show_table
from svcplane.cli.reading import FILES, KUBECONFIG, NAMESPACE, complete_service, service_name, view_of
from svcplane.proxy.programmed import LEASE_NAMESPACE
from svcplane.understand.explain import Story
from svcplane.understand.explain import explain as tell
from svcplane.understand.finding import has_problem


@click.command(short_help="Say who is behind a Service, and why it does not work.")
@click.argument("service", shell_complete=complete_service)
@KUBECONFIG
@NAMESPACE
@FILES
@OUTPUT
def explain(service: str, kubeconfig: str, namespace: str, files: tuple[Path, ...], output: str) -> None:
    """Tell the whole story of SERVICE (svc/NAME), on any cluster.

    The exit status is 1 where a problem was found.
    """
    name = service_name(service)
    view, where = view_of(kubeconfig, files, namespace, leases=LEASE_NAMESPACE)
    story = tell(view, where, name)
    if output == "table":
        show(story)
    else:
        emit(story, output)
    sys.exit(1 if has_problem(story.findings) else 0)


def show(story: Story) -> None:
    out = console()
    out.print(f"[bold]Service {story.service}[/bold]  {story.type}  {', '.join(story.addresses) or 'no address'}")
    out.print(f"ports     {'; '.join(story.ports) or 'none'}")
    selector = ",".join(f"{key}={value}" for key, value in sorted(story.selector.items()))
    out.print(f"selector  {selector or 'none'}")
    out.print(f"policies  {'; '.join(story.policies)}")
    out.print()
    show_findings(out, story.findings, none="no problem found")
    show_table(
        out,
        "Pods",
        ("NAME", "STATE", "WHY", "ADDRESSES", "NODE", "ZONE"),
        [
            (pod.name, pod.state, pod.why, ", ".join(pod.addresses) or "-", pod.node or "-", pod.zone or "-")
            for pod in story.pods
        ],
    )
    show_table(
        out,
        "Near misses of the selector",
        ("POD", "DIFFERENCE"),
        [(miss.pod, miss.difference) for miss in story.near_misses[:10]],
    )
    show_table(
        out,
        "EndpointSlices",
        ("NAME", "FAMILY", "PORTS", "READY", "NOT READY", "TERMINATING"),
        [
            (s.name, s.family, ", ".join(s.ports), str(s.ready), str(s.not_ready), str(s.terminating))
            for s in story.slices
        ],
    )
    show_table(
        out,
        "Nodes",
        ("NAME", "ZONE", "READY", "LOCAL ENDPOINTS", "PROGRAMMED"),
        [
            (node.name, node.zone or "-", "yes" if node.ready else "no", str(node.local), node.programmed)
            for node in story.nodes
        ],
    )
    if story.further:
        out.print()
        out.print("[bold]Where a connection fails all the same[/bold], ask on the node it passes: the client's own, or")
        out.print("the one that a client outside sends to")
        width = max(len(step.command) for step in story.further)
        for step in story.further:
            out.print(f"  [cyan]{escape(step.command.ljust(width))}[/cyan]  {escape(step.tells)}")
