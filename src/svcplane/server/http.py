"""The thin HTTP edge: aiohttp requests in, `api.http` Requests through the handler, responses out."""

import asyncio
import gzip
import logging
import ssl

from aiohttp import web

from svcplane.api import codec
from svcplane.api.http import Handler, Request, Response, User
from svcplane.api.status import StatusError, unauthorized
from svcplane.base.errors import EnvironmentProblem
from svcplane.server.auth import bearer

log = logging.getLogger(__name__)
MAX_BODY = 3 << 20
GZIP_FROM = 128 << 10
SLOW_CLIENT_S = 30.0
BODY_S = 60.0


class HttpServer:
    """Serves a handler on one address.  `tokens` is looked at for each request, so it may be replaced."""

    def __init__(self, handler: Handler, tokens: dict[str, User], *, max_header_size: int = 64 << 10) -> None:
        self._handler, self._tokens, self._max_header = handler, tokens, max_header_size
        self._runner: web.ServerRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """Raises EnvironmentProblem where the address cannot be had."""
        server = web.Server(
            self._serve, access_log=None, max_field_size=self._max_header, max_line_size=self._max_header
        )
        runner = web.ServerRunner(server, shutdown_timeout=2.0)
        await runner.setup()
        site = web.TCPSite(runner, host, port, ssl_context=context, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            why = error.strerror or error
            raise EnvironmentProblem(
                f"cannot listen on {host}:{port}: {why}; choose another --secure-port or --bind-address"
            ) from error
        self._runner = runner
        self.port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _user(self, raw: web.BaseRequest) -> User | None:
        header = raw.headers.get("Authorization", "")
        if header:
            user = bearer(header, self._tokens)
            if user is None:
                raise unauthorized()
            return user
        ssl_object = raw.transport.get_extra_info("ssl_object") if raw.transport else None
        certificate = ssl_object.getpeercert() if ssl_object is not None else None
        if not certificate:
            return None
        names = {key: [] for key in ("commonName", "organizationName")}  # type: dict[str, list[str]]
        for part in certificate.get("subject", ()):
            for key, value in part:
                names.setdefault(key, []).append(value)
        if not names["commonName"]:
            return None
        return User(names["commonName"][0], frozenset(names["organizationName"]) | {"system:authenticated"})

    async def _serve(self, raw: web.BaseRequest) -> web.StreamResponse:
        try:
            user = self._user(raw)
            async with asyncio.timeout(BODY_S):
                body = await self._body(raw) if raw.body_exists else b""
        except TimeoutError:
            return web.Response(status=408, text="the body of the request did not arrive in time\n")
        except StatusError as error:
            return web.Response(status=error.code, body=codec.encode(error.body()), content_type="application/json")
        request = Request(
            raw.method,
            raw.path,
            tuple(raw.query.items()),
            {key.lower(): value for key, value in raw.headers.items()},
            body,
            user,
            raw.remote or "",
        )
        response = await self._handler(request)
        if response.stream is not None:
            return await self._stream(raw, response)
        return await self._whole(raw, response)

    @staticmethod
    async def _body(raw: web.BaseRequest) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for chunk in raw.content.iter_chunked(1 << 16):
            size += len(chunk)
            if size > MAX_BODY:
                text = f"Request entity too large: limit is {MAX_BODY}"
                raise StatusError(413, "RequestEntityTooLarge", text)
            parts.append(chunk)
        return b"".join(parts)

    @staticmethod
    async def _whole(raw: web.BaseRequest, response: Response) -> web.Response:
        body = response.body
        headers = dict(response.headers)
        if len(body) > GZIP_FROM and "gzip" in raw.headers.get("Accept-Encoding", ""):
            body = await asyncio.to_thread(gzip.compress, body, 1)  # others go on meanwhile
            headers["Content-Encoding"] = "gzip"
        answer = web.Response(status=response.status, body=body, headers=headers)
        for text in response.warnings:
            quoted = text.replace("\\", "\\\\").replace('"', '\\"')
            answer.headers.add("Warning", f'299 - "{quoted}"')
        return answer

    @staticmethod
    async def _stream(raw: web.BaseRequest, response: Response) -> web.StreamResponse:
        answer = web.StreamResponse(
            status=response.status, headers={"Content-Type": "application/json"} | response.headers
        )
        answer.enable_chunked_encoding()
        stream = response.stream
        assert stream is not None
        try:
            await answer.prepare(raw)
            async for chunk in stream:
                if chunk:
                    # a client that does not read is cut off; it holds up nobody else
                    async with asyncio.timeout(SLOW_CLIENT_S):
                        await answer.write(chunk)
            await answer.write_eof()
        except (ConnectionError, TimeoutError) as error:
            log.debug("watch ended by its client: remote=%s error=%r", raw.remote, error)
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
        return answer
