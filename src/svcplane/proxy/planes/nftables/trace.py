"""The table's own answer for a packet: its rules run on it.  Pure.

Hooks follow each other as in the kernel: prerouting (or output, for what this node sends), then input or
forward as the address is this node's or not, then postrouting for what leaves or goes on.
"""

import ipaddress
from dataclasses import replace

from svcplane.base.net import join_host_port
from svcplane.kernel.nft import objects as o
from svcplane.kernel.nft.interpreter import End, Flow, Interpreter
from svcplane.proxy.model import DROPS, PASSES, REJECTS, Origin, Outcome, Packet, ProxyState, Verdict
from svcplane.proxy.planes.nftables import names as n


def trace(content: o.TableContent, state: ProxyState, packet: Packet) -> tuple[frozenset[Outcome], list[str]]:
    """Possible outcomes, and the way of the packet (of one outcome each) for people."""
    local = frozenset(n.packed_ip(ip) for ip in state.node.local_addresses)
    if packet.remembered:
        content = remember(content, packet)
    interpreter = Interpreter(content, local)
    iifname = packet.in_interface if packet.origin is not Origin.NODE else ""
    source, target = n.packed_ip(packet.src), n.packed_ip(packet.dst)
    flow = Flow(source, target, n.PROTOCOL_NUMBER[packet.protocol], packet.dport, iifname)
    if packet.origin is Origin.NODE:
        ends = _onward(interpreter.run(o.Hook.OUTPUT, flow), interpreter, local, own=True)
    else:
        ends = _onward(interpreter.run(o.Hook.PREROUTING, flow), interpreter, local, own=False)
    outcomes, ways = set(), []
    for end in ends:
        outcome = _outcome(end)
        if outcome not in outcomes:
            outcomes.add(outcome)
            ways.append(f"{' -> '.join(end.way)} => {outcome.verdict} {outcome.endpoint}".rstrip())
    return frozenset(outcomes), ways


def _onward(ends: list[End], interpreter: Interpreter, local: frozenset[bytes], *, own: bool) -> list[End]:
    done: list[End] = []
    for end in ends:
        if not end.goes_on:
            done.append(end)
            continue
        here = end.flow.daddr in local or ipaddress.ip_address(end.flow.daddr).is_loopback
        hooks = (
            (o.Hook.POSTROUTING, o.Hook.INPUT)
            if own and here
            else (o.Hook.POSTROUTING,)
            if own
            else (o.Hook.INPUT,)
            if here
            else (o.Hook.FORWARD, o.Hook.POSTROUTING)
        )
        done += _through(hooks, end, interpreter)
    return done


def _through(hooks: tuple[o.Hook, ...], end: End, interpreter: Interpreter) -> list[End]:
    ends = [end]
    for hook in hooks:
        following: list[End] = []
        for current in ends:
            if not current.goes_on:
                following.append(current)
                continue
            for after in interpreter.run(hook, current.flow):
                following.append(replace(after, way=(*current.way, *after.way)))
        ends = following
    return ends


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
    """The content as if affinity had remembered `packet.remembered` for the packet's source, in each pool."""
    by_data = content.elements.get("endpoints-by-id", {})
    host, _, port = packet.remembered.rpartition(":")
    wanted = n.endpoint_data(host.strip("[]"), int(port))
    remembered = dict(content.elements.get("affinity", {}))
    source = n.packed_ip(packet.src)
    for key, element in by_data.items():
        if element.data == wanted:
            place = source + key[:4]
            remembered[place] = o.Element(place, key[4:])
    copy = o.TableContent(content.chains, content.rules, content.sets, dict(content.elements))
    copy.elements["affinity"] = remembered
    return copy
