"""decide(state, packet, traits) -> the set of outcomes a correct proxy may give: the executable specification.  Pure.

Read it from the top: what the packet is for (`frontend_of`), whether it may come in (source ranges), which
endpoints it may get, and whose address those see.  Planes are tested against this and must share nothing else.
Where modes differ for reasons of their kernel mechanism, `ModeTraits` says how.
Source: kube-proxy 1.36 as recorded on the wire; KEP-1669, KEP-2086, KEP-1860.
"""

import ipaddress
from dataclasses import dataclass

from svcplane.base.net import Family, contains
from svcplane.proxy.model import (
    DROPS,
    PASSES,
    REJECTS,
    DetectLocal,
    Endpoint,
    NodeConfig,
    Origin,
    Outcome,
    Packet,
    Protocol,
    ProxyState,
    ServicePort,
    Verdict,
)
from svcplane.proxy.topology import categorize


@dataclass(frozen=True, slots=True)
class ModeTraits:
    """Differences between modes that are no defects.

    `guards_cluster_ips`: an undefined port of a ClusterIP is rejected, and an address of the Service CIDRs that
    no Service has is dropped; else both pass.  `localhost_nodeports`: node ports answer on 127.0.0.1 (IPv4).
    `refuses_external_from_node`: what the node itself sends to an external address without endpoints is refused;
    else it leaves the node.  `hairpins_by_address`: an endpoint of another node that the short cut of policy Local
    may choose for itself is masqueraded too.  `guards_sources_without_endpoints`: a source that may not reach a
    load-balancer address is dropped also where there is nothing to reach; else it is refused as everybody.
    `refuses_nodeports_anywhere`: a node port without endpoints is refused (policy Local: dropped) on every address of
    the node, also where node ports do not answer.
    `holds_addresses`: every address of a Service is one of this node's own, so that an undefined port of any is
    rejected, internal policy Local without an endpoint here rejects too, and a process of this node, which has the
    service's address as its source, is always masqueraded.  `one_list`: an address has one list of endpoints, whoever
    asks, so that external policy Local has its short cut only while no endpoint is here.
    `relays`: an endpoint always sees an address of the node, which connects to it; SCTP is refused.
    """

    guards_cluster_ips: bool = False
    localhost_nodeports: bool = False
    refuses_external_from_node: bool = True
    hairpins_by_address: bool = False
    guards_sources_without_endpoints: bool = True
    refuses_nodeports_anywhere: bool = False
    holds_addresses: bool = False
    one_list: bool = False
    relays: bool = False


IPTABLES = ModeTraits(
    localhost_nodeports=True,
    refuses_external_from_node=False,
    hairpins_by_address=True,
    guards_sources_without_endpoints=False,
    refuses_nodeports_anywhere=True,
)
NFTABLES = ModeTraits(guards_cluster_ips=True)
USERSPACE = ModeTraits(guards_cluster_ips=True, localhost_nodeports=True, relays=True)
IPVS = ModeTraits(holds_addresses=True, one_list=True)


@dataclass(frozen=True, slots=True)
class Frontend:
    """What a packet's destination means: a service port, and by which kind of address."""

    port: ServicePort
    cluster_ip: bool = False
    load_balancer: bool = False


def decide(state: ProxyState, packet: Packet, traits: ModeTraits) -> frozenset[Outcome]:
    """Every outcome the packet may have; several only where there is a choice of endpoints."""
    front = frontend_of(state, packet, traits)
    if front is None:
        return frozenset({_no_frontend(state, packet, traits)})
    port = front.port
    choice = categorize(port, state.endpoints.get(port.name, ()), state.node)
    guarded = front.load_balancer and (choice.has_any or traits.guards_sources_without_endpoints)
    if guarded and not source_allowed(port, state, packet):
        return frozenset({DROPS})
    if traits.relays and packet.protocol is Protocol.SCTP:
        return frozenset({_refused(front, state, packet, traits, drop=False)})
    local_only = port.internal_policy_local if front.cluster_ip else port.external_policy_local
    from_node = packet.src in state.node.local_addresses
    masquerade = _masquerades(front, state, packet) or (traits.holds_addresses and from_node)
    if not local_only:
        endpoints = choice.cluster
    elif front.cluster_ip:
        endpoints = choice.local
        if traits.holds_addresses and not endpoints:
            return frozenset({REJECTS})
    elif traits.one_list and choice.local:
        endpoints, masquerade = choice.local, False
    elif is_local_pod(state.config, packet):  # short cut of policy Local: from inside every endpoint serves
        endpoints, masquerade = choice.cluster, False
    elif from_node:
        endpoints, masquerade = choice.cluster, True
    else:
        endpoints, masquerade = choice.local, False
    if not endpoints:
        return frozenset({_refused(front, state, packet, traits, drop=local_only and choice.has_any)})
    picked = _picked(port, endpoints, packet)
    return frozenset(_deliver(state, packet, endpoint, masquerade, traits) for endpoint in picked)


def _refused(front: Frontend, state: ProxyState, packet: Packet, traits: ModeTraits, *, drop: bool) -> Outcome:
    """Without endpoints.  `drop`: other nodes have some, so that a client may try again elsewhere."""
    leaves = packet.origin is Origin.NODE and not front.cluster_ip and packet.dst not in state.node.local_addresses
    if leaves and not traits.refuses_external_from_node:
        return PASSES
    return DROPS if drop else REJECTS


