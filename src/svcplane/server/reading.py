"""Getting, listing and watching objects.

Stored bytes go out by splicing; they are decoded only where a selector or another representation asks for it.
Source: k8s.io/apiserver pkg/storage/etcd3 (list and continue), pkg/endpoints/handlers/watch.go.
"""

from collections.abc import AsyncIterator, Callable, Mapping

from svcplane.api import codec, tables
from svcplane.api import status as st
from svcplane.api.http import Closing, Request, Response
from svcplane.api.resources import Resource
from svcplane.api.selectors import parse_field_selector, parse_label_selector
from svcplane.api.strategy import Strategy
from svcplane.base.clock import Clock
from svcplane.base.errors import StoreError
from svcplane.server.continuing import Continue
from svcplane.server.filtering import Filter
from svcplane.server.metrics import Tally
from svcplane.server.negotiation import YAML, Wanted, in_version, not_in_form, not_streamed
from svcplane.server.options import ListOptions, checked_version, included, list_options, too_large_version
from svcplane.server.routes import Route
from svcplane.server.watching import Shared, WatchStream
from svcplane.store.contract import Compacted, FutureRevision, KeyValue, Page, Revision, Store

PAGE_FOR_SELECTORS = 500
#: The answer carries a token with which the rest can be had all the same.
CONTINUE_EXPIRED = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


async def _nothing() -> AsyncIterator[bytes]:
    chunks: tuple[bytes, ...] = ()
    for chunk in chunks:
        yield chunk


