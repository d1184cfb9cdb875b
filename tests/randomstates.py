"""Large random ProxyStates and packets from a seed, for kernels that are too slow for Hypothesis."""

from random import Random

from tests.proxystates import BRIDGE, GATEWAY, LOCAL, LOOPBACK, NODE_IP, OTHER_IP, OUTSIDE, PODS, UPLINK, in_family

from svcplane.base.net import Family
from svcplane.proxy.model import (
    DetectLocal,
    Endpoint,
    NodeConfig,
    NodeState,
    Origin,
    Packet,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
)


def config(random: Random, family: Family) -> NodeConfig:
    """One of the ways to run a proxy."""
    detect = random.choice(list(DetectLocal))
    cidr = {DetectLocal.CLUSTER_CIDR: "10.244.0.0/16", DetectLocal.NODE_CIDR: "10.244.1.0/24"}.get(detect)
    interface = {DetectLocal.BRIDGE_INTERFACE: BRIDGE, DetectLocal.INTERFACE_NAME_PREFIX: BRIDGE[:2]}.get(detect, "")
    everywhere = ("127.0.0.0/8",) if family is Family.IPV4 else ("::1/128",)
    chosen = random.choice(("", "", "172.30.0.0/24", "10.244.1.0/24"))
    addresses = (in_family(family, chosen),) if chosen else ()
    if addresses and random.random() < 0.3:
        addresses += everywhere
    return NodeConfig(
        "node1",
        family,
        detect,
        (in_family(family, cidr),) if cidr else (),
        interface,
        masquerade_all=random.random() < 0.2,
        masquerade_bit=random.choice((14, 14, 3, 20)),
        nodeport_addresses=addresses,
        nodeport_primary_only=random.random() < 0.2,
        primary_ips=(in_family(family, NODE_IP),),
        localhost_nodeports=random.random() < 0.8,
        service_cidrs=random.choice(((), (in_family(family, "10.96.0.0/16"),))),
    )


def endpoints(random: Random, family: Family) -> tuple[Endpoint, ...]:
    found = {}
    for _ in range(random.choice((0, 1, 2, 3, 5))):
        ip = random.choice((*PODS, NODE_IP, OTHER_IP, f"10.244.{random.randint(1, 4)}.{random.randint(20, 90)}"))
        ready = random.random() < 0.7
        here = ip.startswith("10.244.1.") or ip == NODE_IP
        found[ip] = Endpoint(
            in_family(family, ip),
            random.choice((8080, 9090)),
            "node1" if here else "node2",
            here,
            ready,
            serving=ready or random.random() < 0.5,
            terminating=not ready and random.random() < 0.5,
            zone_hints=random.choice(((), (), ("a",), ("b",))),
            node_hints=random.choice(((), (), (), ("node1",), ("node2",))),
        )
    return tuple(sorted(found.values()))


def state(random: Random, chosen: NodeConfig, most: int = 200) -> ProxyState:
    """Up to `most` service ports in a space of addresses so small that branches fill and empty.

    Three ports have one address: of three protocols on one number, or of three numbers.
    """
    family = chosen.family

    def mine(*choices: str) -> tuple[str, ...]:
        return tuple(in_family(family, text) for text in choices)

    services, behind = {}, {}
    for number in random.sample(range(4 * most), random.randint(0, most)):
        service, place = divmod(number, 3)
        one_number = service % 2 == 0
        protocol = list(Protocol)[place] if one_number else random.choice(list(Protocol))
        name = ServicePortName("default", f"s{service}", f"p{place}", protocol)
        services[name] = ServicePort(
            name,
            in_family(family, f"10.96.{service // 200}.{service % 200 + 1}"),
            80 if one_number else 80 + place,
            node_port=random.choice((0, 30000 + number)),
            external_ips=random.choice(((), (), mine(f"198.51.{100 + service // 200}.{service % 200 + 1}"))),
            load_balancer_ips=random.choice(((), (), mine(f"203.0.{113 + service // 200}.{service % 200 + 1}"))),
            source_ranges=random.choice(((), mine("172.30.0.100/32"), mine("172.30.0.0/27", "10.244.0.0/16"))),
            affinity_timeout_s=random.choice((0, 0, 0, 600, 10800)),
            internal_policy_local=random.random() < 0.2,
            external_policy_local=random.random() < 0.3,
        )
        if found := endpoints(random, family):
            behind[name] = found
    return ProxyState(chosen, NodeState("node1", "a", mine(*LOCAL)), services, behind)


def packet(random: Random, state: ProxyState) -> Packet:
    """Mostly for some service port."""
    family = state.config.family
    origin = random.choice(list(Origin))
    sources = {Origin.POD: PODS[:2], Origin.NODE: (NODE_IP,), Origin.OUTSIDE: (*OUTSIDE, PODS[2])}[origin]
    src = in_family(family, random.choice(sources))
    interface = {Origin.POD: BRIDGE, Origin.NODE: "", Origin.OUTSIDE: UPLINK}[origin]
    port = random.choice(list(state.services.values()) or [None])
    if port is None or random.random() < 0.1:
        return Packet(origin, src, in_family(family, "10.96.200.1"), Protocol.TCP, 80, in_interface=interface)
    targets = [(ip, port.port) for ip in (port.cluster_ip, *port.external_vips)]
    targets += [(in_family(family, ip), port.node_port) for ip in (NODE_IP, GATEWAY, OTHER_IP) if port.node_port]
    if origin is Origin.NODE and port.node_port:
        targets.append((in_family(family, LOOPBACK), port.node_port))
    dst, dport = random.choice(targets)
    if dst == in_family(family, LOOPBACK):
        src = dst
    protocol = port.protocol
    if random.random() < 0.05:  # nobody's
        protocol, dport = random.choice(list(Protocol)), random.choice((dport, 81, 12345))
    behind = state.endpoints.get(port.name, ())
    remembered = str(random.choice(behind)) if behind and random.random() < 0.3 else ""
    return Packet(origin, src, dst, protocol, dport, interface, remembered)
