"""An API server in this process, on a store in memory, and a short way to call it.

`async with in_process_server() as server:` gives an `ApiServer`; `Caller(server.handle)` sends requests to it.
Nothing listens and nothing is written to disk.
"""

import json
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from svcplane.api.http import IN_PROCESS_USER, Handler, Request, Response, User
from svcplane.server.app import ApiServer, ApiServerConfig
from svcplane.store.contract import Store
from svcplane.store.memory import MemoryStore

DUAL_STACK = ("10.96.0.0/16", "fd00:10:96::/112")


@asynccontextmanager
async def in_process_server(
    *, service_cidrs: tuple[str, ...] = DUAL_STACK, store: Store | None = None, **options: Any
) -> AsyncIterator[ApiServer]:
    """A started server.  `options` are further fields of `ApiServerConfig`."""
    settings: dict[str, Any] = {"secure_port": None, "audit": None, **options}
    config = ApiServerConfig(service_cidrs=service_cidrs, **settings)
    async with ApiServer(config, store or MemoryStore()) as server:
        yield server


@dataclass(frozen=True, slots=True)
class Caller:
    """Sends JSON requests as one user."""

    handle: Handler
    user: User | None = IN_PROCESS_USER

    async def send(
        self, method: str, url: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> Response:
        """`url`: path and query.  A `body` of bytes is sent as it is, another as JSON."""
        parts = urlsplit(url)
        raw = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        lower = {"content-type": "application/json", "user-agent": "test/1"}
        lower |= {key.lower(): value for key, value in (headers or {}).items()}
        query = tuple(parse_qsl(parts.query, keep_blank_values=True))
        return await self.handle(Request(method, parts.path, query, lower, raw, self.user, "test"))

    async def call(
        self, method: str, url: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any]:
        """The status and the decoded body."""
        response = await self.send(method, url, body, headers)
        return response.status, json.loads(response.body)