def frontend_of(state: ProxyState, packet: Packet, traits: ModeTraits) -> Frontend | None:
    """The service port a packet is for, or None."""
    here = is_nodeport_address(state, packet.dst, traits)
    by_port = None
    for port in state.services.values():
        if port.protocol is not packet.protocol:
            continue
        if port.port == packet.dport:
            if packet.dst == port.cluster_ip:
                return Frontend(port, cluster_ip=True)
            if packet.dst in port.load_balancer_ips:
                return Frontend(port, load_balancer=True)
            if packet.dst in port.external_ips:
                return Frontend(port)
        if here and port.node_port == packet.dport:
            by_port = Frontend(port)  # an address of a Service goes before a port of the node
    return by_port


def is_nodeport_address(state: ProxyState, ip: str, traits: ModeTraits) -> bool:
    """Whether node ports answer on this address of this node."""
    config = state.config
    if ip not in state.node.local_addresses:
        return False
    if ipaddress.ip_address(ip).is_loopback:
        answers = traits.localhost_nodeports and config.localhost_nodeports and config.family is Family.IPV4
        if not answers:
            return False
    if config.nodeport_primary_only:
        return ip in config.primary_ips
    return not config.nodeport_addresses or any(contains(cidr, ip) for cidr in config.nodeport_addresses)


def is_local_pod(config: NodeConfig, packet: Packet) -> bool:
    """Whether the packet counts as a Pod's, as `detectLocalMode` tells Pods from others."""
    match config.detect_local:
        case DetectLocal.CLUSTER_CIDR | DetectLocal.NODE_CIDR:
            return any(contains(cidr, packet.src) for cidr in config.local_cidrs)
        case DetectLocal.BRIDGE_INTERFACE:
            return bool(packet.in_interface) and packet.in_interface == config.local_interface
        case DetectLocal.INTERFACE_NAME_PREFIX:
            return bool(config.local_interface) and packet.in_interface.startswith(config.local_interface)
        case _:
            return False


def _no_frontend(state: ProxyState, packet: Packet, traits: ModeTraits) -> Outcome:
    if packet.dst in state.node.local_addresses:
        return _unanswered_nodeport(state, packet) if traits.refuses_nodeports_anywhere else PASSES
    if traits.holds_addresses:
        if any(packet.dst in port.external_vips and _checks_health(port, packet) for port in state.services.values()):
            return PASSES
        held = any(packet.dst == port.cluster_ip for port in state.services.values())
        if not any(contains(cidr, packet.dst) for cidr in state.node.networks):  # else it may be another host's own
            held = held or any(packet.dst in port.external_vips for port in state.services.values())
        return REJECTS if held else PASSES
    if not traits.guards_cluster_ips:
        return PASSES
    if any(port.cluster_ip == packet.dst for port in state.services.values()):
        return REJECTS
    if any(contains(cidr, packet.dst) for cidr in state.config.service_cidrs):
        return DROPS
    return PASSES


def _unanswered_nodeport(state: ProxyState, packet: Packet) -> Outcome:
    """A port of the node on an address where node ports do not answer."""
    for name, port in state.services.items():
        if port.node_port and (port.node_port, port.protocol) == (packet.dport, packet.protocol):
            choice = categorize(port, state.endpoints.get(name, ()), state.node)
            if not (choice.local if port.external_policy_local else choice.cluster):
                return DROPS if choice.has_any else REJECTS
    return PASSES


def _checks_health(port: ServicePort, packet: Packet) -> bool:
    at = (packet.protocol, packet.dport)
    return port.external_policy_local and at == (Protocol.TCP, port.health_check_node_port)


def source_allowed(port: ServicePort, state: ProxyState, packet: Packet) -> bool:
    """Whether the source ranges of a load-balancer address let the packet in."""
    if not port.source_ranges or any(contains(cidr, packet.src) for cidr in port.source_ranges):
        return True
    # the node reaching an address bound to itself has that address as its source
    node_allowed = any(contains(cidr, ip) for cidr in port.source_ranges for ip in state.config.primary_ips)
    return node_allowed and packet.src in port.load_balancer_ips


def _masquerades(front: Frontend, state: ProxyState, packet: Packet) -> bool:
    """For policy Cluster; the short cut of policy Local decides for itself."""
    if not front.cluster_ip:
        return True
    config = state.config
    if config.masquerade_all:
        return True
    tells = config.local_cidrs if not config.local_interface else config.local_interface
    return config.detect_local is not DetectLocal.NONE and bool(tells) and not is_local_pod(config, packet)


def _picked(port: ServicePort, endpoints: tuple[Endpoint, ...], packet: Packet) -> tuple[Endpoint, ...]:
    """The remembered endpoint where affinity holds one that is still in use, else all."""
    if port.affinity_timeout_s and packet.remembered:
        return tuple(endpoint for endpoint in endpoints if str(endpoint) == packet.remembered) or endpoints
    return endpoints


def _deliver(state: ProxyState, packet: Packet, endpoint: Endpoint, masquerade: bool, traits: ModeTraits) -> Outcome:
    """A Pod that reaches itself must not see its own address: the answer would not come back through the node."""
    hairpin = endpoint.ip == packet.src
    if hairpin and not endpoint.is_local:
        hairpin = traits.hairpins_by_address and _may_cut_short_to(state, endpoint.ip)
    ends_here = packet.origin is not Origin.NODE and endpoint.ip in state.node.local_addresses
    if ends_here and not traits.holds_addresses:
        masquerade = hairpin = False  # the kernel rewrites a source on the way out, and this one does not go out
    return Outcome(Verdict.DELIVER, str(endpoint), masquerade or hairpin or traits.relays)


def _may_cut_short_to(state: ProxyState, ip: str) -> bool:
    """Whether some service port with policy Local may use this address from inside the cluster."""
    for name, port in state.services.items():
        if port.external_policy_local and port.externally_reachable:
            choice = categorize(port, state.endpoints.get(name, ()), state.node)
            if any(endpoint.ip == ip for endpoint in choice.reachable):
                return True
    return False
