"""The console's pages, and the questions a browser cannot answer from lists and watches.

    /console                               the page; with its files open to everybody, as they hold no data
    /console/api/explain/NAMESPACE/NAME    the story of a Service (`understand.explain`)
    /console/api/trace?source=&target=...  where a connection goes (`tracing`)
    /console/api/rules/NODE                what the node's proxy has to program (`ruling`)
    /console/api/kernel/NODE?words=...     what the node's kernel holds of it, and how it differs (`nodeside`)
    /console/api/traffic                   connections over the nodes, of the last second (`traffic`)

What is asked is read as the user who asks: the console shows nobody more than the API does.
"""

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec

from svcplane.api import codec
from svcplane.api import status as st
from svcplane.api.http import Request, Response
from svcplane.base.errors import ConfigError, TransportError
from svcplane.base.net import family_of
from svcplane.client.transport import Transport
from svcplane.dashboard.assets import HEADERS, asset
from svcplane.dashboard.nodeside import NodeSide
from svcplane.dashboard.reading import read_cluster, read_story
from svcplane.dashboard.ruling import rules
from svcplane.dashboard.tracing import Cluster, Question, Way, answer, ask, mode_of, state_of
from svcplane.dashboard.traffic import traffic
from svcplane.proxy.looking import LiveRules
from svcplane.understand.explain import explain

PREFIX = "/console"
ANSWER_S = 15.0  # of a node: listing the rules of thousands of Services takes a second or two
JSON = {**HEADERS, "Content-Type": "application/json", "Cache-Control": "no-store"}


class Console:
    """Callable as `api.http.Handler`.  `transport_of` gives the API as the request's user sees it."""

    def __init__(self, transport_of: Callable[[Request], Transport]) -> None:
        self._transport_of = transport_of

    async def __call__(self, request: Request) -> Response:
        try:
            return await self._answer(request)
        except st.StatusError as error:
            return _failure(error)
        except ConfigError as error:
            return _failure(st.bad_request(str(error)))
        except TransportError as error:
            return _failure(st.StatusError(503, "ServiceUnavailable", str(error)))

    async def _answer(self, request: Request) -> Response:
        if request.method not in ("GET", "HEAD"):
            raise st.StatusError(405, "MethodNotAllowed", "the console only reads", {})
        match request.path.removeprefix(PREFIX).strip("/").split("/"):
            case [""]:
                found = asset("index.html", request.headers.get("if-none-match", ""))
            case ["static", name]:
                found = asset(name, request.headers.get("if-none-match", ""))
            case ["api", *question]:
                if request.user is None:
                    raise st.unauthorized()
                return Response(200, await self._ask(question, request), dict(JSON))
            case _:
                found = None
        return found or Response(404, b"404 page not found\n", {**HEADERS, "Content-Type": "text/plain"})

    async def _ask(self, question: list[str], request: Request) -> bytes:
        transport = self._transport_of(request)
        found: Any
        match question:
            case ["explain", namespace, name]:
                view = await read_story(transport, namespace)
                found = await asyncio.to_thread(explain, view, namespace, name)
            case ["trace"]:
                found = await _trace(transport, await read_cluster(transport), _question(request))
            case ["kernel", node]:
                found = await _kernel(transport, node, request.param("words"))
            case ["rules", node]:
                found = await asyncio.to_thread(rules, await read_cluster(transport), node)
            case ["traffic"]:
                found = await traffic(transport)
            case _:
                raise st.StatusError(404, "NotFound", "the server could not find the requested resource", {})
        return msgspec.json.encode(found)


async def _trace(transport: Transport, cluster: Cluster, question: Question) -> Way:
    """By the node's own proxy and the kernel's live rules where they can be had, else by the desired state alone."""
    asked = await asyncio.to_thread(ask, cluster.view, question)
    ipv6 = ":" in asked.packet.dst
    side = NodeSide(transport, asked.node)
    try:
        async with asyncio.timeout(ANSWER_S):
            running = await side.state()
            for state in running.states:
                if state.config.family is family_of(asked.packet.dst) and question.mode in ("", running.mode):
                    live, rules = await asyncio.gather(side.trace(asked.packet), side.foreign())
                    return answer(replace(asked, packet=live.packet), state, running.mode, live, rules)
        why = f"the proxy of {asked.node} is in mode {running.mode}"
    except TransportError as error:
        why = str(error)
    except TimeoutError:
        why = f"{asked.node} did not answer within {ANSWER_S:g} s"
    mode = question.mode or mode_of(cluster.view, asked.node)
    state = await asyncio.to_thread(state_of, cluster, asked.node, mode, ipv6=ipv6)
    return answer(asked, state, mode, None, None, why)


async def _kernel(transport: Transport, node: str, words: str) -> LiveRules:
    """Raises TransportError where the node does not tell."""
    try:
        async with asyncio.timeout(ANSWER_S):
            return await NodeSide(transport, node).rules(words)
    except TimeoutError:
        raise TransportError(f"{node} did not answer within {ANSWER_S:g} s") from None


def _question(request: Request) -> Question:
    """Raises ConfigError naming the parameter."""
    for name in ("source", "target", "port"):
        if not request.param(name):
            raise ConfigError(f"{name} is needed")
    if not request.param("port").isdigit():
        raise ConfigError(f"port {request.param('port')}: must be between 1 and 65535")
    return Question(
        request.param("source").strip(),
        request.param("target").strip(),
        int(request.param("port")),
        request.param("protocol") or "TCP",
        request.param("node"),
        request.param("mode"),
    )


def _failure(error: st.StatusError) -> Response:
    return Response(error.code, codec.encode(error.body()), {**JSON, **error.headers})
