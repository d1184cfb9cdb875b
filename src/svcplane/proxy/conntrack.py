"""Which tracked flows have become wrong.  Pure.

A UDP flow that was translated to an endpoint which serves no more would be sent there for ever, since datagrams
keep it alive: it is deleted, and the next datagram is translated anew.  Flows of a Service without any serving
endpoint are left alone.  Source: kube-proxy 1.36 conntrack cleanup.  A relay moves its clients on its own, but a flow
may lead to a port that it listened on for a Service as that was before, or to nobody.

A TCP connection outlives its endpoint's place in the Service, for it may still be served.  Where it is not (a Pod that
is gone answers nothing, not even a reset), its client waits for minutes.  A Service may ask that such connections are
ended: once the flow is deleted, the client's next packet is taken for the beginning of a new one, goes to an endpoint
that knows nothing of it, and is answered by a reset.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, replace

from svcplane.proxy.model import Endpoint, EndTcp, Protocol, ProxyState, ServicePort, ServicePortName

#: Of a Service, over the proxy's --end-tcp-connections.
ANNOTATION = "svcplane.dev/end-tcp-connections"


#: Addresses that may answer for a service port; none: flows are left alone.
Answerers = Callable[[ServicePortName], Collection[tuple[str, int]]]


@dataclass(frozen=True, slots=True)
class Flow:
    """A tracked flow: the original direction, and who answers."""

    protocol: Protocol
    src: str
    sport: int
    dst: str
    dport: int
    reply_src: str
    reply_sport: int


def end_tcp(port: ServicePort, default: EndTcp) -> tuple[EndTcp, str]:
    """When connections of a TCP service port are ended, and what is wrong with its annotation."""
    text = dict(port.annotations).get(ANNOTATION)
    if text is None:
        return default, ""
    try:
        return EndTcp(text), ""
    except ValueError:
        allowed = ", ".join(EndTcp)
        problem = f"annotation {ANNOTATION}={text!r} of {port.name}: must be one of {allowed}; it is passed over"
        return default, problem


def concerned(state: ProxyState, names: Iterable[ServicePortName] | None, protocol: Protocol) -> ProxyState:
    """The part of a state whose flows may have become wrong.  `names` None: any."""
    mine = [name for name in (state.services if names is None else names) if name.protocol is protocol]
    services = {name: state.services[name] for name in mine if name in state.services}
    if protocol is Protocol.TCP:
        default = state.config.end_tcp_connections
        services = {name: port for name, port in services.items() if end_tcp(port, default)[0] is not EndTcp.NEVER}
    endpoints = {name: state.endpoints[name] for name in services if name in state.endpoints}
    return replace(state, services=services, endpoints=endpoints)


def stale(
    flows: Iterable[Flow], state: ProxyState, protocol: Protocol = Protocol.UDP, relays: Answerers | None = None
) -> list[Flow]:
    """The flows to our addresses whose answers come from an endpoint that they must not go to any more.

    `relays`: who answers for a service port in a mode that relays, instead of its endpoints.
    """
    by_address, by_port = _frontends(state, protocol)
    found = []
    for flow in flows:
        if flow.protocol is not protocol:
            continue
        owner = by_address.get((flow.dst, flow.dport))
        if owner is None and _is_nodeport_flow(flow, state):
            owner = by_port.get(flow.dport)
        if owner is None:
            continue
        kept = _kept(state, owner) if relays is None else relays(owner)
        if kept and (flow.reply_src, flow.reply_sport) not in kept:
            found.append(flow)
    return found


def _is_nodeport_flow(flow: Flow, state: ProxyState) -> bool:
    """Whether a flow to the number of a node port was for this node, and does not just pass through it.

    One that is not translated began before its Service was known, and would go unanswered as long as the client asks.
    """
    translated = (flow.dst, flow.dport) != (flow.reply_src, flow.reply_sport)
    return translated or flow.dst in state.node.local_addresses


def _frontends(
    state: ProxyState, protocol: Protocol
) -> tuple[Mapping[tuple[str, int], ServicePortName], Mapping[int, ServicePortName]]:
    by_address: dict[tuple[str, int], ServicePortName] = {}
    by_port: dict[int, ServicePortName] = {}
    for name, port in state.services.items():
        if name.protocol is not protocol:
            continue
        for ip in (port.cluster_ip, *port.external_vips):
            by_address[ip, port.port] = name
        if port.node_port:
            by_port[port.node_port] = name
    return by_address, by_port


def _kept(state: ProxyState, name: ServicePortName) -> set[tuple[str, int]]:
    """Where flows of a service port may go on to; empty where no endpoint serves, and all are left alone."""
    endpoints: tuple[Endpoint, ...] = state.endpoints.get(name, ())
    serving = {(endpoint.ip, endpoint.port) for endpoint in endpoints if endpoint.serving}
    if not serving or name.protocol is not Protocol.TCP:
        return serving
    when, _ = end_tcp(state.services[name], state.config.end_tcp_connections)
    if when is EndTcp.REMOVED:
        return {(endpoint.ip, endpoint.port) for endpoint in endpoints}
    return serving
