"""Looking into a running proxy: an abstract Unix socket in its network namespace, for root and its own user.

An abstract name belongs to the network namespace, as the rules do: whoever looks at a node's rules finds the proxy
that wrote them, needs no port, and nothing is left behind.  Pages are JSON.
"""

import asyncio
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping

import aiohttp
import msgspec
from aiohttp import web

from svcplane.base.errors import EnvironmentProblem, SvcplaneError, TransportError

log = logging.getLogger(__name__)
NAME = "\0svcplane-proxy"
TIMEOUT_S = 10.0
Query = Mapping[str, str]
Answer = Callable[[Query], bytes] | Callable[[Query], Awaitable[bytes]]


class InspectServer:
    """`pages`: path -> the JSON for a query.  A second proxy in one namespace is served without."""

    def __init__(self, pages: Mapping[str, Answer]) -> None:
        self._pages = pages
        self._runner: web.ServerRunner | None = None

    async def start(self) -> None:
        """Raises EnvironmentProblem where the name is taken."""
        listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        try:
            listening.bind(NAME)
        except OSError as error:
            listening.close()
            text = "another svcplane proxy runs in this network namespace: tools will look at that one"
            raise EnvironmentProblem(text) from error
        runner = web.ServerRunner(web.Server(self._serve, access_log=None), shutdown_timeout=1.0)
        await runner.setup()
        await web.SockSite(runner, listening).start()
        self._runner = runner

    async def _serve(self, request: web.BaseRequest) -> web.StreamResponse:
        page = self._pages.get(request.path)
        if not _may_look(request):
            return web.Response(status=403, text="only root and the proxy's own user may look")
        if page is None:
            return web.Response(status=404, text=f"there is no {request.path}")
        try:
            found = page(request.query)
            body = found if isinstance(found, bytes) else await found
            return web.Response(body=body, content_type="application/json")
        except ValueError as error:
            return web.Response(status=400, text=str(error))
        except SvcplaneError as error:
            return web.Response(status=503, text=str(error))

    async def close(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None


async def is_taken() -> bool:
    """Whether a proxy runs in this network namespace."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as end:
        try:
            end.bind(NAME)
        except OSError:
            return True
    return False


def _may_look(request: web.BaseRequest) -> bool:
    peer = request.get_extra_info("socket")
    if peer is None:
        return False
    _, uid, _ = struct.unpack("3i", peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i")))
    return uid in (0, os.geteuid())


async def look(path: str, query: Query | None = None) -> bytes | None:
    """A page of the proxy in this network namespace; None where none runs.  Raises TransportError where it refuses."""
    timeout = aiohttp.ClientTimeout(total=TIMEOUT_S)
    try:
        async with (
            aiohttp.ClientSession(connector=aiohttp.UnixConnector(NAME), timeout=timeout) as session,
            session.get(f"http://proxy{path}", params=dict(query or {})) as answer,
        ):
            body = await answer.read()
            if answer.status == 200:
                return body
            raise TransportError(f"the proxy answered {answer.status}: {body.decode(errors='replace')[:200]}")
    except aiohttp.ClientConnectorError:
        return None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise TransportError(f"the proxy does not answer: {str(error) or type(error).__name__}") from error


async def look_apart(path: str, query: Query | None = None) -> bytes | None:
    """As `look`, from whatever loop: uvloop does not connect to abstract names."""
    return await asyncio.to_thread(lambda: asyncio.run(look(path, query)))


def plain(value: object) -> bytes:
    return msgspec.json.encode(value)
