"""What the operator chose and what is known of this node -> the configuration of each family.  Pure."""

import ipaddress
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from svcplane.api.core import Node
from svcplane.base.net import Family, canonical_cidr, canonical_ip, family_of
from svcplane.proxy.model import DetectLocal, EndTcp, NodeConfig

PRIMARY = "primary"
#: Modes whose node ports answer on the node's own addresses only, unless the operator says otherwise.
PRIMARY_BY_DEFAULT = frozenset({"nftables"})


@dataclass(frozen=True, slots=True)
class Settings:
    """CIDRs are canonical.  `healthz` and `metrics` are (host, port), or None for no listener."""

    node_name: str
    mode: str = "nftables"
    detect_local: DetectLocal = DetectLocal.CLUSTER_CIDR
    cluster_cidrs: tuple[str, ...] = ()
    local_interface: str = ""
    masquerade_all: bool = False
    masquerade_bit: int = 14
    iptables_variant: str = ""  # nft or legacy; empty: as the host already uses
    nodeport_addresses: tuple[str, ...] = ()  # CIDRs, or PRIMARY alone; empty: as the mode has it
    localhost_nodeports: bool = True
    bind_address: str = ""  # instead of the node's own primary IP of its family; unspecified: no such wish
    sync_period_s: float = 30.0
    min_sync_period_s: float = 0.0
    healthz: tuple[str, int] | None = ("0.0.0.0", 10256)
    metrics: tuple[str, int] | None = ("127.0.0.1", 10249)
    mode_options: tuple[tuple[str, str], ...] = ()  # see NodeConfig
    end_tcp_connections: EndTcp = EndTcp.NEVER
    external_ips: bool = True  # feature gate AllowServiceExternalIPs
    bind_hard_fail: bool = False  # a listener that cannot be opened ends the proxy


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of this node: its IPs (of each family the primary first), its Pods' and the Service CIDRs."""

    node_ips: tuple[str, ...] = ()
    pod_cidrs: tuple[str, ...] = ()
    service_cidrs: tuple[str, ...] = ()


def gather(
    node: Node | None,
    local_addresses: Mapping[Family, tuple[str, ...]],
    service_cidrs: Iterable[str],
    bind_address: str = "",
) -> Facts:
    """Facts from the Node object; for a family whose IP it does not name, from this host's interfaces.

    `bind_address`, unless unspecified, comes before the Node's IPs.
    """
    found = []
    chosen = canonical_ip(bind_address)
    if chosen and not ipaddress.ip_address(chosen).is_unspecified:
        found.append(chosen)
    if node is not None:
        for kind in ("InternalIP", "ExternalIP"):
            families = {family_of(ip) for ip in found}
            named = [entry.address for entry in node.status.addresses if entry.type == kind]
            found += [ip for ip in named if kind == "InternalIP" or family_of(ip) not in families]
    for family, addresses in local_addresses.items():
        if not any(family_of(ip) is family for ip in found):
            found += _first_global(addresses)
    ips = [ip for text in found if (ip := canonical_ip(text))]
    pod_cidrs = (node.spec.pod_cidrs or [node.spec.pod_cidr]) if node is not None else []
    return Facts(tuple(dict.fromkeys(ips)), _canonical(pod_cidrs), tuple(sorted(_canonical(service_cidrs))))


def _canonical(cidrs: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(cidr for text in cidrs if (cidr := canonical_cidr(text))))


def _first_global(addresses: tuple[str, ...]) -> list[str]:
    for text in addresses:
        parsed = ipaddress.ip_address(text)
        if not parsed.is_loopback and not parsed.is_link_local:
            return [text]
    return []


def node_configs(settings: Settings, facts: Facts) -> dict[Family, NodeConfig]:
    """The configuration of each family."""
    mode = settings.detect_local
    local = facts.pod_cidrs if mode is DetectLocal.NODE_CIDR else settings.cluster_cidrs
    chosen = settings.nodeport_addresses
    primary = chosen == (PRIMARY,) or (not chosen and settings.mode in PRIMARY_BY_DEFAULT)
    found = {}
    for family in Family:
        addresses = _of(family, () if primary else chosen)
        everywhere = any(ipaddress.ip_network(cidr).prefixlen == 0 for cidr in addresses)
        cidrs = _of(family, local)
        needs_cidr = mode in (DetectLocal.CLUSTER_CIDR, DetectLocal.NODE_CIDR)
        found[family] = NodeConfig(
            node_name=settings.node_name,
            family=family,
            detect_local=DetectLocal.NONE if needs_cidr and not cidrs else mode,
            local_cidrs=cidrs,
            local_interface=settings.local_interface,
            masquerade_all=settings.masquerade_all,
            masquerade_bit=settings.masquerade_bit,
            iptables_variant=settings.iptables_variant,
            nodeport_addresses=() if everywhere else addresses,
            nodeport_primary_only=primary,
            primary_ips=_of(family, facts.node_ips)[:1],
            localhost_nodeports=settings.localhost_nodeports,
            service_cidrs=_of(family, facts.service_cidrs),
            end_tcp_connections=settings.end_tcp_connections,
            external_ips=settings.external_ips,
            mode_options=settings.mode_options,
        )
    return found


def _of(family: Family, texts: Iterable[str]) -> tuple[str, ...]:
    return tuple(text for text in texts if family_of(text) is family)
