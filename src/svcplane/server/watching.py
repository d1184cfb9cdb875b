"""The stream of a watch: initial objects, events as its selectors see them, bookmarks, its end.

What several watchers see is encoded and decoded once.  While the client keeps up, events go to its connection without
a task of their own (`pushing`).
Source: k8s.io/apiserver pkg/endpoints/handlers/watch.go, pkg/storage/cacher.
"""

import asyncio
import math
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from typing import Protocol

from svcplane.api import codec
from svcplane.api import status as st
from svcplane.api.http import Request, Sink
from svcplane.api.resources import Resource
from svcplane.api.strategy import Tree
from svcplane.base.errors import StoreError
from svcplane.server.bookmarks import bookmark
from svcplane.server.filtering import Filter
from svcplane.server.metrics import Tally
from svcplane.server.negotiation import Wanted
from svcplane.server.options import ListOptions
from svcplane.server.routes import Route
from svcplane.store.contract import Event, Page, Watch

BOOKMARK_EVERY_S = 60.0
#: The last bookmark comes so long before the end; a watch that is no longer than that has none.
BOOKMARK_BEFORE_END_S = 2.0
DEFAULT_WATCH_S = 1800.0
#: Revision, key, type of event, form of the object.
Place = tuple[int, str, str, str]
#: What a watcher looks at, and how: prefix and key of what it follows, form, selectors.
View = tuple[str, ...]
MAX_ENCODED_BYTES = 8 << 20
MAX_CHUNKS = MAX_CHUNK_EVENTS = 64
#: Objects that watchers' selectors looked at last: those of the events that some have still to see.
MAX_DECODED = 256


class Represent(Protocol):
    """One stored object in the form the client accepts."""

    def __call__(
        self, resource: Resource, stored: bytes, revision: int, request: Request, wanted: Wanted, *, header: bool = True
    ) -> bytes: ...


class Shared:
    """What watchers have in common."""

    def __init__(self, represent: Represent) -> None:
        self._represent = represent
        self._encoded: dict[Place, bytes] = {}
        self._encoded_size = 0
        self._decoded: dict[bytes, Tree] = {}
        self._chunks: dict[tuple[View, int, int], tuple[bytes, int]] = {}
        self._chunks_size = 0

    def line(
        self, place: Place, resource: Resource, stored: bytes, request: Request, wanted: Wanted, *, header: bool
    ) -> bytes:
        """One line of a watch, encoded once for all watchers of the same form."""
        line = self._encoded.get(place)
        if line is None:
            revision, _, kind, _ = place
            line = b'{"type":"%s","object":%s}\n' % (
                kind.encode(),
                self._represent(resource, stored, revision, request, wanted, header=header),
            )
            self._encoded_size += len(line)
            if self._encoded_size > MAX_ENCODED_BYTES:
                self._encoded.clear()
                self._encoded_size = len(line)
            self._encoded[place] = line
        return line

    def chunk(
        self, view: View, events: Sequence[Event], lines: Callable[[Sequence[Event]], list[bytes]]
    ) -> tuple[bytes, int]:
        """The lines of events in one piece, and how many they are; put together once for all watchers who see alike.

        Between two revisions a view has the same events for everybody.
        """
        place = (view, events[0].revision, events[-1].revision)
        found = self._chunks.get(place)
        if found is None:
            made = lines(events)
            found = b"".join(made), len(made)
            if len(events) <= MAX_CHUNK_EVENTS:
                self._chunks_size += len(found[0])
                if len(self._chunks) >= MAX_CHUNKS or self._chunks_size > MAX_ENCODED_BYTES:
                    self._chunks.clear()
                    self._chunks_size = len(found[0])
                self._chunks[place] = found
        return found

    def selected(self, chosen: Filter, stored: bytes | None, resource: Resource) -> bool:
        """Whether the state of an object is there and matches; decoded once for all watchers.  It stays unchanged."""
        if stored is None:
            return False
        obj = self._decoded.get(stored)
        if obj is None:
            if len(self._decoded) >= MAX_DECODED:
                self._decoded.clear()
            obj = self._decoded[stored] = codec.load(stored, 0, resource)
        return chosen.accepts(obj)


