"""pods/log and nodes/proxy: asks the agent of a node, as kube-apiserver asks a kubelet.

TLS both ways: the agent shows a certificate of the cluster's authority for its address, the server one that the
authority issued to it alone.  Source: kube-apiserver's registry/core/pod/rest/log.go and the kubelet's
/containerLogs.
"""

import ssl
from collections.abc import AsyncIterator, Sequence
from typing import Any

import aiohttp
import msgspec

from svcplane.api import status as st
from svcplane.api.http import IN_PROCESS_USER, Closing, Handler, Request, Response
from svcplane.api.resources import NODES, PODS
from svcplane.base.errors import ConfigError
from svcplane.base.net import join_host_port
from svcplane.server.certificates import Authority

CONNECT_TIMEOUT_S = 5.0
PASSED_ON = ("follow", "previous", "sinceSeconds", "sinceTime", "tailLines", "limitBytes", "timestamps")
Tree = dict[str, Any]


def node_context(authority: Authority) -> ssl.SSLContext:
    """TLS towards the nodes' agents.  Raises ConfigError for unusable files."""
    try:
        context = ssl.create_default_context(cafile=str(authority.ca_path))
        context.load_cert_chain(*authority.node_client())
    except (OSError, ssl.SSLError) as error:
        raise ConfigError(f"{authority.ca_path.parent}: unusable certificates: {error}") from error
    return context


def container_of(pod: Tree, wanted: str) -> str:
    """The container to read.  Raises StatusError 400 as kube-apiserver words it."""
    name, spec = pod["metadata"]["name"], pod.get("spec", {})
    main = [container["name"] for container in spec.get("containers", [])]
    first = [container["name"] for container in spec.get("initContainers", [])]
    if wanted:
        if wanted not in main + first:
            raise st.bad_request(f"container {wanted} is not valid for pod {name}")
        return wanted
    if len(main) == 1:
        return str(main[0])
    text = f"a container name must be specified for pod {name}, choose one of: [{' '.join(main)}]"
    if first:
        text += f" or one of the init containers: [{' '.join(first)}]"
    raise st.bad_request(text)


def agent_url(node: Tree) -> str:
    """Where a node's agent listens.  Raises StatusError 503 where the node does not say."""
    status = node.get("status", {})
    port = status.get("daemonEndpoints", {}).get("kubeletEndpoint", {}).get("Port", 0)
    ips = [entry["address"] for entry in status.get("addresses", []) if entry.get("type") == "InternalIP"]
    if not port or not ips:
        name = node["metadata"]["name"]
        raise st.StatusError(503, "ServiceUnavailable", f"node {name} does not say where its agent listens")
    return f"https://{join_host_port(ips[0], port)}"


class NodeLogs:
    """Answers pods/log; callable as `handler.LogSource`.  `handle` is the API itself, asked for Pod and Node."""

    def __init__(self, handle: Handler, context: ssl.SSLContext) -> None:
        self._handle, self._context = handle, context
        self._session: aiohttp.ClientSession | None = None

    async def __call__(self, namespace: str, name: str, request: Request) -> Response:
        pod = await self._get(PODS.path(namespace, name))
        container = container_of(pod, request.param("container"))
        node_name = pod.get("spec", {}).get("nodeName", "")
        if not node_name:
            return Response(200, b"", {"Content-Type": "text/plain"})
        node = await self._get(NODES.path("", node_name))
        url = f"{agent_url(node)}/containerLogs/{namespace}/{name}/{container}"
        query = [(key, value) for key, value in request.query if key in PASSED_ON]
        answer = await self._ask(node_name, url, query)
        if answer.status >= 400:
            async with answer:
                text = (await answer.text())[:500].strip()
            known = {400: "BadRequest", 404: "NotFound"}
            code = answer.status if answer.status in known else 500
            raise st.StatusError(code, known.get(code, "InternalError"), text or f"the agent said {answer.status}")
        return Response(200, headers={"Content-Type": "text/plain"}, stream=_stream(answer))

    async def proxy(self, node_name: str, request: Request) -> Response:
        """nodes/NAME/proxy/PATH: what the node's agent answers at PATH.  Source: registry/core/node/rest/proxy.go."""
        node = await self._get(NODES.path("", node_name))
        path = request.path.partition("/proxy")[2].lstrip("/")
        answer = await self._ask(node_name, f"{agent_url(node)}/{path}", request.query)
        headers = {"Content-Type": answer.headers.get("Content-Type", "text/plain")}
        return Response(answer.status, headers=headers, stream=_stream(answer))

    async def _ask(self, node_name: str, url: str, query: Sequence[tuple[str, str]]) -> aiohttp.ClientResponse:
        try:
            return await self._open().get(url, params=list(query))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            text = f"cannot reach the agent of node {node_name}: {str(error) or type(error).__name__}"
            raise st.internal_error(text) from error

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(ssl=self._context, limit=0)
            # no limit on silence: a followed container may say nothing for a day
            timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_S)
            self._session = aiohttp.ClientSession(connector=connector, timeout=timeout)
        return self._session

    async def _get(self, path: str) -> Tree:
        answer = await self._handle(Request("GET", path, user=IN_PROCESS_USER))
        body: Tree = msgspec.json.decode(answer.body)
        if answer.status >= 400:
            raise st.StatusError(answer.status, body.get("reason", ""), body.get("message", ""), body.get("details"))
        return body

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def _stream(answer: aiohttp.ClientResponse) -> Closing:
    async def closed() -> None:
        answer.close()

    return Closing(_chunks(answer), closed)


async def _chunks(answer: aiohttp.ClientResponse) -> AsyncIterator[bytes]:
    try:
        async for chunk in answer.content.iter_any():
            yield chunk
    except (aiohttp.ClientError, OSError):
        return  # the agent went away in the middle: what came before has been told
    finally:
        answer.close()
