"""Which tracked flows have become wrong.  Pure.

A UDP flow that was translated to an endpoint which serves no more would be sent there for ever, since datagrams
keep it alive: it is deleted, and the next datagram is translated anew.  Flows of a Service without any serving
endpoint are left alone.  Source: kube-proxy 1.36 conntrack cleanup.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from svcplane.proxy.model import Protocol, ProxyState, ServicePortName


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


def stale(flows: Iterable[Flow], state: ProxyState, protocol: Protocol = Protocol.UDP) -> list[Flow]:
    """The flows to our addresses whose answers come from no serving endpoint."""
    by_address: dict[tuple[str, int], ServicePortName] = {}
    by_port: dict[int, ServicePortName] = {}
    for name, port in state.services.items():
        if name.protocol is not protocol:
            continue
        for ip in (port.cluster_ip, *port.external_vips):
            by_address[ip, port.port] = name
        if port.node_port:
            by_port[port.node_port] = name
    found = []
    for flow in flows:
        if flow.protocol is not protocol:
            continue
        owner = by_address.get((flow.dst, flow.dport))
        if owner is None and (flow.dst, flow.dport) != (flow.reply_src, flow.reply_sport):
            owner = by_port.get(flow.dport)
        if owner is None:
            continue
        serving = {(e.ip, e.port) for e in state.endpoints.get(owner, ()) if e.serving}
        if serving and (flow.reply_src, flow.reply_sport) not in serving:
            found.append(flow)
    return found
