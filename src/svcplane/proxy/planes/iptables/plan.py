"""From what is there and what is wanted to transactions, and what they are for.  Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from svcplane.kernel.iptables.rule import read_rule
from svcplane.kernel.iptables.text import Rules, TableChange, Tables
from svcplane.proxy.plane import Operation
from svcplane.proxy.planes.iptables.book import Chain, ChainChange
from svcplane.proxy.planes.iptables.layout import HOOKS
from svcplane.proxy.planes.iptables.names import OURS

SHOWN = 1000


@dataclass(slots=True)
class Draft:
    """`tables` in the order in which they are to be written; `operations` are the first SHOWN."""

    tables: dict[str, TableChange] = field(default_factory=lambda: {"nat": TableChange(), "filter": TableChange()})
    operations: list[Operation] = field(default_factory=list)
    count: int = 0

    def note(self, verb: str, what: str, reason: str) -> None:
        self.count += 1
        if len(self.operations) < SHOWN:
            self.operations.append(Operation(verb, what, reason))

    def write(self, chain: Chain, rules: Rules | None, reason: str, *, present: bool) -> None:
        table, name = chain
        self.tables[table].write[name] = rules
        verb = "delete" if rules is None else "replace" if present else "add"
        self.note(verb, f"chain {name} of table {table}", reason)


def difference(changes: Mapping[Chain, ChainChange], live: Mapping[Chain, int]) -> Draft:
    """What a change of some chains is; `live` has the chains that are there."""
    draft = Draft()
    for chain, change in changes.items():
        draft.write(chain, change.rules, change.reason, present=chain in live)
    return draft


def takeover(wanted: Mapping[Chain, tuple[Rules, str]], observed: Tables) -> Draft:
    """Everything from what is there, ours of before or kube-proxy's, to `wanted` (rules and why)."""
    draft = Draft()
    for chain, (rules, reason) in wanted.items():
        present = observed.get(chain[0], {}).get(chain[1])
        if present != rules:
            draft.write(chain, rules, reason, present=present is not None)
    _stale(draft, wanted, observed)
    for table, hooks in HOOKS.items():
        lines = draft.tables[table].lines
        for base in dict.fromkeys(base for base, _ in hooks):
            mine = [rule for where, rule in hooks if where == base]
            there = _jumps(observed, table, base)
            if there == mine:
                continue
            lines += [f"-D {base} {rule}" for rule in there]
            lines += [f"-I {base} {rule}" for rule in reversed(mine)]
            draft.note("replace" if there else "add", f"jumps of {base} of table {table}", "packets come in here")
    return draft


def removal(observed: Tables) -> Draft:
    """Take everything that is ours out of every table."""
    draft = Draft()
    for table in observed:
        if table in draft.tables:
            for base in dict.fromkeys(base for base, _ in HOOKS[table]):
                draft.tables[table].lines += [f"-D {base} {rule}" for rule in _jumps(observed, table, base)]
    _stale(draft, {}, observed)
    return draft


def as_left(wanted: Mapping[Chain, Rules], observed: Tables) -> bool:
    """Whether all chains and jumps are as they were written."""
    if any(observed.get(table, {}).get(name) != rules for (table, name), rules in wanted.items()):
        return False
    bases = {(table, base) for table, hooks in HOOKS.items() for base, _ in hooks}
    return all(
        _jumps(observed, table, base) == [rule for where, rule in HOOKS[table] if where == base]
        for table, base in bases
    )


def _jumps(observed: Tables, table: str, base: str) -> list[str]:
    """Rules of a built-in chain that jump to chains of ours, in their order."""
    return [rule for rule in observed.get(table, {}).get(base, ()) if OURS.match(_target(rule))]


def _target(rule: str) -> str:
    if " KUBE-" not in rule and not rule.startswith("-j"):
        return ""
    return read_rule(rule).target


def _stale(draft: Draft, wanted: Iterable[Chain], observed: Tables) -> None:
    """Chains of ours that nothing wants go; one that others' rules jump to is emptied, for they own the jump."""
    keep = set(wanted)
    for table, chains in observed.items():
        if table not in draft.tables:
            continue
        bases = {base for base, _ in HOOKS[table]}
        others = {
            _target(rule)
            for name, rules in chains.items()
            if name not in bases and not OURS.match(name)
            for rule in rules
        }
        for name, rules in chains.items():
            if not OURS.match(name) or (table, name) in keep:
                continue
            if name not in others:
                draft.write((table, name), None, "nothing needs it", present=True)
            elif rules:
                draft.write((table, name), (), "nothing needs it, but a rule of somebody jumps to it", present=True)
