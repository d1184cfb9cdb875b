"""Getting, listing and watching objects.

Stored bytes go out by splicing; they are decoded only where a selector or another representation asks for it.
Source: k8s.io/apiserver pkg/storage/etcd3 (list and continue), pkg/endpoints/handlers/watch.go.
"""

import asyncio
import base64
import binascii
from collections.abc import AsyncIterator, Callable, Mapping, Sequence

import msgspec

from svcplane.api import codec, tables
from svcplane.api import status as st
from svcplane.api.http import Request, Response
from svcplane.api.resources import Resource
from svcplane.api.selectors import (
    FieldSelector,
    LabelSelector,
    fields_match,
    parse_field_selector,
    parse_label_selector,
)
from svcplane.api.strategy import Strategy, Tree
from svcplane.base.clock import Clock
from svcplane.base.errors import StoreError
from svcplane.server.negotiation import Wanted
from svcplane.server.options import ListOptions, list_options, too_large_version
from svcplane.server.routes import Route
from svcplane.store.contract import Compacted, Event, FutureRevision, KeyValue, Page, Revision, Store, Watch

BOOKMARK_EVERY_S = 60.0
DEFAULT_WATCH_S = 1800.0
PAGE_FOR_SELECTORS = 500
MAX_ENCODED_BYTES = 8 << 20
INITIAL_EVENTS_END = "k8s.io/initial-events-end"


Trees = list[Tree]


class Continue(msgspec.Struct):
    """A continue token: the state shown and the last key given."""

    rv: int
    start: str
    v: str = "meta.k8s.io/v1"

    def encode(self) -> str:
        return base64.urlsafe_b64encode(msgspec.json.encode(self)).decode().rstrip("=")

    @classmethod
    def decode(cls, text: str) -> "Continue":
        try:
            raw = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
            return msgspec.json.decode(raw, type=cls)
        except (binascii.Error, msgspec.DecodeError, ValueError) as error:
            raise st.bad_request(f"continue key is not valid: {error}") from error


class Filter:
    """Label and field selectors of one request, and the name a watch of one object asks for."""

    def __init__(self, labels: LabelSelector, fields: FieldSelector, strategy: Strategy, resource: Resource) -> None:
        self._labels, self._fields, self._strategy, self._resource = labels, fields, strategy, resource

    def __bool__(self) -> bool:
        return bool(self._labels) or bool(self._fields)

    def matches(self, stored: bytes) -> bool:
        if not self:
            return True
        obj = codec.load(stored, 0, self._resource)
        meta = obj["metadata"]
        if not self._labels.matches(meta.get("labels", {})):
            return False
        if not self._fields:
            return True
        values = {"metadata.name": meta["name"], "metadata.namespace": meta.get("namespace", "")}
        return fields_match(self._fields, values | self._strategy.selectable_fields(obj))


