"""The API servers over one store: each keeps a record of itself, and those that live back the Service `kubernetes`.
A server alone on its store needs no record.

A server renews its record every ten seconds.  One whose record another server has not seen change for fifteen
seconds of its own clock is gone: nobody compares clocks.
Source: kube-apiserver's lease endpoint reconciler, pkg/controlplane/reconcilers/lease.go.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass

from svcplane.base.clock import Clock
from svcplane.base.errors import StoreError
from svcplane.base.tasks import cancel_and_wait
from svcplane.store.contract import Delete, PreconditionFailed, Put, Revision, Store, Transaction, Unchanged

log = logging.getLogger(__name__)
PREFIX = "/registry/masterleases/"
RENEW_S = 10.0
GONE_AFTER_S = 15.0


@dataclass(frozen=True, slots=True)
class Sighting:
    """A member's record as it was when it was first seen so, at `at_s`."""

    revision: Revision
    at_s: float


def sight(
    known: Mapping[str, Sighting], records: Mapping[str, Revision], now_s: float
) -> tuple[dict[str, Sighting], list[str]]:
    """What is known after another look, and who is gone.  Pure."""
    seen = {
        name: known[name] if name in known and known[name].revision == revision else Sighting(revision, now_s)
        for name, revision in records.items()
    }
    return seen, sorted(name for name, sighting in seen.items() if now_s - sighting.at_s > GONE_AFTER_S)


class Members:
    """`publish` is handed the addresses of all that live, in order, at each look.  `alone`: there is no other."""

    def __init__(
        self,
        store: Store,
        address: str,
        publish: Callable[[Sequence[str]], Awaitable[None]],
        clock: Clock,
        *,
        alone: bool = False,
    ) -> None:
        self._store, self._address, self._publish, self._clock = store, address, publish, clock
        self._alone = alone
        self._known: dict[str, Sighting] = {}
        self._task: asyncio.Task[None] | None = None

    async def join(self) -> None:
        """Show up, then stay."""
        await self._look()
        self._task = asyncio.create_task(self._stay(), name="members")

    async def _stay(self) -> None:
        while True:
            await self._clock.sleep(RENEW_S)
            try:
                await self._look()
            except StoreError as error:
                log.warning("this server's record was not renewed: error=%s", error)

    async def _look(self) -> None:
        if self._alone:
            await self._publish([self._address])
            return
        await self._store.commit(Transaction((Put(PREFIX + self._address, b""),)))
        page = await self._store.list(PREFIX)
        records = {item.key.removeprefix(PREFIX): item.revision for item in page.items}
        self._known, gone = sight(self._known, records, self._clock.now())
        for name in gone:
            log.info("an API server is gone: address=%s", name)
            with contextlib.suppress(PreconditionFailed):  # it came back just now
                key = PREFIX + name
                await self._store.commit(Transaction((Delete(key),), (Unchanged(key, records[name]),)))
        await self._publish(sorted(records.keys() - set(gone)))

    async def leave(self) -> None:
        """Go for good; the last one leaves its address, as there is no better."""
        if self._task is None:
            return
        await cancel_and_wait(self._task)
        if self._alone:
            return
        with contextlib.suppress(StoreError):
            await self._store.commit(Transaction((Delete(PREFIX + self._address),)))
            rest = [item.key.removeprefix(PREFIX) for item in (await self._store.list(PREFIX)).items]
            if rest:
                await self._publish(rest)
