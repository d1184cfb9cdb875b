"""The thin HTTP edge: aiohttp requests in, `api.http` Requests through the handler, responses out."""

import asyncio
import gzip
import logging
import re
import socket
import ssl

from aiohttp import web

from svcplane.api import codec
from svcplane.api.http import Handler, Request, Response, User
from svcplane.api.status import StatusError, unauthorized
from svcplane.base.errors import EnvironmentProblem, reason_of
from svcplane.server.auth import bearer

log = logging.getLogger(__name__)
MAX_BODY = 3 << 20
#: Whoever has not said who they are has nothing large to say.
MAX_ANONYMOUS_BODY = 64 << 10
GZIP_FROM = 128 << 10
#: From so many bytes on that wait to be sent, a watch waits for its client.
UNREAD = 32 << 10
SLOW_CLIENT_S = 30.0
#: A large answer goes out in pieces of this size, each of which a client must take within SLOW_CLIENT_S.
PIECE = 1 << 20
BODY_S = 60.0
#: As kube-apiserver: for so long a connection may wait for its next request, its first one included.
IDLE_S = 90.0
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")


class HttpServer:
    """Serves a handler on one address.  `tokens` is looked at for each request, so it may be replaced."""

    def __init__(
        self,
        handler: Handler,
        tokens: dict[str, User],
        *,
        max_header_size: int = 64 << 10,
        port_flag: str = "--secure-port",
    ) -> None:
        self._port_flag = port_flag
        self._handler, self._tokens, self._max_header = handler, tokens, max_header_size
        self._runner: web.ServerRunner | None = None
        self.port = 0

    async def start(
        self, host: str, port: int, context: ssl.SSLContext | None, listener: socket.socket | None = None
    ) -> None:
        """`listener`: a socket that listens there already.  Raises EnvironmentProblem if the address cannot be had."""
        server = web.Server(
            self._serve,
            access_log=None,
            handler_cancellation=True,
            keepalive_timeout=IDLE_S,
            max_field_size=self._max_header,
            max_line_size=self._max_header,
        )
        runner = web.ServerRunner(server, shutdown_timeout=2.0)
        await runner.setup()
        site: web.BaseSite
        if listener is not None:
            site = web.SockSite(runner, listener, ssl_context=context, backlog=1024)
        else:
            site = web.TCPSite(runner, host, port, ssl_context=context, backlog=1024)
        try:
            await site.start()
        except OSError as error:
            await runner.cleanup()
            why = reason_of(error)
            raise EnvironmentProblem(
                f"cannot listen on {host}:{port}: {why}; choose another {self._port_flag} or --bind-address"
            ) from error
        self._runner = runner
        self.port = int(runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    def _user(self, raw: web.BaseRequest) -> User | None:
        header = _readable(raw.headers.get("Authorization", ""))
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
                body = await self._body(raw, MAX_BODY if user else MAX_ANONYMOUS_BODY) if raw.body_exists else b""
        except TimeoutError:
            return web.Response(status=408, text="the body of the request did not arrive in time\n")
        except StatusError as error:
            return web.Response(status=error.code, body=codec.encode(error.body()), content_type="application/json")
        request = Request(
            raw.method,
            raw.path,
            tuple(raw.query.items()),
            _headers(raw),
            body,
            user,
            raw.remote or "",
        )
        # A client that leaves ends its watch or followed log at once, but never a write half-way.
        work = asyncio.ensure_future(self._handler(request))
        try:
            response = await asyncio.shield(work)
        except asyncio.CancelledError:
            work.add_done_callback(_drop)
            raise
        if response.stream is not None:
            return await self._stream(raw, response)
        return await self._whole(raw, response)

    @staticmethod
    async def _body(raw: web.BaseRequest, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for chunk in raw.content.iter_chunked(1 << 16):
            size += len(chunk)
            if size > limit:
                text = f"Request entity too large: limit is {limit}"
                raise StatusError(413, "RequestEntityTooLarge", text)
            parts.append(chunk)
        return b"".join(parts)

    @staticmethod
    async def _whole(raw: web.BaseRequest, response: Response) -> web.StreamResponse:
        body, headers = response.body, list(response.headers.items())
        if len(body) > GZIP_FROM and "gzip" in raw.headers.get("Accept-Encoding", ""):
            body = await asyncio.to_thread(gzip.compress, body, 1)  # others go on meanwhile
            headers.append(("Content-Encoding", "gzip"))
        headers += _warnings(response)
        if len(body) <= PIECE:
            return web.Response(status=response.status, body=body, headers=headers)
        large = web.StreamResponse(status=response.status, headers=headers)
        large.content_length = len(body)
        try:
            await large.prepare(raw)
            for start in range(0, len(body) if raw.method != "HEAD" else 0, PIECE):
                async with asyncio.timeout(SLOW_CLIENT_S):
                    await large.write(body[start : start + PIECE])
            await large.write_eof()
        except (ConnectionError, TimeoutError) as error:
            _cut_off(raw, error)
        return large

    @staticmethod
    async def _stream(raw: web.BaseRequest, response: Response) -> web.StreamResponse:
        headers = {"Content-Type": "application/json"} | response.headers
        answer = web.StreamResponse(status=response.status, headers=[*headers.items(), *_warnings(response)])
        answer.enable_chunked_encoding()
        stream = response.stream
        assert stream is not None
        try:
            await answer.prepare(raw)
            transport = raw.transport
            if transport is None:
                return answer
            sink = _Chunks(transport)
            if response.push_to is not None:
                response.push_to(sink)
            async for chunk in stream:
                if transport.is_closing():
                    return answer
                if chunk and len(chunk) < UNREAD and sink.has_room():
                    sink.write(chunk)
                elif chunk:
                    # a client that does not read is cut off; it holds up nobody else
                    async with asyncio.timeout(SLOW_CLIENT_S):
                        await answer.write(chunk)
            await answer.write_eof()
        except (ConnectionError, TimeoutError) as error:
            _cut_off(raw, error)
        finally:
            await stream.aclose()  # type: ignore[attr-defined]
        return answer


def _warnings(response: Response) -> list[tuple[str, str]]:
    """Each once; not those that no header can hold.  Source: k8s.io/apimachinery/pkg/util/net NewWarningHeader."""
    held = (text for text in dict.fromkeys(response.warnings) if not _CONTROL.search(text))
    escaped = (text.replace("\\", "\\\\").replace('"', '\\"') for text in held)
    return [("Warning", f'299 - "{text}"') for text in escaped]


class _Chunks:
    """Implements `api.http.Sink`: straight to the socket, each piece as a chunk of HTTP/1.1.

    A hundred watchers of two hundred writes a second are 20,000 of these.
    """

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._send, self._waiting = transport.write, transport.get_write_buffer_size

    def has_room(self) -> bool:
        return not self._transport.is_closing() and self._waiting() < UNREAD

    def write(self, chunk: bytes) -> None:
        self._send(b"%x\r\n%b\r\n" % (len(chunk), chunk))


def _cut_off(raw: web.BaseRequest, error: Exception) -> None:
    """The client has gone, or does not read: what waits for it is not kept any longer."""
    log.debug("a client is cut off: remote=%s error=%r", raw.remote, error)
    if raw.transport is not None:
        raw.transport.abort()


def _drop(work: "asyncio.Future[Response]") -> None:
    """Close the stream of a response that nobody waits for any more."""
    stream = None if work.cancelled() or work.exception() else work.result().stream
    if stream is not None:
        closing = asyncio.ensure_future(stream.aclose())  # type: ignore[attr-defined]
        _closing.add(closing)
        closing.add_done_callback(_closing.discard)


_closing: set["asyncio.Future[None]"] = set()  # the loop itself holds tasks weakly


def _readable(text: str) -> str:
    """Bytes of a header that are not UTF-8 cannot be written anywhere: they become replacement characters."""
    return text if text.isascii() else text.encode(errors="surrogateescape").decode(errors="replace")


def _headers(raw: web.BaseRequest) -> dict[str, str]:
    """Names in lower case; a header given several times as one, with commas."""
    found: dict[str, str] = {}
    for key, text in raw.headers.items():
        name, value = key.lower(), _readable(text)
        found[name] = f"{found[name]},{value}" if name in found else value
    return found
