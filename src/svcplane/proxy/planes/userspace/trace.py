"""The capture table's own answer for a packet, and whom the relay may then choose.  Pure.

The Pod sees an address of this node whatever the client's was, which is what `masqueraded` says.
"""

from svcplane.kernel.nft import objects as o
from svcplane.kernel.nft.interpreter import End, Flow
from svcplane.kernel.nft.walk import walk
from svcplane.proxy.model import DROPS, PASSES, REJECTS, Endpoint, Origin, Outcome, Packet, ProxyState, Verdict
from svcplane.proxy.planes.userspace import names as n
from svcplane.proxy.planes.userspace.compile import compile_port
from svcplane.proxy.planes.userspace.ports import recovered_port
from svcplane.proxy.topology import categorize


def trace(content: o.TableContent, state: ProxyState, packet: Packet) -> tuple[frozenset[Outcome], list[str]]:
    """Possible outcomes, and the way of the packet for people."""
    iifname = packet.in_interface if packet.origin is not Origin.NODE else ""
    source, target = n.packed_ip(packet.src), n.packed_ip(packet.dst)
    flow = Flow(source, target, n.PROTOCOL_NUMBER[packet.protocol], packet.dport, iifname)
    local = frozenset(n.packed_ip(ip) for ip in state.node.local_addresses)
    outcomes: set[Outcome] = set()
    ways: list[str] = []
    for end in walk(content, local, flow, own=packet.origin is Origin.NODE):
        way = " -> ".join(end.way)
        for outcome, relay in _outcomes(end, content, state, packet):
            if outcome not in outcomes:
                outcomes.add(outcome)
                ways.append(" => ".join(filter(None, (way, relay, f"{outcome.verdict} {outcome.endpoint}".rstrip()))))
    return frozenset(outcomes), ways


def _outcomes(end: End, content: o.TableContent, state: ProxyState, packet: Packet) -> list[tuple[Outcome, str]]:
    if end.dropped or end.rejected:
        return [(DROPS if end.dropped else REJECTS, "")]
    if not end.flow.dnatted:
        return [(PASSES, "")]
    relay = f"relay port {end.flow.dport}"
    sticks, endpoints = _served(end.flow.dport, content, state, packet)
    if not endpoints:
        return [(REJECTS, f"{relay}, which nobody listens on")]
    sticky = tuple(endpoint for endpoint in endpoints if sticks and str(endpoint) == packet.remembered)
    return [(Outcome(Verdict.DELIVER, str(endpoint), masqueraded=True), relay) for endpoint in sticky or endpoints]


def _served(
    relay_port: int, content: o.TableContent, state: ProxyState, packet: Packet
) -> tuple[bool, tuple[Endpoint, ...]]:
    """Whether affinity holds behind a port of the relay, and the endpoints there."""
    for name in sorted(state.services):
        port = state.services[name]
        if port.protocol is not packet.protocol:
            continue
        choice = categorize(port, state.endpoints.get(name, ()), state.node)
        found = compile_port(port, choice, state.config)
        for local in found.pools:
            if recovered_port(found, local, content.elements) == relay_port:
                return bool(port.affinity_timeout_s), choice.local if local else choice.cluster
    return False, ()
