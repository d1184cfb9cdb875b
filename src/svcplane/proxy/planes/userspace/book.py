"""Which element each service port wants, and which one holds where several want the same key.  Pure."""

from collections.abc import Iterable, Mapping

from svcplane.proxy.model import ServicePortName
from svcplane.proxy.planes.userspace.compile import Data, Place


class Absent:
    """Stands for an element that is not there (None is the data of a set's element)."""


ABSENT = Absent()


class Book:
    """Of several claims the one of the first service port by name holds, whatever came first."""

    def __init__(self) -> None:
        self._of: dict[ServicePortName, Mapping[Place, Data]] = {}
        self._claims: dict[Place, dict[ServicePortName, Data]] = {}

    @property
    def names(self) -> Iterable[ServicePortName]:
        return self._of.keys()

    def put(self, name: ServicePortName, wanted: Mapping[Place, Data]) -> set[Place]:
        """What a service port wants from now on (nothing: it is forgotten); the places that may differ."""
        before = self._of.pop(name, {})
        if wanted:
            self._of[name] = wanted
        changed = {place for place in before if place not in wanted or before[place] != wanted[place]}
        changed |= {place for place in wanted if place not in before}
        for place in changed:
            claims = self._claims.setdefault(place, {})
            if place in wanted:
                claims[name] = wanted[place]
            else:
                claims.pop(name, None)
            if not claims:
                del self._claims[place]
        return changed

    def holds(self, place: Place) -> Data | Absent:
        claims = self._claims.get(place)
        return claims[min(claims)] if claims else ABSENT

    def owner(self, place: Place) -> ServicePortName | None:
        claims = self._claims.get(place)
        return min(claims) if claims else None

    def places(self) -> Iterable[Place]:
        return self._claims.keys()
