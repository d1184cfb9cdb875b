"""What the proxy decides about: service ports, endpoints, this node, packets and outcomes.  Pure values.

One ProxyState is of one IP family; a dual-stack node has two, independent of each other, as kube-proxy has
two proxiers.  All addresses and CIDRs here are canonical (`base.net`).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import msgspec

from svcplane.base.net import Family, join_host_port


class Protocol(StrEnum):
    TCP = "TCP"
    UDP = "UDP"
    SCTP = "SCTP"


# Structs and no dataclasses where there are tens of thousands: they are made, hashed and compared in C.
class ServicePortName(msgspec.Struct, frozen=True, order=True, cache_hash=True):
    """Identity of a service port.  `str()` is kube-proxy's `ns/name:port` (no `:port` when unnamed)."""

    namespace: str
    name: str
    port_name: str
    protocol: Protocol

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" + (f":{self.port_name}" if self.port_name else "")

    @property
    def service(self) -> tuple[str, str]:
        return self.namespace, self.name


class Endpoint(msgspec.Struct, frozen=True, order=True, gc=False):
    """One address and port behind a service port.  ready/serving of None on the wire is True here."""

    ip: str
    port: int
    node_name: str = ""
    is_local: bool = False
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    zone: str = ""
    zone_hints: tuple[str, ...] = ()
    node_hints: tuple[str, ...] = ()
    pod: str = ""  # `namespace/name` of the target Pod, for people

    def __str__(self) -> str:
        return join_host_port(self.ip, self.port)


@dataclass(frozen=True, slots=True)
class ServicePort:
    """A service port of one family that this proxy serves (headless, ExternalName, foreign ones are left out)."""

    name: ServicePortName
    cluster_ip: str
    port: int
    node_port: int = 0
    external_ips: tuple[str, ...] = ()
    load_balancer_ips: tuple[str, ...] = ()  # ingress IPs with ipMode VIP
    source_ranges: tuple[str, ...] = ()  # empty: all may reach the load-balancer IPs
    affinity_timeout_s: int = 0  # 0: sessionAffinity None
    internal_policy_local: bool = False
    external_policy_local: bool = False
    health_check_node_port: int = 0
    annotations: tuple[tuple[str, str], ...] = ()  # only svcplane.dev/*, sorted

    @property
    def protocol(self) -> Protocol:
        return self.name.protocol

    @property
    def external_vips(self) -> tuple[str, ...]:
        return self.external_ips + self.load_balancer_ips

    @property
    def externally_reachable(self) -> bool:
        return bool(self.node_port or self.external_ips or self.load_balancer_ips)

    @property
    def uses_cluster_endpoints(self) -> bool:
        """Whether any traffic may go to endpoints of all nodes; the short-circuit of policy Local needs them too."""
        return not self.internal_policy_local or self.externally_reachable

    @property
    def uses_local_endpoints(self) -> bool:
        return self.internal_policy_local or (self.external_policy_local and self.externally_reachable)


class DetectLocal(StrEnum):
    """How pod traffic is told from other traffic (`detectLocalMode`)."""

    CLUSTER_CIDR = "ClusterCIDR"
    NODE_CIDR = "NodeCIDR"
    BRIDGE_INTERFACE = "BridgeInterface"
    INTERFACE_NAME_PREFIX = "InterfaceNamePrefix"
    NONE = "None"  # no way to tell: nothing counts as off-cluster, no short-circuit


class EndTcp(StrEnum):
    """Which TCP connections are ended (`--end-tcp-connections`): those to endpoints that ..."""

    NEVER = "never"
    REMOVED = "removed"  # the Service has no more
    NOT_SERVING = "not-serving"  # it has no more, or that serve no more


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What the operator chose, for one family."""

    node_name: str
    family: Family
    detect_local: DetectLocal = DetectLocal.NONE
    local_cidrs: tuple[str, ...] = ()  # of this family, for CLUSTER_CIDR and NODE_CIDR
    local_interface: str = ""  # bridge name or interface name prefix
    masquerade_all: bool = False
    masquerade_bit: int = 14
    nodeport_addresses: tuple[str, ...] = ()  # CIDRs of this family; empty: every local address
    nodeport_primary_only: bool = False  # `primary`: only `primary_ips`
    primary_ips: tuple[str, ...] = ()  # the node's own primary IP of this family, where it is known
    localhost_nodeports: bool = True  # iptables, IPv4 only
    iptables_variant: str = ""  # nft or legacy; empty: as the host already uses
    service_cidrs: tuple[str, ...] = ()  # of this family, where known (nftables drops unallocated IPs in them)
    end_tcp_connections: EndTcp = EndTcp.NEVER  # nftables and iptables; a Service may ask for another
    external_ips: bool = True  # whether Services' externalIPs are served
    mode_options: tuple[tuple[str, str], ...] = ()  # flags of one mode alone, such as (`ipvs-scheduler`, `wlc`), sorted


@dataclass(frozen=True, slots=True)
class NodeState:
    """What is known of this node from the API and the kernel."""

    name: str
    zone: str = ""
    local_addresses: tuple[str, ...] = ()  # all addresses on this host's interfaces, of this family
    networks: tuple[str, ...] = ()  # CIDRs these are in, where other hosts have theirs


@dataclass(frozen=True, slots=True)
class ProxyState:
    """Everything a plane compiles from.  Replaced, never changed in place; mappings must not be mutated."""

    config: NodeConfig
    node: NodeState
    services: Mapping[ServicePortName, ServicePort] = field(default_factory=dict)
    endpoints: Mapping[ServicePortName, tuple[Endpoint, ...]] = field(default_factory=dict)  # sorted


class Origin(StrEnum):
    """Where a packet is first seen by this node."""

    POD = "pod"  # arrives from a Pod of this node
    NODE = "node"  # made by a process in the node's own namespace
    OUTSIDE = "outside"  # arrives from the network (other nodes' Pods included)


@dataclass(frozen=True, slots=True)
class Packet:
    """The first packet of a new flow as this node sees it.

    `remembered`: the endpoint session affinity holds for this source, if any (and not expired).
    """

    origin: Origin
    src: str
    dst: str
    protocol: Protocol
    dport: int
    in_interface: str = ""
    remembered: str = ""  # `ip:port` as str(Endpoint)


class Verdict(StrEnum):
    DELIVER = "deliver"  # translated to `endpoint`
    REJECT = "reject"  # answered with an error at once
    DROP = "drop"  # silently lost
    PASS = "pass"  # noqa: S105 - not ours: goes on untouched


@dataclass(frozen=True, slots=True, order=True)
class Outcome:
    """What may happen to a packet.  A choice among endpoints is a set of outcomes."""

    verdict: Verdict
    endpoint: str = ""  # str(Endpoint), with DELIVER
    masqueraded: bool = False  # the endpoint sees the node's address instead of the client's


PASSES = Outcome(Verdict.PASS)
DROPS = Outcome(Verdict.DROP)
REJECTS = Outcome(Verdict.REJECT)