class WatchStream:
    """The chunks of one watch."""

    def __init__(
        self,
        shared: Shared,
        tally: Tally,
        route: Route,
        request: Request,
        wanted: Wanted,
        options: ListOptions,
        chosen: Filter,
        initial: Page | None,
    ) -> None:
        self._shared, self._tally, self._resource = shared, tally, route.resource
        self._request, self._wanted = request, wanted
        self._options, self._chosen, self._initial = options, chosen, initial
        self._key = route.resource.key(route.namespace, route.name) if route.name else ""
        self._form = f"{wanted.form} {wanted.version} {request.param('includeObject')}"
        self._view = (
            *(route.resource.key_prefix(route.namespace), self._key, self._form),
            *(options.label_selector, options.field_selector),
        )
        self._headed = False
        self._selects = bool(chosen)

    def _line(self, kind: str, key: str, stored: bytes, revision: int) -> bytes:
        header, self._headed = not self._headed, True  # a table names its columns once
        place = (revision, key, kind, f"{self._form} {header}" if self._wanted.form == "Table" else self._form)
        return self._shared.line(place, self._resource, stored, self._request, self._wanted, header=header)

    def _event_line(self, event: Event) -> bytes:
        """The watcher's view of an event: objects that begin or cease to match come and go."""
        if self._key and event.key != self._key:
            return b""
        if self._selects:
            now = self._shared.selected(self._chosen, event.value, self._resource)
            before = self._shared.selected(self._chosen, event.previous, self._resource)
        else:
            now, before = event.value is not None, event.previous is not None
        if now and event.value is not None:
            return self._line("MODIFIED" if before else "ADDED", event.key, event.value, event.revision)
        if before and event.previous is not None:
            # the last state that matched, at the revision at which it ceased to
            return self._line("DELETED", event.key, event.previous, event.revision)
        return b""

    def _lines(self, events: Iterable[Event]) -> list[bytes]:
        return list(filter(None, map(self._event_line, events)))

    def _chunk(self, events: Sequence[Event]) -> bytes:
        """What the watcher sees of events."""
        if not events:
            return b""
        if self._wanted.form == "Table":  # whose first line is another one
            return self._counted(self._lines(events))
        chunk, count = self._shared.chunk(self._view, events, self._lines)
        self._tally.events += count
        self._tally.size += len(chunk)
        return chunk

    def _counted(self, lines: Sequence[bytes]) -> bytes:
        chunk = b"".join(lines)
        self._tally.events += len(lines)
        self._tally.size += len(chunk)
        return chunk

    async def expired(self, version: int, current: int) -> AsyncIterator[bytes]:
        body = st.expired(f"too old resource version: {version} ({current})").body()
        yield b'{"type":"ERROR","object":%s}\n' % codec.encode(body)

    def _initial_lines(self, page: Page) -> bytes:
        lines = [
            self._line("ADDED", item.key, item.value, item.revision)
            for item in page.items
            if (not self._key or item.key == self._key) and self._chosen.matches(item.value)
        ]
        if self._options.send_initial_events and self._options.bookmarks:
            lines.append(bookmark(self._resource, page.revision, self._wanted, initial_end=True))
        return self._counted(lines)

    def pushing(self, watch: Watch) -> Callable[[Sink], None]:
        """As `Response.push_to`."""

        def push_to(sink: Sink) -> None:
            def take(events: Sequence[Event]) -> bool:
                if not sink.has_room():
                    return False
                if chunk := self._chunk(events):
                    sink.write(chunk)
                return True

            watch.deliver_to(take)

        return push_to

    def _next_bookmark(self, now: float, ends: float) -> float:
        """Every minute, and once more shortly before the end; at no time where none is wanted."""
        due = min(now + BOOKMARK_EVERY_S, ends - BOOKMARK_BEFORE_END_S)
        return due if self._options.bookmarks and due > now else math.inf

    async def run(self, watch: Watch) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        ends = loop.time() + (self._options.timeout_s or DEFAULT_WATCH_S)
        due = self._next_bookmark(loop.time(), ends)
        try:
            yield self._initial_lines(self._initial) if self._initial is not None else b""
            while (events := await watch.read(max(0.0, min(ends, due) - loop.time()))) is not None:
                if chunk := self._chunk(events):
                    yield chunk
                if loop.time() >= ends:
                    return
                if loop.time() >= due:
                    due = self._next_bookmark(loop.time(), ends)
                    # what has come since goes out first: a bookmark must not pass what has not been sent
                    events = watch.take()
                    last = bookmark(self._resource, watch.progress, self._wanted)
                    yield self._counted([*self._lines(events), last])
        except StoreError as error:
            body = st.expired(str(error)).body()
            yield b'{"type":"ERROR","object":%s}\n' % codec.encode(body)
        finally:
            await watch.aclose()