class Reader:
    """Implements get, list and watch."""

    def __init__(self, store: Store, strategies: Mapping[Resource, Strategy], clock: Clock) -> None:
        self._store, self._strategies, self._clock = store, strategies, clock
        self._encoded: dict[tuple[str, int, str], bytes] = {}
        self._encoded_size = 0

    # -- get -------------------------------------------------------------------------------------------------------

    async def get(self, route: Route, request: Request, wanted: Wanted) -> Response:
        item = await self._store.get(route.resource.key(route.namespace, route.name))
        if item is None:
            raise st.not_found(route.resource.plural, route.name, route.resource.group)
        version = request.param("resourceVersion")
        if version.isdigit() and int(version) > await self._store.revision():
            raise too_large_version(int(version), await self._store.revision())
        return Response(200, self.represent(route.resource, item.value, item.revision, request, wanted))

    def represent(self, resource: Resource, stored: bytes, revision: int, request: Request, wanted: Wanted) -> bytes:
        """One object in the form the client accepts; revision 0 shows no resourceVersion."""
        if not wanted.form and revision:
            return codec.splice_object(stored, revision, resource)
        obj = codec.load(stored, revision, resource)
        if not revision:
            del obj["metadata"]["resourceVersion"]
        if wanted.form == "Table":
            include = request.param("includeObject", "Metadata")
            meta = {"resourceVersion": str(revision)} if revision else {}
            return codec.encode(tables.table(resource, [obj], meta, include, self._clock.wall()))
        if wanted.form.startswith("PartialObjectMetadata"):
            return codec.encode(tables.partial_metadata(obj))
        return codec.encode(obj)

    # -- list --------------------------------------------------------------------------------------------------------

    def _filter(self, route: Route, options: ListOptions) -> Filter:
        strategy = self._strategies[route.resource]
        supported = frozenset({"metadata.name", "metadata.namespace", *strategy.selectable})
        fields = parse_field_selector(options.field_selector, supported)
        return Filter(parse_label_selector(options.label_selector), fields, strategy, route.resource)

    async def list(self, route: Route, request: Request, wanted: Wanted) -> Response:
        options = list_options(request, watch=False)
        chosen = self._filter(route, options)
        page, more = await self._page(route, options, chosen)
        meta: dict[str, object] = {"resourceVersion": str(page.revision)}
        if more:
            meta["continue"] = more
            if not chosen:
                meta["remainingItemCount"] = page.remaining
        return Response(200, self._render(route.resource, page, meta, request, wanted))

    async def _page(self, route: Route, options: ListOptions, chosen: Filter) -> tuple[Page, str]:
        """Matching items and the continue token of what follows."""
        prefix = route.resource.key_prefix(route.namespace)
        revision, after = self._start(options)
        limit = options.limit
        try:
            if not chosen:
                page = await self._store.list(prefix, limit=limit, after_key=after, revision=revision)
                last = page.items[-1].key if page.items else ""
                return page, Continue(page.revision, last).encode() if page.remaining and limit else ""
            found: list[KeyValue] = []
            while True:
                step = PAGE_FOR_SELECTORS if limit else 0
                page = await self._store.list(prefix, limit=step, after_key=after, revision=revision)
                for item in page.items:
                    if chosen.matches(item.value):
                        if limit and len(found) == limit:
                            return Page(found, page.revision, 0), Continue(page.revision, found[-1].key).encode()
                        found.append(item)
                if not page.remaining:
                    return Page(found, page.revision, 0), ""
                after, revision = page.items[-1].key, page.revision
        except Compacted as error:
            if options.continue_:
                raise st.expired(
                    "The provided continue parameter is too old to display a consistent list result. You can start a "
                    "new list without the continue parameter."
                ) from error
            raise st.expired(f"The resourceVersion for the provided list is too old: {error.asked}") from error
        except FutureRevision as error:
            raise too_large_version(error.asked, error.current) from error

    def _start(self, options: ListOptions) -> tuple[Revision | None, str]:
        if options.continue_:
            if options.resource_version not in ("", "0"):
                raise st.bad_request("specifying resource version is not allowed when using continue")
            token = Continue.decode(options.continue_)
            return (Revision(token.rv) if token.rv > 0 else None), token.start
        version = int(options.resource_version or "0")
        if version and (options.match == "Exact" or (options.limit and not options.match)):
            return Revision(version), ""
        return None, ""

    def _render(
        self, resource: Resource, page: Page, meta: dict[str, object], request: Request, wanted: Wanted
    ) -> bytes:
        if not wanted.form:
            items = b",".join([codec.splice_item(item.value, item.revision) for item in page.items])
            return b'{"kind":"%s","apiVersion":"%s","metadata":%s,"items":[%s]}' % (
                resource.list_kind.encode(),
                resource.api_version.encode(),
                codec.encode(meta),
                items,
            )
        objects = [codec.load(item.value, item.revision, resource) for item in page.items]
        if wanted.form == "Table":
            include = request.param("includeObject", "Metadata")
            return codec.encode(tables.table(resource, objects, meta, include, self._clock.wall()))
        partial = [tables.partial_metadata(obj) for obj in objects]
        head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
        return codec.encode({**head, "items": partial})

    async def collection(self, route: Route, request: Request) -> tuple[Page, Trees]:
        """What a deletecollection is about."""
        options = list_options(request, watch=False)
        page, _ = await self._page(route, options, self._filter(route, options))
        return page, [codec.load(item.value, item.revision, route.resource) for item in page.items]

    # -- watch -------------------------------------------------------------------------------------------------------

    async def watch(self, route: Route, request: Request, wanted: Wanted) -> Response:
        options = list_options(request, watch=True)
        chosen = self._filter(route, options)
        prefix = route.resource.key_prefix(route.namespace)
        version = int(options.resource_version or "0")
        initial: Page | None = None
        if options.send_initial_events or (version == 0 and options.send_initial_events is None):
            if version > await self._store.revision():
                raise too_large_version(version, await self._store.revision())
            initial = await self._store.list(prefix)
            version = initial.revision
        stream = _WatchStream(self, route, request, wanted, options, chosen, initial)
        try:
            watch = await self._store.watch(prefix, Revision(version))
        except Compacted:
            return Response(200, stream=stream.expired(version, await self._store.revision()))
        except FutureRevision as error:
            raise too_large_version(error.asked, error.current) from error
        return Response(200, stream=stream.run(watch))

    def watch_object(
        self,
        kind: str,
        resource: Resource,
        key: str,
        stored: bytes,
        revision: int,
        render: Callable[[], bytes],
        form: str,
    ) -> bytes:
        """One line of a watch, encoded once for all watchers of the same form."""
        place = (f"{kind} {resource.plural} {key}", revision, form)
        line = self._encoded.get(place)
        if line is None:
            line = b'{"type":"%s","object":%s}\n' % (kind.encode(), render())
            self._encoded_size += len(line)
            if self._encoded_size > MAX_ENCODED_BYTES:
                self._encoded.clear()
                self._encoded_size = len(line)
            self._encoded[place] = line
        return line


