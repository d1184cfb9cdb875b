"""What deploy/ says is so: its metrics exist, its rights suffice, its files are there, its objects are valid."""

import asyncio
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import kubernetes
import pytest
import yaml

from svcplane.api.http import Request, Response
from svcplane.client.http import HttpTransport
from svcplane.client.kubeconfig import load
from svcplane.client.metrics import called
from svcplane.controllers.election import Election, ElectionConfig
from svcplane.controllers.pages import served
from svcplane.controllers.run import run_controllers
from svcplane.proxy.config.choice import passed_over
from svcplane.proxy.config.defaults import complete
from svcplane.proxy.config.load import parse
from svcplane.proxy.config.validation import validate
from svcplane.proxy.metrics import Metrics
from svcplane.proxy.planes import PLANES
from svcplane.proxy.programmed import Programmed
from svcplane.proxy.report import LeaseReporter
from svcplane.proxy.sources.api import ApiSource
from svcplane.testing.server import Caller, in_process_server

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
OBJECTS = [
    tree for name in ("proxy.yaml", "rbac.yaml") for tree in yaml.safe_load_all((DEPLOY / name).read_text()) if tree
]
NAME = re.compile(r"\b(?:kubeproxy|svcplane|process|apiserver|etcd|workqueue|rest_client|leader_election)_[a-z_]+\b")
#: Without which a part of the system is blind, whatever the dashboards show.
NEEDED = {
    "api server": {
        "apiserver_request_total",
        "apiserver_request_duration_seconds_bucket",
        "apiserver_current_inflight_requests",
        "apiserver_dropped_requests_total",
        "apiserver_registered_watchers",
        "apiserver_watch_events_total",
        "apiserver_watch_events_bytes_total",
        "apiserver_storage_objects",
        "etcd_request_duration_seconds_bucket",
        "etcd_request_errors_total",
        "process_resident_memory_bytes",
    },
    "controllers": {
        "workqueue_depth",
        "workqueue_adds_total",
        "workqueue_queue_duration_seconds_bucket",
        "workqueue_work_duration_seconds_bucket",
        "workqueue_unfinished_work_seconds",
        "workqueue_longest_running_processor_seconds",
        "workqueue_retries_total",
        "rest_client_requests_total",
        "rest_client_request_duration_seconds_bucket",
        "leader_election_master_status",
        "process_cpu_seconds_total",
    },
    "proxy": {
        "kubeproxy_sync_proxy_rules_duration_seconds_bucket",
        "kubeproxy_network_programming_duration_seconds_bucket",
        "kubeproxy_sync_proxy_rules_last_timestamp_seconds",
        "rest_client_requests_total",
        "process_resident_memory_bytes",
    },
}
SEEN_BY_A_WATCH = r'apiserver_watch_events_total\{.*resource="endpoints"'
TOOLS = {"ip": "iproute2", "iptables": "iptables", "nft": "nftables", "ipset": "ipset", "conntrack": "conntrack"}


def of_kind(kind: str) -> Iterator[dict[str, Any]]:
    return (tree for tree in OBJECTS if tree["kind"] == kind)


def declared(page: str) -> set[str]:
    """Every name a page can have."""
    names = set()
    for line in page.splitlines():
        if line.startswith("# TYPE "):
            _, _, name, kind = line.split()
            assert name not in names, f"{name} twice on a page"
            names |= {name} if kind != "histogram" else {f"{name}_{part}" for part in ("bucket", "count", "sum")}
    return names


def sampled(page: str) -> set[str]:
    """Every name with a value on a page."""
    return {re.split(r"[{ ]", line)[0] for line in page.splitlines() if line and not line.startswith("#")}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The pages of an API server, controllers and a proxy's transport that have done some work."""
    return asyncio.run(_pages(tmp_path_factory.mktemp("data")))


