"""Deletes Events some time after they were last written, so that they do not fill the store.

kube-apiserver gives each write of an Event a lease in etcd (`--event-ttl`); here the time of the last write is read
from the object itself, which works in every store, and a round deletes what is due.  Watchers see the deletion
either way.  Source: pkg/registry/core/event/storage/storage.go.
"""

import asyncio
import logging

from svcplane.api import codec
from svcplane.api.resources import EVENTS
from svcplane.api.strategy import Tree
from svcplane.base.clock import Clock, parse_rfc3339
from svcplane.base.errors import StoreError
from svcplane.store.contract import Delete, KeyValue, PreconditionFailed, Store, Transaction, Unchanged

log = logging.getLogger(__name__)
TTL_S = 3600.0
PAGE = 200
OFTENEST_S, SELDOMEST_S = 1.0, 300.0


def written_at(event: Tree) -> float:
    """When it was last written, in seconds of wall time; what this server noted, not what the client says of it."""
    meta = event["metadata"]
    times = [meta.get("creationTimestamp"), *(entry.get("time") for entry in meta.get("managedFields", []))]
    return max((parse_rfc3339(time) or 0.0 for time in times if time), default=0.0)


class EventExpiry:
    """`ttl_s`: for how long an Event is kept after its last write."""

    def __init__(self, store: Store, clock: Clock, ttl_s: float = TTL_S) -> None:
        self._store, self._clock, self._ttl_s = store, clock, ttl_s

    async def run(self) -> None:
        """Until cancelled.  An Event outlives its time by a twelfth of it at most, and by five minutes."""
        while True:
            await self._clock.sleep(min(max(self._ttl_s / 12, OFTENEST_S), SELDOMEST_S))
            try:
                await self.expire()
            except StoreError as error:
                log.warning("old Events were not deleted: %s", error)

    async def expire(self) -> int:
        """Delete what is due; how many."""
        count, after, due = 0, "", self._clock.wall() - self._ttl_s
        while True:
            page = await self._store.list(EVENTS.key_prefix(), limit=PAGE, after_key=after)
            for item in page.items:
                if written_at(codec.load(item.value, item.revision, EVENTS)) <= due:
                    count += await self._delete(item)
            if not page.remaining or not page.items:
                return count
            after = page.items[-1].key
            await asyncio.sleep(0)  # others go on meanwhile

    async def _delete(self, item: KeyValue) -> bool:
        try:
            await self._store.commit(Transaction((Delete(item.key),), (Unchanged(item.key, item.revision),)))
        except PreconditionFailed:
            return False  # written again, or deleted by another server
        return True
