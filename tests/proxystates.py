"""Random ProxyStates and Packets for the laws of every plane: a small world in which collisions are common."""

from hypothesis import strategies as st

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

NODE_IP, OTHER_IP, GATEWAY, LOOPBACK = "172.30.0.11", "172.30.0.12", "10.244.1.1", "127.0.0.1"
LOCAL = (LOOPBACK, NODE_IP, GATEWAY)
PODS = ("10.244.1.11", "10.244.1.12", "10.244.2.11", "10.244.2.12")
OUTSIDE = ("172.30.0.100", "172.30.0.101")
PROTOCOLS = st.sampled_from([Protocol.TCP, Protocol.UDP])


@st.composite
def endpoints(draw: st.DrawFn) -> tuple[Endpoint, ...]:
    found = {}
    for ip in draw(st.lists(st.sampled_from(PODS), max_size=4, unique=True)):
        here = ip.startswith("10.244.1.")
        ready = draw(st.booleans())
        serving = ready or draw(st.booleans())
        found[ip] = Endpoint(
            ip=ip,
            port=8080,
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
def service_ports(draw: st.DrawFn, number: int, protocol: Protocol) -> ServicePort:
    return ServicePort(
        name=ServicePortName("default", f"s{number}", "p", protocol),
        cluster_ip=f"10.96.0.{number + 10}",
        port=80,
        node_port=draw(st.sampled_from([0, 30000 + number])),
        external_ips=draw(st.sampled_from([(), (f"198.51.100.{number + 1}",)])),
        load_balancer_ips=draw(st.sampled_from([(), (f"203.0.113.{number + 1}",)])),
        source_ranges=draw(st.sampled_from([(), ("172.30.0.100/32",), ("172.30.0.0/27",), ("10.244.0.0/16",)])),
        affinity_timeout_s=draw(st.sampled_from([0, 0, 600])),
        internal_policy_local=draw(st.booleans()),
        external_policy_local=draw(st.booleans()),
    )


@st.composite
def node_configs(draw: st.DrawFn) -> NodeConfig:
    detects = draw(st.booleans())
    return NodeConfig(
        node_name="node1",
        family=Family.IPV4,
        detect_local=DetectLocal.CLUSTER_CIDR if detects else DetectLocal.NONE,
        local_cidrs=("10.244.0.0/16",) if detects else (),
        masquerade_all=draw(st.booleans()),
        nodeport_addresses=draw(st.sampled_from([(), ("172.30.0.0/24",), ("10.244.1.0/24",)])),
        nodeport_primary_only=draw(st.booleans()),
        primary_ips=(NODE_IP,),
        service_cidrs=draw(st.sampled_from([(), ("10.96.0.0/16",)])),
    )


@st.composite
def proxy_states(draw: st.DrawFn, config: st.SearchStrategy[NodeConfig] | None = None) -> ProxyState:
    services, behind = {}, {}
    for number in range(draw(st.integers(0, 3))):
        port = draw(service_ports(number, draw(PROTOCOLS)))
        services[port.name] = port
        if chosen := draw(endpoints()):
            behind[port.name] = chosen
    return ProxyState(
        draw(node_configs() if config is None else config), NodeState("node1", "a", LOCAL), services, behind
    )


@st.composite
def packets(draw: st.DrawFn, state: ProxyState) -> Packet:
    """A packet with a good chance to be for some service port."""
    vips = [ip for port in state.services.values() for ip in (port.cluster_ip, *port.external_vips)]
    origin = draw(st.sampled_from(list(Origin)))
    src = {
        Origin.POD: st.sampled_from(PODS[:2]),
        Origin.NODE: st.just(NODE_IP),
        Origin.OUTSIDE: st.sampled_from((*OUTSIDE, *PODS[2:])),
    }[origin]
    node_ports = [port.node_port for port in state.services.values() if port.node_port]
    dst = st.sampled_from([*vips, NODE_IP, GATEWAY, OTHER_IP, "10.96.200.1"])
    return Packet(
        origin=origin,
        src=draw(src),
        dst=draw(dst),
        protocol=draw(PROTOCOLS),
        dport=draw(st.sampled_from([80, 81, *node_ports])),
        remembered=draw(st.sampled_from(["", "", f"{PODS[0]}:8080"])),
    )
