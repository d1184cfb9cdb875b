"""Where a connection goes and why: the oracle's decision as steps of a path.  Pure.

What the API does not tell is assumed as `svcplane up` and labs run: Pods are told by the nodes' Pod CIDRs, and node
ports answer on each node's own addresses.
"""

from dataclasses import dataclass

from svcplane.base.errors import ConfigError
from svcplane.base.net import Family, canonical_ip, family_of, join_host_port
from svcplane.kernel.ruleset.objects import Ruleset
from svcplane.proxy.looking import LiveTrace
from svcplane.proxy.model import DetectLocal, Origin, Packet, Protocol, ProxyState
from svcplane.proxy.programmed import ANNOTATION, LEASE_PREFIX, from_text
from svcplane.proxy.settings import Settings, gather, node_configs
from svcplane.proxy.tracker import Tracker
from svcplane.understand.doctor.rivals import drop_findings, dropped
from svcplane.understand.tracing import Trace, traits_of, ways, with_drops
from svcplane.understand.tracing import trace as tell
from svcplane.understand.view import ClusterView

MODES = ("nftables", "iptables", "ipvs", "userspace")


@dataclass(frozen=True, slots=True)
class Cluster:
    """What a proxy follows."""

    view: ClusterView
    service_cidrs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Question:
    """`source`: Pod (`NAMESPACE/NAME`), node or address; `target`: Service (`NAMESPACE/NAME`) or address.

    `node`: where the packet meets a proxy; empty: the source's own node, for outside addresses the first.
    `mode`: empty for that of the node's proxy.
    """

    source: str
    target: str
    port: int
    protocol: str = "TCP"
    node: str = ""
    mode: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One station of the way: `kind` is source, node, service, choice, verdict."""

    kind: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Way:
    """The answer: the stations to draw, and what `svcplane trace` would say."""

    steps: tuple[Step, ...]
    trace: Trace


@dataclass(frozen=True, slots=True)
class Asked:
    """A question in the proxy's terms: `packet` as it meets the proxy of `node`."""

    question: Question
    packet: Packet
    node: str


def answer(
    asked: Asked, state: ProxyState, mode: str, live: LiveTrace | None, others: Ruleset | None, unread: str = ""
) -> Way:
    """`live`: what the kernel's rules do with the packet, `others` everybody else's rules; None where they could not
    be read, `unread` says why."""
    packet, source = asked.packet, asked.question.source
    seen = (frozenset(live.outcomes), live.ways) if live is not None else None
    told = tell(state, packet, mode, traits_of(mode), source=source, live=seen, unread=unread)
    if others is not None:
        told = _with_others(told, state, packet, mode, others)
    where = f"{join_host_port(packet.dst, packet.dport)} {packet.protocol}"
    steps = [
        Step("source", source, f"{packet.src} ({_ORIGIN[packet.origin]})"),
        Step("node", asked.node, f"its proxy decides, mode {mode}"),
        Step("service", told.service or packet.dst, f"{where}, {told.by}" if told.by else f"no Service has {where}"),
    ]
    if told.service:
        known = len(told.shares) + len(told.passed_over)
        steps.append(Step("choice", "endpoints", f"{known} known, {len(told.shares)} in use"))
    steps.append(Step("verdict", told.verdict, told.why))
    return Way(tuple(steps), told)


def _with_others(told: Trace, state: ProxyState, packet: Packet, mode: str, others: Ruleset) -> Trace:
    """Other people's rules have the last word."""
    local = frozenset(state.node.local_addresses)
    own = packet.origin is Origin.NODE
    there = ways(told, own=own, local=local, iifname=packet.in_interface, oifname="")
    found = dropped(others, there, mode, lambda chain: False, possible=True)
    return with_drops(told, found, drop_findings((way, drop) for way, drop in found if drop.sure))


def mode_of(view: ClusterView, node: str) -> str:
    """That of the node's proxy, as its Lease tells; nftables where none does."""
    for lease in view.leases:
        if lease.metadata.name == LEASE_PREFIX + node:
            told = from_text(lease.metadata.annotations.get(ANNOTATION, ""))
            if told is not None and told.mode in MODES:
                return told.mode
    return "nftables"


_ORIGIN = {Origin.POD: "a Pod", Origin.NODE: "the node itself", Origin.OUTSIDE: "from outside"}


# -- from names to a packet ----------------------------------------------------------------------------------------


