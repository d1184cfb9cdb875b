"""What is in the kernel and a packet -> what happens to it, and its way for people.  Pure.

Follows the rules of `rules` and the kernel's IPVS on the sets, servers and targets that were read.
"""

from collections.abc import Sequence

from svcplane.base.net import contains, join_host_port
from svcplane.kernel.ipset.objects import Entry
from svcplane.kernel.ipvs.objects import ServerKey, Target
from svcplane.proxy.model import (
    DROPS,
    PASSES,
    REJECTS,
    DetectLocal,
    NodeConfig,
    Origin,
    Outcome,
    Packet,
    ProxyState,
    Verdict,
)
from svcplane.proxy.planes.ipvs import names as n
from svcplane.proxy.planes.ipvs.names import Kind
from svcplane.proxy.planes.ipvs.observe import Observed
from svcplane.proxy.planes.ipvs.plan import Live


class _Look:
    """Set lookups for one packet."""

    def __init__(self, live: Live, config: NodeConfig, packet: Packet) -> None:
        self._live, self._config, self._packet = live, config, packet
        self._dst = Entry(packet.dst, packet.protocol.lower(), packet.dport)

    def holds(self, kind: Kind) -> bool:
        return self._dst in self._live.entries[kind]

    def allowed(self) -> bool:
        entries = self._live.entries[Kind.ALLOWED]
        dst = (self._dst.ip, self._dst.protocol, self._dst.port)
        return any((e.ip, e.protocol, e.port) == dst and contains(e.other, self._packet.src) for e in entries)

    def loops_back(self, target: Target) -> bool:
        entry = Entry(target[0], self._packet.protocol.lower(), target[1], self._packet.src)
        return entry in self._live.entries[Kind.LOOP_BACK]

    def from_pod(self) -> bool:
        config = self._config
        match config.detect_local:
            case DetectLocal.CLUSTER_CIDR | DetectLocal.NODE_CIDR:
                return any(contains(cidr, self._packet.src) for cidr in config.local_cidrs)
            case DetectLocal.BRIDGE_INTERFACE:
                return bool(config.local_interface) and self._packet.in_interface == config.local_interface
            case DetectLocal.INTERFACE_NAME_PREFIX:
                return bool(config.local_interface) and self._packet.in_interface.startswith(config.local_interface)
            case _:
                return False


def _tells_pods(config: NodeConfig) -> bool:
    by_cidr = config.detect_local in (DetectLocal.CLUSTER_CIDR, DetectLocal.NODE_CIDR)
    return bool(config.local_cidrs if by_cidr else config.local_interface) and config.detect_local != DetectLocal.NONE


def trace(observed: Observed, state: ProxyState, packet: Packet) -> tuple[frozenset[Outcome], Sequence[str]]:
    """See the module's text.  `state` gives the node's configuration and addresses."""
    live, config = observed.live, state.config
    look = _Look(live, config, packet)
    way = []
    from_node = packet.origin is Origin.NODE or packet.src in state.node.local_addresses
    if look.holds(Kind.GUARDED):
        way.append(f"set {n.set_name(Kind.GUARDED, config.family)}: only chosen sources may")
        if not look.allowed():
            return frozenset({DROPS}), [*way, f"chain {n.GUARD}: {packet.src} is none of them: dropped"]
    if look.holds(Kind.ELSEWHERE) and not look.from_pod() and not from_node:
        return frozenset({DROPS}), [*way, f"chain {n.GUARD}: policy Local, and no endpoint is here: dropped"]
    masquerade = _masquerades(look, config, from_node=from_node)
    key = ServerKey(packet.protocol.lower(), packet.dst, packet.dport)
    found = live.servers.get(key)
    if found is None:
        if look.holds(Kind.HEALTH_CHECK):
            return frozenset({PASSES}), [*way, f"chain {n.INPUT}: a health check, which the proxy itself answers"]
        if packet.dst in live.addresses:
            return frozenset({REJECTS}), [*way, f"chain {n.INPUT}: no virtual server at {key}: rejected"]
        return frozenset({PASSES}), [*way, f"no virtual server at {key}"]
    server, weights = found
    way.append(f"virtual server {key} scheduler {server.scheduler}")
    targets = sorted(target for target, weight in weights.items() if weight)
    if not targets:
        return frozenset({REJECTS}), [*way, "it has no targets: refused"]
    if server.timeout_s and packet.remembered:
        way.append(f"persistence for {server.timeout_s} s: {packet.remembered}")
        targets = [target for target in targets if join_host_port(*target) == packet.remembered] or targets
    if masquerade:
        way.append(f"chain {n.SERVICES}: marked, to be masqueraded")
    outcomes = set()
    for target in targets:
        text = join_host_port(*target)
        hidden = masquerade or look.loops_back(target)
        outcomes.add(Outcome(Verdict.DELIVER, text, hidden))
        way.append(f"target {text} weight {weights[target]}")
    return frozenset(outcomes), way


def _masquerades(look: _Look, config: NodeConfig, *, from_node: bool) -> bool:
    if look.holds(Kind.CLUSTER_IP):
        # a process of this node has the service address itself as its source
        if config.masquerade_all or from_node:
            return True
        return _tells_pods(config) and not look.from_pod()
    return look.holds(Kind.EXTERNAL) or (look.holds(Kind.ELSEWHERE) and not look.from_pod())
