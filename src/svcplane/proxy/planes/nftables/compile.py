"""One service port and its usable endpoints -> its fragment of the desired state.  Pure.

A fragment is small values only: what is to happen to each key that clients use, and the pools of endpoints
behind them.  Slots and pool numbers are given by `book`.
"""

from dataclasses import dataclass

from svcplane.base.net import contains
from svcplane.proxy.model import Endpoint, NodeConfig, ServicePort
from svcplane.proxy.planes.nftables import names as n
from svcplane.proxy.topology import EndpointChoice


@dataclass(frozen=True, slots=True)
class Pool:
    """Endpoints as sorted (ip, port).  A service port has at most two: of all nodes, and of this node."""

    local: bool
    endpoints: tuple[tuple[str, int], ...]
    affinity_timeout_s: int

    def class_(self, kind: n.Kind) -> n.Class:
        return n.Class(kind, self.affinity_timeout_s, len(self.endpoints))


@dataclass(frozen=True, slots=True)
class Frontend:
    """A key that clients use and what happens to its packets.

    `class_` None: not translated.  `pool` None with a class: kind LOCAL without an endpoint here.  `short_cut`:
    the pool of the short cut of policy Local.  `refusal`: `drop` or `reject` of what was not translated.
    """

    nodeport: bool
    key: bytes
    class_: n.Class | None = None
    pool: Pool | None = None
    short_cut: Pool | None = None
    refusal: str = ""
    firewall_chain: str = ""


@dataclass(frozen=True, slots=True)
class Firewall:
    """Sources that may use the load-balancer addresses of a service port."""

    chain: str
    allowed_set: str
    allowed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fragment:
    """Everything one service port wants in the table."""

    comment: str
    cluster_ip: bytes
    frontends: tuple[Frontend, ...] = ()
    pools: tuple[Pool, ...] = ()
    hairpin: tuple[bytes, ...] = ()  # packed addresses of this node's endpoints in use
    firewall: Firewall | None = None


def _pool(port: ServicePort, endpoints: tuple[Endpoint, ...], *, local: bool) -> Pool | None:
    if not endpoints:
        return None
    chosen = sorted({(endpoint.ip, endpoint.port) for endpoint in endpoints})[: n.MAX_SLOTS]
    return Pool(local, tuple(chosen), port.affinity_timeout_s)


def compile_port(port: ServicePort, choice: EndpointChoice, config: NodeConfig) -> Fragment:
    """`choice` is what `topology.categorize` says of the service port's endpoints on this node."""
    cluster = _pool(port, choice.cluster, local=False) if port.uses_cluster_endpoints else None
    local = _pool(port, choice.local, local=True) if port.uses_local_endpoints else None
    missing = "drop" if choice.has_any else "reject"
    protocol = port.protocol
    firewall = _firewall(port, config)
    internal = local if port.internal_policy_local else cluster
    cluster_key = n.address_key(port.cluster_ip, protocol, port.port)
    if internal is None:
        frontends = [Frontend(False, cluster_key, refusal=missing)]
    else:
        frontends = [Frontend(False, cluster_key, internal.class_(n.Kind.CLUSTER_IP), internal)]
    for ip in port.external_vips:
        guard = firewall.chain if firewall and ip in port.load_balancer_ips else ""
        key = n.address_key(ip, protocol, port.port)
        frontends.append(_external(port, key, cluster, local, missing, nodeport=False, guard=guard))
    if port.node_port:
        key = n.nodeport_key(protocol, port.node_port)
        frontends.append(_external(port, key, cluster, local, missing, nodeport=True))
    pools = dict.fromkeys(pool for front in frontends for pool in (front.pool, front.short_cut) if pool is not None)
    here = {endpoint.ip for endpoint in (*choice.cluster, *choice.local) if endpoint.is_local}
    return Fragment(
        comment=f"{port.name}",
        cluster_ip=n.packed_ip(port.cluster_ip),
        frontends=tuple(frontends),
        pools=tuple(pools),
        hairpin=tuple(n.packed_ip(ip) for ip in sorted(here)),
        firewall=firewall,
    )


def _external(
    port: ServicePort,
    key: bytes,
    cluster: Pool | None,
    local: Pool | None,
    missing: str,
    *,
    nodeport: bool,
    guard: str = "",
) -> Frontend:
    """A key for traffic from outside: external, load-balancer address or node port."""
    if not port.external_policy_local:
        if cluster is None:
            return Frontend(nodeport, key, refusal=missing, firewall_chain=guard)
        return Frontend(nodeport, key, cluster.class_(n.Kind.MASQUERADE), cluster, firewall_chain=guard)
    refusal = "" if local is not None else missing
    if local is None and cluster is None:
        return Frontend(nodeport, key, refusal=refusal, firewall_chain=guard)
    class_ = local.class_(n.Kind.LOCAL) if local is not None else n.Class(n.Kind.LOCAL, 0, 0)
    return Frontend(nodeport, key, class_, local, cluster, refusal, guard)


def _firewall(port: ServicePort, config: NodeConfig) -> Firewall | None:
    if not port.source_ranges or not port.load_balancer_ips:
        return None
    chain, allowed_set = n.firewall_names(port.name)
    allowed = port.source_ranges
    if any(contains(cidr, ip) for cidr in port.source_ranges for ip in config.primary_ips):
        # an address bound to an interface of this node is its own source when the node itself uses it
        allowed += tuple(f"{ip}/{'128' if ':' in ip else '32'}" for ip in port.load_balancer_ips)
    return Firewall(chain, allowed_set, allowed)
