"""One service port and its usable endpoints -> what the relay is to do and what is to be captured.  Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from svcplane.base.net import contains
from svcplane.kernel.nft import objects as o
from svcplane.proxy.model import Endpoint, NodeConfig, Protocol, ServicePort
from svcplane.proxy.planes.userspace import names as n
from svcplane.proxy.planes.userspace.balance import Address
from svcplane.proxy.planes.userspace.policy import idle_s, read_policy
from svcplane.proxy.planes.userspace.wire import Serve
from svcplane.proxy.topology import EndpointChoice

Place = tuple[str, bytes]  # set, key
Data = bytes | o.Verdict | None


@dataclass(frozen=True, slots=True)
class Capture:
    """A destination whose packets go to the relay's port for one of the pools."""

    place: Place
    local: bool


@dataclass(frozen=True, slots=True)
class Firewall:
    """Sources that may use the load-balancer addresses of a service port."""

    chain: str
    allowed_set: str
    allowed: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Fragment:
    """Everything one service port wants.  `pools`: for which ones a port is listened on (True: local)."""

    protocol: Protocol
    pools: tuple[bool, ...]
    captures: tuple[Capture, ...]
    elements: tuple[tuple[Place, Data], ...]  # those that do not depend on the relay's ports
    serve: Serve | None
    firewall: Firewall | None = None
    problems: tuple[str, ...] = ()

    def wanted(self, relays: Mapping[bool, Address]) -> dict[Place, Data]:
        """All elements, given where the relay listens for each pool."""
        found: dict[Place, Data] = dict(self.elements)
        for capture in self.captures:
            address, number = relays[capture.local]
            found[capture.place] = n.target(address, number)
            found["relay-ports", n.port_key(self.protocol, number)] = None
        return found


def compile_port(
    port: ServicePort, choice: EndpointChoice, config: NodeConfig, endpoints: tuple[Endpoint, ...] = ()
) -> Fragment:
    """`choice` is what `topology.categorize` says of the service port's `endpoints` on this node."""
    carried = port.protocol in n.RELAYED
    cluster = choice.cluster if carried and port.uses_cluster_endpoints else ()
    local = choice.local if carried and port.uses_local_endpoints else ()
    maker = _Maker(cluster, local, refusal="drop" if choice.has_any and carried else "reject")
    key = n.address_key(port.cluster_ip, port.protocol, port.port)
    maker.elements["cluster-ips", n.packed_ip(port.cluster_ip)] = None
    maker.internal(key, policy_local=port.internal_policy_local)
    firewall = _firewall(port, config)
    for ip in port.external_vips:
        key = n.address_key(ip, port.protocol, port.port)
        maker.external("ips", key, policy_local=port.external_policy_local)
        if firewall is not None and ip in port.load_balancer_ips:
            maker.elements["firewall-ips", key] = o.Verdict(o.Code.GOTO, firewall.chain)
    if port.node_port:
        node_key = n.port_key(port.protocol, port.node_port)
        maker.external("nodeports", node_key, policy_local=port.external_policy_local)
    pools = []
    if carried:
        pools = [False] * port.uses_cluster_endpoints + [True] * port.uses_local_endpoints
    serve, problems = (
        _serve(port, choice, config, endpoints) if carried else (None, (f"{port.name}: SCTP cannot be relayed",))
    )
    return Fragment(
        port.protocol, tuple(pools), tuple(maker.captures), tuple(maker.elements.items()), serve, firewall, problems
    )


class _Maker:
    """Collects captures and refusals."""

    def __init__(self, cluster: tuple[Endpoint, ...], local: tuple[Endpoint, ...], refusal: str) -> None:
        self._has = {False: bool(cluster), True: bool(local)}
        self._refusal = refusal
        self.captures: list[Capture] = []
        self.elements: dict[Place, Data] = {}

    def internal(self, key: bytes, *, policy_local: bool) -> None:
        self._put("ips", key, policy_local)

    def external(self, kind: str, key: bytes, *, policy_local: bool) -> None:
        """With policy Local, Pods and this node take the short cut to the endpoints of all nodes."""
        self._put(kind, key, policy_local)
        if policy_local and self._has[False]:
            self.captures.append(Capture((f"short-cut-{kind}", key), False))

    def _put(self, kind: str, key: bytes, local: bool) -> None:
        if self._has[local]:
            self.captures.append(Capture((f"service-{kind}", key), local))
        else:
            # an endpoint elsewhere counts only where policy keeps traffic from it
            refusal = self._refusal if local else "reject"
            self.elements[f"{refusal}-{kind}", key] = None


def _serve(
    port: ServicePort, choice: EndpointChoice, config: NodeConfig, endpoints: tuple[Endpoint, ...]
) -> tuple[Serve, tuple[str, ...]]:
    policy, problems = read_policy(port)
    tcp = port.protocol is Protocol.TCP
    chosen = {*choice.cluster, *choice.local}
    # as in the other modes, a UDP flow moves when its endpoint serves no more, whatever policies and hints say
    kept = () if tcp else (endpoint for endpoint in endpoints if endpoint.serving and endpoint not in chosen)
    serve = Serve(
        key=n.service_key(config.family, port.name),
        protocol="TCP" if tcp else "UDP",
        cluster=_addresses(choice.cluster),
        local=_addresses(choice.local),
        kept=_addresses(kept),
        strategy=policy.strategy.value,
        weights=policy.weigh((*choice.cluster, *choice.local)),
        affinity_timeout_s=port.affinity_timeout_s,
        idle_timeout_s=policy.idle_timeout_s or idle_s(port.protocol, config.mode_options),
        proxy_protocol=policy.proxy_protocol,
        retry_unanswered=policy.retry_unanswered,
        mark=1 << config.masquerade_bit,
    )
    return serve, problems


def _addresses(endpoints: Iterable[Endpoint]) -> tuple[Address, ...]:
    return tuple(sorted({(endpoint.ip, endpoint.port) for endpoint in endpoints}))


def _firewall(port: ServicePort, config: NodeConfig) -> Firewall | None:
    if not port.source_ranges or not port.load_balancer_ips:
        return None
    chain, allowed_set = n.firewall_names(port.name)
    allowed = port.source_ranges
    if any(contains(cidr, ip) for cidr in port.source_ranges for ip in config.primary_ips):
        # an address bound to an interface of this node is its own source when the node itself uses it
        allowed += tuple(f"{ip}/{'128' if ':' in ip else '32'}" for ip in port.load_balancer_ips)
    return Firewall(chain, allowed_set, allowed)
