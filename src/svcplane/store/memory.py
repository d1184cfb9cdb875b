"""A store in memory: the whole contract but durability.  Also the core that SQLite makes durable.

`Core` holds the state and is not concurrent: `check` and `stage` compute what a transaction does against the
newest staged state, `publish` makes it visible to readers and watchers.  MemoryStore publishes at once;
SqliteStore publishes when the transaction is on disk.
"""

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence

import msgspec
from sortedcontainers import SortedDict

from svcplane.base.errors import StoreError
from svcplane.store.contract import (
    WATCH_BACKLOG,
    Delete,
    Event,
    KeyValue,
    Page,
    PreconditionFailed,
    Put,
    Revision,
    Transaction,
    WatcherTooSlow,
)
from svcplane.store.history import History
from svcplane.store.pace import Pace


class Staged(msgspec.Struct, frozen=True, gc=False):
    """A transaction that passed its preconditions and has its revision."""

    revision: Revision
    events: tuple[Event, ...]


class CoreWatch:
    """Implements `contract.Watch` over a Core."""

    def __init__(self, core: "Core", prefix: str, backlog: Sequence[Event], after: Revision) -> None:
        self._core, self._prefix = core, prefix
        self._queue: deque[tuple[Event, ...]] = deque()
        self._queued = 0
        self._reader: asyncio.Future[None] | None = None
        self._progress = Revision(max(after, core.revision))
        self._error: StoreError | None = None
        self._closed = False
        self._taker: Callable[[Sequence[Event]], bool] | None = None
        self._handing = False
        for event in backlog:
            self._push((event,))

    @property
    def prefix(self) -> str:
        return self._prefix

    @property
    def progress(self) -> Revision:
        return self._progress

    def offer(self, events: tuple[Event, ...], revision: Revision) -> None:
        """Called by the core for each publication, also of other prefixes (events empty)."""
        self._progress = revision
        if events:
            self._push(events)

    def _push(self, events: tuple[Event, ...]) -> None:
        self._queue.append(events)
        self._queued += len(events)
        if self._queued > WATCH_BACKLOG:
            self.fail(WatcherTooSlow(f"a watcher of {self._prefix} is {self._queued} events behind"))
            self._core.forget(self)
        elif self._taker is None:
            self._wake()
        elif not self._handing and self._waited_for:
            self._handing = True
            self._core.hand_over_soon(self)

    @property
    def _waited_for(self) -> bool:
        return self._reader is not None and not self._reader.done()

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)

    def deliver_to(self, taker: Callable[[Sequence[Event]], bool]) -> None:
        self._taker = taker

    def hand_over(self) -> None:
        """Called by the core when who waits may have what has come."""
        self._handing = False
        if self._taker is None or not self._waited_for or not self._queue:
            return  # who reads has them, or has gone
        events = self.take()
        try:
            taken = self._taker(events)
        except Exception:  # shown where the reader meets the same
            taken = False
        if not taken:
            self._queue.appendleft(tuple(events))
            self._queued += len(events)
            self._wake()

    def fail(self, error: StoreError) -> None:
        """End the watch with an error."""
        self._error = error
        self._queue.clear()
        self._wake()

    def pending(self) -> bool:
        """Whether events wait to be read."""
        return bool(self._queue)

    def take(self) -> Sequence[Event]:
        if self._error is not None:
            raise self._error
        queue = self._queue
        events = queue[0] if len(queue) == 1 else [event for batch in queue for event in batch]
        queue.clear()
        self._queued = 0
        return events

    async def read(self, within_s: float) -> Sequence[Event] | None:
        if not self._queue and self._error is None and not self._closed:
            loop = asyncio.get_running_loop()
            self._reader = loop.create_future()
            timer = loop.call_later(within_s, self._wake)
            try:
                await self._reader
            finally:
                timer.cancel()
                self._reader = None
        if self._queue:
            return self.take()
        if self._error is not None:
            raise self._error
        return None if self._closed else ()

    async def __aiter__(self) -> AsyncIterator[Sequence[Event]]:
        while True:
            while self._queue:
                events = self._queue.popleft()
                self._queued -= len(events)
                yield events
            if self._error is not None:
                raise self._error
            if self._closed:
                return
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader

    async def aclose(self) -> None:
        self._closed = True
        self._core.forget(self)
        self._wake()


