"""Random ProxyStates and Packets for the laws of every plane: a small world in which collisions are common."""

import ipaddress

from hypothesis import strategies as st

from svcplane.base.net import Family, join_host_port
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

NODE_IP, OTHER_IP, GATEWAY, LOOPBACK = "172.30.0.11", "172.30.0.12", "10.244.1.1", "127.0.0.1"
LOCAL = (LOOPBACK, NODE_IP, GATEWAY)
PODS = ("10.244.1.11", "10.244.1.12", "10.244.2.11", "10.244.2.12")
OUTSIDE = ("172.30.0.100", "172.30.0.101")
PROTOCOLS = st.sampled_from(list(Protocol))
BRIDGE, UPLINK = "cni0", "eth0"


def in_family(family: Family, text: str) -> str:
    """An address or CIDR of this small world, in its IPv6 counterpart where that is asked for."""
    if family is Family.IPV4 or not text:
        return text
    if text == LOOPBACK:
        return "::1"
    ip, _, length = text.partition("/")
    packed = ipaddress.IPv4Address(ip).packed.hex()
    mapped = str(ipaddress.IPv6Address(f"fd00::{packed[:4]}:{packed[4:]}"))
    return f"{mapped}/{96 + int(length)}" if length else mapped


@st.composite
def endpoints(draw: st.DrawFn, family: Family) -> tuple[Endpoint, ...]:
    """Of Pods, and of processes in the host network of this node and of another."""
    found = {}
    for ip in draw(st.lists(st.sampled_from((*PODS, NODE_IP, OTHER_IP)), max_size=4, unique=True)):
        here = ip.startswith("10.244.1.") or ip == NODE_IP
        ready = draw(st.booleans())
        serving = ready or draw(st.booleans())
        found[ip] = Endpoint(
            ip=in_family(family, ip),
            port=draw(st.sampled_from([8080, 9090])),
            node_name="node1" if here else "node2",
            is_local=here,
            ready=ready,
            serving=serving,
            terminating=not ready and draw(st.booleans()),
            zone="a" if here else "b",
            zone_hints=draw(st.sampled_from([(), ("a",), ("b",), ("a", "b")])),
            node_hints=draw(st.sampled_from([(), ("node1",), ("node2",)])),
        )
    return tuple(sorted(found.values()))


@st.composite
def service_ports(draw: st.DrawFn, number: int, protocol: Protocol, family: Family) -> ServicePort:
    """Ports of two Services: the third and fourth share the addresses of the first and second."""

    def mine(*choices: str) -> tuple[str, ...]:
        chosen = draw(st.sampled_from(choices))
        return (in_family(family, chosen),) if chosen else ()

    host = number % 2
    return ServicePort(
        name=ServicePortName("default", f"s{number}", "p", protocol),
        cluster_ip=in_family(family, f"10.96.0.{host + 10}"),
        port=80 + number // 2,
        node_port=draw(st.sampled_from([0, 30000 + number])),
        external_ips=mine("", f"198.51.100.{host + 1}"),
        load_balancer_ips=mine("", f"203.0.113.{host + 1}"),
        source_ranges=mine("", "172.30.0.100/32", "172.30.0.0/27", "10.244.0.0/16"),
        affinity_timeout_s=draw(st.sampled_from([0, 0, 600])),
        internal_policy_local=draw(st.booleans()),
        external_policy_local=draw(st.booleans()),
    )


@st.composite
def node_configs(draw: st.DrawFn) -> NodeConfig:
    family = draw(st.sampled_from(list(Family)))
    detect = draw(st.sampled_from(list(DetectLocal)))
    cidr = {DetectLocal.CLUSTER_CIDR: "10.244.0.0/16", DetectLocal.NODE_CIDR: "10.244.1.0/24"}.get(detect)
    interface = {DetectLocal.BRIDGE_INTERFACE: BRIDGE, DetectLocal.INTERFACE_NAME_PREFIX: BRIDGE[:2]}.get(detect, "")
    addresses = draw(st.sampled_from(["", "172.30.0.0/24", "10.244.1.0/24"]))
    services = draw(st.sampled_from(["", "10.96.0.0/16"]))
    return NodeConfig(
        node_name="node1",
        family=family,
        detect_local=detect,
        local_cidrs=(in_family(family, cidr),) if cidr else (),
        local_interface=interface,
        masquerade_all=draw(st.booleans()),
        nodeport_addresses=(in_family(family, addresses),) if addresses else (),
        nodeport_primary_only=draw(st.booleans()),
        localhost_nodeports=draw(st.booleans()),
        primary_ips=(in_family(family, NODE_IP),),
        service_cidrs=(in_family(family, services),) if services else (),
    )


@st.composite
def proxy_states(
    draw: st.DrawFn,
    config: st.SearchStrategy[NodeConfig] | None = None,
) -> ProxyState:
    chosen = draw(node_configs() if config is None else config)
    services, behind = {}, {}
    for number in range(draw(st.integers(0, 4))):
        port = draw(service_ports(number, draw(PROTOCOLS), chosen.family))
        services[port.name] = port
        if found := draw(endpoints(chosen.family)):
            behind[port.name] = found
    local = tuple(in_family(chosen.family, ip) for ip in LOCAL)
    networks = draw(st.sampled_from(["", "198.51.100.0/24"]))
    near = (in_family(chosen.family, networks),) if networks else ()
    return ProxyState(chosen, NodeState("node1", "a", local, near), services, behind)


@st.composite
def packets(draw: st.DrawFn, state: ProxyState) -> Packet:
    """A packet with a good chance to be for some service port."""
    family = state.config.family
    vips = [ip for port in state.services.values() for ip in (port.cluster_ip, *port.external_vips)]
    origin = draw(st.sampled_from(list(Origin)))
    src = {
        Origin.POD: st.sampled_from(PODS[:2]),
        Origin.NODE: st.just(NODE_IP),
        Origin.OUTSIDE: st.sampled_from((*OUTSIDE, *PODS[2:])),
    }[origin]
    node_ports = [port.node_port for port in state.services.values() if port.node_port]
    places = [NODE_IP, GATEWAY, OTHER_IP, "10.96.200.1", *([LOOPBACK] if origin is Origin.NODE else [])]
    dst = draw(st.sampled_from([*vips, *(in_family(family, ip) for ip in places)]))
    source = in_family(family, draw(src))
    return Packet(
        origin=origin,
        src=dst if ipaddress.ip_address(dst).is_loopback else source,
        dst=dst,
        protocol=draw(PROTOCOLS),
        dport=draw(st.sampled_from([80, 81, 82, *node_ports])),
        in_interface={Origin.POD: BRIDGE, Origin.NODE: "", Origin.OUTSIDE: UPLINK}[origin],
        remembered=draw(st.sampled_from(["", "", join_host_port(in_family(family, PODS[0]), 8080)])),
    )
