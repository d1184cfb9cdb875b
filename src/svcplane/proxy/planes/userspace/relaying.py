"""The relay as the planes of both families see it: service ports in, listening addresses out.

The workers are started by the first service port.  Where this process ends they go on, for the next proxy to take over;
when the last family is dissolved they take nobody new and end with their last connection.
"""

from collections.abc import Iterable, Mapping
from typing import Literal, Protocol

from svcplane.base.net import Family
from svcplane.proxy.model import ServicePortName
from svcplane.proxy.planes.userspace import names as n
from svcplane.proxy.planes.userspace import wire
from svcplane.proxy.planes.userspace.balance import Address
from svcplane.proxy.planes.userspace.compile import Fragment
from svcplane.proxy.planes.userspace.ports import Elements, recovered_port

Fragments = Mapping[ServicePortName, Fragment | None]
Slot = tuple[str, bool]  # key of the service port, whether for its local pool


class Listening(Protocol):
    """Where a slot listens."""

    @property
    def address(self) -> str: ...

    @property
    def port(self) -> int: ...


class RelayWorkers(Protocol):
    """What is asked of `workers.Workers`; tests have one without processes."""

    @property
    def intact(self) -> bool: ...

    @property
    def slots(self) -> Mapping[Slot, Listening]: ...

    def serves(self, key: str) -> wire.Serve | None: ...

    def open(self, slot: Slot, protocol: str, address: str, port: int) -> int: ...

    async def serve(self, services: Iterable[wire.Serve], opened: Iterable[Slot]) -> None: ...

    async def drop(self, slots: Iterable[Slot], services: Iterable[str]) -> None: ...

    async def tell(self, message: wire.ToWorker) -> None: ...

    async def ask(self, what: wire.Ask) -> list[wire.Answer]: ...

    def inherit(self) -> None: ...

    def disinherit(self, prefix: str) -> None: ...

    async def take_late(self) -> None: ...

    def retire(self) -> None: ...


class Relaying:
    """See the module's text."""

    def __init__(self, workers: RelayWorkers) -> None:
        self._workers = workers
        self._families: set[Family] = set()

    @property
    def intact(self) -> bool:
        """Whether all workers are alive."""
        return self._workers.intact

    async def serve(
        self, family: Family, address: str, fragments: Fragments, hints: Mapping[Slot, int]
    ) -> dict[ServicePortName, dict[bool, Address]]:
        """Listen for each pool of the service ports at `address` (on the hinted port where that is free), and let
        the workers know what they are; returns where each pool is listened for."""
        self._families.add(family)
        self._workers.inherit()
        relays: dict[ServicePortName, dict[bool, Address]] = {}
        opened: list[Slot] = []
        changed: list[wire.Serve] = []
        for name, fragment in fragments.items():
            found = relays[name] = {}
            if fragment is None or fragment.serve is None:
                continue
            if self._workers.serves(fragment.serve.key) != fragment.serve:
                changed.append(fragment.serve)
            for local in fragment.pools:
                slot = fragment.serve.key, local
                before = self._workers.slots.get(slot)
                port = self._workers.open(slot, fragment.serve.protocol, address, hints.get(slot, 0))
                if self._workers.slots[slot] is not before:
                    opened.append(slot)
                found[local] = address, port
        if changed or opened or not self._workers.intact:
            await self._workers.serve(changed, opened)
        return relays

    def foresee(
        self, family: Family, address: str, fragments: Fragments, elements: Elements
    ) -> dict[ServicePortName, dict[bool, Address]]:
        """Where `serve` would listen; port 0 stands for one that is not known yet."""
        relays: dict[ServicePortName, dict[bool, Address]] = {}
        for name, fragment in fragments.items():
            found = relays[name] = {}
            for local in fragment.pools if fragment is not None else ():
                if fragment is None or fragment.serve is None:
                    continue
                slot = self._workers.slots.get((fragment.serve.key, local))
                if slot is not None and slot.address == address:
                    found[local] = address, slot.port
                else:
                    found[local] = address, recovered_port(fragment, local, elements)
        return relays

    async def drop(self, family: Family, fragments: Fragments) -> None:
        """Close what these service ports do not want any more; None: all of it."""
        gone: list[str] = []
        unwanted: list[Slot] = []
        for name, fragment in fragments.items():
            key = n.service_key(family, name)
            if fragment is None or fragment.serve is None:
                if self._workers.serves(key) is not None:
                    gone.append(key)
                continue
            unwanted += [
                (key, local)
                for local in (False, True)
                if local not in fragment.pools and (key, local) in self._workers.slots
            ]
        if gone or unwanted:
            await self._workers.drop(unwanted, gone)

    async def keep_only(self, family: Family, fragments: Fragments) -> None:
        """Close all of a family that these service ports do not want."""
        await self.drop(family, fragments)
        wanted = {n.service_key(family, name) for name in fragments}
        prefix = n.service_prefix(family)
        gone = {key for key, _ in self._workers.slots if key.startswith(prefix) and key not in wanted}
        if gone:
            await self._workers.drop((), sorted(gone))
        self._workers.disinherit(prefix)

    async def take_late(self) -> None:
        """Take over from a proxy that ended only after this one began."""
        await self._workers.take_late()

    def leave(self, family: Family) -> None:
        """The proxy ends, and another one may come: the end of this process is what lets the workers go."""
        self._families.discard(family)

    async def dissolve(self, family: Family) -> None:
        """Nothing of the family is relayed any more, by an earlier proxy's workers either."""
        self._workers.inherit()
        await self.keep_only(family, {})
        self._families.discard(family)
        if not self._families:
            self._workers.retire()

    async def ask(self, what: Literal["connections", "endpoints", "affinity"]) -> list[wire.Answer]:
        return await self._workers.ask(wire.Ask(what))

    async def tell(self, message: wire.ToWorker) -> None:
        await self._workers.tell(message)
