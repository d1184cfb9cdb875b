"""`svcplane plan -f FILE`: what applying would change.  `svcplane plan --drift`: the kernel against what is desired."""

import asyncio
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import msgspec

from svcplane.api.resources import BY_KIND, Resource
from svcplane.api.status import StatusError
from svcplane.base.errors import ConfigError, EnvironmentProblem, SvcplaneError
from svcplane.cli.examining import examined_of
from svcplane.cli.nodeview import CLUSTER_CIDR, MODE, NODE, NodeView, folded, node_view, plane_of
from svcplane.cli.output import OUTPUT, console, emit, show_findings, show_table
from svcplane.cli.reading import KUBECONFIG, NAMESPACE, access, connected, read_cluster, read_files
from svcplane.client.api import ApiClient
from svcplane.kernel.host.objects import HostFacts
from svcplane.kernel.ruleset.run import read as read_rules
from svcplane.proxy.plane import Operation
from svcplane.understand.doctor import rivals
from svcplane.understand.finding import Finding, has_problem, worst_first
from svcplane.understand.planning import EndpointPlan, ObjectPlan, applied, endpoint_plans, new_operations, object_plan
from svcplane.understand.view import ClusterView, flat

Tree = dict[str, Any]
MANAGER = "svcplane-plan"


@dataclass(frozen=True, slots=True)
class Plan:
    """`no_kernel`: why kernel operations are not told."""

    objects: tuple[ObjectPlan, ...] = ()
    endpoints: tuple[EndpointPlan, ...] = ()
    operations: tuple[Operation, ...] = ()
    findings: tuple[Finding, ...] = ()
    no_kernel: str = ""


@click.command(short_help="Say what applying a file would change; or where the kernel differs from what is desired.")
@click.option(
    "-f", "--filename", "files", multiple=True, type=click.Path(path_type=Path), help="Manifests; - is stdin."
)
@click.option("--drift", is_flag=True, help="The kernel of this node against what is desired, and who interferes.")
@MODE
@NODE
@CLUSTER_CIDR
@KUBECONFIG
@NAMESPACE
@OUTPUT
def plan(files: tuple[Path, ...], drift: bool, namespace: str, output: str, **flags: str) -> None:
    """Change nothing: the server is asked for a dry run, the kernel is only read.

    Kernel operations are told on a node of the cluster.  The exit status is 1 where an object would be refused, or
    with --drift where the kernel is not as desired.
    """
    if bool(files) == drift:
        raise ConfigError("give either -f FILE or --drift")
    made = asyncio.run(_drift(flags) if drift else _apply(files, namespace, flags))
    if output == "table":
        show(made, drift=drift)
    else:
        emit(made, output)
    refused = any(entry.verb == "refused" for entry in made.objects)
    sys.exit(1 if refused or (drift and (made.operations or has_problem(made.findings))) else 0)


async def _view(flags: Mapping[str, str]) -> NodeView:
    return await node_view(flags["kubeconfig"], flags["mode"], flags["node_name"], flags["cluster_cidr"])


async def _drift(flags: Mapping[str, str]) -> Plan:
    view = await _view(flags)
    operations: list[Operation] = []
    for state in view.states.values():
        async with plane_of(view.mode, state.config) as plane:
            operations += await plane.plan(state)
    seen = await examined_of(view, HostFacts(), await read_rules())
    return Plan(operations=tuple(operations), findings=worst_first(rivals.check(seen)))


async def _apply(files: tuple[Path, ...], namespace: str, flags: Mapping[str, str]) -> Plan:
    found = access(flags["kubeconfig"])
    trees = [dict(tree) for tree in flat(read_files(files))]
    async with connected(found) as (client, _):
        before = await read_cluster(client)
        objects, written = [], []
        for tree in trees:
            entry, result = await _dry_run(client, tree, namespace or found.namespace)
            objects.append(entry)
            if result is not None:
                written.append({"kind": tree["kind"], **result})
    after = applied(before, written)
    operations, why = await _kernel(after, flags)
    return Plan(tuple(objects), endpoint_plans(before, after), operations, no_kernel=why)


async def _dry_run(client: ApiClient, tree: Tree, namespace: str) -> tuple[ObjectPlan, Tree | None]:
    """What the server would make of an object; nothing is written."""
    meta = tree.get("metadata") or {}
    name, kind = str(meta.get("name", "")), str(tree.get("kind", ""))
    resource = BY_KIND.get((str(tree.get("apiVersion", "")), kind))
    label = f"{kind} {name}"
    if resource is None or not name:
        return ObjectPlan(label, "refused", why="it has no name, or is of a kind that is not known here"), None
    where = str(meta.get("namespace") or namespace) if resource.namespaced else ""
    before = await _present(client, resource, where, name)
    query = {"fieldManager": MANAGER, "force": "true", "dryRun": "All"}
    try:
        after = await client.patch(resource, where, name, _stamped(tree, where), kind="apply", query=query)
    except StatusError as error:
        return ObjectPlan(label, "refused", why=str(error)), None
    return object_plan(label, before, after), after


def _stamped(tree: Tree, namespace: str) -> Tree:
    meta = {**tree.get("metadata", {}), **({"namespace": namespace} if namespace else {})}
    return {key: value for key, value in tree.items() if key != "status"} | {"metadata": meta}


async def _present(client: ApiClient, resource: Resource, namespace: str, name: str) -> Tree | None:
    try:
        return await client.get(resource, namespace, name)
    except StatusError as error:
        if error.code != 404:
            raise
        return None


async def _kernel(after: ClusterView, flags: Mapping[str, str]) -> tuple[tuple[Operation, ...], str]:
    """Operations on this node that come of the change; or why they are not told."""
    try:
        view = await _view(flags)
        if view.running is None:
            raise EnvironmentProblem("no svcplane proxy runs here: run this on a node to see its kernel operations")
        found: list[Operation] = []
        for state in view.states.values():
            wanted = folded(state.config, state.node.local_addresses, state.node.networks, after)
            async with plane_of(view.mode, state.config) as plane:
                found += new_operations(await plane.plan(state), await plane.plan(wanted))
    except SvcplaneError as error:
        return (), str(error)
    return tuple(found), ""


def show(made: Plan, *, drift: bool) -> None:
    out = console()
    for planned in made.objects:
        colour = {"create": "green", "change": "yellow", "refused": "bold red"}.get(planned.verb, "dim")
        out.print(
            f"[{colour}]{planned.verb:9}[/{colour}] {planned.object}" + (f": {planned.why}" if planned.why else "")
        )
        if planned.verb == "change":
            for change in planned.changes:
                out.print(f"            {change.path}: {_short(change.before)} -> {_short(change.after)}", markup=False)
    rows = [
        (entry.service, " ".join(f"+{e}" for e in entry.comes), " ".join(f"-{e}" for e in entry.goes))
        for entry in made.endpoints
    ]
    show_table(out, "Endpoints", ("SERVICE", "COME", "GO"), rows)
    title = "The kernel differs: a repair would" if drift else "Kernel operations on this node"
    show_table(out, title, ("VERB", "OBJECT", "REASON"), [(o.verb, o.object, o.reason) for o in made.operations])
    if drift and not made.operations:
        out.print("the kernel is as desired")
    if made.no_kernel:
        out.print(f"kernel operations are not told: {made.no_kernel}", style="dim")
    if made.findings:
        out.print()
        show_findings(out, made.findings, none="")


def _short(value: Any) -> str:
    return "nothing" if value is None else msgspec.json.encode(value).decode()[:100]
