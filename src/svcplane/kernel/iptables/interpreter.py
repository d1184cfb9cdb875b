"""What a set of iptables rules does with a packet.  Pure.

Matches and targets of the kinds service proxies write are evaluated; a rule with any other is taken as not
matching, and the way says so.  A random choice gives one end for each branch, with its probability.
Source: iptables(8), iptables-extensions(8).
"""

import ipaddress
from collections.abc import Iterator
from dataclasses import dataclass, replace

from svcplane.kernel.iptables.rule import Match, Rule, read_rule
from svcplane.kernel.iptables.text import Tables

_DEPTH = 64


@dataclass(frozen=True, slots=True)
class Flow:
    """The first packet of a connection.  `remembered`: the endpoint that `recent` lists hold for its source."""

    src: str
    dst: str
    protocol: str
    dport: int
    in_interface: str = ""
    remembered: str = ""
    mark: int = 0
    dnat: str = ""  # `ip:port` it was translated to
    masqueraded: bool = False
    ended: str = ""  # ACCEPT of the present table; DROP and REJECT for good
    probability: float = 1.0
    way: tuple[str, ...] = ()

    @property
    def lost(self) -> bool:
        return self.ended in ("DROP", "REJECT")


class Interpreter:
    """`local`: this host's addresses.  Nothing is remembered between calls of `run`."""

    def __init__(self, tables: Tables, local: frozenset[str]) -> None:
        self._tables, self._local = tables, local

    def run(self, table: str, hook: str, flow: Flow) -> list[Flow]:
        """Every end of the packet in a base chain; one not `lost` goes on."""
        start = replace(flow, ended="", way=(*flow.way, f"{table} {hook}"))
        ends = [] if hook not in self._tables.get(table, {}) else list(self._chain(table, hook, start, 0))
        return ends or [start]

    def is_local(self, ip: str) -> bool:
        return ip in self._local or ipaddress.ip_address(ip).is_loopback

    def _chain(self, table: str, chain: str, flow: Flow, depth: int) -> Iterator[Flow]:
        """Walk a chain; a flow that falls off its end comes out with nothing in `ended`."""
        here = [flow]
        rules = self._tables[table].get(chain, ())
        if depth > _DEPTH:
            rules = ()
        for text in rules:
            rule = read_rule(text)
            following: list[Flow] = []
            for current in here:
                for taken in self._apply(table, chain, text, rule, current, depth):
                    if taken.ended == "RETURN" or taken.ended in ("ACCEPT", "DROP", "REJECT"):
                        yield replace(taken, ended="") if taken.ended == "RETURN" else taken
                    else:
                        following.append(taken)
            here = following
            if not here:
                return
        yield from here

    def _apply(self, table: str, chain: str, text: str, rule: Rule, flow: Flow, depth: int) -> Iterator[Flow]:
        probability = 1.0
        for match in rule.matches:
            verdict = self._matches(match, rule, flow)
            if verdict is None:
                yield replace(flow, way=(*flow.way, f"{chain}: cannot evaluate `{text}`, taken as not matching"))
                return
            if verdict == 0.0:
                yield flow
                return
            probability *= verdict
        if probability < 1.0:
            yield replace(flow, probability=flow.probability * (1 - probability))
        hit = replace(flow, probability=flow.probability * probability)
        yield from self._target(table, chain, text, rule, hit, depth)

    def _target(self, table: str, chain: str, text: str, rule: Rule, flow: Flow, depth: int) -> Iterator[Flow]:
        seen = replace(flow, way=(*flow.way, f"{chain}: {text}"))
        match rule.target:
            case "":
                yield flow
            case "ACCEPT" | "DROP" | "RETURN" | "REJECT":
                yield replace(seen, ended=rule.target)
            case "DNAT":
                yield replace(seen, dnat=rule.option("to-destination") or "", ended="ACCEPT")
            case "MASQUERADE" | "SNAT":
                yield replace(seen, masqueraded=True, ended="ACCEPT")
            case "MARK":
                yield replace(seen, mark=_marked(seen.mark, rule))
            case target if target in self._tables[table]:
                for end in self._chain(table, target, seen, depth + 1):
                    yield replace(end, ended="RETURN") if rule.goto and not end.ended else end
            case _:
                yield replace(flow, way=(*flow.way, f"{chain}: cannot evaluate `{text}`"))

    def _matches(self, match: Match, rule: Rule, flow: Flow) -> float | None:
        """The probability that the packet matches; None where this reader does not know the match."""
        if match.name == "" or match.module == "comment":
            return 1.0
        known = self._one(match, rule, flow)
        return known if known is None or not match.inverted else 1.0 - known

    def _one(self, match: Match, rule: Rule, flow: Flow) -> float | None:
        dst, dport = _destination(flow)
        value = match.value
        match match.module, match.name:
            case "", "s":
                return float(_inside(flow.src, value))
            case "", "d":
                return float(_inside(dst, value))
            case "", "p":
                return float(value in (flow.protocol, "all"))
            case "", "i":
                return float(_interface(flow.in_interface, value))
            case "tcp" | "udp" | "sctp", "dport":
                low, _, high = value.partition(":")
                return float(match.module == flow.protocol and int(low) <= dport <= int(high or low))
            case "mark", "mark":
                wanted, _, mask = value.partition("/")
                return float(flow.mark & int(mask or "0xffffffff", 0) == int(wanted, 0))
            case "conntrack", "ctstate":
                return float(any(state == "NEW" or (state == "DNAT" and flow.dnat) for state in value.split(",")))
            case "addrtype", "dst-type" | "src-type" if value == "LOCAL":
                return float(self.is_local(dst if match.name == "dst-type" else flow.src))
            case "statistic", "mode":
                return 1.0
            case "statistic", "probability":
                return float(value)
            case "recent", "rcheck" | "update":
                return float(bool(flow.remembered) and rule.option("to-destination") == flow.remembered)
            case "recent", _:
                return 1.0
            case _:
                return None


def _destination(flow: Flow) -> tuple[str, int]:
    if not flow.dnat:
        return flow.dst, flow.dport
    host, _, port = flow.dnat.rpartition(":")
    return host.strip("[]"), int(port)


def _inside(ip: str, cidr: str) -> bool:
    network = ipaddress.ip_network(cidr, strict=False)
    return ipaddress.ip_address(ip) in network


def _interface(name: str, pattern: str) -> bool:
    return name.startswith(pattern[:-1]) if pattern.endswith("+") else name == pattern


def _marked(mark: int, rule: Rule) -> int:
    text = rule.option("set-xmark") or rule.option("set-mark")
    if text is not None:
        value, _, mask = text.partition("/")
        return (mark & ~int(mask or "0xffffffff", 0)) ^ int(value, 0)
    text = rule.option("or-mark")
    if text is not None:
        return mark | int(text, 0)
    text = rule.option("xor-mark")
    return mark ^ int(text, 0) if text is not None else mark
