"""What verbs that look at a node read: the desired state of this node, from the API or from the running proxy.

The running proxy tells its own configuration and mode, so that nobody has to repeat its flags.
"""

import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass

import click

from svcplane.api.resources import SERVICE_CIDRS
from svcplane.api.status import StatusError
from svcplane.base.errors import ConfigError, EnvironmentProblem, TransportError
from svcplane.base.net import Family, canonical_cidr, family_of
from svcplane.cli.reading import HOME_CONFIG, access, connected, read_cluster
from svcplane.kernel.addresses import local
from svcplane.proxy import pages
from svcplane.proxy.family import RELAYING
from svcplane.proxy.inspect import look
from svcplane.proxy.model import NodeConfig, ProxyState
from svcplane.proxy.plane import AffinityEntry, Plane
from svcplane.proxy.planes import PLANES, make_plane
from svcplane.proxy.settings import Settings, gather, node_configs
from svcplane.proxy.snapshot import Snapshot, decode
from svcplane.proxy.tracker import Tracker
from svcplane.understand.view import ClusterView

Addresses = Mapping[Family, tuple[str, ...]]
MODE = click.option("--proxy-mode", "mode", default="", help="[default: that of the proxy that runs here, or nftables]")
NODE = click.option("--node", "node_name", default="", help="This node's name.  [default: the proxy's, or the host's]")
CLUSTER_CIDR = click.option(
    "--cluster-cidr", default="", help="As the proxy has it.  [default: that of the proxy that runs here]"
)


@dataclass(frozen=True, slots=True)
class NodeView:
    """`states`: what is desired.  `running`: the proxy's own word, None where none runs.

    `cluster`: the API's objects, None where no API was asked; `unreachable`: why, where it did not answer.
    """

    name: str
    mode: str
    states: dict[Family, ProxyState]
    running: Snapshot | None
    cluster: ClusterView | None
    unreachable: str = ""


async def node_view(kubeconfig: str, mode: str, node_name: str, cluster_cidr: str) -> NodeView:
    """Raises EnvironmentProblem where neither an API nor a running proxy tells the desired state."""
    body = await look("/state")
    running = decode(body) if body is not None else None
    if mode and mode not in PLANES:
        raise ConfigError(f"--proxy-mode {mode}: must be one of {', '.join(PLANES)}")
    _ranges(cluster_cidr)
    chosen = mode or (running.mode if running else "nftables")
    name = node_name or (running.node if running else socket.gethostname().lower())
    cluster, cidrs, unreachable = await _ask_api(kubeconfig)
    if cluster is None:
        if running is None:
            raise EnvironmentProblem(unreachable or "no svcplane proxy runs here; give --kubeconfig")
        states = {state.config.family: state for state in running.states}
        return NodeView(name, chosen, states, running, None, unreachable)
    if node_name and cluster.nodes and cluster.node(node_name) is None:
        known = ", ".join(sorted(node.metadata.name for node in cluster.nodes)[:10])
        raise ConfigError(f"--node {node_name}: there is no such node; there are {known}")
    found = await local()
    here, networks = found.addresses, found.networks
    if running is not None and not cluster_cidr:
        configs = {state.config.family: state.config for state in running.states}
    else:
        configs = _configs(chosen, name, cluster_cidr, cluster, cidrs, here)
    states = {
        family: folded(configs[family], here.get(family, ()), networks.get(family, ()), cluster) for family in configs
    }
    return NodeView(name, chosen, states, running, cluster)


async def _ask_api(kubeconfig: str) -> tuple[ClusterView | None, list[str], str]:
    """The cluster, its Service CIDRs, and why there is none."""
    if not kubeconfig and not HOME_CONFIG.expanduser().exists():
        return None, [], ""
    try:
        async with connected(access(kubeconfig)) as (client, _):
            cluster = await read_cluster(client)
            try:
                items = (await client.list(SERVICE_CIDRS)).get("items") or []
            except StatusError:
                items = []
            return cluster, [cidr for item in items for cidr in item.get("spec", {}).get("cidrs", [])], ""
    except TransportError as error:
        return None, [], str(error)


def _configs(
    mode: str, name: str, cluster_cidr: str, cluster: ClusterView, cidrs: list[str], addresses: Addresses
) -> dict[Family, NodeConfig]:
    """As a proxy with the usual flags would have it.  Raises ConfigError."""
    local = _ranges(cluster_cidr)
    facts = gather(cluster.node(name), addresses, cidrs)
    return node_configs(Settings(node_name=name, mode=mode, cluster_cidrs=local), facts)


def _ranges(cluster_cidr: str) -> tuple[str, ...]:
    """The ranges of a flag, canonical.  Raises ConfigError."""
    found = []
    for part in filter(None, (part.strip() for part in cluster_cidr.split(","))):
        if (cidr := canonical_cidr(part)) is None:
            raise ConfigError(f"--cluster-cidr {part}: must be a CIDR such as 10.244.0.0/16")
        found.append(cidr)
    return tuple(found)


def folded(
    config: NodeConfig, addresses: tuple[str, ...], networks: tuple[str, ...], cluster: ClusterView
) -> ProxyState:
    """The state a proxy of this configuration would come to."""
    tracker = Tracker(config, addresses, networks)
    tracker.node_changed(cluster.node(config.node_name))
    for service in cluster.services:
        tracker.service_changed(None, service)
    for slice_ in cluster.slices:
        tracker.slice_changed(None, slice_)
    return tracker.state


@asynccontextmanager
async def plane_of(mode: str, config: NodeConfig) -> AsyncIterator[Plane]:
    """For looking; closed at the end, the rules stay."""
    plane = make_plane(mode, config)
    try:
        yield plane
    finally:
        await plane.close()


async def remembered(view: NodeView, state: ProxyState) -> list[AffinityEntry]:
    """Clients that affinity holds on this node: the kernel's, or those of the relay in the running proxy."""
    if view.mode in RELAYING:
        return [entry for entry in await pages.remembered() if family_of(entry.client) is state.config.family]
    async with plane_of(view.mode, state.config) as plane:
        return list(await plane.affinity(state))


async def forget(view: NodeView, state: ProxyState, entry: AffinityEntry) -> None:
    if view.mode in RELAYING:
        await pages.forget(entry)
        return
    async with plane_of(view.mode, state.config) as plane:
        await plane.forget_affinity(entry)
