"""pods/log from the API server to a node's agent: which container, which agent, and who may ask it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from svcplane.api.http import Request, Response
from svcplane.api.status import StatusError
from svcplane.base.errors import ConfigError
from svcplane.node.httpd import AgentTls, masters_only, serve
from svcplane.server.certificates import Authority
from svcplane.server.nodelogs import NodeLogs, agent_url, container_of, node_context

POD = {
    "metadata": {"name": "p"},
    "spec": {"nodeName": "n", "containers": [{"name": "a"}, {"name": "b"}], "initContainers": [{"name": "i"}]},
}


def test_container_must_be_named_where_there_are_several() -> None:
    with pytest.raises(StatusError, match=r"choose one of: \[a b\] or one of the init containers: \[i\]"):
        container_of(POD, "")
    assert container_of(POD, "i") == "i"
    with pytest.raises(StatusError, match="container x is not valid for pod p"):
        container_of(POD, "x")


def test_agent_is_found_by_the_nodes_status() -> None:
    status = {
        "addresses": [{"type": "Hostname", "address": "n"}, {"type": "InternalIP", "address": "fd00::1"}],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
    }
    assert agent_url({"metadata": {"name": "n"}, "status": status}) == "https://[fd00::1]:10250"
    with pytest.raises(StatusError, match="node n does not say"):
        agent_url({"metadata": {"name": "n"}, "status": {}})


def test_certificates_are_kept_and_renewed_for_other_names(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    pair = authority.node("n", ["127.0.0.1"])
    first = pair.cert.read_bytes()
    assert pair.key.stat().st_mode & 0o077 == 0
    assert authority.node("n", ["127.0.0.1"]).cert.read_bytes() == first
    assert authority.node("n", ["127.0.0.1", "10.0.0.1"]).cert.read_bytes() != first


def test_certificate_of_another_authority_is_replaced(tmp_path: Path) -> None:
    pair = Authority(tmp_path).node("n", ["127.0.0.1"])
    first = pair.cert.read_bytes()
    (tmp_path / "ca.key").unlink()
    assert Authority(tmp_path).node("n", ["127.0.0.1"]).cert.read_bytes() != first


def test_unusable_authority_is_named(tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    authority.ca_path.write_text("nonsense")
    with pytest.raises(ConfigError, match=r"ca\.crt"):
        authority.node("n", ["127.0.0.1"])


class Cluster:
    """An authority, an agent that serves one log, and the API that knows both."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.port = 0
        self.left = asyncio.Event()
        self.runner: web.AppRunner | None = None

    async def start(self, ip: str) -> None:
        app = web.Application(middlewares=[masters_only])
        app.router.add_get("/containerLogs/default/p/b", self._log)
        app.router.add_get("/healthz", self._log)
        app.router.add_get("/traffic", self._log)
        tls = AgentTls(*self.authority.node("n", [ip]), self.authority.ca_path.read_text())
        self.runner, self.port = await serve(app, "127.0.0.1", 0, tls)

    async def _log(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        await response.write(request.query_string.encode() + b"\n")
        if "follow" in request.query:
            try:
                await asyncio.Event().wait()
            finally:
                self.left.set()
        return response

    async def api(self, request: Request) -> Response:
        import msgspec

        node = {
            "metadata": {"name": "n"},
            "status": {
                "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": self.port}},
            },
        }
        return Response(200, msgspec.json.encode(node if "/nodes/" in request.path else POD))

    async def get(self, context: ssl.SSLContext, path: str) -> int:
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://127.0.0.1:{self.port}{path}", ssl=context) as answer,
        ):
            return answer.status


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[Cluster]:
    made = Cluster(tmp_path)
    await made.start("127.0.0.1")
    yield made
    assert made.runner is not None
    await made.runner.cleanup()


def request(**query: str) -> Request:
    return Request("GET", "/", tuple(query.items()))


async def test_log_comes_through_with_its_options_and_no_others(cluster: Cluster) -> None:
    logs = NodeLogs(cluster.api, node_context(cluster.authority))
    answer = await logs("default", "p", request(container="b", tailLines="3", pretty="true"))
    assert answer.stream is not None
    assert b"".join([chunk async for chunk in answer.stream]) == b"tailLines=3\n"
    await logs.close()


async def test_reader_that_leaves_ends_the_following_at_the_agent(cluster: Cluster) -> None:
    logs = NodeLogs(cluster.api, node_context(cluster.authority))
    answer = await logs("default", "p", request(container="b", follow="true"))
    assert answer.stream is not None
    async for chunk in answer.stream:
        assert chunk == b"follow=true\n"
        break
    await answer.stream.aclose()  # type: ignore[attr-defined]
    async with asyncio.timeout(5):
        await cluster.left.wait()
    await logs.close()


async def test_agent_wants_the_api_servers_certificate_and_health_none(cluster: Cluster, tmp_path: Path) -> None:
    bare = ssl.create_default_context(cafile=str(cluster.authority.ca_path))
    assert await cluster.get(bare, "/healthz") == 200
    assert await cluster.get(bare, "/containerLogs/default/p/b") == 401
    ours = node_context(cluster.authority)
    assert await cluster.get(ours, "/containerLogs/default/p/b") == 200
    stranger = ssl.create_default_context(cafile=str(cluster.authority.ca_path))
    stranger.load_cert_chain(*Authority(tmp_path / "other").node_client())
    with pytest.raises(aiohttp.ClientError):
        await cluster.get(stranger, "/containerLogs/default/p/b")
    node = ssl.create_default_context(cafile=str(cluster.authority.ca_path))
    node.load_cert_chain(*cluster.authority.node("n", ["127.0.0.1"]))  # a serving certificate is no client's
    with pytest.raises(aiohttp.ClientError):
        await cluster.get(node, "/containerLogs/default/p/b")


async def test_agent_whose_certificate_is_not_for_its_address_is_not_believed(tmp_path: Path) -> None:
    cluster = Cluster(tmp_path)
    await cluster.start("10.9.9.9")
    logs = NodeLogs(cluster.api, node_context(cluster.authority))
    with pytest.raises(StatusError, match="cannot reach the agent of node n"):
        await logs("default", "p", request(container="b"))
    await logs.close()
    assert cluster.runner is not None
    await cluster.runner.cleanup()


async def test_proxy_asks_the_nodes_agent_and_says_what_it_says(cluster: Cluster) -> None:
    logs = NodeLogs(cluster.api, node_context(cluster.authority))
    asked = Request("GET", "/api/v1/nodes/n/proxy/traffic", (("a", "b"),))
    answer = await logs.proxy("n", asked)
    assert answer.stream is not None
    assert (answer.status, b"".join([chunk async for chunk in answer.stream])) == (200, b"a=b\n")
    missing = await logs.proxy("n", Request("GET", "/api/v1/nodes/n/proxy/nothing/here"))
    assert missing.status == 404
    assert cluster.runner is not None
    await cluster.runner.cleanup()
    with pytest.raises(StatusError, match="cannot reach the agent of node n"):
        await logs.proxy("n", asked)
    await logs.close()
