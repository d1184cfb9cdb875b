"""The store over etcd: commits are etcd transactions, reads come from memory once that is new enough.

One watch of etcd feeds a `memory.Core`, which serves lists, old revisions and watches as it does for the other
stores.  Before a read the newest revision is asked of etcd (one small question for all reads that wait), and the
read goes on when the Core has reached it: reads are linearizable, and cost etcd nothing but that.  kube-apiserver
reads in the same way (KEP-2340, consistent reads from cache); it learns of revisions that are not its own from
etcd's progress messages, which are unreliable before 3.4.25 and 3.5.8, so here the watch is over every key.
"""

import asyncio
import base64
import contextlib
import heapq
import logging
import time
from collections.abc import Sequence

from svcplane.base.clock import SYSTEM_CLOCK, Clock
from svcplane.base.errors import StoreError
from svcplane.base.tasks import cancel_and_wait
from svcplane.store.contract import (
    Compacted,
    Event,
    KeyValue,
    Page,
    PreconditionFailed,
    Revision,
    Transaction,
)
from svcplane.store.etcd import wire
from svcplane.store.etcd.gateway import EtcdAccess, Gateway, RevisionGone, TooLarge, compacted_watch
from svcplane.store.history import History
from svcplane.store.memory import Core, CoreWatch, Staged

log = logging.getLogger(__name__)
#: How many revisions back a start reads, so that clients of another server can resume their watches here.
BACKFILL = 20_000
PAGE = 500
LAG_TIMEOUT_S = 5.0
START_PATIENCE_S = 10.0
RETRY_S = (0.05, 2.0)
COMPACT_EVERY_S = 300.0


