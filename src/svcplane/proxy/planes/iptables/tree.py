"""A tree of chains by address (or port), so that a new connection does not walk every Service.  Pure.

Rules have a key of `width` bits.  A chain with at most LEAF rules below it holds them all; a larger one jumps to one
chain for each narrower prefix, leaving out levels where there is only one.  What the chains are follows from the
rules alone, not from the order in which they came, so that a restarted proxy finds the chains it would write; and a
rule that comes or goes changes the chains of its own branch only.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

LEAF = 16
Node = tuple[int, int]  # prefix length, prefix value
Changes = dict[str, tuple[str, ...] | None]


@dataclass(frozen=True, slots=True)
class Shape:
    """`levels`: the prefix lengths, ascending, ending with the width; `jump(length, prefix)`: a node's match."""

    root: str
    levels: tuple[int, ...]
    jump: Callable[[int, int], str]
    chain: Callable[[int, int], str]

    @property
    def width(self) -> int:
        return self.levels[-1]


@dataclass(slots=True)
class Tree:
    """Add and remove rules, then take the changed chains from `flush`."""

    shape: Shape
    _rules: dict[int, dict[str, int]] = field(default_factory=dict)  # key -> rule -> how many want it
    _counts: dict[Node, int] = field(default_factory=dict)
    _below: dict[Node, dict[Node, None]] = field(default_factory=dict)
    _dirty: set[Node] = field(default_factory=set)
    _chains: dict[Node, tuple[str, ...]] = field(default_factory=dict)
    _parts: dict[Node, tuple[Node, ...]] = field(default_factory=dict)
    _parent: dict[Node, Node] = field(default_factory=dict)

    def add(self, key: int, rule: str) -> None:
        present = self._rules.setdefault(key, {})
        present[rule] = present.get(rule, 0) + 1
        if present[rule] > 1:
            return
        above: Node = (0, 0)
        self._counts[above] = self._counts.get(above, 0) + 1
        self._dirty.add(above)
        for length in self.shape.levels:
            node = (length, key >> (self.shape.width - length))
            self._counts[node] = self._counts.get(node, 0) + 1
            self._below.setdefault(above, {})[node] = None
            self._dirty.add(node)
            above = node

    def remove(self, key: int, rule: str) -> None:
        present = self._rules[key]
        present[rule] -= 1
        if present[rule]:
            return
        del present[rule]
        if not present:
            del self._rules[key]
        path = [(0, 0), *((length, key >> (self.shape.width - length)) for length in self.shape.levels)]
        for above, node in zip([None, *path], path, strict=False):
            self._dirty.add(node)
            self._counts[node] -= 1
            if not self._counts[node] and above is not None:
                del self._counts[node]
                self._below.pop(node, None)
                self._below.get(above, {}).pop(node, None)

    def flush(self) -> Changes:
        """Chains that differ since the last call, by name; None for one that goes."""
        changes: Changes = {}
        root: Node = (0, 0)
        if self._dirty or root not in self._chains:
            self._refresh(root, changes)
        self._dirty.clear()
        return changes

    def chains(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """All chains as of the last flush."""
        return ((self._name(node), rules) for node, rules in self._chains.items())

    def _name(self, node: Node) -> str:
        return self.shape.root if node == (0, 0) else self.shape.chain(*node)

    def _refresh(self, node: Node, changes: Changes) -> None:
        rules, parts = self._content(node)
        if self._chains.get(node) != rules:
            self._chains[node] = rules
            changes[self._name(node)] = rules
        before, self._parts[node] = self._parts.get(node, ()), parts
        for part in parts:
            fresh = part not in self._chains
            self._parent[part] = node
            if fresh or part in self._dirty:
                self._refresh(part, changes)
        for part in set(before).difference(parts):
            self._drop(part, node, changes)

    def _drop(self, node: Node, parent: Node, changes: Changes) -> None:
        if self._parent.get(node) != parent or node not in self._chains:
            return  # another chain jumps to it now
        del self._chains[node], self._parent[node]
        changes[self._name(node)] = None
        for part in self._parts.pop(node, ()):
            self._drop(part, node, changes)

    def _content(self, node: Node) -> tuple[tuple[str, ...], tuple[Node, ...]]:
        if self._counts.get(node, 0) <= LEAF:
            return tuple(self._all(node)), ()
        below = self._below[node]
        while len(below) == 1:
            (only,) = below
            if only[0] == self.shape.width:
                return tuple(self._all(only)), ()
            below = self._below[only]
        parts = tuple(sorted(below))
        return tuple(f"{self.shape.jump(*part)} -j {self.shape.chain(*part)}" for part in parts), parts

    def _all(self, node: Node) -> Iterator[str]:
        length, prefix = node
        if length == self.shape.width:
            yield from sorted(self._rules.get(prefix, ()))
            return
        for below in sorted(self._below.get(node, ())):
            yield from self._all(below)
