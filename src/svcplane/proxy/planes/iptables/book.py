"""The desired chains of one node, kept as service ports change.  Pure.

`update` takes one service port's new fragment; `changes` gives the chains that differ since the last call.  Both cost
what changed, not what exists.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field

from svcplane.kernel.iptables.text import Rules
from svcplane.proxy.model import NodeConfig, ServicePortName
from svcplane.proxy.planes.iptables.compile import Fragment
from svcplane.proxy.planes.iptables.layout import TREES, fixed, shape, tails
from svcplane.proxy.planes.iptables.tree import Tree

Chain = tuple[str, str]  # table, name
EMPTY = Fragment()


@dataclass(frozen=True, slots=True)
class ChainChange:
    """`rules` None: the chain goes."""

    rules: Rules | None
    reason: str


@dataclass(slots=True)
class Book:
    """`tcp_be_liberal`: whether the kernel takes packets out of window as valid."""

    config: NodeConfig
    tcp_be_liberal: bool = False
    _fragments: dict[ServicePortName, Fragment] = field(default_factory=dict)
    _trees: dict[str, Tree] = field(default_factory=dict)
    _fixed: dict[Chain, Rules] = field(default_factory=dict)
    _tails: dict[Chain, Rules] = field(default_factory=dict)
    _pending: dict[Chain, ChainChange] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._trees = {name: Tree(shape(place, self.config.family)) for name, place in TREES.items()}
        self._fixed = fixed(self.config, tcp_be_liberal=self.tcp_be_liberal)
        self._tails = tails(self.config)
        for chain, rules in self._fixed.items():
            self._set(chain, None, rules, "always there")

    def update(self, name: ServicePortName, fragment: Fragment | None) -> None:
        before, after = self._fragments.get(name, EMPTY), fragment or EMPTY
        reason = f"service port {name}"
        for chain in (*before.chains, *(chain for chain in after.chains if chain not in before.chains)):
            self._set(("nat", chain), before.chains.get(chain), after.chains.get(chain), reason)
        kept = set(before.fronts).intersection(after.fronts)
        for front in after.fronts:
            if front not in kept:
                self._trees[front.tree].add(front.key, front.rule)
        for front in before.fronts:
            if front not in kept:
                self._trees[front.tree].remove(front.key, front.rule)
        if fragment is None:
            self._fragments.pop(name, None)
        else:
            self._fragments[name] = fragment

    def changes(self) -> dict[Chain, ChainChange]:
        for name, tree in self._trees.items():
            place = TREES[name]
            for chain, rules in tree.flush().items():
                if rules is not None and chain == place.root:
                    rules = (*rules, *self._tails.get((place.table, chain), ()))
                self._pending[place.table, chain] = ChainChange(rules, f"dispatch of {name}")
        found, self._pending = self._pending, {}
        return found

    def chains(self) -> Iterator[tuple[Chain, Rules]]:
        """Every chain, as of the last `changes`."""
        yield from self._fixed.items()
        for fragment in self._fragments.values():
            for chain, rules in fragment.chains.items():
                yield ("nat", chain), rules
        for name, tree in self._trees.items():
            place = TREES[name]
            for chain, rules in tree.chains():
                tail = self._tails.get((place.table, chain), ()) if chain == place.root else ()
                yield (place.table, chain), (*rules, *tail)

    def _set(self, chain: Chain, before: Rules | None, after: Rules | None, reason: str) -> None:
        if before != after:
            self._pending[chain] = ChainChange(after, reason)