def ask(view: ClusterView, question: Question) -> Asked:
    """The packet, and the node whose proxy sees it first.  Raises ConfigError naming what is not there."""
    try:
        protocol = Protocol(question.protocol.upper())
    except ValueError as error:
        raise ConfigError(f"protocol {question.protocol}: must be TCP, UDP or SCTP") from error
    if question.mode and question.mode not in MODES:
        raise ConfigError(f"mode {question.mode}: must be one of {', '.join(MODES)}")
    if not 0 < question.port < 65536:
        raise ConfigError(f"port {question.port}: must be between 1 and 65535")
    dst = _target_ip(view, question.target)
    origin, src, home = _source(view, question.source, ":" in dst)
    if family_of(src) is not family_of(dst):
        raise ConfigError(f"{question.source} has no address of the family of {dst}")
    names = [node.metadata.name for node in view.nodes]
    node = question.node or home or (names[0] if names else "")
    if not node:
        raise ConfigError("there is no node that could see the packet")
    if question.node and question.node not in names:
        raise ConfigError(f"there is no node {question.node}")
    if origin is not Origin.OUTSIDE and node != home:
        origin = Origin.OUTSIDE
    return Asked(question, Packet(origin, src, dst, protocol, question.port), node)


def _target_ip(view: ClusterView, target: str) -> str:
    ip = canonical_ip(target)
    if ip is not None:
        return ip
    namespace, _, name = target.rpartition("/")
    service = view.service(namespace or "default", name)
    if service is None:
        raise ConfigError(f"there is no Service {namespace or 'default'}/{name}")
    if not service.spec.cluster_ip or service.spec.cluster_ip == "None":
        raise ConfigError(f"Service {target} has no ClusterIP: its clients connect to Pods directly")
    return service.spec.cluster_ip


def _source(view: ClusterView, source: str, ipv6: bool) -> tuple[Origin, str, str]:
    ip = canonical_ip(source)
    if ip is not None:
        for pod in view.pods:
            if ip in (entry.ip for entry in pod.status.pod_ips):
                return Origin.POD, ip, pod.spec.node_name
        return Origin.OUTSIDE, ip, ""
    namespace, _, name = source.rpartition("/")
    for pod in view.pods:
        if (pod.metadata.namespace, pod.metadata.name) == (namespace or "default", name):
            ips = [entry.ip for entry in pod.status.pod_ips] or [pod.status.pod_ip]
            origin = Origin.NODE if pod.spec.host_network else Origin.POD
            return origin, _of_family(ips, ipv6, f"Pod {source}"), pod.spec.node_name
    for node in view.nodes:
        if node.metadata.name == source:
            return Origin.NODE, _of_family(_node_ips(view, source), ipv6, f"node {source}"), source
    raise ConfigError(f"there is no Pod, node or address {source}; a Pod is NAMESPACE/NAME")


def _of_family(ips: list[str], ipv6: bool, who: str) -> str:
    found = [ip for ip in (canonical_ip(ip) for ip in ips if ip) if ip is not None and (":" in ip) is ipv6]
    if not found:
        raise ConfigError(f"{who} has no {'IPv6' if ipv6 else 'IPv4'} address")
    return found[0]


def _node_ips(view: ClusterView, name: str) -> list[str]:
    node = view.node(name)
    return [entry.address for entry in node.status.addresses if entry.type == "InternalIP"] if node else []


def state_of(cluster: Cluster, node: str, mode: str, *, ipv6: bool) -> ProxyState:
    """What one node's proxy of the usual flags compiles from, as far as the API tells."""
    view = cluster.view
    family = Family.IPV6 if ipv6 else Family.IPV4
    found = view.node(node)
    facts = gather(found, {}, cluster.service_cidrs)
    pods = tuple(cidr for one in view.nodes for cidr in gather(one, {}, ()).pod_cidrs)
    detect = DetectLocal.CLUSTER_CIDR if pods else DetectLocal.NONE
    settings = Settings(node_name=node, mode=mode, cluster_cidrs=pods, detect_local=detect)
    config = node_configs(settings, facts)[family]
    own = tuple(ip for ip in facts.node_ips if family_of(ip) is family)
    tracker = Tracker(config, own)
    tracker.node_changed(found)
    for service in view.services:
        tracker.service_changed(None, service)
    for slice_ in view.slices:
        tracker.slice_changed(None, slice_)
    return tracker.state
