"""`iptables-save` -> chains.  Pure.  Source: iptables(8), iptables-extensions(8)."""

import shlex

from svcplane.kernel.ruleset.objects import Field, ForeignChain, ForeignRule, Match, Verb

#: Priority of each table's base chains, include/uapi/linux/netfilter_ipv4.h.
PRIORITY = {"raw": -300, "mangle": -150, "nat": -100, "filter": 0, "security": 50}
HOOKS = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_VALUED = {
    "-s": Field.SADDR,
    "-d": Field.DADDR,
    "-p": Field.PROTOCOL,
    "-i": Field.IIFNAME,
    "-o": Field.OIFNAME,
    "--sport": Field.SPORT,
    "--dport": Field.DPORT,
    "--sports": Field.SPORT,
    "--dports": Field.DPORT,
    "--ctstate": Field.CTSTATE,
    "--state": Field.CTSTATE,
    "--src-range": Field.SADDR,
    "--dst-range": Field.DADDR,
}
#: Matches whose presence alone decides nothing.
_HARMLESS = ("tcp", "udp", "sctp", "multiport", "conntrack", "state", "comment", "iprange")
_TARGETS = {"ACCEPT": Verb.ACCEPT, "DROP": Verb.DROP, "REJECT": Verb.REJECT, "RETURN": Verb.RETURN}
#: Targets that are no chains: the packet goes on.
_SIDE = ("MARK", "CONNMARK", "LOG", "NFLOG", "MASQUERADE", "SNAT", "DNAT", "REDIRECT", "TCPMSS", "CT", "SET", "NFQUEUE")


def parse(saved: str, family: str) -> dict[tuple[str, str, str], ForeignChain]:
    """`family`: ip or ip6."""
    found: dict[tuple[str, str, str], ForeignChain] = {}
    rules: dict[tuple[str, str, str], list[ForeignRule]] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:].strip()
        elif line.startswith(":"):
            name, policy, *_ = line[1:].split()
            hook = name.lower() if name in HOOKS else ""
            verb = Verb.DROP if policy == "DROP" else Verb.ACCEPT
            found[family, table, name] = ForeignChain(family, table, name, hook, PRIORITY.get(table, 0), verb)
        elif line.startswith("-A "):
            name = line.split(" ", 2)[1]
            rules.setdefault((family, table, name), []).append(_rule(line))
    return {
        place: ForeignChain(c.family, c.table, c.name, c.hook, c.priority, c.policy, tuple(rules.get(place, ())))
        for place, c in found.items()
    }


def _rule(line: str) -> ForeignRule:
    words = shlex.split(line)[2:]
    matches: list[Match] = []
    verb, target, negated = Verb.NONE, "", False
    place = 0
    while place < len(words):
        word = words[place]
        following = words[place + 1] if place + 1 < len(words) else ""
        place += 1
        if word == "!":
            negated = True
            continue
        if word in _VALUED:
            values = tuple(value.replace(":", "-") if _VALUED[word] in _PORTS else value for value in _split(following))
            matches.append(Match(_VALUED[word], values, negated))
            place += 1
        elif word == "-m":
            if following not in _HARMLESS:
                matches.append(Match(Field.OTHER, (following,)))
            place += 1
        elif word in ("-j", "-g"):
            verb, target = _verdict(word, following)
            break
        elif word == "--comment":
            place += 1
        negated = False
    return ForeignRule(tuple(matches), verb, target, line)


_PORTS = (Field.SPORT, Field.DPORT)


def _split(text: str) -> list[str]:
    return [part.lower() if part.isupper() else part for part in text.split(",")]


def _verdict(word: str, target: str) -> tuple[Verb, str]:
    if target in _TARGETS:
        return _TARGETS[target], ""
    if target in _SIDE:
        return Verb.NONE, ""
    return (Verb.JUMP if word == "-j" else Verb.GOTO), target
