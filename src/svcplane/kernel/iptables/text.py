"""iptables-save text in, iptables-restore text out.  Pure.

Content is table -> chain -> rules; a rule is what follows `-A CHAIN `, in the spelling of iptables-save.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

Rules = tuple[str, ...]
Tables = dict[str, dict[str, Rules]]


@dataclass(slots=True)
class TableChange:
    """One transaction of one table: `write` replaces whole chains (None removes one), `lines` run after that.

    A chain may be written while others refer to it; one that goes must not be referred to afterwards.
    """

    write: dict[str, Rules | None] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.write or self.lines)


def parse(saved: str) -> Tables:
    """Read `iptables-save` output; comments, policies and counters are left out."""
    tables: dict[str, dict[str, list[str]]] = {}
    chains: dict[str, list[str]] = {}
    for line in saved.splitlines():
        if line.startswith("*"):
            chains = tables.setdefault(line[1:], {})
        elif line.startswith(":"):
            chains.setdefault(line[1:].split()[0], [])
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            chains.setdefault(chain, []).append(rule)
    return {table: {chain: tuple(rules) for chain, rules in found.items()} for table, found in tables.items()}


def restore(changes: Mapping[str, TableChange]) -> str:
    """Input for `iptables-restore --noflush`; tables without a change are left out.

    With --noflush the declaration of a chain empties it, whether it was there or not.  Chains are in the order of
    their names: the tools' nft variant keeps a sorted list, and takes half as long again for one in disorder.
    """
    out: list[str] = []
    for table, change in changes.items():
        if not change:
            continue
        out.append(f"*{table}")
        write = dict(sorted(change.write.items()))
        out += [f":{chain} - [0:0]" for chain in write]
        for chain, rules in write.items():
            out += [f"-A {chain} {rule}" for rule in rules or ()]
        out += change.lines
        out += [f"-X {chain}" for chain, rules in write.items() if rules is None]
        out.append("COMMIT")
    return "\n".join([*out, ""]) if out else ""


def quoted(text: str) -> str:
    """A comment as iptables-save writes it: in quotes, with quotes and backslashes escaped."""
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


@lru_cache(maxsize=4096)
def odds(index: int, count: int) -> str:
    """The match that takes one of the `count - index` choices left, as iptables-save prints its 31-bit fraction."""
    left = count - index
    fraction = int(0x80000000 / left + 0.5) / 0x80000000
    return f"-m statistic --mode random --probability {fraction:.11f} "


def rule_count(chains: Mapping[str, Sequence[str]]) -> int:
    return sum(map(len, chains.values()))