class Core:
    """See the module's text."""

    def __init__(self, history: History, clock: Callable[[], float] = time.monotonic) -> None:
        self.history = history
        self._clock = clock
        self._items: SortedDict[str, KeyValue] = SortedDict()
        self._staged: dict[str, KeyValue | None] = {}
        self._staged_by: dict[str, Revision] = {}
        self._next = Revision(history.current + 1)
        self._watches: dict[CoreWatch, None] = {}
        self._by_prefix: dict[str, dict[CoreWatch, None]] = {}
        self._handing: list[CoreWatch] = []
        self._pace = Pace()

    @property
    def revision(self) -> Revision:
        """The newest published revision."""
        return self.history.current

    def load(self, item: KeyValue) -> None:
        """Put an item of an earlier run; before anything else."""
        self._items[item.key] = item

    # -- writing -----------------------------------------------------------------------------------------------

    def _newest(self, key: str) -> KeyValue | None:
        if key in self._staged:
            return self._staged[key]
        item: KeyValue | None = self._items.get(key)
        return item

    def stage(self, transaction: Transaction) -> Staged:
        """Check and number a transaction.  Raises PreconditionFailed; then nothing is staged."""
        for condition in transaction.preconditions:
            current = self._newest(condition.key)
            if (current.revision if current else 0) != condition.revision:
                raise PreconditionFailed(condition.key, current)
        revision = self._next
        self._next = Revision(revision + 1)
        events: list[Event] = []
        for operation in transaction.operations:
            current = self._newest(operation.key)
            previous, changed = (current.value, current.revision) if current else (None, Revision(0))
            match operation:
                case Put(key, value):
                    created = current.created if current else revision
                    events.append(Event(key, value, previous, revision, created, changed))
                    self._staged[key] = KeyValue(key, value, revision, created)
                case Delete(key):
                    if current is None:
                        continue
                    events.append(Event(key, None, previous, revision, current.created, changed))
                    self._staged[key] = None
            self._staged_by[operation.key] = revision
        return Staged(revision, tuple(events))

    def publish(self, staged: Staged) -> None:
        """Make a staged transaction visible; in the order of revisions."""
        for event in staged.events:
            if event.value is None:
                self._items.pop(event.key, None)
            else:
                self._items[event.key] = KeyValue(event.key, event.value, event.revision, event.created)
            if self._staged_by.get(event.key) == staged.revision:
                del self._staged[event.key], self._staged_by[event.key]
        self.history.append(staged.events, staged.revision, self._clock())
        for prefix, watches in list(self._by_prefix.items()):
            events = tuple(event for event in staged.events if event.key.startswith(prefix))
            for watch in list(watches):
                watch.offer(events, staged.revision)

    def abandon(self) -> None:
        """Forget everything staged but not published (the disk refused it)."""
        self._staged.clear()
        self._staged_by.clear()

    # -- reading -----------------------------------------------------------------------------------------------

    def get(self, key: str) -> KeyValue | None:
        item: KeyValue | None = self._items.get(key)
        return item

    def list(self, prefix: str, limit: int, after_key: str, revision: Revision | None) -> Page:
        if revision is not None and revision != self.revision:
            everything = [self._items[key] for key in self._items.irange(prefix, prefix + "\U0010ffff")]
            items = self.history.undo(everything, prefix, revision)
            items = [item for item in items if item.key > after_key] if after_key else items
            page = items[:limit] if limit else items
            return Page(page, revision, len(items) - len(page))
        first = self._items.bisect_right(after_key) if after_key > prefix else self._items.bisect_left(prefix)
        end = self._items.bisect_left(prefix + "\U0010ffff")
        last = min(end, first + limit) if limit else end
        values = self._items.values()
        return Page(values[first:last], self.revision, max(0, end - last))

    def watch(self, prefix: str, after: Revision) -> CoreWatch:
        watch = CoreWatch(self, prefix, self.history.after(after, prefix), after)
        self._watches[watch] = None
        self._by_prefix.setdefault(prefix, {})[watch] = None
        return watch

    def hand_over_soon(self, watch: CoreWatch) -> None:
        """Once who publishes is done, and not sooner than the pace allows; all that has come until then together."""
        if not self._handing:
            loop, wait = asyncio.get_running_loop(), self._pace.wait(self._clock())
            if wait:
                loop.call_later(wait, self._hand_over)
            else:
                loop.call_soon(self._hand_over)
        self._handing.append(watch)

    def _hand_over(self) -> None:
        began = self._clock()
        watches, self._handing = self._handing, []
        for watch in watches:
            watch.hand_over()
        self._handed(began)
        # what the connections were given is sent before the loop's next turn
        asyncio.get_running_loop().call_soon(self._handed, began)

    def _handed(self, began: float) -> None:
        self._pace.took(began, self._clock())

    def forget(self, watch: CoreWatch) -> None:
        self._watches.pop(watch, None)
        group = self._by_prefix.get(watch.prefix)
        if group is not None:
            group.pop(watch, None)
            if not group:
                del self._by_prefix[watch.prefix]

    def close(self, error: StoreError) -> None:
        for watch in list(self._watches):
            watch.fail(error)


class CoreReads:
    """The part of `contract.Store` that is served from a Core, whatever makes it durable."""

    _core: Core

    async def revision(self) -> Revision:
        return self._core.revision

    async def get(self, key: str) -> KeyValue | None:
        return self._core.get(key)

    async def list(self, prefix: str, *, limit: int = 0, after_key: str = "", revision: Revision | None = None) -> Page:
        return self._core.list(prefix, limit, after_key, revision)

    async def watch(self, prefix: str, after: Revision) -> CoreWatch:
        return self._core.watch(prefix, after)


class MemoryStore(CoreReads):
    """Implements `contract.Store` without durability."""

    def __init__(self, history: History | None = None) -> None:
        self._core = Core(history or History(Revision(1)))

    async def commit(self, transaction: Transaction) -> Revision:
        staged = self._core.stage(transaction)
        self._core.publish(staged)
        return staged.revision

    async def compact(self, revision: Revision) -> None:
        self._core.history.compact(revision)

    async def close(self) -> None:
        self._core.close(StoreError("the store is closed"))
