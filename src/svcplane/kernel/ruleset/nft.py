"""`nft -j list ruleset` -> chains.  Pure.  Source: libnftables-json(5)."""

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from svcplane.kernel.ruleset.objects import Field, ForeignChain, ForeignRule, Match, Verb

Tree = Mapping[str, Any]
Sets = Mapping[tuple[str, str, str], Any]
_PAYLOAD = {
    ("ip", "saddr"): Field.SADDR,
    ("ip6", "saddr"): Field.SADDR,
    ("ip", "daddr"): Field.DADDR,
    ("ip6", "daddr"): Field.DADDR,
    ("ip", "protocol"): Field.PROTOCOL,
    ("ip6", "nexthdr"): Field.PROTOCOL,
}
_META = {"iifname": Field.IIFNAME, "oifname": Field.OIFNAME, "iif": Field.IIFNAME, "oif": Field.OIFNAME}
_META |= {"l4proto": Field.PROTOCOL}
_TRANSPORT = ("tcp", "udp", "sctp", "th", "udplite", "dccp")
_VERBS = {"accept": Verb.ACCEPT, "drop": Verb.DROP, "return": Verb.RETURN, "reject": Verb.REJECT}


def parse(text: bytes, skip: Iterable[tuple[str, str]] = ()) -> dict[tuple[str, str, str], ForeignChain]:
    """`skip`: tables (family, name) to leave out.  Families other than ip, ip6 and inet do not matter here."""
    left_out = frozenset(skip)
    items: list[Tree] = msgspec.json.decode(text).get("nftables", [])
    sets: dict[tuple[str, str, str], Any] = {}
    heads: dict[tuple[str, str, str], Tree] = {}
    rules: dict[tuple[str, str, str], list[ForeignRule]] = {}
    for item in items:
        for kind, value in item.items():
            if kind not in ("set", "chain", "rule") or value["family"] not in ("ip", "ip6", "inet"):
                continue
            if (value["family"], value["table"]) in left_out:
                continue
            place = (value["family"], value["table"], value["chain"] if kind == "rule" else value["name"])
            if kind == "set":
                sets[place] = value.get("elem") or []
            elif kind == "chain":
                heads[place] = value
            else:
                rules.setdefault(place, []).append(_rule(value, sets))
    return {place: _chain(place, head, rules.get(place, [])) for place, head in heads.items()}


def _chain(place: tuple[str, str, str], head: Tree, rules: list[ForeignRule]) -> ForeignChain:
    policy = Verb.DROP if head.get("policy") == "drop" else Verb.ACCEPT
    return ForeignChain(*place, str(head.get("hook") or ""), int(head.get("prio") or 0), policy, tuple(rules))


def _rule(value: Tree, sets: Sets) -> ForeignRule:
    matches: list[Match] = []
    verb, target = Verb.NONE, ""
    for expression in value.get("expr") or ():
        # a statement without arguments may be a word alone
        named: Tree = {expression: None} if isinstance(expression, str) else expression
        for kind, body in named.items():
            if kind == "match":
                matches += _match(value, body, sets)
            elif kind in _VERBS:
                verb = _VERBS[kind]
            elif kind in ("jump", "goto"):
                verb, target = Verb(kind), body["target"]
            elif kind in ("vmap", "xt"):
                matches.append(Match(Field.OTHER, (kind,)))
            elif kind == "limit":
                matches.append(Match(Field.OTHER, ("limit",)))
    return ForeignRule(tuple(matches), verb, target, _text(value, matches, verb, target))


def _match(rule: Tree, body: Tree, sets: Sets) -> list[Match]:
    left, values = body.get("left"), _values(rule, body.get("right"), sets)
    negated = body.get("op") == "!="
    plain = body.get("op") in ("==", "!=", "in")
    if not isinstance(left, Mapping) or values is None or not plain:
        return [Match(Field.OTHER, (_short(left),))]
    if "meta" in left and left["meta"].get("key") in _META:
        return [Match(_META[left["meta"]["key"]], values, negated)]
    if "ct" in left and left["ct"].get("key") == "state":
        return [Match(Field.CTSTATE, values, negated)]
    payload = left.get("payload")
    if isinstance(payload, Mapping):
        protocol, name = str(payload.get("protocol")), str(payload.get("field"))
        known = _PAYLOAD.get((protocol, name))
        if known is not None:
            return [Match(known, values, negated)]
        if protocol in _TRANSPORT and name in ("sport", "dport"):
            ports = Match(Field(name), values, negated)
            return [ports] if protocol == "th" else [Match(Field.PROTOCOL, (protocol,)), ports]
    return [Match(Field.OTHER, (_short(left),))]


def _short(left: Any) -> str:
    return msgspec.json.encode(left).decode()[:80]


def _values(rule: Tree, right: Any, sets: Sets) -> tuple[str, ...] | None:
    """None where they are not simple values."""
    if isinstance(right, str) and right.startswith("@"):
        return _values(rule, sets.get((rule["family"], rule["table"], right[1:])), sets)
    if isinstance(right, (str, int)):
        return (str(right),)
    if isinstance(right, list):
        found = [_values(rule, item, sets) for item in right]
        return None if None in found else tuple(value for group in found for value in group or ())
    if isinstance(right, Mapping):
        if "set" in right:
            return _values(rule, right["set"], sets)
        if "prefix" in right:
            return (f"{right['prefix']['addr']}/{right['prefix']['len']}",)
        if "range" in right:
            low, high = right["range"]
            return (f"{low}-{high}",)
        if "elem" in right:
            return _values(rule, right["elem"].get("val"), sets)
    return None


def _text(value: Tree, matches: list[Match], verb: Verb, target: str) -> str:
    said = " ".join(f"{match.field}{' !=' if match.negated else ''} {','.join(match.values)}" for match in matches)
    comment = f' comment "{value["comment"]}"' if value.get("comment") else ""
    return f"{said} {verb} {target}".strip() + comment + f" (handle {value.get('handle')})"
