"""Requests and responses without a transport: what client and server agree on, over sockets or in process.

Pure values.  `server` offers `async def handle(Request) -> Response`; `client` sends Requests through a
Transport, of which one opens sockets and one calls a handler in the same process.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol


@dataclass(frozen=True, slots=True)
class User:
    """Who asks.  `groups` as in the token file; `system:masters` may do everything."""

    name: str
    groups: frozenset[str] = frozenset()
    uid: str = ""


IN_PROCESS_USER = User("system:svcplane", frozenset({"system:masters", "system:authenticated"}))


@dataclass(frozen=True, slots=True)
class Request:
    """`path` is decoded and without query; `query` keeps order and repeats; header names are lower case."""

    method: str
    path: str
    query: tuple[tuple[str, str], ...] = ()
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    user: User | None = None
    remote: str = ""

    def param(self, name: str, default: str = "") -> str:
        """The first value of a query parameter."""
        return next((value for key, value in self.query if key == name), default)


class Sink(Protocol):
    """Where chunks of a stream may go without anybody reading it."""

    def has_room(self) -> bool:
        """Whether a chunk may be written now."""

    def write(self, chunk: bytes) -> None: ...


@dataclass(slots=True)
class Response:
    """A whole `body`, or a `stream` of chunks (watches, followed logs) that ends when the server ends it.

    Whoever takes a Response with a stream must close it (`aclose`) when done.  Where there is `push_to`, it may be
    called once, before the stream is read: while the reader waits for the next chunk, chunks go to the sink instead
    as long as that has room, in the same order.
    """

    status: int
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
    stream: AsyncIterator[bytes] | None = None
    push_to: Callable[[Sink], None] | None = None


class Closing:
    """A stream that calls `closed` when it is closed, also where nobody has read from it: a generator that was never
    started does not run its `finally`."""

    def __init__(self, chunks: AsyncIterator[bytes], closed: Callable[[], Awaitable[None]]) -> None:
        self._chunks, self._closed = chunks, closed
        self._open = True

    def __aiter__(self) -> "Closing":
        return self

    async def __anext__(self) -> bytes:
        return await anext(self._chunks)

    async def aclose(self) -> None:
        if not self._open:
            return
        self._open = False
        try:
            await self._chunks.aclose()  # type: ignore[attr-defined]
        finally:
            await self._closed()


Handler = Callable[[Request], Awaitable[Response]]