async def _pages(directory: Path) -> dict[str, str]:
    async with in_process_server(data_dir=directory, secure_port=0) as server, served("127.0.0.1", 0) as port:
        transport = HttpTransport(load(directory / "kubeconfig"), called=called)
        election = Election(transport, ElectionConfig("svcplane-controllers", "kube-system"))
        leading = asyncio.create_task(election.run(lambda: run_controllers(transport)))
        caller = Caller(server.handle)
        service = {"metadata": {"name": "web"}, "spec": {"selector": {"app": "web"}, "ports": [{"port": 80}]}}
        assert (await caller.call("POST", "/api/v1/namespaces/default/services", service))[0] == 201
        async with asyncio.timeout(20):
            page = ""
            while not counts(SEEN_BY_A_WATCH, page):
                await asyncio.sleep(0.05)
                page = (await caller.send("GET", "/metrics")).body.decode()
        async with aiohttp.ClientSession() as session, session.get(f"http://127.0.0.1:{port}/metrics") as answer:
            controllers = await answer.text()
        leading.cancel()
        await asyncio.gather(leading, return_exceptions=True)
        await transport.close()
    return {"api server": page, "controllers": controllers, "proxy": Metrics().render().decode()}


def all_declared(live: dict[str, str]) -> set[str]:
    return {name for page in live.values() for name in declared(page)}


@pytest.mark.parametrize("file", ["dashboard.json", "dashboard-server.json"])
def test_every_metric_the_dashboards_name_exists(live: dict[str, str], file: str) -> None:
    dashboard = json.loads((DEPLOY / file).read_text())
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    expressions += [entry["query"] for entry in dashboard["templating"]["list"]]
    assert len(expressions) > 15
    assert all(NAME.search(text) for text in expressions if text != "prometheus")
    assert {name for text in expressions for name in NAME.findall(text)} - all_declared(live) == set()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_every_metric_the_alerts_name_exists(live: dict[str, str]) -> None:
    for group in yaml.safe_load((DEPLOY / "alerts.yaml").read_text())["groups"]:
        for rule in group["rules"]:
            names = NAME.findall(rule["expr"])
            assert names
            assert set(names) - all_declared(live) == set()
            assert {"summary", "description"} <= rule["annotations"].keys()


def test_what_operators_need_is_there_and_counts(live: dict[str, str]) -> None:
    for part, names in NEEDED.items():
        assert names - declared(live[part]) == set(), part
    labelled = {"etcd_request_errors_total"}  # has values once something failed
    for part in ("api server", "controllers"):
        assert NEEDED[part] - labelled - sampled(live[part]) == set(), part
    for part, pattern in (
        (
            "api server",
            r'apiserver_request_total\{code="201",group="",resource="services",.*verb="POST"',
        ),
        ("api server", r'apiserver_storage_objects\{resource="endpointslices.discovery.k8s.io"'),
        ("api server", SEEN_BY_A_WATCH),
        ("api server", r'etcd_request_duration_seconds_count\{operation="create",type="services"'),
        ("controllers", r'workqueue_work_duration_seconds_count\{name="endpointslice"'),
        ("controllers", r'leader_election_master_status\{name="svcplane-controllers"'),
    ):
        assert counts(pattern, live[part]), pattern


def counts(pattern: str, page: str) -> bool:
    """Whether a metric so named and labelled is above 0."""
    return re.search(rf"^{pattern}.*\}} [1-9]", page, re.M) is not None


class Asked:
    """A transport that answers nothing is there, and remembers what was asked."""

    def __init__(self) -> None:
        self.requests: set[tuple[str, str, str, str]] = set()  # verb, group, resource, namespace

    async def send(self, request: Request) -> Response:
        parts = request.path.strip("/").split("/")
        group = "" if parts[0] == "api" else parts[1]
        rest = parts[2:] if parts[0] == "api" else parts[3:]
        namespace = rest[1] if rest[0] == "namespaces" else ""
        resource = rest[2] if namespace else rest[0]
        watch = any(key == "watch" for key, _ in request.query)
        verb = {"GET": "watch" if watch else "list", "PATCH": "patch", "POST": "create"}[request.method]
        self.requests.add((verb, group, resource, namespace))
        if verb == "watch":
            return Response(200, stream=_silence())
        if verb == "patch":
            return Response(404, b'{"kind": "Status", "code": 404, "reason": "NotFound"}')
        return Response(200, b'{"kind": "List", "metadata": {"resourceVersion": "1"}, "items": []}')

    async def close(self) -> None:
        pass


