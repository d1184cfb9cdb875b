"""What goes over the cluster's Services now, as the nodes' agents see it, each asked through the API (nodes/proxy).

Which Service and Pod a translation belongs to is told by the browser, which has both.
"""

import asyncio
from dataclasses import dataclass

import msgspec

from svcplane.base.errors import TransportError
from svcplane.client.transport import Transport
from svcplane.dashboard.nodeside import ask_agent
from svcplane.dashboard.reading import node_names

#: Nodes asked at once: each answer takes a second, and a server has only so many requests in flight.
AT_ONCE = 100
ANSWER_S = 5.0


class Flow(msgspec.Struct, frozen=True):
    """One translation on one node, as its agent tells it (`kernel.conntrack.traffic.Translated`)."""

    protocol: str
    address: str
    port: int
    endpoint: str
    endpoint_port: int
    new: int
    active: int
    sent: int | None = None
    received: int | None = None


class NodeTraffic(msgspec.Struct, frozen=True):
    """An agent's answer."""

    seconds: float
    flows: list[Flow]


@dataclass(frozen=True, slots=True)
class NodeAnswer:
    """Of one node; `problem`: why nothing is known of it, else empty."""

    node: str
    seconds: float
    flows: list[Flow]
    problem: str = ""


async def traffic(transport: Transport) -> list[NodeAnswer]:
    """Of every node.  One that cannot be asked is told about, and hinders no other.

    Raises StatusError where the user may not list nodes, TransportError where the API server is away.
    """
    gate = asyncio.Semaphore(AT_ONCE)
    return list(await asyncio.gather(*(_of_node(transport, name, gate) for name in await node_names(transport))))


async def _of_node(transport: Transport, node: str, gate: asyncio.Semaphore) -> NodeAnswer:
    try:
        async with gate, asyncio.timeout(ANSWER_S):
            body = await ask_agent(transport, node, "/traffic")
    except TimeoutError:
        return NodeAnswer(node, 0, [], f"no answer within {ANSWER_S:g} s")
    except TransportError as error:
        return NodeAnswer(node, 0, [], str(error))
    try:
        found = msgspec.json.decode(body, type=NodeTraffic)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        return NodeAnswer(node, 0, [], str(error))
    return NodeAnswer(node, found.seconds, found.flows)
