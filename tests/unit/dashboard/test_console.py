"""The console's questions, without a browser: who may ask, what is answered, what the rules and a trace say."""

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from svcplane.api.http import Request, Response, User
from svcplane.base.errors import ConfigError, TransportError
from svcplane.cli.console import mount_console
from svcplane.client.transport import InProcessTransport
from svcplane.dashboard.console import Console
from svcplane.dashboard.gateway import Gateway
from svcplane.dashboard.ruling import rules
from svcplane.dashboard.tracing import Cluster, Question, Way, answer, ask, mode_of, state_of
from svcplane.dashboard.traffic import traffic
from svcplane.kernel.ruleset.objects import Field, ForeignChain, ForeignRule, Match, Verb
from svcplane.proxy.looking import LiveTrace
from svcplane.proxy.model import Origin, Packet, Protocol
from svcplane.proxy.oracle import IPTABLES, decide
from svcplane.proxy.programmed import ANNOTATION, Programmed, to_text
from svcplane.proxy.snapshot import FamilySnapshot, Snapshot, encode
from svcplane.testing.server import Caller, in_process_server
from svcplane.understand.view import from_trees

META = {"namespace": "default", "name": "web"}
NODES = [
    {
        "kind": "Node",
        "metadata": {"name": f"n{index}"},
        "spec": {"podCIDRs": [f"10.244.{index}.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": f"192.168.0.{index}"}]},
    }
    for index in (1, 2)
]
SERVICE = {
    "kind": "Service",
    "metadata": META,
    "spec": {
        "type": "NodePort",
        "clusterIP": "10.96.0.9",
        "clusterIPs": ["10.96.0.9"],
        "externalTrafficPolicy": "Local",
        "ports": [{"name": "http", "port": 80, "protocol": "TCP", "nodePort": 30080, "targetPort": 8080}],
    },
}
SLICE = {
    "kind": "EndpointSlice",
    "metadata": {"name": "web-1", "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
    "addressType": "IPv4",
    "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
    "endpoints": [
        {
            "addresses": [f"10.244.1.{index}"],
            "nodeName": "n1",
            "conditions": {"ready": True},
            "targetRef": {"kind": "Pod", "namespace": "default", "name": f"web-{index}"},
        }
        for index in (5, 6)
    ],
}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster(from_trees([*NODES, SERVICE, SLICE], live=True, now_s=0), ("10.96.0.0/16",))


def trace(cluster: Cluster, question: Question) -> Way:
    asked = ask(cluster.view, question)
    mode = question.mode or mode_of(cluster.view, asked.node)
    state = state_of(cluster, asked.node, mode, ipv6=":" in asked.packet.dst)
    return answer(asked, state, mode, None, None, "not read")


def test_trace_names_each_endpoint_with_its_chance(cluster: Cluster) -> None:
    way = trace(cluster, Question("n2", "default/web", 80))
    assert way.trace.verdict == "deliver"
    assert [(one.endpoint, one.pod, one.probability, one.sees) for one in way.trace.shares] == [
        ("10.244.1.5:8080", "default/web-5", 0.5, "this node's address"),
        ("10.244.1.6:8080", "default/web-6", 0.5, "this node's address"),
    ]
    assert [step.kind for step in way.steps] == ["source", "node", "service", "choice", "verdict"]
    assert way.steps[2].text == "10.96.0.9:80 TCP, ClusterIP"


def test_trace_of_a_pod_keeps_its_address(cluster: Cluster) -> None:
    way = trace(cluster, Question("10.244.2.9", "default/web", 80, node="n2"))
    assert {one.sees for one in way.trace.shares} == {"the client's address, 10.244.2.9"}


@pytest.mark.parametrize(
    ("question", "verdict", "why"),
    [
        (Question("203.0.113.1", "192.168.0.2", 30080, node="n2"), "drop", "externalTrafficPolicy Local"),
        (Question("n1", "default/web", 81), "reject", "has no port 81/TCP"),
        (Question("n1", "10.96.7.7", 80), "drop", "in the Service range, and no Service has it"),
        (Question("n1", "10.96.7.7", 80, mode="iptables"), "pass", "no Service has this address"),
        (Question("n1", "198.51.100.7", 80), "pass", "no Service has this address"),
    ],
)
def test_trace_says_why_nothing_is_delivered(cluster: Cluster, question: Question, verdict: str, why: str) -> None:
    told = trace(cluster, question).trace
    assert told.verdict == verdict
    assert why in told.why


@pytest.mark.parametrize(
    ("question", "said"),
    [
        (Question("nobody", "default/web", 80), "there is no Pod, node or address nobody"),
        (Question("n1", "default/nothing", 80), "there is no Service default/nothing"),
        (Question("n1", "default/web", 80, protocol="ICMP"), "protocol ICMP"),
        (Question("n1", "default/web", 80, mode="magic"), "mode magic"),
        (Question("n1", "fd00::1", 80), "n1 has no IPv6 address"),
        (Question("fd00::1", "default/web", 80), "no address of the family"),
        (Question("10.0.0.9", "default/web", 80, node="n9"), "there is no node n9"),
    ],
)
def test_trace_names_what_is_wrong(cluster: Cluster, question: Question, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ask(cluster.view, question)


def test_rules_tell_what_each_is_for(cluster: Cluster) -> None:
    here = {rule.kind: rule for rule in rules(cluster, "n1")}
    assert here["ClusterIP"].match == "10.96.0.9:80 TCP"
    assert here["ClusterIP"].endpoints == ("10.244.1.5:8080", "10.244.1.6:8080")
    assert here["ClusterIP"].purpose == "one of 2 usable endpoints, at random"
    assert (here["node port"].match, here["node port"].action) == ("192.168.0.1:30080 TCP", "deliver")
    there = {rule.kind: rule for rule in rules(cluster, "n2")}
    assert (there["node port"].match, there["node port"].action) == ("192.168.0.2:30080 TCP", "drop")
    assert there["node port"].purpose == "no usable endpoint on this node: connections end here"
    with pytest.raises(ConfigError, match="there is no node n9"):
        rules(cluster, "n9")


@pytest.fixture
async def admin() -> AsyncIterator[Caller]:
    async with in_process_server() as server:
        mount_console(server)
        yield Caller(server.handle)


async def test_files_are_for_everybody_and_answers_are_not(admin: Caller) -> None:
    nobody = Caller(admin.handle, None)
    page = await nobody.send("GET", "/console")
    assert page.status == 200
    assert b"<!doctype html>" in page.body
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    script = await nobody.send("GET", "/console/static/main.js")
    assert script.headers["Content-Type"].startswith("text/javascript")
    again = await nobody.send("GET", "/console/static/main.js", headers={"If-None-Match": script.headers["ETag"]})
    assert (again.status, again.body) == (304, b"")
    for path in ("explain/default/kubernetes", "trace?source=a&target=b&port=1", "rules/n1"):
        assert (await nobody.send("GET", f"/console/api/{path}")).status == 401


@pytest.mark.parametrize("path", ["static/../console.py", "static/%2e%2e/x.js", "static/nothing.js", "static/", "x/y"])
async def test_nothing_but_the_files_is_served(admin: Caller, path: str) -> None:
    assert (await admin.send("GET", f"/console/{path}")).status == 404


async def test_answers_are_as_the_user_may_read(admin: Caller) -> None:
    status, story = await admin.call("GET", "/console/api/explain/default/kubernetes")
    assert (status, story["service"]) == (200, "default/kubernetes")
    guest = Caller(admin.handle, User("guest", frozenset({"system:authenticated"})))
    status, refused = await guest.call("GET", "/console/api/explain/default/kubernetes")
    assert (status, refused["reason"]) == (403, "Forbidden")


async def test_wrong_questions_are_told_in_one_line(admin: Caller) -> None:
    for path, said in (
        ("explain/default/kubernets", "did you mean"),
        ("trace?source=a&target=b", "port is needed"),
        ("trace?source=a&target=b&port=x", "port x: must be between 1 and 65535"),
        ("rules/n9", "there is no node n9"),
    ):
        status, answer = await admin.call("GET", f"/console/api/{path}")
        assert status == 400
        assert said in answer["message"]
    assert (await admin.send("POST", "/console/api/trace")).status == 405


async def test_gateway_reads_for_its_session_alone(admin: Caller) -> None:
    gateway = Gateway(InProcessTransport(admin.handle))
    session = Caller(gateway, User("console"))
    status, services = await session.call("GET", "/api/v1/services")
    assert (status, services["kind"]) == (200, "ServiceList")
    status, _ = await session.call("GET", "/console/api/explain/default/kubernetes")
    assert status == 200
    nobody = Caller(gateway, None)
    assert (await nobody.send("GET", "/api/v1/services")).status == 401
    assert (await nobody.send("GET", "/console/api/rules/n1")).status == 401
    assert (await nobody.send("GET", "/console")).status == 200
    assert (await session.send("DELETE", "/api/v1/namespaces/default/services/kubernetes")).status == 405
    assert (await session.send("GET", "/metrics")).status == 404


class Nodes:
    """The API of a cluster whose first node answers for its traffic, the second not, the third nonsense."""

    async def send(self, request: Request) -> Response:
        if request.path == "/api/v1/nodes":
            items = [{"metadata": {"name": f"n{index}"}} for index in (1, 2, 3)]
            return Response(200, msgspec.json.encode({"items": items}))
        if request.path == "/api/v1/nodes/n1/proxy/traffic":
            flow = {"protocol": "tcp", "address": "10.96.0.9", "port": 80, "endpoint": "10.244.1.5"}
            flow |= {"endpoint_port": 8080, "new": 3, "active": 1, "sent": None, "received": None}
            return Response(200, msgspec.json.encode({"seconds": 1.0, "flows": [flow]}))
        if request.path == "/api/v1/nodes/n2/proxy/traffic":
            raise TransportError("the API server is away")
        return Response(404, b"404 page not found")

    async def close(self) -> None: ...


async def test_nodes_that_do_not_answer_hinder_no_other() -> None:
    found = await traffic(Nodes())
    assert [(one.node, len(one.flows), one.problem) for one in found] == [
        ("n1", 1, ""),
        ("n2", 0, "the API server is away"),
        ("n3", 0, "404 page not found"),
    ]
    assert (found[0].flows[0].new, found[0].flows[0].endpoint) == (3, "10.244.1.5")


async def test_traffic_is_asked_as_the_user_who_asks() -> None:
    async with in_process_server() as server:
        mount_console(server)
        guest = Caller(server.handle, User("guest"))
        status, answer = await guest.call("GET", "/console/api/traffic")
        assert (status, answer["reason"]) == (403, "Forbidden")
        status, answer = await guest.call("GET", "/api/v1/nodes/n1/proxy/traffic")
        assert status == 403
        assert 'User "guest" cannot get resource "nodes/proxy"' in answer["message"]


DROPS_8080 = ForeignRule((Match(Field.DPORT, ("8080",)),), Verb.DROP, "", "dport 8080 drop")
GUARD = ForeignChain("inet", "guard", "f", "forward", rules=(DROPS_8080,))


class Telling:
    """The API of a cluster whose node n1 tells of its proxy, by its agent, and whose n2 does not."""

    def __init__(self, cluster: Cluster, others: tuple[ForeignChain, ...] = ()) -> None:
        self.state, self.others, self.asked = state_of(cluster, "n1", "iptables", ipv6=False), others, ""

    async def send(self, request: Request) -> Response:
        head, _, page = request.path.partition("/proxy/")
        if not page:
            trees = {"nodes": NODES, "services": [SERVICE], "endpointslices": [SLICE]}
            return Response(200, msgspec.json.encode({"items": trees.get(request.path.rpartition("/")[2], [])}))
        if head != "/api/v1/nodes/n1":
            return Response(500, msgspec.json.encode({"message": "cannot reach the agent of node n2"}))
        self.asked = f"{page} {request.param('words')}".strip()
        return Response(200, self.tell(page, dict(request.query)))

    def tell(self, page: str, query: dict[str, str]) -> bytes:
        if page == "state":
            return encode(Snapshot("n1", "iptables", 1, 0.0, (FamilySnapshot.of(self.state),)))
        if page == "foreign":
            return msgspec.json.encode(self.others)
        if page == "rules":
            return msgspec.json.encode({"mode": "iptables", "total": 9, "found": 0, "rules": [], "drift": []})
        packet = Packet(Origin(query["origin"]), query["src"], query["dst"], Protocol.TCP, int(query["dport"]), "eth0")
        return msgspec.json.encode(LiveTrace(packet, tuple(decide(self.state, packet, IPTABLES)), ("a -> b",)))

    async def close(self) -> None: ...


async def asked_of(transport: Telling, path: str, **query: str) -> tuple[int, dict[str, Any]]:
    request = Request("GET", path, tuple(query.items()), user=User("guest"))
    found = await Console(lambda _: transport)(request)
    return found.status, msgspec.json.decode(found.body)


FROM_OUTSIDE = {"source": "192.0.2.9", "target": "default/web", "port": "80"}


async def test_trace_is_by_the_live_rules_of_the_node_in_its_own_mode(cluster: Cluster) -> None:
    status, way = await asked_of(Telling(cluster), "/console/api/trace", **FROM_OUTSIDE)
    found = way["trace"]
    assert (status, found["mode"], found["agree"], found["verdict"]) == (200, "iptables", True, "deliver")
    assert found["way"] == [["a", "b"]]


async def test_trace_has_the_rules_of_others_on_the_node(cluster: Cluster) -> None:
    _, way = await asked_of(Telling(cluster, (GUARD,)), "/console/api/trace", **FROM_OUTSIDE)
    found = way["trace"]
    assert (found["verdict"], found["agree"]) == ("drop", True)
    assert "inet table guard, chain f (at forward): dport 8080 drop" in found["why"]
    assert {one["endpoint"] for one in found["blocked"]} == {"10.244.1.5:8080", "10.244.1.6:8080"}
    assert way["steps"][-1] == {"kind": "verdict", "title": "drop", "text": found["why"]}


async def test_trace_says_why_a_node_does_not_tell(cluster: Cluster) -> None:
    _, way = await asked_of(Telling(cluster), "/console/api/trace", **FROM_OUTSIDE, node="n2")
    assert (way["trace"]["live"], way["trace"]["unread"]) == (None, "cannot reach the agent of node n2")
    _, way = await asked_of(Telling(cluster), "/console/api/trace", **FROM_OUTSIDE, mode="ipvs")
    assert (way["trace"]["mode"], way["trace"]["unread"]) == ("ipvs", "the proxy of n1 is in mode iptables")


async def test_the_rules_of_a_kernel_are_asked_of_its_node(cluster: Cluster) -> None:
    transport = Telling(cluster)
    status, found = await asked_of(transport, "/console/api/kernel/n1", words="web drop")
    assert (status, found["mode"], found["total"], transport.asked) == (200, "iptables", 9, "rules web drop")
    status, found = await asked_of(transport, "/console/api/kernel/n2")
    assert (status, found["message"]) == (503, "cannot reach the agent of node n2")


def test_the_mode_of_a_node_is_that_its_proxy_reports() -> None:
    note = {ANNOTATION: to_text(Programmed("1", "1", "ipvs"))}
    meta = {"name": "svcplane-proxy-n1", "namespace": "kube-node-lease", "annotations": note}
    view = from_trees([*NODES, {"kind": "Lease", "metadata": meta}], live=True, now_s=0)
    assert [mode_of(view, name) for name in ("n1", "n2")] == ["ipvs", "nftables"]
