"""ipset in memory, with the contract of the kernel's."""

from collections.abc import Iterable, Mapping

from svcplane.kernel.ipset.objects import Entry, IpsetError, Set, Size


class FakeIpset:
    """Implements `objects.Ipset`.  `content` may be looked at and changed."""

    def __init__(self) -> None:
        self.content: dict[str, tuple[Set, set[Entry]]] = {}
        self.in_use: set[str] = set()  # what a rule refers to

    async def available(self) -> bool:
        return True

    async def read(self, names: Iterable[str]) -> Mapping[str, tuple[Set, frozenset[Entry]]]:
        found = {name: self.content[name] for name in names if name in self.content}
        return {name: (set_, frozenset(entries)) for name, (set_, entries) in found.items()}

    async def sizes(self, names: Iterable[str]) -> Mapping[str, Size]:
        return {
            name: Size(len(self.content[name][1]), int(name in self.in_use)) for name in names if name in self.content
        }

    async def create(self, set_: Set) -> None:
        if set_.name in self.content:
            raise IpsetError(f"set {set_.name}: File exists")
        self.content[set_.name] = (set_, set())

    def _entries(self, set_: Set) -> set[Entry]:
        if set_.name not in self.content:
            raise IpsetError(f"set {set_.name}: No such file or directory")
        return self.content[set_.name][1]

    async def add(self, set_: Set, entries: Iterable[Entry]) -> None:
        there = self._entries(set_)
        for entry in entries:
            if entry not in there and len(there) >= set_.max_entries:
                raise IpsetError(f"set {set_.name}: the set is full")
            there.add(entry)

    async def delete(self, set_: Set, entries: Iterable[Entry]) -> None:
        self._entries(set_).difference_update(entries)

    async def destroy(self, name: str) -> None:
        if name in self.in_use:
            raise IpsetError(f"set {name} cannot be removed: a rule refers to it")
        self.content.pop(name, None)

    async def close(self) -> None:
        """Nothing is held."""
