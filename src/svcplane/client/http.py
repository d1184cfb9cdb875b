"""The Transport over sockets: aiohttp, keep-alive, TLS, streams."""

import asyncio
from collections.abc import AsyncIterator

import aiohttp

from svcplane import __version__
from svcplane.api.http import Request, Response
from svcplane.base.errors import TransportError
from svcplane.client.kubeconfig import ClusterAccess

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 60.0
#: A watch on which nothing comes for so long (bookmarks come each minute) is taken for dead.
WATCH_SILENCE_S = 120.0


class HttpTransport:
    """Implements `client.transport.Transport`.  Must be made inside a running event loop."""

    def __init__(self, access: ClusterAccess, *, user_agent: str = f"svcplane/{__version__}") -> None:
        self._base = access.server
        headers = {"User-Agent": user_agent, "Accept": "application/json"}
        if access.token:
            headers["Authorization"] = f"Bearer {access.token}"
        context = access.ssl_context()
        connector = aiohttp.TCPConnector(ssl=context if context is not None else False, limit=256)
        self._session = aiohttp.ClientSession(connector=connector, headers=headers, auto_decompress=True)

    async def send(self, request: Request) -> Response:
        watching = any(key == "watch" for key, _ in request.query) or any(key == "follow" for key, _ in request.query)
        timeout = aiohttp.ClientTimeout(
            total=None if watching else REQUEST_TIMEOUT_S,
            sock_connect=CONNECT_TIMEOUT_S,
            sock_read=WATCH_SILENCE_S if watching else None,
        )
        try:
            answer = await self._session.request(
                request.method,
                self._base + request.path,
                params=list(request.query),
                data=request.body or None,
                headers=dict(request.headers),
                timeout=timeout,
            )
            if watching and answer.status == 200:
                return Response(200, headers=dict(answer.headers), stream=_chunks(answer))
            async with answer:
                return Response(answer.status, await answer.read(), dict(answer.headers))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise TransportError(f"API server {self._base}: {str(error) or type(error).__name__}") from error

    async def close(self) -> None:
        await self._session.close()
        await asyncio.sleep(0)  # let the connector's transports close


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise TransportError(f"the watch broke: {str(error) or type(error).__name__}") from error
    finally:
        answer.close()