class Waiters:
    """Those who wait for the Core to reach a revision."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, asyncio.Future[None]]] = []
        self._count = 0

    def add(self, revision: Revision) -> asyncio.Future[None]:
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._count += 1
        heapq.heappush(self._heap, (revision, self._count, done))
        return done

    def reached(self, revision: Revision) -> None:
        while self._heap and self._heap[0][0] <= revision:
            done = heapq.heappop(self._heap)[2]
            if not done.done():
                done.set_result(None)


def _seen(task: asyncio.Task[None]) -> None:
    """Whoever asked may have gone away; the error is theirs alone."""
    if not task.cancelled():
        task.exception()


class EtcdStore:
    """Implements `contract.Store`.  Make one with `await EtcdStore.open(access)`."""

    def __init__(self, gateway: Gateway, keys: wire.Keyspace) -> None:
        self._gateway, self._keys = gateway, keys
        self._core = Core(History(Revision(1)))
        self._waiters = Waiters()
        self._asking: asyncio.Task[None] | None = None  # will ask etcd once the one before has its answer
        self._asked: asyncio.Task[None] | None = None
        self._feed: asyncio.Task[None] | None = None
        self._tasks: list[asyncio.Task[None]] = []

    @classmethod
    async def open(
        cls,
        access: EtcdAccess,
        *,
        prefix: str = "/registry",
        ours: str = "/registry",
        clock: Clock = SYSTEM_CLOCK,
        compact_every_s: float = COMPACT_EVERY_S,
    ) -> "EtcdStore":
        """Connect and load.  Keys below `ours` are stored below `prefix`.  `compact_every_s` 0: never compact.

        Raises StoreError where no server answers within ten seconds.
        """
        store = cls(Gateway(access), wire.Keyspace(ours, prefix))
        try:
            await store._start()
        except BaseException:
            await store.close()
            raise
        if compact_every_s:
            store._tasks.append(asyncio.create_task(store._compact_forever(clock, compact_every_s), name="compaction"))
        return store

    async def _start(self) -> None:
        patience = time.monotonic() + START_PATIENCE_S
        while True:
            try:
                newest = await self._gateway.revision()
                break
            except StoreError:
                if time.monotonic() > patience:
                    raise
                await asyncio.sleep(RETRY_S[0])
        await self._load()
        self._tasks.append(asyncio.create_task(self._follow(), name="etcd watch"))
        await self._reach(newest)

    # -- contract ----------------------------------------------------------------------------------------------

    async def revision(self) -> Revision:
        await self._settle()
        return self._core.revision

    async def get(self, key: str) -> KeyValue | None:
        await self._settle()
        return self._core.get(key)

    async def list(self, prefix: str, *, limit: int = 0, after_key: str = "", revision: Revision | None = None) -> Page:
        await self._settle()
        return self._core.list(prefix, limit, after_key, revision)

    async def watch(self, prefix: str, after: Revision) -> CoreWatch:
        await self._settle()
        return self._core.watch(prefix, after)

    async def commit(self, transaction: Transaction) -> Revision:
        body = wire.transaction(transaction, self._keys)
        answer = await self._gateway.call("/v3/kv/txn", body, repeatable=False)
        if not answer.get("succeeded"):
            key, current = wire.failed_precondition(transaction, answer, self._keys)
            raise PreconditionFailed(key, current)
        revision = wire.revision_of(answer)
        # it is committed, and reads find it whether or not the watch has shown it by now
        with contextlib.suppress(StoreError):
            await self._reach(revision)
        return revision

    async def compact(self, revision: Revision) -> None:
        limit = min(revision, await self._gateway.revision())
        with contextlib.suppress(RevisionGone):  # somebody else has compacted further
            await self._gateway.call("/v3/kv/compaction", {"revision": str(limit)})
        self._core.history.compact(limit)

    async def close(self) -> None:
        tasks = [task for task in (*self._tasks, self._asking, self._asked) if task is not None]
        await cancel_and_wait(*tasks)
        self._core.close(StoreError("the store is closed"))
        await self._gateway.close()

    # -- being new enough ----------------------------------------------------------------------------------------

    async def _settle(self) -> None:
        """Wait until the Core shows all that was committed before this call."""
        if self._asking is None:
            self._asking = asyncio.create_task(self._ask(self._asked), name="etcd revision")
            self._asking.add_done_callback(_seen)
        await asyncio.shield(self._asking)

    async def _ask(self, before: asyncio.Task[None] | None) -> None:
        """One question for all who came while the one before was under way."""
        if before is not None:
            await asyncio.wait((before,))
        self._asked, self._asking = self._asking, None
        await self._reach(await self._gateway.revision())

    async def _reach(self, revision: Revision) -> None:
        if self._core.revision >= revision:
            return
        done = self._waiters.add(revision)
        try:
            async with asyncio.timeout(LAG_TIMEOUT_S):
                await done
        except TimeoutError:
            if self._feed is not None:
                self._feed.cancel()  # a connection that has silently died: make another
            raise StoreError(
                f"etcd {self._gateway.server} is at revision {revision}, its watch only at {self._core.revision}"
            ) from None

    # -- following etcd --------------------------------------------------------------------------------------------

    async def _load(self) -> None:
        """A new Core with the state some way back; the watch replays the rest.  Watches of the old one must list."""
        base = Revision(max(1, await self._gateway.revision() - BACKFILL))
        while True:
            core = Core(History(base))
            try:
                await self._fill(core, base)
                break
            except RevisionGone:
                base = await self._gateway.compacted()
        old, self._core = self._core, core
        old.close(Compacted(old.revision, base))
        self._waiters.reached(core.revision)

    async def _fill(self, core: Core, revision: Revision) -> None:
        start, limit = self._keys.theirs.encode(), PAGE
        end = wire.text(wire.range_end(start))
        while True:
            page = {"key": wire.text(start), "range_end": end, "limit": str(limit), "revision": str(revision)}
            try:
                answer = await self._gateway.call("/v3/kv/range", page)
            except TooLarge:
                if limit == 1:
                    raise
                limit = max(1, limit // 4)
                continue
            found = answer.get("kvs", [])
            for row in found:
                if (item := self._keys.item(row)) is not None:
                    core.load(item)
            if not answer.get("more"):
                return
            start = base64.b64decode(found[-1]["key"]) + b"\0"

    async def _follow(self) -> None:
        """Feed the Core for ever, from where it is, over whichever server answers."""
        wait_s, longest_s = RETRY_S
        while True:
            reached = self._core.revision
            self._feed = asyncio.create_task(self._replay(Revision(reached + 1)))
            try:
                await asyncio.wait((self._feed,))
            except asyncio.CancelledError:
                await cancel_and_wait(self._feed)
                raise
            try:
                if not self._feed.cancelled():
                    self._feed.result()
            except Compacted as gone:
                log.warning("etcd has compacted what was not read yet: %s", gone)
                with contextlib.suppress(StoreError):
                    await self._load()
            except StoreError as error:
                log.warning("the watch of etcd ended and is made anew: error=%s", error)
            wait_s = RETRY_S[0] if self._core.revision > reached else min(longest_s, wait_s * 2)
            await asyncio.sleep(wait_s)

    async def _replay(self, start: Revision) -> None:
        reader = wire.WatchReader(self._keys)
        stream = self._gateway.stream("/v3/watch", wire.watch_request(start))
        try:
            async for result in stream:
                compacted_watch(result, start)
                for revision, changes in reader.feed(result):
                    self._publish(revision, changes)
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    def _publish(self, revision: Revision, changes: Sequence[wire.Change]) -> None:
        if revision <= self._core.revision:
            return  # seen before the connection was made anew
        events = []
        for change in changes:
            old = self._core.get(change.key)
            previous, last = (old.value, old.revision) if old else (None, Revision(0))
            created = change.created or (old.created if old else revision)
            events.append(Event(change.key, change.value, previous, revision, created, last))
        self._core.publish(Staged(revision, tuple(events)))
        self._waiters.reached(revision)

    # -- compaction ------------------------------------------------------------------------------------------------

    async def _compact_forever(self, clock: Clock, every_s: float) -> None:
        """Forget what is older than the interval.  Each server may do so: the furthest one counts."""
        known: Revision | None = None
        while True:
            await clock.sleep(every_s)
            try:
                if known is not None:
                    await self.compact(known)
                known = await self._gateway.revision()
            except StoreError as error:
                log.warning("etcd was not compacted: error=%s", error)
