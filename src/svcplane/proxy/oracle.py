"""decide(state, packet, traits) -> the set of outcomes a correct proxy may give: the executable specification.  Pure.

Read it from the top: what the packet is for (`_frontend`), whether it may come in (source ranges), which
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
    Outcome,
    Packet,
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
    """

    guards_cluster_ips: bool = False
    localhost_nodeports: bool = False


IPTABLES = ModeTraits(localhost_nodeports=True)
NFTABLES = ModeTraits(guards_cluster_ips=True)


@dataclass(frozen=True, slots=True)
class _Frontend:
    """What a packet's destination means: a service port, and by which kind of address."""

    port: ServicePort
    cluster_ip: bool = False
    load_balancer: bool = False


def decide(state: ProxyState, packet: Packet, traits: ModeTraits) -> frozenset[Outcome]:
    """Every outcome the packet may have; several only where there is a choice of endpoints."""
    front = _frontend(state, packet, traits)
    if front is None:
        return frozenset({_no_frontend(state, packet, traits)})
    port = front.port
    if front.load_balancer and not _source_allowed(port, state, packet):
        return frozenset({DROPS})
    choice = categorize(port, state.endpoints.get(port.name, ()), state.node)
    local_only = port.internal_policy_local if front.cluster_ip else port.external_policy_local
    masquerade = _masquerades(front, state, packet)
    if not local_only:
        endpoints = choice.cluster
    elif front.cluster_ip:
        endpoints = choice.local
    elif is_local_pod(state.config, packet):  # short cut of policy Local: from inside every endpoint serves
        endpoints, masquerade = choice.cluster, False
    elif packet.src in state.node.local_addresses:
        endpoints, masquerade = choice.cluster, True
    else:
        endpoints, masquerade = choice.local, False
    if not endpoints:
        return frozenset({DROPS if local_only and choice.has_any else REJECTS})
    return frozenset(_deliver(state, packet, endpoint, masquerade) for endpoint in _picked(port, endpoints, packet))


def _frontend(state: ProxyState, packet: Packet, traits: ModeTraits) -> _Frontend | None:
    here = is_nodeport_address(state, packet.dst, traits)
    by_port = None
    for port in state.services.values():
        if port.protocol is not packet.protocol:
            continue
        if port.port == packet.dport:
            if packet.dst == port.cluster_ip:
                return _Frontend(port, cluster_ip=True)
            if packet.dst in port.load_balancer_ips:
                return _Frontend(port, load_balancer=True)
            if packet.dst in port.external_ips:
                return _Frontend(port)
        if here and port.node_port == packet.dport:
            by_port = _Frontend(port)  # an address of a Service goes before a port of the node
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
    if not traits.guards_cluster_ips or packet.dst in state.node.local_addresses:
        return PASSES
    if any(port.cluster_ip == packet.dst for port in state.services.values()):
        return REJECTS
    if any(contains(cidr, packet.dst) for cidr in state.config.service_cidrs):
        return DROPS
    return PASSES


def _source_allowed(port: ServicePort, state: ProxyState, packet: Packet) -> bool:
    if not port.source_ranges or any(contains(cidr, packet.src) for cidr in port.source_ranges):
        return True
    # the node reaching an address bound to itself has that address as its source
    node_allowed = any(contains(cidr, ip) for cidr in port.source_ranges for ip in state.config.primary_ips)
    return node_allowed and packet.src in port.load_balancer_ips


def _masquerades(front: _Frontend, state: ProxyState, packet: Packet) -> bool:
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


def _deliver(state: ProxyState, packet: Packet, endpoint: Endpoint, masquerade: bool) -> Outcome:
    """A Pod that reaches itself must not see its own address: the answer would not come back through the node."""
    hairpin = endpoint.is_local and endpoint.ip == packet.src
    return Outcome(Verdict.DELIVER, str(endpoint), masquerade or hairpin)
