"""Whose rules, beside the proxy's, drop a Service's packets.  Pure.

A packet is run through everybody's base chains.  What a rule asks beyond addresses, ports, protocol, interfaces and
state is unknown: such a rule may match.  A drop that is reached by sure matches only is sure, another is possible.
"""

import ipaddress
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import Enum

from svcplane.base.net import contains, family_of
from svcplane.kernel.ruleset.objects import Field, ForeignChain, ForeignRule, Match, Ruleset, Verb

_DEPTH = 16
#: Where addresses are translated, include/uapi/linux/netfilter_ipv4.h: base chains at a higher number see the result.
DSTNAT, SRCNAT = -100, 100


@dataclass(frozen=True, slots=True)
class Probed:
    """A packet of a connection at some hook; empty, or 0, is what is not known of it.  `state`: new, established."""

    src: str
    dst: str
    protocol: str  # tcp, udp, sctp
    dport: int
    iifname: str = ""
    oifname: str = ""
    sport: int = 0
    state: str = "new"


@dataclass(frozen=True, slots=True)
class Stage:
    """A hook on the way, of its base chains those between two priorities, and the packet they see."""

    hook: str
    packet: Probed
    lowest: float = -math.inf
    highest: float = math.inf


@dataclass(frozen=True, slots=True)
class Drop:
    """Who drops it, or may.  `hook`: that of the base chain from which the rule is reached."""

    chain: ForeignChain
    rule: str
    verb: Verb
    sure: bool
    hook: str = ""

    def __str__(self) -> str:
        at = f" (at {self.hook})" if self.hook and self.hook != self.chain.name.lower() else ""
        where = f"{self.chain.family} table {self.chain.table}, chain {self.chain.name}{at}"
        return f"{where}: {self.rule}"


class _Fits(Enum):
    YES, NO, MAYBE = "yes", "no", "maybe"


class _End(Enum):
    ACCEPTED, STOPPED, FELL_OFF, RETURNED = range(4)


def drops(
    rules: Ruleset, stage: Stage, is_ours: Callable[[ForeignChain], bool], *, possible: bool = False
) -> list[Drop]:
    """Sure drops of the packet at a stage by chains that are not ours; with `possible` those that may be, too."""
    found: list[Drop] = []
    for chain in rules.hooked(stage.hook):
        inside = stage.lowest <= chain.priority <= stage.highest
        if not inside or is_ours(chain) or not _concerns(chain, stage.packet):
            continue
        for drop in _run(rules, chain, stage.packet, is_ours):
            if drop.sure or possible:
                found.append(drop)
    return found


def _concerns(chain: ForeignChain, packet: Probed) -> bool:
    wanted = "ip6" if ":" in packet.dst + packet.src else "ip"
    return chain.family in ("inet", wanted)


def _run(rules: Ruleset, chain: ForeignChain, packet: Probed, is_ours: Callable[[ForeignChain], bool]) -> list[Drop]:
    found: list[Drop] = []
    walker = _Walker(rules, packet, is_ours, chain)
    end = walker.walk(chain, sure=True, depth=0, found=found)
    if end in (_End.FELL_OFF, _End.RETURNED) and chain.policy is Verb.DROP:
        text = "its policy is drop, and no rule accepts this"
        found.append(Drop(chain, text, Verb.DROP, sure=not walker.may_accept, hook=chain.hook))
    return found


class _Walker:
    """One packet in one base chain.  `may_accept`: some rule may accept it before what follows."""

    def __init__(
        self, rules: Ruleset, packet: Probed, is_ours: Callable[[ForeignChain], bool], base: ForeignChain
    ) -> None:
        self._rules, self._packet, self._is_ours, self._base = rules, packet, is_ours, base
        self.may_accept = False

    def walk(self, chain: ForeignChain, *, sure: bool, depth: int, found: list[Drop]) -> _End:
        if depth > _DEPTH or (depth and self._is_ours(chain)):
            return _End.FELL_OFF
        for rule in chain.rules:
            fits = _fits_all(rule, self._packet)
            if fits is _Fits.NO:
                continue
            certain = sure and fits is _Fits.YES
            end = self._obey(chain, rule, certain=certain, depth=depth, found=found)
            if end is not None and fits is _Fits.YES:
                return end
        return _End.FELL_OFF

    def _obey(
        self, chain: ForeignChain, rule: ForeignRule, *, certain: bool, depth: int, found: list[Drop]
    ) -> _End | None:
        """How the chain is left at a rule that fits; None: it is not."""
        match rule.verb:
            case Verb.DROP | Verb.REJECT:
                sure = certain and not self.may_accept
                found.append(Drop(chain, rule.text, rule.verb, sure, self._base.hook))
                return _End.STOPPED
            case Verb.ACCEPT:
                self.may_accept = self.may_accept or not certain
                return _End.ACCEPTED
            case Verb.RETURN:
                self.may_accept = self.may_accept or not certain
                return _End.RETURNED
            case Verb.JUMP | Verb.GOTO:
                target = self._rules.chains.get((chain.family, chain.table, rule.target))
                if target is None:
                    self.may_accept = True
                    return None
                end = self.walk(target, sure=certain, depth=depth + 1, found=found)
                if end in (_End.ACCEPTED, _End.STOPPED) or rule.verb is Verb.GOTO:
                    return end
        return None


def _fits_all(rule: ForeignRule, packet: Probed) -> _Fits:
    seen = {_fits(match, packet) for match in rule.matches}
    if _Fits.NO in seen:
        return _Fits.NO
    return _Fits.MAYBE if _Fits.MAYBE in seen else _Fits.YES


