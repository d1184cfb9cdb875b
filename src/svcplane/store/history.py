"""The window of recent events that watches resume from and old lists are rebuilt from.  Pure.

Invariants: events are in revision order; `compacted` is the newest revision whose event is no longer kept, so
a watch after any revision >= compacted is complete.
"""

from collections import deque
from collections.abc import Sequence

from svcplane.store.contract import Compacted, Event, FutureRevision, KeyValue, Revision

MAX_EVENTS = 100_000
MIN_AGE_S = 300.0


class History:
    """Keeps at most `max_events`; those older than `min_age_s` go once more than `soft_events` are kept."""

    def __init__(
        self,
        compacted: Revision,
        *,
        max_events: int = MAX_EVENTS,
        soft_events: int = 10_000,
        min_age_s: float = MIN_AGE_S,
    ) -> None:
        self.compacted = compacted
        self.current = compacted
        self._max, self._soft, self._min_age_s = max_events, soft_events, min_age_s
        self._events: deque[tuple[float, Event]] = deque()

    def __len__(self) -> int:
        return len(self._events)

    def append(self, events: Sequence[Event], revision: Revision, now: float) -> None:
        """Events of one committed transaction; may be none, the revision still counts."""
        self.current = revision
        self._events.extend((now, event) for event in events)
        while len(self._events) > self._max or (
            len(self._events) > self._soft and now - self._events[0][0] > self._min_age_s
        ):
            self._drop_oldest_revision()

    def _drop_oldest_revision(self) -> None:
        """A revision is kept or dropped as a whole."""
        revision = self._events[0][1].revision
        while self._events and self._events[0][1].revision == revision:
            self._events.popleft()
        self.compacted = revision

    def compact(self, revision: Revision) -> None:
        """Forget events up to and including `revision` (never past the current one)."""
        limit = min(revision, self.current)
        while self._events and self._events[0][1].revision <= limit:
            self._events.popleft()
        self.compacted = Revision(max(self.compacted, limit))

    def check(self, revision: Revision) -> None:
        """Raise Compacted or FutureRevision where the state at `revision` cannot be told."""
        if revision > self.current:
            raise FutureRevision(revision, self.current)
        if revision < self.compacted:
            raise Compacted(revision, self.compacted)

    def after(self, revision: Revision, prefix: str) -> list[Event]:
        """Events of the prefix with a revision greater than the given one, in order."""
        self.check(revision)
        # newest first until the revision is passed: watches mostly resume near the end
        found: list[Event] = []
        for _, event in reversed(self._events):
            if event.revision <= revision:
                break
            if event.key.startswith(prefix):
                found.append(event)
        found.reverse()
        return found

    def undo(self, items: Sequence[KeyValue], prefix: str, revision: Revision) -> list[KeyValue]:
        """The present `items` of a prefix as they were at `revision`, in key order."""
        self.check(revision)
        state = {item.key: item for item in items}
        for event in reversed(self.after(revision, prefix)):
            if event.previous is None:
                state.pop(event.key, None)
            else:
                state[event.key] = KeyValue(event.key, event.previous, event.previous_revision, event.created)
        keys = sorted(state)
        return [state[key] for key in keys]
