"""What the proxy of a node tells: asked in the console's own network namespace, else of the node's agent by the API."""

from collections.abc import Mapping
from typing import TypeVar

import msgspec

from svcplane.api.http import Request
from svcplane.api.resources import NODES
from svcplane.base.errors import SvcplaneError, TransportError
from svcplane.client.transport import Transport
from svcplane.kernel.ruleset.objects import ForeignChain, Ruleset
from svcplane.proxy.inspect import look_apart
from svcplane.proxy.looking import FOREIGN, NODE, RULES, STATE, TRACE, LiveRules, LiveTrace
from svcplane.proxy.model import Packet
from svcplane.proxy.snapshot import Snapshot

T = TypeVar("T")
Query = Mapping[str, str]


class NodeSide:
    """One node.  Every question raises TransportError with the reason where it is not answered."""

    def __init__(self, transport: Transport, node: str) -> None:
        self._transport, self._node = transport, node
        self._here: bool | None = None

    async def state(self) -> Snapshot:
        """What the proxy is and wants."""
        return await self._ask(STATE, {}, Snapshot)

    async def rules(self, words: str) -> LiveRules:
        """What the kernel holds, as far as it has the words, and how it differs from what is desired."""
        return await self._ask(RULES, {"words": words}, LiveRules)

    async def trace(self, packet: Packet) -> LiveTrace:
        """What the kernel's rules do with a packet."""
        query = {"src": packet.src, "dst": packet.dst, "dport": str(packet.dport)}
        return await self._ask(TRACE, {**query, "protocol": packet.protocol, "origin": packet.origin}, LiveTrace)

    async def foreign(self) -> Ruleset:
        """Everybody else's rules."""
        found = await self._ask(FOREIGN, {}, list[ForeignChain])
        return Ruleset({chain.key: chain for chain in found})

    async def _ask(self, page: str, query: Query, kind: type[T]) -> T:
        if self._here is None:
            self._here = await self._is_here()
        body = await look_apart(page, query) if self._here else None
        if body is None:
            body = await ask_agent(self._transport, self._node, page, query)
        try:
            return msgspec.json.decode(body, type=kind)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise TransportError(f"the agent of {self._node} tells nothing of its proxy: {error}") from error

    async def _is_here(self) -> bool:
        try:
            body = await look_apart(NODE)
            return body is not None and msgspec.json.decode(body, type=str) == self._node
        except (SvcplaneError, msgspec.DecodeError):
            return False


async def ask_agent(transport: Transport, node: str, page: str, query: Query | None = None) -> bytes:
    """What the agent of a node answers.  Raises TransportError with its reason where it does not."""
    path = NODES.path("", node, "proxy") + page
    answer = await transport.send(
        Request("GET", path, tuple((query or {}).items()), headers={"accept": "application/json"})
    )
    body = answer.body
    if answer.stream is not None:
        try:
            body = b"".join([chunk async for chunk in answer.stream])
        finally:
            await answer.stream.aclose()  # type: ignore[attr-defined]
    if answer.status == 200:
        return body
    try:
        problem = msgspec.json.decode(body)["message"]
    except (msgspec.MsgspecError, KeyError, TypeError):
        problem = body.decode(errors="replace").strip()[:200] or f"its agent answered {answer.status}"
    raise TransportError(str(problem))
