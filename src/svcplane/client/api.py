"""Typed calls over a Transport.

Objects come back as trees (`dict`) or, where a struct type is given, as that type.  A failure Status is raised
as `StatusError`; a server out of reach is TransportError.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, NoReturn

import msgspec

from svcplane.api.http import Request, Response
from svcplane.api.resources import Resource
from svcplane.api.status import StatusError
from svcplane.base.errors import TransportError
from svcplane.client.transport import Transport

Tree = dict[str, Any]
PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "strategic": "application/strategic-merge-patch+json",
    "apply": "application/apply-patch+yaml",
}
#: How often a call is sent to a server that answers 429 with Retry-After.
BUSY_TRIES = 10
_encoder = msgspec.json.Encoder()


def raise_for(response: Response) -> None:
    """Raise the StatusError that a failed response holds."""
    if response.status < 400:
        return
    try:
        body = msgspec.json.decode(response.body)
    except msgspec.DecodeError:
        body = {}
    if not isinstance(body, dict):
        body = {}
    message = body.get("message") or response.body.decode(errors="replace")[:300] or f"HTTP status {response.status}"
    if response.status == 401:
        message += ": the API server does not know these credentials; see the kubeconfig's user"
    raise StatusError(response.status, body.get("reason", ""), message, body.get("details"))


def raise_for_event(status: Tree) -> NoReturn:
    """Raise the StatusError that a watch's ERROR event holds."""
    message = status.get("message") or "the watch failed"
    raise StatusError(int(status.get("code") or 500), status.get("reason", ""), message, status.get("details"))


class ApiClient:
    """`agent` names the field manager of writes."""

    def __init__(self, transport: Transport, agent: str = "svcplane") -> None:
        self._transport, self._agent = transport, agent

    async def call(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "",
    ) -> Response:
        """One call; raises for a failure Status.  A server that is too busy is asked again when it says."""
        headers = {"user-agent": f"{self._agent}/svcplane", "accept": accept or "application/json"}
        data = b""
        if body is not None:
            headers["content-type"] = content_type
            data = body if isinstance(body, bytes) else _encoder.encode(body)
        request = Request(method, path, tuple((query or {}).items()), headers, data)
        for _ in range(BUSY_TRIES):
            response = await self._transport.send(request)
            wait = response.headers.get("Retry-After", "") if response.status == 429 else ""
            if not wait.isdigit():
                break
            await asyncio.sleep(int(wait))
        if response.status >= 400:
            raise_for(response)
        return response

    async def get(self, resource: Resource, namespace: str, name: str) -> Tree:
        return tree_of(await self.call("GET", resource.path(namespace, name)))

    async def list(self, resource: Resource, namespace: str = "", *, labels: str = "", fields: str = "") -> Tree:
        query = {key: value for key, value in (("labelSelector", labels), ("fieldSelector", fields)) if value}
        return tree_of(await self.call("GET", resource.path(namespace), query=query))

    async def create(self, resource: Resource, namespace: str, obj: Any) -> Tree:
        return tree_of(await self.call("POST", resource.path(namespace), body=obj))

    async def update(self, resource: Resource, namespace: str, name: str, obj: Any, *, subresource: str = "") -> Tree:
        return tree_of(await self.call("PUT", resource.path(namespace, name, subresource), body=obj))

    async def patch(
        self,
        resource: Resource,
        namespace: str,
        name: str,
        patch: Any,
        *,
        subresource: str = "",
        kind: str = "merge",
        query: Mapping[str, str] | None = None,
    ) -> Tree:
        path = resource.path(namespace, name, subresource)
        return tree_of(await self.call("PATCH", path, query=query, body=patch, content_type=PATCH_TYPES[kind]))

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str = "", grace_s: int | None = None
    ) -> None:
        """`uid`: only this very object.  Raises StatusError 404 where it is not there."""
        options: Tree = {"apiVersion": "v1", "kind": "DeleteOptions"}
        if uid:
            options["preconditions"] = {"uid": uid}
        if grace_s is not None:
            options["gracePeriodSeconds"] = grace_s
        tree_of(await self.call("DELETE", resource.path(namespace, name), body=options))

    async def watch(self, resource: Resource, namespace: str, query: Mapping[str, str]) -> Response:
        """The caller reads and closes `stream`."""
        return await self.call("GET", resource.path(namespace), query={"watch": "true", **query})

    async def close(self) -> None:
        await self._transport.close()


def tree_of(response: Response) -> Tree:
    """The object of an answer.  Raises TransportError where no API gave it, but a portal's login page, say."""
    try:
        tree = msgspec.json.decode(response.body)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise TransportError(f"what answers is no Kubernetes API: {error}") from error
    items = tree.get("items") if isinstance(tree, dict) else None
    if not isinstance(tree, dict) or not all(isinstance(item, dict) for item in items or ()):
        raise TransportError("what answers is no Kubernetes API: it gives something else than objects")
    return tree


async def lines(stream: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Whole lines out of chunks.  Raises TransportError where the stream breaks in the middle of one."""
    rest = b""
    async for chunk in stream:
        *whole, rest = (rest + chunk).split(b"\n") if rest else chunk.split(b"\n")
        for line in whole:
            if line:
                yield line
    if rest:
        raise TransportError("the stream ended in the middle of a line")
