"""How a client reaches an API server: over sockets, or a handler in the same process.

Both carry the same Requests and Responses (`api.http`), streams included, so everything above is the same.
"""

from typing import Protocol

from svcplane.api.http import IN_PROCESS_USER, Handler, Request, Response, User


class Transport(Protocol):
    """`send` returns once the status is known; a watch's chunks then come from `Response.stream`.

    Raises TransportError when the server cannot be reached or the connection breaks; a failure Status is not
    an error here.
    """

    async def send(self, request: Request) -> Response: ...

    async def close(self) -> None: ...


class InProcessTransport:
    """Calls the server's handler directly, as `user`."""

    def __init__(self, handler: Handler, user: User = IN_PROCESS_USER) -> None:
        self._handler, self._user = handler, user

    async def send(self, request: Request) -> Response:
        return await self._handler(
            Request(
                request.method, request.path, request.query, request.headers, request.body, self._user, "in-process"
            )
        )

    async def close(self) -> None:
        return None
