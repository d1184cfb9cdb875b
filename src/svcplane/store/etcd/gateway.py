"""HTTP with one of several etcd servers, the next one where one does not answer."""

import asyncio
import io
import logging
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import msgspec

from svcplane.base.errors import ConfigError, StoreError
from svcplane.store.contract import Compacted, Revision
from svcplane.store.etcd.wire import EVERY_KEY, Message, number, revision_of, text

log = logging.getLogger(__name__)
CONNECT_TIMEOUT_S = 2.0
REQUEST_TIMEOUT_S = 7.0  # etcd itself gives up after about five seconds
OUT_OF_RANGE = 11
LARGE_BODY = 256 << 10
_decode = msgspec.json.Decoder(dict).decode
_encode = msgspec.json.Encoder().encode


class RevisionGone(StoreError):
    """etcd has compacted the asked-for revision; it does not say up to where."""


class TooLarge(StoreError):
    """An answer exceeds what etcd's gateway takes in one message."""


@dataclass(frozen=True, slots=True)
class EtcdAccess:
    """Where etcd is and how to prove who we are.  `servers`: base URLs, all http or all https."""

    servers: tuple[str, ...]
    ca_file: Path | None = None
    cert_file: Path | None = None
    key_file: Path | None = None

    @classmethod
    def parse(
        cls, servers: str, ca: Path | None = None, cert: Path | None = None, key: Path | None = None
    ) -> "EtcdAccess":
        """From flags.  Raises ConfigError."""
        urls = tuple(part.strip().rstrip("/") for part in servers.split(",") if part.strip())
        for url in urls:
            if not url.startswith(("http://", "https://")):
                raise ConfigError(f"--etcd-servers {url}: must be http://HOST:PORT or https://HOST:PORT")
        if not urls:
            raise ConfigError("--etcd-servers: must name at least one URL")
        if (cert is None) != (key is None):
            raise ConfigError("--etcd-certfile and --etcd-keyfile go together")
        return cls(urls, ca, cert, key)

    def ssl_context(self) -> ssl.SSLContext | None:
        """None without https.  Raises ConfigError."""
        if not any(url.startswith("https://") for url in self.servers):
            return None
        try:
            context = ssl.create_default_context(cafile=str(self.ca_file) if self.ca_file else None)
            if self.cert_file is not None and self.key_file is not None:
                context.load_cert_chain(self.cert_file, self.key_file)
        except OSError as error:  # SSLError is one
            raise ConfigError(f"--etcd-cafile, --etcd-certfile, --etcd-keyfile: {error}") from error
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        return context