class Reader:
    """Implements get, list and watch."""

    def __init__(
        self,
        store: Store,
        strategies: Mapping[Resource, Strategy],
        clock: Clock,
        tally: Callable[[Resource], Tally],
    ) -> None:
        self._store, self._strategies, self._clock, self._tally = store, strategies, clock, tally
        self._shared = Shared(self.represent)

    # -- get -------------------------------------------------------------------------------------------------------

    async def reachable(self) -> bool:
        """Whether the store answers."""
        try:
            await self._store.revision()
        except StoreError:
            return False
        return True

    async def get(self, route: Route, request: Request, wanted: Wanted) -> Response:
        item = await self._store.get(route.resource.key(route.namespace, route.name))
        if item is None:
            raise st.not_found(route.resource.plural, route.name, route.resource.group)
        await self._reached(checked_version(request.param("resourceVersion")))
        return Response(200, self.represent(route.resource, item.value, item.revision, request, wanted))

    def represent(
        self, resource: Resource, stored: bytes, revision: int, request: Request, wanted: Wanted, *, header: bool = True
    ) -> bytes:
        """One object in the form the client accepts; revision 0 shows no resourceVersion.  `header`: of a table."""
        if not wanted.form and revision:
            return codec.splice_object(stored, revision, resource)
        obj = codec.load(stored, revision, resource)
        if not revision:
            del obj["metadata"]["resourceVersion"]
        if wanted.form == "Table":
            meta = {"resourceVersion": str(revision)} if revision else {}
            shown = tables.table(resource, [obj], meta, included(request), self._clock.wall(), header=header)
            return codec.encode(in_version(shown, wanted.version))
        if wanted.form == "PartialObjectMetadata":
            return codec.encode(in_version(tables.partial_metadata(obj), wanted.version))
        if wanted.form:
            raise not_in_form(wanted.form, f"is not a list (*{resource.package}.{resource.kind})")
        return codec.encode(obj)

    # -- list --------------------------------------------------------------------------------------------------------

    def _filter(self, route: Route, options: ListOptions) -> Filter:
        strategy = self._strategies[route.resource]
        named = {"metadata.name"}
        if not strategy.selectable or route.resource.namespaced:
            named.add("metadata.namespace")
        supported = frozenset({*named, *strategy.selectable})
        fields = parse_field_selector(options.field_selector, supported, own_labels=bool(strategy.selectable))
        return Filter(parse_label_selector(options.label_selector), fields, strategy, route.resource)

    async def list(self, route: Route, request: Request, wanted: Wanted) -> Response:
        return (await self.collection(route, request, wanted))[0]

    async def collection(self, route: Route, request: Request, wanted: Wanted) -> tuple[Response, Page]:
        """A list, and what is in it."""
        options = list_options(request, watch=False)
        chosen = self._filter(route, options)
        page, more = await self._page(route, options, chosen)
        meta: dict[str, object] = {"resourceVersion": str(page.revision)}
        if more:
            meta["continue"] = more
            if not chosen:
                meta["remainingItemCount"] = page.remaining
        return Response(200, self._render(route.resource, page, meta, request, wanted)), page

    async def _page(self, route: Route, options: ListOptions, chosen: Filter) -> tuple[Page, str]:
        """Matching items and the continue token of what follows."""
        prefix = route.resource.key_prefix(route.namespace)
        revision, after = self._start(options)
        # whoever takes any version has it whole: upstream's comes from its cache, which does not page these
        limit = 0 if options.resource_version == "0" else options.limit
        await self._reached(options.resource_version)
        try:
            if not chosen:
                page = await self._store.list(prefix, limit=limit, after_key=after, revision=revision)
                last = page.items[-1].key if page.items else ""
                return page, Continue(page.revision, last).encode() if page.remaining and limit else ""
            # by name a list is of one object, but for those of all namespaces and those that go on
            alone = (
                chosen.name is not None
                and not options.continue_
                and (bool(route.namespace) or not route.resource.namespaced)
            )
            found: list[KeyValue] = []
            while True:
                step = PAGE_FOR_SELECTORS if limit else 0
                page = await self._store.list(prefix, limit=step, after_key=after, revision=revision)
                for index, item in enumerate(page.items, 1):
                    found += [item] if chosen.matches(item.value) else []
                    if limit and len(found) == limit:
                        # whether anything follows, not whether it matches
                        more = not alone and (index < len(page.items) or page.remaining)
                        token = Continue(page.revision, item.key).encode() if more else ""
                        return Page(found, page.revision, 0), token
                if not page.remaining:
                    return Page(found, page.revision, 0), ""
                after, revision = page.items[-1].key, page.revision
        except Compacted as error:
            if not options.continue_:
                raise st.expired("The resourceVersion for the provided list is too old.") from error
            expired = st.expired(CONTINUE_EXPIRED)
            expired.list_meta = {"continue": Continue(-1, after).encode()}
            raise expired from error
        except FutureRevision as error:
            raise too_large_version(error.asked, error.current) from error

    async def _reached(self, version: str) -> None:
        """The server is as new as the client wants it.  Raises StatusError 504."""
        if version and int(version) > (current := await self._store.revision()):
            raise too_large_version(int(version), current)

    def _start(self, options: ListOptions) -> tuple[Revision | None, str]:
        if options.continue_:
            token = Continue.decode(options.continue_)
            if options.resource_version not in ("", "0"):
                raise st.bad_request("specifying resource version is not allowed when using continue")
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
            shown = tables.table(resource, objects, meta, included(request), self._clock.wall())
            return codec.encode(in_version(shown, wanted.version))
        if wanted.form == "PartialObjectMetadata":
            raise not_in_form(wanted.form, f"is a list (*{resource.package}.{resource.list_kind})")
        partial = [tables.partial_metadata(obj) for obj in objects]
        head = {"kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
        return codec.encode(in_version({**head, "items": partial}, wanted.version))

    # -- watch -------------------------------------------------------------------------------------------------------

    async def watch(self, route: Route, request: Request, wanted: Wanted) -> Response:
        options = list_options(request, watch=True)
        chosen = self._filter(route, options)
        if route.name and chosen.has_fields and chosen.name != route.name:
            raise st.bad_request("fieldSelector metadata.name doesn't match requested name")
        if wanted.media_type == YAML:
            raise not_streamed()
        if wanted.form == "Table":
            included(request)  # what is wrong with it is told before the first event
        if wanted.form == "PartialObjectMetadataList":  # no event is a list: upstream's watch ends when one comes
            return Response(200, stream=_nothing())
        prefix = route.resource.key_prefix(route.namespace)
        version = int(options.resource_version or "0")
        initial: Page | None = None
        if options.send_initial_events or (version == 0 and options.send_initial_events is None):
            await self._reached(options.resource_version)
            initial = await self._store.list(prefix)
            version = initial.revision
        elif version == 0:  # none asked for: from now on
            version = await self._store.revision()
        tally = self._tally(route.resource)
        stream = WatchStream(self._shared, tally, route, request, wanted, options, chosen, initial)
        try:
            watch = await self._store.watch(prefix, Revision(version))
        except Compacted:
            return Response(200, stream=stream.expired(version, await self._store.revision()))
        except FutureRevision as error:
            raise too_large_version(error.asked, error.current) from error
        return Response(200, stream=Closing(stream.run(watch), watch.aclose), push_to=stream.pushing(watch))
