"""A local copy of a collection, kept current; handlers are told of each change.

One task reads; handlers are called on the event loop in order and must not block.  `synced` is set when the
first list has been handed on.  Typed objects are decoded straight from the bytes.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Generic, TypeVar

import msgspec

from svcplane.api.meta import ListMeta, Object, Status, Wire
from svcplane.api.resources import Resource
from svcplane.api.status import StatusError
from svcplane.base.errors import TransportError
from svcplane.client.api import ApiClient, lines
from svcplane.client.reflector import List, Reflector, Wait, Watch

log = logging.getLogger(__name__)
T = TypeVar("T", bound=Object)
Handler = Callable[[T | None, T | None], None]  # (old, new)
PAGE = 500
WATCH_S = 300


class _Version(Wire):
    resource_version: str = ""


class _Meta(Wire):
    metadata: _Version = msgspec.field(default_factory=_Version)


class _Event(Wire):
    type: str
    object: msgspec.Raw


class _Gone(Exception):
    """The watch's version is too old."""


class Informer(Generic[T]):
    """`namespace`, `labels`, `fields` narrow the collection.

    `keep`: what to remember of an object once the handlers have seen it, for consumers with a form of their own;
    `items` and the `old` of a handler are then that.  It must keep the name and the resourceVersion.
    """

    def __init__(
        self,
        client: ApiClient,
        resource: Resource,
        kind: type[T],
        *,
        namespace: str = "",
        labels: str = "",
        fields: str = "",
        random: Random | None = None,
        keep: Callable[[T], T] | None = None,
    ) -> None:
        self._keep = keep
        self._client, self._resource, self._namespace = client, resource, namespace
        self._query = {k: v for k, v in (("labelSelector", labels), ("fieldSelector", fields)) if v}
        self._decode = msgspec.json.Decoder(kind).decode

        class Page(Wire):
            metadata: ListMeta = msgspec.field(default_factory=ListMeta)
            items: list[kind] = []  # type: ignore[valid-type]

        self._decode_page = msgspec.json.Decoder(Page).decode
        self._machine = Reflector(random or Random())
        self._items: dict[str, T] = {}
        self._handlers: list[Handler[T]] = []
        self._task: asyncio.Task[None] | None = None
        self.synced = asyncio.Event()
        self.tried = asyncio.Event()  # synced, or the first attempt failed
        self.last_contact_s = 0.0

    @property
    def items(self) -> Mapping[str, T]:
        """By `namespace/name`."""
        return self._items

    @property
    def version(self) -> str:
        """The newest resourceVersion that handlers have been told of; empty before the first list."""
        return self._machine.version

    def on_change(self, handler: Handler[T]) -> None:
        """`handler(old, new)`: old None for an addition, new None for a deletion.  Add handlers before starting."""
        self._handlers.append(handler)

    def start(self) -> None:
        self._task = asyncio.create_task(self._run(), name=f"informer {self._resource.plural}")

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        machine = self._machine
        while True:
            try:
                match machine.next():
                    case Wait(seconds):
                        await asyncio.sleep(seconds)
                    case List():
                        await self._list()
                    case Watch(version):
                        machine.watching(time.monotonic())
                        await self._watch(version)
                        machine.ended(time.monotonic())
            except _Gone:
                machine.gone()
            except StatusError as error:
                self.tried.set()
                if error.code == 410:
                    machine.gone()
                else:
                    log.warning("cannot follow %s: %s", self._resource.plural, error)
                    machine.failed()
            except (TransportError, msgspec.DecodeError) as error:
                self.tried.set()
                log.warning("lost %s: %s", self._resource.plural, error)
                machine.failed()

    async def _list(self) -> None:
        seen: set[str] = set()
        token = ""
        while True:
            query = {**self._query, "limit": str(PAGE), **({"continue": token} if token else {})}
            response = await self._client.call("GET", self._resource.path(self._namespace), query=query)
            page = self._decode_page(response.body)
            found: list[T] = page.items
            for item in found:  # page by page: all of them at once may be large
                key = item.key
                seen.add(key)
                old = self._items.get(key)
                if old is None or old.metadata.resource_version != item.metadata.resource_version:
                    self._put(key, item)
            token = page.metadata.continue_
            if not token:
                break
        for key in [key for key in self._items if key not in seen]:
            self._put(key, None)
        self._machine.listed(page.metadata.resource_version)
        self.last_contact_s = time.monotonic()
        self.synced.set()
        self.tried.set()

    async def _watch(self, version: str) -> None:
        query = {
            **self._query,
            "resourceVersion": version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(WATCH_S),
        }
        response = await self._client.watch(self._resource, self._namespace, query)
        stream = response.stream
        if stream is None:
            raise TransportError("the server answered a watch without a stream")
        try:
            async for line in lines(stream):
                self._handle(line)
        finally:
            await stream.aclose()  # type: ignore[attr-defined]

    def _handle(self, line: bytes) -> None:
        event = msgspec.json.decode(line, type=_Event)
        self.last_contact_s = time.monotonic()
        match event.type:
            case "ADDED" | "MODIFIED":
                item = self._decode(event.object)
                self._put(item.key, item)
                self._machine.saw(item.metadata.resource_version)
            case "DELETED":
                item = self._decode(event.object)
                self._put(item.key, None)
                self._machine.saw(item.metadata.resource_version)
            case "BOOKMARK":
                self._machine.saw(msgspec.json.decode(event.object, type=_Meta).metadata.resource_version)
            case _:
                status = msgspec.json.decode(event.object, type=Status)
                if status.code == 410:
                    raise _Gone
                raise StatusError(status.code or 500, status.reason, status.message)

    def _put(self, key: str, item: T | None) -> None:
        old = self._items.get(key)
        if item is None:
            if old is None:
                return
            del self._items[key]
        else:
            self._items[key] = item if self._keep is None else self._keep(item)
        for handler in self._handlers:
            try:
                handler(old, item)
            except Exception:
                log.exception("a handler failed: resource=%s key=%s", self._resource.plural, key)