class Gateway:
    """Must be made inside a running event loop; close it."""

    def __init__(self, access: EtcdAccess) -> None:
        context = access.ssl_context()
        connector = aiohttp.TCPConnector(ssl=context if context is not None else True, limit=256)
        self._session = aiohttp.ClientSession(connector=connector)
        self._servers = list(access.servers)

    @property
    def server(self) -> str:
        """The one in use."""
        return self._servers[0]

    def _next_server(self, failed: str) -> None:
        """Others may have moved on already."""
        if self._servers[0] == failed:
            self._servers.append(self._servers.pop(0))

    async def call(self, path: str, body: Message, *, repeatable: bool = True) -> Message:
        """One call.  What may change something (`repeatable` False) is tried again only if it was never sent.

        Raises StoreError; then the outcome of such a call is unknown.
        """
        timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S, sock_connect=CONNECT_TIMEOUT_S)
        data = _encode(body)
        problem = ""
        for _ in range(len(self._servers)):
            server = self.server
            try:
                async with self._session.post(server + path, data=_body(data), timeout=timeout) as answer:
                    raw = await answer.read()
                    if answer.status == 200:
                        return _decode(raw)
                    error = _failure(server, answer.status, raw)
            except aiohttp.ClientConnectorError as refused:
                problem = f"etcd {server} cannot be reached: {refused.os_error.strerror or refused}"
                self._next_server(server)
                continue
            except (aiohttp.ClientError, TimeoutError, OSError) as broken:
                problem = f"etcd {server} did not answer: {str(broken) or type(broken).__name__}"
                self._next_server(server)
                if not repeatable:
                    break
                continue
            if not isinstance(error, _Unavailable):
                raise error
            problem = str(error)
            self._next_server(server)
            if not repeatable:
                break
        raise StoreError(problem)

    async def stream(self, path: str, body: Message) -> AsyncIterator[Message]:
        """The `result` of each line of a streamed answer.  Raises StoreError where it breaks; close the iterator."""
        server = self.server
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
        try:
            async with self._session.post(server + path, data=_encode(body), timeout=timeout) as answer:
                if answer.status != 200:
                    raise _failure(server, answer.status, await answer.read())
                parts: list[bytes] = []
                async for chunk in answer.content.iter_any():
                    *whole, rest = chunk.split(b"\n")
                    for line in whole:
                        parts.append(line)
                        if joined := b"".join(parts):
                            yield _result(server, joined)
                        parts = []
                    parts.append(rest)
        except (aiohttp.ClientError, TimeoutError, OSError) as broken:
            self._next_server(server)
            raise StoreError(f"etcd {server}: the stream broke: {str(broken) or type(broken).__name__}") from broken

    async def revision(self) -> Revision:
        """The newest revision, agreed on by the cluster's majority."""
        body: Message = {"key": text(EVERY_KEY), "count_only": True}
        return revision_of(await self.call("/v3/kv/range", body))

    async def compacted(self) -> Revision:
        """The newest revision that has been compacted; 1 where none has been.

        etcd tells it only to a watch that asks for what is gone.
        """
        watch = self.stream("/v3/watch", {"create_request": {"key": text(EVERY_KEY), "start_revision": "1"}})
        try:
            async with asyncio.timeout(REQUEST_TIMEOUT_S):
                async for result in watch:
                    if result.get("canceled"):
                        return Revision(number(result, "compact_revision"))
                    if result.get("events"):
                        break
        except TimeoutError:
            pass
        finally:
            await watch.aclose()  # type: ignore[attr-defined]
        return Revision(1)

    async def close(self) -> None:
        await self._session.close()
        await asyncio.sleep(0)  # let the connector's transports close


def _body(data: bytes) -> bytes | io.BytesIO:
    """Large bodies are sent in pieces, between which the loop does other work."""
    return data if len(data) < LARGE_BODY else io.BytesIO(data)


class _Unavailable(StoreError):
    """This server cannot serve now; another one may."""


def _failure(server: str, status: int, raw: bytes) -> StoreError:
    try:
        body = _decode(raw)
    except msgspec.DecodeError:
        body = {}
    message = str(body.get("message") or body.get("error") or raw.decode(errors="replace")[:200] or f"HTTP {status}")
    code = body.get("code")
    if code == OUT_OF_RANGE and "compacted" in message:
        return RevisionGone(f"etcd {server}: {message}")
    if "larger than max" in message:
        return TooLarge(f"etcd {server}: {message}")
    if "too many operations" in message:
        return StoreError(f"etcd {server}: {message}; start etcd with a larger --max-txn-ops")
    if "database space exceeded" in message:
        return StoreError(f"etcd {server}: {message}; compact and defragment it, then disarm its alarm")
    if status == 503:
        return _Unavailable(f"etcd {server}: {message}")
    return StoreError(f"etcd {server}: {message}")


def _result(server: str, line: bytes) -> Message:
    try:
        message = _decode(line)
    except msgspec.DecodeError as error:
        raise StoreError(f"etcd {server}: the stream holds no JSON: {error}") from error
    if "error" in message:
        detail = message["error"]
        raise _failure(server, 0, _encode(detail if isinstance(detail, dict) else {"message": str(detail)}))
    result: Message = message.get("result", {})
    if result.get("canceled") and "compact_revision" not in result:
        raise StoreError(f"etcd {server}: the watch was cancelled: {result.get('cancel_reason', 'no reason given')}")
    return result


def compacted_watch(result: Message, asked: Revision) -> None:
    """Raise Compacted where a watch's answer says that its start is gone."""
    if result.get("canceled"):
        raise Compacted(asked, number(result, "compact_revision"))
