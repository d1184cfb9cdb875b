"""Rules as far as addresses, ports, protocols and interfaces decide; what else a rule asks is Other.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum


class Field(StrEnum):
    SADDR = "saddr"
    DADDR = "daddr"
    SPORT = "sport"
    DPORT = "dport"
    PROTOCOL = "protocol"
    IIFNAME = "iifname"
    OIFNAME = "oifname"
    CTSTATE = "ctstate"
    OTHER = "other"  # anything that is not modelled: may match or not


@dataclass(frozen=True, slots=True)
class Match:
    """`values`: addresses and CIDRs, `low-high` ranges, names (a trailing `*` or `+` is a prefix), states.

    One of them must fit; negated: none.
    """

    field: Field
    values: tuple[str, ...]
    negated: bool = False


class Verb(StrEnum):
    ACCEPT = "accept"
    DROP = "drop"
    REJECT = "reject"
    RETURN = "return"
    JUMP = "jump"
    GOTO = "goto"
    NONE = "none"  # the rule only does something by the way


@dataclass(frozen=True, slots=True)
class ForeignRule:
    """`text` is what a person would look for."""

    matches: tuple[Match, ...]
    verb: Verb
    target: str = ""
    text: str = ""


@dataclass(frozen=True, slots=True)
class ForeignChain:
    """`hook` empty: reached by jumps only.  `family`: ip, ip6 or inet."""

    family: str
    table: str
    name: str
    hook: str = ""
    priority: int = 0
    policy: Verb = Verb.ACCEPT
    rules: tuple[ForeignRule, ...] = ()

    @property
    def key(self) -> tuple[str, str, str]:
        return self.family, self.table, self.name


@dataclass(frozen=True, slots=True)
class Ruleset:
    """`unread`: what could not be read, and why."""

    chains: Mapping[tuple[str, str, str], ForeignChain] = field(default_factory=dict)
    unread: tuple[str, ...] = ()

    def hooked(self, hook: str) -> list[ForeignChain]:
        """Base chains of a hook in the order the kernel runs them."""
        return sorted((c for c in self.chains.values() if c.hook == hook), key=lambda chain: chain.priority)

    @property
    def tables(self) -> frozenset[tuple[str, str]]:
        return frozenset((chain.family, chain.table) for chain in self.chains.values())
