"""All fragments together: what is wanted of each key, and which keys an update may have changed.  Pure.

Two service ports may want the same key (one external IP and port in two Services): the first by name has it, and the
other comes in when it goes.  An update costs what the service port has, never what exists.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from svcplane.kernel.ipset.objects import Entry
from svcplane.kernel.ipvs.objects import ServerKey
from svcplane.proxy.model import ServicePortName
from svcplane.proxy.planes.ipvs.compile import Fragment, Wanted
from svcplane.proxy.planes.ipvs.names import Kind

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Claims(Generic[K, V]):
    """Who wants what of each key."""

    def __init__(self) -> None:
        self._by_key: dict[K, dict[ServicePortName, V]] = {}

    def replace(self, name: ServicePortName, old: Iterable[K], new: Mapping[K, V]) -> set[K]:
        """One owner's claims anew; the keys it had or has."""
        seen = set(new)
        for key in old:
            seen.add(key)
            if key not in new:
                claims = self._by_key[key]
                del claims[name]
                if not claims:
                    del self._by_key[key]
        for key, value in new.items():
            self._by_key.setdefault(key, {})[name] = value
        return seen

    def get(self, key: K) -> V | None:
        claims = self._by_key.get(key)
        return claims[min(claims)] if claims else None

    def owner(self, key: K) -> ServicePortName | None:
        claims = self._by_key.get(key)
        return min(claims) if claims else None

    def __iter__(self) -> Iterator[K]:
        return iter(self._by_key)

    def __contains__(self, key: object) -> bool:
        return key in self._by_key

    def __len__(self) -> int:
        return len(self._by_key)


@dataclass(slots=True)
class Keys:
    """Keys to look at."""

    servers: set[ServerKey] = field(default_factory=set)
    entries: set[tuple[Kind, Entry]] = field(default_factory=set)
    addresses: set[str] = field(default_factory=set)


class Book:
    """The desired state by key."""

    def __init__(self) -> None:
        self.fragments: dict[ServicePortName, Fragment] = {}
        self.servers: Claims[ServerKey, Wanted] = Claims()
        self.entries: Claims[tuple[Kind, Entry], bool] = Claims()
        self.addresses: Claims[str, bool] = Claims()

    def update(self, name: ServicePortName, fragment: Fragment | None, keys: Keys) -> None:
        """Take a service port's present fragment (None: it is gone); `keys` gets what may have changed."""
        old = self.fragments.pop(name, None) or Fragment()
        new = fragment or Fragment()
        if fragment is not None:
            self.fragments[name] = fragment
        if old == new:
            return
        keys.servers |= self.servers.replace(name, (key for key, _ in old.servers), dict(new.servers))
        keys.entries |= self.entries.replace(name, old.entries, dict.fromkeys(new.entries, True))
        keys.addresses |= self.addresses.replace(name, old.addresses, dict.fromkeys(new.addresses, True))