class _WatchStream:
    """The chunks of one watch."""

    def __init__(
        self,
        reader: Reader,
        route: Route,
        request: Request,
        wanted: Wanted,
        options: ListOptions,
        chosen: Filter,
        initial: Page | None,
    ) -> None:
        self._reader, self._resource, self._request, self._wanted = reader, route.resource, request, wanted
        self._options, self._chosen, self._initial = options, chosen, initial
        self._key = route.resource.key(route.namespace, route.name) if route.name else ""
        self._form = f"{wanted.form} {request.param('includeObject')}"

    def _line(self, kind: str, key: str, stored: bytes, revision: int) -> bytes:
        def render() -> bytes:
            return self._reader.represent(self._resource, stored, revision, self._request, self._wanted)

        return self._reader.watch_object(kind, self._resource, key, stored, revision, render, self._form)

    def _bookmark(self, revision: int, *, initial_end: bool = False) -> bytes:
        meta: dict[str, object] = {"resourceVersion": str(revision)}
        if initial_end:
            meta["annotations"] = {INITIAL_EVENTS_END: "true"}
        obj: dict[str, object] = {
            "kind": self._resource.kind,
            "apiVersion": self._resource.api_version,
            "metadata": meta,
        }
        if self._wanted.form == "Table":
            obj = tables.table(self._resource, [], {"resourceVersion": str(revision)}, "None", 0.0)
        elif self._wanted.form:
            obj = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
        return b'{"type":"BOOKMARK","object":%s}\n' % codec.encode(obj)

    def _lines(self, event: Event) -> bytes:
        """The watcher's view of an event: objects that begin or cease to match come and go."""
        if self._key and event.key != self._key:
            return b""
        now = event.value is not None and self._chosen.matches(event.value)
        before = event.previous is not None and self._chosen.matches(event.previous)
        if now and event.value is not None:
            return self._line("MODIFIED" if before else "ADDED", event.key, event.value, event.revision)
        if before and event.previous is not None:
            # the last state that matched, at the revision at which it ceased to
            return self._line("DELETED", event.key, event.previous, event.revision)
        return b""

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
            lines.append(self._bookmark(page.revision, initial_end=True))
        return b"".join(lines)

    async def run(self, watch: Watch) -> AsyncIterator[bytes]:
        loop = asyncio.get_running_loop()
        ends = loop.time() + (self._options.timeout_s or DEFAULT_WATCH_S)
        every = BOOKMARK_EVERY_S if self._options.bookmarks else DEFAULT_WATCH_S
        due = loop.time() + every
        batches = aiter(watch)
        waiting: asyncio.Future[Sequence[Event] | None] | None = None
        try:
            yield self._initial_lines(self._initial) if self._initial is not None else b""
            while True:
                if waiting is None:
                    waiting = asyncio.ensure_future(anext(batches, None))
                await asyncio.wait((waiting,), timeout=max(0.0, min(ends, due) - loop.time()))
                done, events = waiting.done(), None
                if done:
                    events = waiting.result()
                    waiting = None
                    if events is None:
                        return
                    if chunk := b"".join([self._lines(event) for event in events]):
                        yield chunk
                if loop.time() < min(ends, due):
                    continue
                due = loop.time() + every
                # what was read just now is sent; a bookmark must not pass what still waits to be read
                if self._options.bookmarks and not done:
                    yield self._bookmark(watch.progress)
                elif self._options.bookmarks and events:
                    yield self._bookmark(events[-1].revision)
                if loop.time() >= ends:
                    return
        except StoreError as error:
            body = st.expired(str(error)).body()
            yield b'{"type":"ERROR","object":%s}\n' % codec.encode(body)
        finally:
            if waiting is not None:
                waiting.cancel()
                await asyncio.gather(waiting, return_exceptions=True)
            await watch.aclose()
