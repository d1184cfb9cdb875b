"""One service port and its usable endpoints -> its virtual servers, set entries and addresses.  Pure.

One virtual server stands for each address and port clients may use: cluster IP, external and load-balancer addresses,
and the node port on each address of this node.  One without targets refuses, by the kernel's ICMP.
"""

import ipaddress
from dataclasses import dataclass

from svcplane.base.net import contains, network
from svcplane.kernel.ipset.objects import Entry
from svcplane.kernel.ipvs.objects import Server, ServerKey, Target
from svcplane.proxy.model import Endpoint, NodeConfig, NodeState, ServicePort
from svcplane.proxy.planes.ipvs.names import Kind
from svcplane.proxy.planes.ipvs.policy import Choice
from svcplane.proxy.topology import EndpointChoice


@dataclass(frozen=True, slots=True)
class Wanted:
    """A virtual server with its targets, all of one weight; `drain_s` is what a removed target gets."""

    server: Server
    targets: frozenset[Target]
    weight: int
    drain_s: float


@dataclass(frozen=True, slots=True)
class Fragment:
    """Everything one service port wants in the kernel."""

    servers: tuple[tuple[ServerKey, Wanted], ...] = ()
    entries: frozenset[tuple[Kind, Entry]] = frozenset()
    addresses: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()


def is_neighbour(node: NodeState, ip: str) -> bool:
    """Whether an external address may be another host's own: then this node must not take it for itself."""
    return ip not in node.local_addresses and any(contains(cidr, ip) for cidr in node.networks)


def node_port_ips(config: NodeConfig, node: NodeState) -> tuple[str, ...]:
    """Addresses of this node where node ports answer.  IPVS cannot serve loopback, nor link-local ones of IPv6."""
    found = []
    for ip in node.local_addresses:
        parsed = ipaddress.ip_address(ip)
        if parsed.is_loopback or parsed.is_multicast or (parsed.version == 6 and parsed.is_link_local):
            continue
        if config.nodeport_primary_only:
            chosen = ip in config.primary_ips
        else:
            chosen = not config.nodeport_addresses or any(contains(cidr, ip) for cidr in config.nodeport_addresses)
        if chosen:
            found.append(ip)
    return tuple(found)


def compile_port(
    port: ServicePort, endpoints: EndpointChoice, choice: Choice, config: NodeConfig, node: NodeState
) -> Fragment:
    """`endpoints` is what `topology.categorize` says of this node; `choice` what `policy.choose` says."""
    protocol = port.protocol.lower()
    server = Server(choice.scheduler, port.affinity_timeout_s, choice.prefix, choice.flags)
    if not port.affinity_timeout_s:
        server = Server(choice.scheduler, flags=choice.flags)
    servers: dict[ServerKey, Wanted] = {}
    entries: set[tuple[Kind, Entry]] = set()

    def serve(ip: str, number: int, chosen: tuple[Endpoint, ...], kind: Kind) -> None:
        targets = frozenset((endpoint.ip, endpoint.port) for endpoint in chosen)
        wanted = Wanted(server, targets, choice.weight, choice.drain_s)
        if servers.setdefault(ServerKey(protocol, ip, number), wanted) is wanted:
            entries.add((kind, Entry(ip, protocol, number)))

    internal = endpoints.local if port.internal_policy_local else endpoints.cluster
    serve(port.cluster_ip, port.port, internal, Kind.CLUSTER_IP)
    chosen, kind = _external(port, endpoints)
    for ip in port.external_vips:
        serve(ip, port.port, chosen, kind)
    if port.node_port:
        for ip in node_port_ips(config, node):
            serve(ip, port.node_port, chosen, kind)
    if port.health_check_node_port and port.external_policy_local:
        # a load balancer's checks may come with its own address as their destination
        checked = (*port.external_vips, *node_port_ips(config, node))
        entries |= {(Kind.HEALTH_CHECK, Entry(ip, "tcp", port.health_check_node_port)) for ip in checked}
    entries |= _guards(port, config, protocol)
    for endpoint in {*endpoints.cluster, *endpoints.local}:
        if endpoint.is_local:
            entries.add((Kind.LOOP_BACK, Entry(endpoint.ip, protocol, endpoint.port, endpoint.ip)))
    # an address the node has already must not be taken off it later
    addresses = {port.cluster_ip, *port.external_vips} - set(node.local_addresses)
    neighbours = {ip for ip in port.external_vips if ip in addresses and is_neighbour(node, ip)}
    entries |= {(Kind.NEIGHBOUR, Entry(ip, protocol, port.port)) for ip in neighbours}
    addresses -= neighbours
    entries |= {(Kind.ADDRESSES, Entry(ip)) for ip in addresses}
    return Fragment(tuple(servers.items()), frozenset(entries), frozenset(addresses), choice.problems)


def _external(port: ServicePort, endpoints: EndpointChoice) -> tuple[tuple[Endpoint, ...], Kind]:
    """Who serves outsiders, and how the addresses are to be treated."""
    if not port.external_policy_local:
        return endpoints.cluster, Kind.EXTERNAL
    if endpoints.local or not endpoints.cluster:
        return endpoints.local, Kind.LOCAL
    return endpoints.cluster, Kind.ELSEWHERE


def _guards(port: ServicePort, config: NodeConfig, protocol: str) -> set[tuple[Kind, Entry]]:
    """Entries for loadBalancerSourceRanges.  A range of every address is none."""
    if not port.source_ranges or any(network(cidr).prefixlen == 0 for cidr in port.source_ranges):
        return set()
    found: set[tuple[Kind, Entry]] = set()
    node_allowed = any(contains(cidr, ip) for cidr in port.source_ranges for ip in config.primary_ips)
    for ip in port.load_balancer_ips:
        found.add((Kind.GUARDED, Entry(ip, protocol, port.port)))
        ranges = list(port.source_ranges)
        if node_allowed:
            # the node that uses an address on its own device has that address as its source
            ranges += [f"{other}/{'128' if ':' in other else '32'}" for other in port.load_balancer_ips]
        found |= {(Kind.ALLOWED, Entry(ip, protocol, port.port, cidr)) for cidr in ranges}
    return found