async def _silence() -> Any:
    await asyncio.Event().wait()
    yield b""


class Teller:
    def __init__(self) -> None:
        self.changed = asyncio.Event()

    def programmed(self) -> Programmed:
        return Programmed("1", "1", "nftables")


async def asked() -> set[tuple[str, str, str, str]]:
    transport = Asked()
    source = ApiSource(transport, "n1")
    source.start()
    report = asyncio.create_task(LeaseReporter(transport, "n1").run(Teller()))
    try:
        async with asyncio.timeout(5):
            while len(transport.requests) < 10:
                await asyncio.sleep(0.01)
    finally:
        report.cancel()
        await asyncio.gather(report, return_exceptions=True)
        await source.close()
    return transport.requests


async def test_the_rights_are_those_the_proxy_needs_and_no_more() -> None:
    granted = set()
    for role in (*of_kind("ClusterRole"), *of_kind("Role")):
        for rule in role["rules"]:
            for group in rule["apiGroups"]:
                for resource in rule["resources"]:
                    for verb in rule["verbs"]:
                        granted.add((verb, group, resource, role["metadata"].get("namespace", "")))
    assert await asked() == granted


@pytest.mark.parametrize("tree", OBJECTS, ids=lambda tree: f"{tree['kind']}/{tree['metadata']['name']}")
def test_every_field_is_one_of_its_kind(tree: dict[str, Any]) -> None:
    # the client's models drop what they do not know, and refuse what lacks a field that must be there
    client = kubernetes.client.ApiClient()
    model = client._ApiClient__deserialize(tree, f"V1{tree['kind']}")
    assert client.sanitize_for_serialization(model) == tree


def test_bindings_name_what_is_there() -> None:
    accounts = {(tree["metadata"]["namespace"], tree["metadata"]["name"]) for tree in of_kind("ServiceAccount")}
    for binding in (*of_kind("ClusterRoleBinding"), *of_kind("RoleBinding")):
        roles = {tree["metadata"]["name"] for tree in of_kind(binding["roleRef"]["kind"])}
        assert binding["roleRef"]["name"] in roles
        assert all((subject["namespace"], subject["name"]) in accounts for subject in binding["subjects"])
    (daemon,) = of_kind("DaemonSet")
    pod = daemon["spec"]["template"]["spec"]
    assert (daemon["metadata"]["namespace"], pod["serviceAccountName"]) in accounts


def test_the_daemon_mounts_what_it_names_and_probes_what_it_serves() -> None:
    (daemon,) = of_kind("DaemonSet")
    spec = daemon["spec"]["template"]["spec"]
    volumes = {volume["name"] for volume in spec["volumes"]}
    for container in (*spec["containers"], *spec["initContainers"]):
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    (container,) = spec["containers"]
    assert {port["containerPort"] for port in container["ports"]} == {10256, 10249}
    assert container["livenessProbe"]["httpGet"] == {"path": "/livez", "port": 10256}
    selector = daemon["spec"]["selector"]["matchLabels"]
    assert selector.items() <= daemon["spec"]["template"]["metadata"]["labels"].items()


def test_the_configuration_in_it_is_valid() -> None:
    (configuration,) = of_kind("ConfigMap")
    config = complete(parse(configuration["data"]["config.conf"]))
    assert validate(config, PLANES) == []
    assert passed_over(config) == []
    assert config.client_connection.kubeconfig == "/var/lib/kube-proxy/kubeconfig.conf"
    assert yaml.safe_load(configuration["data"]["kubeconfig.conf"])["current-context"] == "default"


def test_the_image_has_the_programs_and_files_it_needs() -> None:
    text = (DEPLOY / "Containerfile").read_text().replace("\\\n", " ")
    *_, final = re.split(r"^FROM ", text, flags=re.M)
    installed = re.search(r"apt-get install -y --no-install-recommends ([a-z0-9 -]+)", final)
    assert installed is not None
    assert set(TOOLS.values()) <= set(installed[1].split())
    for line in re.findall(r"^COPY (?!--from)(.+)$", text, flags=re.M):
        for source in line.split()[:-1]:
            assert (ROOT / source).exists(), source
