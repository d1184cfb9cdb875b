"""What a running proxy tells of clients and connections that it alone knows: pages of its inspection socket.

In most modes the kernel remembers clients and counts flows, for anybody to read.  A relaying mode keeps both in the
proxy's own processes.
"""

from collections.abc import Awaitable, Callable, Iterator, Sequence
from typing import cast

import msgspec

from svcplane.base.errors import SvcplaneError
from svcplane.proxy.family import RELAYING, FamilyProxy
from svcplane.proxy.inspect import Query, look, plain
from svcplane.proxy.model import ProxyState
from svcplane.proxy.plane import AffinityEntry, Relayed, RelayedConnection, RelayingPlane

AFFINITY, FORGET, RELAYED, CONNECTIONS = "/affinity", "/forget", "/relayed", "/connections"
Pages = dict[str, Callable[[Query], Awaitable[bytes]]]


def pages(families: Sequence[FamilyProxy]) -> Pages:
    """Of a proxy; `families` are its own, whose planes may change."""

    async def affinity(query: Query) -> bytes:
        """Remembered clients."""
        return plain([entry for _, entry in await _remembered(families)])

    async def forget(query: Query) -> bytes:
        """Forget the `client` of a `service` port; what was forgotten."""
        doomed = [
            (family, entry)
            for family, entry in await _remembered(families)
            if (entry.client, str(entry.service)) == (query.get("client"), query.get("service"))
        ]
        for family, entry in doomed:
            assert family.plane is not None
            await family.plane.forget_affinity(entry)
        return plain([entry for _, entry in doomed])

    async def relayed(query: Query) -> bytes:
        """What was relayed to each endpoint; nothing in a mode in which the kernel translates."""
        return plain([one for plane, state in _relaying(families) for one in await plane.relayed(state)])

    async def connections(query: Query) -> bytes:
        """What is relayed at this moment."""
        return plain([one for plane, state in _relaying(families) for one in await plane.relayed_connections(state)])

    return {AFFINITY: affinity, FORGET: forget, RELAYED: relayed, CONNECTIONS: connections}


def _relaying(families: Sequence[FamilyProxy]) -> Iterator[tuple[RelayingPlane, ProxyState]]:
    for family in families:
        if family.plane is not None and family.plane.mode in RELAYING:
            yield cast("RelayingPlane", family.plane), family.state


async def _remembered(families: Sequence[FamilyProxy]) -> list[tuple[FamilyProxy, AffinityEntry]]:
    found = []
    for family in families:
        if family.plane is not None:
            found += [(family, entry) for entry in await family.plane.affinity(family.state)]
    return found


# -- for who looks -------------------------------------------------------------------------------------------------


async def remembered() -> tuple[AffinityEntry, ...]:
    """By the proxy of this network namespace; nothing where none runs."""
    body = await look(AFFINITY)
    return msgspec.json.decode(body, type=tuple[AffinityEntry, ...]) if body is not None else ()


async def forget(entry: AffinityEntry) -> None:
    """Raises SvcplaneError where no proxy runs."""
    if await look(FORGET, {"client": entry.client, "service": str(entry.service)}) is None:
        raise SvcplaneError("the proxy of this node has ended meanwhile")


async def relayed() -> tuple[Relayed, ...]:
    body = await look(RELAYED)
    return msgspec.json.decode(body, type=tuple[Relayed, ...]) if body is not None else ()


async def relayed_connections() -> tuple[RelayedConnection, ...]:
    body = await look(CONNECTIONS)
    return msgspec.json.decode(body, type=tuple[RelayedConnection, ...]) if body is not None else ()
