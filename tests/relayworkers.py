"""Relay workers without processes and sockets, for what is above them."""

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count

from svcplane.proxy.planes.userspace import wire

Slot = tuple[str, bool]


@dataclass(frozen=True)
class Place:
    protocol: str
    address: str
    port: int


class FakeWorkers:
    """Implements `relaying.RelayWorkers`; `services` and `slots` may be looked at."""

    def __init__(self) -> None:
        self.services: dict[str, wire.Serve] = {}
        self.slots: dict[Slot, Place] = {}
        self.intact = True
        self.closed = False
        self._numbers = count(40000)

    def serves(self, key: str) -> wire.Serve | None:
        return self.services.get(key)

    def open(self, slot: Slot, protocol: str, address: str, port: int) -> int:
        present = self.slots.get(slot)
        if present is not None and present.address == address:
            return present.port
        taken = {(place.protocol, place.port) for place in self.slots.values()}
        chosen = port if port and (protocol, port) not in taken else next(self._numbers)
        while (protocol, chosen) in taken:
            chosen = next(self._numbers)
        self.slots[slot] = Place(protocol, address, chosen)
        return chosen

    async def serve(self, services: Iterable[wire.Serve], opened: Iterable[Slot]) -> None:
        self.services.update({serve.key: serve for serve in services})
        assert all(slot in self.slots and slot[0] in self.services for slot in opened)

    async def drop(self, slots: Iterable[Slot], services: Iterable[str]) -> None:
        for slot in slots:
            del self.slots[slot]
        for key in services:
            self.services.pop(key, None)
            for slot in ((key, False), (key, True)):
                self.slots.pop(slot, None)

    async def tell(self, message: wire.ToWorker) -> None:
        return None

    async def ask(self, what: wire.Ask) -> list[wire.Answer]:
        return []

    def inherit(self) -> None:
        return None

    def disinherit(self, prefix: str) -> None:
        return None

    async def take_late(self) -> None:
        return None

    def retire(self) -> None:
        self.services.clear()
        self.slots.clear()
        self.closed = True
