"""The live rules' own answer for a packet.  Pure.

Tables follow each other as in the kernel: nat then filter in each hook; input where the address is this host's, else
forward; postrouting for what goes on.
"""

from svcplane.kernel.iptables.interpreter import Flow, Interpreter
from svcplane.kernel.iptables.text import Tables
from svcplane.proxy.model import DROPS, PASSES, REJECTS, Origin, Outcome, Packet, ProxyState, Verdict


def trace(tables: Tables, state: ProxyState, packet: Packet) -> tuple[frozenset[Outcome], list[str]]:
    """Possible outcomes, and the way of the packet to each, with its probability, for people."""
    interpreter = Interpreter(tables, frozenset(state.node.local_addresses))
    own = packet.origin is Origin.NODE
    interface = "" if own else packet.in_interface
    flow = Flow(packet.src, packet.dst, packet.protocol.lower(), packet.dport, interface, packet.remembered)
    chances: dict[Outcome, float] = {}
    ways: dict[Outcome, tuple[str, ...]] = {}
    for first in interpreter.run("nat", "OUTPUT" if own else "PREROUTING", flow):
        for end in _onward(interpreter, first, own=own):
            outcome = _outcome(end)
            chances[outcome] = chances.get(outcome, 0.0) + end.probability
            ways.setdefault(outcome, end.way)
    lines = [
        f"{' -> '.join(ways[outcome])} => {outcome.verdict} {outcome.endpoint}".rstrip() + f" ({chances[outcome]:.1%})"
        for outcome in ways
    ]
    return frozenset(ways), lines


def _onward(interpreter: Interpreter, flow: Flow, *, own: bool) -> list[Flow]:
    host = flow.dnat.rpartition(":")[0].strip("[]") or flow.dst
    here = interpreter.is_local(host)
    hooks = [("filter", "OUTPUT")] if own else []
    if here:
        hooks.append(("filter", "INPUT"))
    elif not own:
        hooks.append(("filter", "FORWARD"))
    if own or not here:
        hooks.append(("nat", "POSTROUTING"))
    ends = [flow]
    for table, hook in hooks:
        following: list[Flow] = []
        for current in ends:
            following += [current] if current.lost else interpreter.run(table, hook, current)
        ends = following
    return ends


def _outcome(flow: Flow) -> Outcome:
    if flow.ended == "DROP":
        return DROPS
    if flow.ended == "REJECT":
        return REJECTS
    if not flow.dnat:
        return PASSES
    return Outcome(Verdict.DELIVER, flow.dnat, flow.masqueraded)
