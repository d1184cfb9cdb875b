"""What a store guarantees.  Opaque bytes by key with revisions; no knowledge of Kubernetes.

Guarantees (one contract suite holds memory, SQLite and etcd to them):

* Keys are text, ordered by their UTF-8 bytes; values are bytes.  A store holds one strictly increasing
  revision; each committed Transaction gets the next one, and all its operations share it.  A store starts at
  revision 1 (nothing written).
* `commit` is all or nothing: first every precondition is checked against the newest state, then every
  operation is applied.  It returns only when the change is durable.  Commits are linearizable with reads.
* A read or watch never shows what is not durable yet.
* `watch(prefix, after)` yields every event of the prefix with revision > after, in revision order, without
  gap or repeat; events of one revision come in one batch, in the transaction's order.  If the history after
  that revision is gone, `Compacted` is raised (at once or at the first read).  A reader that falls more than
  `WATCH_BACKLOG` events behind gets `WatcherTooSlow`; others are not held up.
* `list(..., revision=R)` shows the state at R, or raises Compacted.  A revision in the future is FutureRevision.
"""

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import NewType, Protocol

import msgspec

from svcplane.base.errors import StoreError

Revision = NewType("Revision", int)

WATCH_BACKLOG = 10_000


class Compacted(StoreError):
    """The asked-for revision is no longer kept.  `oldest` is the oldest that is."""

    def __init__(self, asked: int, oldest: int) -> None:
        super().__init__(f"revision {asked} has been compacted, the oldest kept is {oldest}")
        self.asked, self.oldest = asked, oldest


class FutureRevision(StoreError):
    """The asked-for revision has not been reached.  `current` is the newest."""

    def __init__(self, asked: int, current: int) -> None:
        super().__init__(f"revision {asked} is in the future, the newest is {current}")
        self.asked, self.current = asked, current


class WatcherTooSlow(StoreError):
    """A watcher did not keep up; it must list again."""


class PreconditionFailed(StoreError):
    """A commit changed nothing, since `key` was not as required.  `current` is what is there (None: absent)."""

    def __init__(self, key: str, current: "KeyValue | None") -> None:
        super().__init__(f"precondition failed for {key}")
        self.key, self.current = key, current


class KeyValue(msgspec.Struct, frozen=True, gc=False):
    """`revision` is that of the last change, `created` that of the creation."""

    key: str
    value: bytes
    revision: Revision
    created: Revision


class Event(msgspec.Struct, frozen=True, gc=False):
    """A put (`value` set) or a delete (`value` None).  `previous` is None for a creation.

    `created`: the revision of the creation of the object that was put or deleted; `previous_revision`: of its
    last change before this one, 0 for a creation.
    """

    key: str
    value: bytes | None
    previous: bytes | None
    revision: Revision
    created: Revision
    previous_revision: Revision = Revision(0)


@dataclass(frozen=True, slots=True)
class Page:
    """`revision`: the state shown.  `remaining`: how many keys of the prefix follow the last item."""

    items: Sequence[KeyValue]
    revision: Revision
    remaining: int


class Put(msgspec.Struct, frozen=True, gc=False):
    key: str
    value: bytes


class Delete(msgspec.Struct, frozen=True, gc=False):
    """Deleting an absent key is no error and makes no event."""

    key: str


class Unchanged(msgspec.Struct, frozen=True, gc=False):
    """Precondition: the key was last changed at `revision`; 0 means it must be absent."""

    key: str
    revision: Revision


class Transaction(msgspec.Struct, frozen=True, gc=False):
    """At most one operation a key."""

    operations: tuple[Put | Delete, ...]
    preconditions: tuple[Unchanged, ...] = ()


class Watch(Protocol):
    """An open watch.  Iterate for batches of events; always close it."""

    def __aiter__(self) -> AsyncIterator[Sequence[Event]]: ...

    async def read(self, within_s: float) -> Sequence[Event] | None:
        """All events that have come, as one batch; none (empty) after `within_s` seconds; None once it is closed.

        Raises what ended the watch.
        """

    def take(self) -> Sequence[Event]:
        """All events that have come, without waiting.  What is yielded then reaches up to `progress`.

        Raises what ended the watch.
        """

    def deliver_to(self, taker: Callable[[Sequence[Event]], bool]) -> None:
        """While somebody waits in `read`, events go to `taker` from the event loop, and the reader goes on waiting.

        Where it answers False or raises, it has taken none and the reader gets them.
        A store may let some milliseconds pass, so that more of them go together; they stay in order, and none is lost
        where the reader comes first.
        """

    @property
    def progress(self) -> Revision:
        """Every event of the prefix up to this revision has been yielded or waits in the next batch read.

        What a bookmark may say once the queue is empty.
        """

    async def aclose(self) -> None: ...


class Store(Protocol):
    """See the module's guarantees."""

    async def revision(self) -> Revision:
        """The newest durable revision."""

    async def get(self, key: str) -> KeyValue | None: ...

    async def list(self, prefix: str, *, limit: int = 0, after_key: str = "", revision: Revision | None = None) -> Page:
        """Keys with the prefix in order, after `after_key`, at most `limit` (0: all)."""

    async def commit(self, transaction: Transaction) -> Revision:
        """Raises PreconditionFailed (nothing changed) or StoreError (outcome unknown or store broken)."""

    async def watch(self, prefix: str, after: Revision) -> Watch: ...

    async def compact(self, revision: Revision) -> None:
        """Forget history up to and including `revision`."""

    async def close(self) -> None: ...
