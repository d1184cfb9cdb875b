"""What a running proxy tells of the kernel's state, for people elsewhere: pages of its inspection socket.

Each is read anew, by a plane of its own, and changes nothing.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace

import msgspec

from svcplane.base.net import canonical_ip, family_of
from svcplane.kernel.routes import way_to
from svcplane.kernel.ruleset.run import read as read_rules
from svcplane.proxy import oracle
from svcplane.proxy.family import FamilyProxy
from svcplane.proxy.inspect import Query, plain
from svcplane.proxy.model import Origin, Outcome, Packet, Protocol, ProxyState
from svcplane.proxy.oracle import ModeTraits, frontend_of
from svcplane.proxy.ours import may_be_ours
from svcplane.proxy.plane import AffinityEntry, LiveRule, Operation, Plane
from svcplane.proxy.planes import make_plane

STATE, RULES, TRACE, FOREIGN = "/state", "/rules", "/trace", "/foreign"
NODE = "/node"
#: Those that the agent of a node passes on to who may ask it.
PAGES = (STATE, RULES, TRACE, FOREIGN)
#: Rules told at once; `words` finds others.
LIMIT = 2000
Pages = dict[str, Callable[[Query], Awaitable[bytes]]]


class FamilyRule(msgspec.Struct, frozen=True):
    """A rule and the family whose kernel objects have it."""

    family: str
    place: str
    rule: str
    purpose: str
    service: str

    @classmethod
    def of(cls, family: str, rule: LiveRule) -> "FamilyRule":
        return cls(family, rule.place, rule.rule, rule.purpose, rule.service)

    def has(self, words: Sequence[str]) -> bool:
        text = f"{self.place} {self.rule} {self.purpose} {self.service} {self.family}".lower()
        return all(word in text for word in words)


class LiveRules(msgspec.Struct, frozen=True):
    """`found`: how many have the words asked for, of `total`; `rules`: the first of them.

    `drift`: what a repair would do now, where the kernel is not as desired.
    """

    mode: str
    total: int
    found: int
    rules: tuple[FamilyRule, ...]
    drift: tuple[Operation, ...]


class LiveTrace(msgspec.Struct, frozen=True):
    """What the kernel's rules do with a packet; `packet` as this node sees it."""

    packet: Packet
    outcomes: tuple[Outcome, ...]
    ways: tuple[str, ...]


def pages(families: Sequence[FamilyProxy]) -> Pages:
    """Of a proxy; `families` are its own, whose planes may change."""

    async def rules(query: Query) -> bytes:
        words = query.get("words", "").lower().split()
        found: list[FamilyRule] = []
        drift: list[Operation] = []
        for family in families:
            if family.plane is not None:
                async with _looking(family.plane.mode, family.state) as plane:
                    label = family.label
                    found += [FamilyRule.of(label, rule) for rule in await plane.rules(family.state)]
                    drift += await plane.plan(family.state)
        chosen = [rule for rule in found if rule.has(words)] if words else found
        modes = {family.plane.mode for family in families if family.plane is not None}
        return plain(LiveRules(", ".join(sorted(modes)), len(found), len(chosen), tuple(chosen[:LIMIT]), tuple(drift)))

    async def trace(query: Query) -> bytes:
        """Raises ValueError for a query that is no packet."""
        packet = _packet(query)
        for family in families:
            if family.plane is not None and family.state.config.family is family_of(packet.dst):
                return plain(await _traced(family, family.plane, packet))
        raise ValueError(f"the proxy of this node does not serve {family_of(packet.dst).api_name}")

    async def foreign(query: Query) -> bytes:
        """Everybody else's chains."""
        found = (await read_rules()).chains.values()
        return plain([chain for chain in found if not may_be_ours(chain)])

    async def node(query: Query) -> bytes:
        """Whose proxy this is."""
        return plain(families[0].state.node.name)

    return {RULES: rules, TRACE: trace, FOREIGN: foreign, NODE: node}


@asynccontextmanager
async def _looking(mode: str, state: ProxyState) -> AsyncIterator[Plane]:
    plane = make_plane(mode, state.config)
    try:
        yield plane
    finally:
        await plane.close()


def _packet(query: Query) -> Packet:
    src, dst, port = canonical_ip(query.get("src", "")), canonical_ip(query.get("dst", "")), query.get("dport", "")
    if src is None or dst is None or not port.isdigit():
        raise ValueError("a packet needs src, dst and dport")
    return Packet(
        Origin(query.get("origin", Origin.OUTSIDE)), src, dst, Protocol(query.get("protocol", Protocol.TCP)), int(port)
    )


async def _traced(family: FamilyProxy, live: Plane, packet: Packet) -> LiveTrace:
    state = family.state
    traits = getattr(oracle, live.mode.upper(), ModeTraits())
    if packet.src in state.node.local_addresses:
        packet = replace(packet, origin=Origin.NODE)
    if packet.origin is not Origin.NODE:
        way = await way_to(packet.src)
        packet = replace(packet, in_interface=way.interface if way is not None else "")
    packet = replace(packet, remembered=_remembered(await live.affinity(state), state, packet, traits))
    async with _looking(live.mode, state) as plane:
        outcomes, ways = await plane.trace(state, packet)
    return LiveTrace(packet, tuple(sorted(outcomes)), tuple(ways))


def _remembered(entries: Sequence[AffinityEntry], state: ProxyState, packet: Packet, traits: ModeTraits) -> str:
    """The endpoint affinity holds for the source, where the Service has affinity."""
    front = frontend_of(state, packet, traits)
    if front is None or not front.port.affinity_timeout_s:
        return ""
    held = (e.endpoint for e in entries if (e.client, e.service) == (packet.src, front.port.name))
    return next(held, "")
