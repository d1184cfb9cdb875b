"""One iptables rule, read: its matches and its target.  Pure.

Source: iptables-extensions(8); only the options that service proxies write are given a meaning, the rest is kept
as unknown so that a reader can say so.
"""

import functools
import shlex
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Match:
    """`name` is the option without dashes (`s`, `dport`, `ctstate`); `module` the extension it belongs to."""

    module: str
    name: str
    value: str = ""
    inverted: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """`options` are the target's own (`to-destination`)."""

    matches: tuple[Match, ...]
    target: str
    options: tuple[tuple[str, str], ...] = ()
    goto: bool = False

    def option(self, name: str) -> str | None:
        return dict(self.options).get(name)


# options that stand alone
_LONE = frozenset({"rcheck", "update", "set", "remove", "reap", "rsource", "rdest", "rttl", "random", "random-fully"})
_SHORT = {"source": "s", "destination": "d", "protocol": "p", "in-interface": "i", "out-interface": "o"}


@functools.lru_cache(maxsize=200_000)
def read_rule(text: str) -> Rule:
    """Read what follows `-A CHAIN `.  Unknown options come out as matches of their names."""
    tokens = shlex.split(text)
    matches: list[Match] = []
    options: list[tuple[str, str]] = []
    module, target, goto, inverted, at = "", "", False, False, 0
    while at < len(tokens):
        token = tokens[at]
        at += 1
        if token == "!":  # noqa: S105
            inverted = True
            continue
        name = token.lstrip("-")
        name = _SHORT.get(name, name)
        value = ""
        if name not in _LONE and at < len(tokens) and not (tokens[at].startswith("-") or tokens[at] == "!"):
            value = tokens[at]
            at += 1
        if name in ("j", "g", "jump", "goto") and not target:
            target, goto = value, name[0] == "g"
        elif target:
            options.append((name, value))
        elif name in ("m", "match"):
            module = value
            matches.append(Match(module, "", ""))
        else:
            own = "" if token.startswith("-") and not token.startswith("--") else module
            matches.append(Match(own, name, value, inverted))
        inverted = False
    return Rule(tuple(matches), target, tuple(options), goto)
