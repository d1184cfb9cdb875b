"""The Transport over sockets: aiohttp, keep-alive, TLS, streams."""

import asyncio
import contextlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import aiohttp

from svcplane import __version__
from svcplane.api.http import Request, Response
from svcplane.base.errors import ConfigError, TransportError
from svcplane.client.kubeconfig import ClusterAccess
from svcplane.client.plugin import Plugin

CONNECT_TIMEOUT_S = 10.0
REQUEST_TIMEOUT_S = 60.0
#: A watch on which nothing comes for so long (bookmarks come each minute) is taken for dead.
WATCH_SILENCE_S = 120.0


TOKEN_LOOK_S = 60.0


@dataclass(frozen=True, slots=True)
class _Credentials:
    """What a request shows.  `context`: False for certificates nobody looks at, or plain http."""

    headers: Mapping[str, str]
    context: ssl.SSLContext | bool


class _Wallet:
    """Credentials that may be renewed: a token in its file, as a Pod's is each hour (looked at once a minute), or
    token and client certificate by a plug-in, once they have expired or were refused."""

    def __init__(self, access: ClusterAccess) -> None:
        self._access, self._plugin, self._expires_at = access, access.plugin, access.expires_at
        self._looked_s = time.monotonic()
        self._asking = asyncio.Lock()
        self._held = self._shown(access.ssl_context() or False)

    def _shown(self, context: ssl.SSLContext | bool) -> _Credentials:
        token = self._access.token
        return _Credentials({"Authorization": f"Bearer {token}"} if token else {}, context)

    def _take(self, access: ClusterAccess) -> None:
        """From now on.  Connections are kept by their context, so that another token alone needs no other."""
        same = (access.cert, access.key) == (self._access.cert, self._access.key)
        context = self._held.context if same else access.ssl_context() or False
        self._access = access
        self._held = self._shown(context)

    async def credentials(self) -> _Credentials:
        """Raises TransportError where the plug-in gives no new ones."""
        file = self._access.token_file
        if file and time.monotonic() - self._looked_s >= TOKEN_LOOK_S:
            self._looked_s = time.monotonic()
            with contextlib.suppress(OSError, UnicodeDecodeError):  # the one we have may still serve
                token = Path(file).read_text().strip()
                if token and token != self._access.token:
                    self._take(replace(self._access, token=token))
        if self._plugin is not None:
            async with self._asking:
                await self._renew(self._plugin)
        return self._held

    async def _renew(self, plugin: Plugin) -> None:
        if self._expires_at is None or time.time() < self._expires_at:
            return
        try:
            given = await asyncio.to_thread(plugin.ask)
            self._take(self._access.given(given))
        except ConfigError as error:
            raise TransportError(str(error)) from error
        self._expires_at = given.expires_at

    def refused(self, shown: _Credentials) -> bool:
        """A server answered 401 to these; whether another try may do better."""
        if self._plugin is None:
            return False
        if shown is self._held:
            self._expires_at = 0.0
        return True


class HttpTransport:
    """Implements `client.transport.Transport`.  Must be made inside a running event loop.

    `open_socket`: makes the sockets to connect, such as those of another network namespace, by their family.
    `called` hears of each call: method, server, status (`<error>` where nobody answered), seconds.
    """

    def __init__(
        self,
        access: ClusterAccess,
        *,
        user_agent: str = f"svcplane/{__version__}",
        open_socket: Callable[[int], socket.socket] | None = None,
        called: Callable[[str, str, str, float], None] | None = None,
    ) -> None:
        self._called = called
        self._servers = access.servers
        headers = {"User-Agent": user_agent, "Accept": "application/json"}
        self._wallet = _Wallet(access)
        connector = aiohttp.TCPConnector(
            limit=256,
            socket_factory=(lambda info: open_socket(info[0])) if open_socket is not None else None,
        )
        self._session = aiohttp.ClientSession(connector=connector, headers=headers, auto_decompress=True)

    async def send(self, request: Request) -> Response:
        """A server that does not answer is passed over for the next one; a write that may have arrived is not
        sent again."""
        problem: TransportError | None = None
        for _ in range(len(self._servers)):
            server, began = self._servers[0], time.monotonic()
            try:
                response = await self._send(server, request)
                self._tell(request.method, server, str(response.status), began)
                return response
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                self._tell(request.method, server, "<error>", began)
                problem = TransportError(f"API server {server}: {_reason(error)}")
                problem.__cause__ = error
                if self._servers[0] == server:  # others may have moved on already
                    self._servers.append(self._servers.pop(0))
                if request.method != "GET" and not isinstance(error, aiohttp.ClientConnectorError):
                    break
        assert problem is not None
        raise problem

    def _tell(self, method: str, server: str, code: str, began: float) -> None:
        if self._called is not None:
            self._called(method, server, code, time.monotonic() - began)

    async def _send(self, server: str, request: Request) -> Response:
        # a followed log may be silent for a day; a watch has its bookmarks
        following = bool(request.param("follow"))
        watching = following or any(key == "watch" for key, _ in request.query)
        timeout = aiohttp.ClientTimeout(
            total=None if watching else REQUEST_TIMEOUT_S,
            sock_connect=CONNECT_TIMEOUT_S,
            sock_read=WATCH_SILENCE_S if watching and not following else None,
        )
        for attempt in range(2):
            shown = await self._wallet.credentials()
            answer = await self._session.request(
                request.method,
                server + request.path,
                params=list(request.query),
                data=request.body or None,
                headers={**shown.headers, **request.headers},
                ssl=shown.context,
                timeout=timeout,
            )
            if answer.status != 401 or attempt or not self._wallet.refused(shown):
                break
            answer.release()
        if watching and answer.status == 200:
            return Response(200, headers=dict(answer.headers), stream=_chunks(answer))
        async with answer:
            return Response(answer.status, await answer.read(), dict(answer.headers))

    async def close(self) -> None:
        await self._session.close()
        await asyncio.sleep(0)  # let the connector's transports close


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise TransportError(f"the stream broke: {str(error) or type(error).__name__}") from error
    finally:
        answer.close()


def _reason(error: Exception) -> str:
    """Why a server was not reached, and what to do about it."""
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        said = getattr(error.certificate_error, "verify_message", "") or str(error.certificate_error)
        return f"its certificate is not trusted ({said}); see the kubeconfig's certificate-authority"
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(cause, ConnectionRefusedError):
        return "connection refused; is it running, and is that its address?"
    if isinstance(cause, OSError) and not isinstance(cause, ssl.SSLError) and cause.errno and cause.errno > 0:
        return os.strerror(cause.errno).lower()
    return str(error) or type(error).__name__