def _fits(match: Match, packet: Probed) -> _Fits:
    known = {
        Field.SADDR: packet.src,
        Field.DADDR: packet.dst,
        Field.PROTOCOL: packet.protocol,
        Field.SPORT: str(packet.sport or ""),
        Field.DPORT: str(packet.dport or ""),
        Field.IIFNAME: packet.iifname,
        Field.OIFNAME: packet.oifname,
        Field.CTSTATE: packet.state,
    }
    value = known.get(match.field, "")
    if not value:
        return _Fits.MAYBE
    one = any(_holds(match.field, wanted, value) for wanted in match.values)
    return _Fits.YES if one is not match.negated else _Fits.NO


def _holds(field: Field, wanted: str, value: str) -> bool:
    match field:
        case Field.SADDR | Field.DADDR:
            return _holds_address(wanted, value)
        case Field.SPORT | Field.DPORT:
            low, _, high = wanted.partition("-")
            return low.isdigit() and int(low) <= int(value) <= int(high or low)
        case Field.IIFNAME | Field.OIFNAME:
            return value.startswith(wanted[:-1]) if wanted[-1:] in ("*", "+") else value == wanted
        case Field.PROTOCOL:
            numbers = {"6": "tcp", "17": "udp", "132": "sctp"}
            return wanted in (value, "all") or numbers.get(wanted) == value
        case _:
            return wanted.lower() == value


def _holds_address(wanted: str, value: str) -> bool:
    if family_of(wanted) is not family_of(value):
        return False
    try:
        if "-" in wanted:
            low, high = map(ipaddress.ip_address, wanted.split("-"))
            return low <= ipaddress.ip_address(value) <= high  # type: ignore[operator]
        return contains(wanted, value) if "/" in wanted else ipaddress.ip_address(wanted) == ipaddress.ip_address(value)
    except ValueError:
        return False


@dataclass(frozen=True, slots=True)
class Connection:
    """From `client` to a frontend (`vip`, `port`) and on to an endpoint; the same twice where nothing translates.

    `own`: made on this node; `local`: it ends in a process of this node.  Interfaces are those by which it comes to
    and leaves this node, empty where that is not known.
    """

    client: str
    vip: str
    port: int
    endpoint: str
    endpoint_port: int
    protocol: str
    own: bool = False
    local: bool = False
    iifname: str = ""
    oifname: str = ""


def stages(way: Connection, mode: str) -> Iterator[Stage]:
    """What a connection passes on this node in a proxy mode, and what it looks like there; answers come last."""
    before = Probed(way.client, way.vip, way.protocol, way.port)
    after = Probed(way.client, way.endpoint, way.protocol, way.endpoint_port)
    if mode == "userspace" and (way.vip, way.port) != (way.endpoint, way.endpoint_port):
        yield from _relayed(way, before, after)
        return
    if mode == "ipvs" and (way.vip, way.port) != (way.endpoint, way.endpoint_port):
        yield from _by_ipvs(way, before, after)
    elif way.own:
        yield Stage("output", before, highest=DSTNAT)
        yield Stage("output", after, lowest=DSTNAT + 1)
    else:
        yield from _arriving(way, before, after)
        onward = replace(after, iifname=way.iifname)
        yield Stage("input", onward) if way.local else Stage("forward", replace(onward, oifname=way.oifname))
    if way.own or not way.local or mode == "ipvs":
        yield Stage("postrouting", replace(after, oifname=way.oifname), highest=SRCNAT)
    yield _answer(way)


def _arriving(way: Connection, before: Probed, after: Probed) -> Iterator[Stage]:
    yield Stage("prerouting", replace(before, iifname=way.iifname), highest=DSTNAT)
    yield Stage("prerouting", replace(after, iifname=way.iifname), lowest=DSTNAT + 1)


def _by_ipvs(way: Connection, before: Probed, after: Probed) -> Iterator[Stage]:
    """Virtual servers take packets of this node at output, others at input, and send them on through output.

    Source: net/netfilter/ipvs/ip_vs_core.c, ip_vs_xmit.c.
    """
    if not way.own:
        yield Stage("prerouting", replace(before, iifname=way.iifname))
        yield Stage("input", replace(before, iifname=way.iifname), highest=SRCNAT - 3)
    else:
        yield Stage("output", before)
    yield Stage("output", replace(after, oifname=way.oifname))


def _relayed(way: Connection, before: Probed, after: Probed) -> Iterator[Stage]:
    """To the relay on this node, at an address and a port that are its affair, and from it to the endpoint."""
    to_relay = replace(before, dst="", dport=0)
    if way.own:
        yield Stage("output", before, highest=DSTNAT)
        yield Stage("output", to_relay, lowest=DSTNAT + 1)
    else:
        yield from _arriving(way, before, to_relay)
    yield Stage("input", replace(to_relay, iifname="lo" if way.own else way.iifname))
    from_relay = replace(after, src="", oifname=way.oifname)
    yield Stage("output", from_relay)
    yield Stage("postrouting", from_relay, highest=SRCNAT)
    back = _answer(replace(way, own=True))
    yield replace(back, packet=replace(back.packet, dst=""))


def _answer(way: Connection) -> Stage:
    """What comes back, past the translations back to the client's address, before that of the Service's."""
    back = Probed(way.endpoint, way.client, way.protocol, 0, way.oifname, way.iifname, way.endpoint_port, "established")
    if way.own:
        return Stage("input", replace(back, oifname=""))
    return Stage("output", replace(back, iifname="")) if way.local else Stage("forward", back)
