"""The table's own answer for a packet: its rules run on it.  Pure."""

import ipaddress

from svcplane.base.net import join_host_port
from svcplane.kernel.nft import objects as o
from svcplane.kernel.nft.interpreter import End, Flow
from svcplane.kernel.nft.walk import walk
from svcplane.proxy.model import DROPS, PASSES, REJECTS, Origin, Outcome, Packet, ProxyState, Verdict
from svcplane.proxy.planes.nftables import names as n


def trace(content: o.TableContent, state: ProxyState, packet: Packet) -> tuple[frozenset[Outcome], list[str]]:
    """Possible outcomes, and the way of the packet (of one outcome each) for people."""
    local = frozenset(n.packed_ip(ip) for ip in state.node.local_addresses)
    if packet.remembered:
        content = remember(content, packet)
    iifname = packet.in_interface if packet.origin is not Origin.NODE else ""
    source, target = n.packed_ip(packet.src), n.packed_ip(packet.dst)
    flow = Flow(source, target, n.PROTOCOL_NUMBER[packet.protocol], packet.dport, iifname)
    ends = walk(content, local, flow, own=packet.origin is Origin.NODE)
    outcomes, ways = set(), []
    for end in ends:
        outcome = _outcome(end)
        if outcome not in outcomes:
            outcomes.add(outcome)
            ways.append(f"{' -> '.join(end.way)} => {outcome.verdict} {outcome.endpoint}".rstrip())
    return frozenset(outcomes), ways


def _outcome(end: End) -> Outcome:
    if end.dropped:
        return DROPS
    if end.rejected:
        return REJECTS
    if not end.flow.dnatted:
        return PASSES
    address = str(ipaddress.ip_address(end.flow.daddr))
    return Outcome(Verdict.DELIVER, join_host_port(address, end.flow.dport), end.flow.masqueraded)


def remember(content: o.TableContent, packet: Packet) -> o.TableContent:
    """The content as if affinity had remembered `packet.remembered` for the packet's source, in each service port."""
    by_data = content.elements.get("endpoints-by-id", {})
    host, _, port = packet.remembered.rpartition(":")
    wanted = n.endpoint_data(host.strip("[]"), int(port))
    remembered = dict(content.elements.get("affinity", {}))
    source = n.packed_ip(packet.src)
    for key, element in by_data.items():
        if element.data == wanted:
            place = source + n.word(n.owner_of(n.unword(key[:4])))
            remembered[place] = o.Element(place, key[4:])
    copy = o.TableContent(content.chains, content.rules, content.sets, dict(content.elements))
    copy.elements["affinity"] = remembered
    return copy
