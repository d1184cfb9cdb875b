"""The agent with real namespaces and processes against an API of a few lines."""

import asyncio
import copy
import os
import shutil
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from svcplane.api.core import Pod
from svcplane.api.patch import merge
from svcplane.api.resources import PODS, Resource
from svcplane.api.status import conflict, not_found
from svcplane.base.clock import SYSTEM_CLOCK
from svcplane.kernel.links.run import KernelLinks, pids_in
from svcplane.node.addresses import AddressBook
from svcplane.node.agent import Agent
from svcplane.node.api import Recorder
from svcplane.node.sandbox import log_path, pod_directory
from svcplane.node.worker import Surroundings

pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0 or shutil.which("ip") is None, reason="needs root and iproute2"),
]

Tree = dict[str, Any]
PREFIX = f"sva{os.getpid()}-"
CIDR = f"10.{os.getpid() % 200 + 20}.{os.getpid() // 200 % 250}.0/24"


class ToyApi:
    """Pods in memory; tells the agent of changes at once.  Everything else is accepted and kept as events."""

    def __init__(self) -> None:
        self.pods: dict[str, Tree] = {}
        self.events: list[tuple[str, str]] = []
        self.agent: Agent | None = None
        self.version = 0
        self.changed = asyncio.Event()

    def put(self, tree: Tree) -> None:
        self.version += 1
        tree["metadata"]["resourceVersion"] = str(self.version)
        self.pods[tree["metadata"]["name"]] = tree
        if self.agent is not None:
            self.agent.changed(self.pod(tree["metadata"]["name"]))
        self.changed.set()

    def pod(self, name: str) -> Pod:
        return msgspec.convert(self.pods[name], Pod)

    def remove(self, name: str) -> None:
        pod = self.pod(name)
        del self.pods[name]
        if self.agent is not None:
            self.agent.gone(pod)
        self.changed.set()

    async def get(self, resource: Resource, namespace: str, name: str) -> Tree:
        raise not_found(resource.plural, name)

    async def create(self, resource: Resource, namespace: str, obj: Tree) -> Tree:
        self.events.append((obj["reason"], obj["message"]))
        return obj

    async def patch(self, resource: Resource, namespace: str, name: str, patch: Tree, *, subresource: str = "") -> Tree:
        if resource is not PODS or name not in self.pods:
            raise not_found(resource.plural, name)
        tree = copy.deepcopy(self.pods[name])
        if patch["metadata"]["uid"] != tree["metadata"]["uid"]:
            raise conflict("pods", name, "uid")
        tree["status"] = merge.apply(tree.get("status", {}), patch["status"])
        if tree != self.pods[name]:  # a write that changes nothing makes no version, as on the real server
            self.put(tree)
        return tree

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str = "", grace_s: int | None = None
    ) -> None:
        if name not in self.pods:
            raise not_found("pods", name)
        assert grace_s == 0
        self.remove(name)

    async def until(self, condition: Callable[[], object], timeout_s: float = 20) -> None:
        async with asyncio.timeout(timeout_s):
            while not condition():
                self.changed.clear()
                await self.changed.wait()

    def status(self, name: str) -> Tree:
        status: Tree = self.pods[name].get("status", {})
        return status

    def condition(self, name: str, kind: str) -> str:
        found = [c["status"] for c in self.status(name).get("conditions", []) if c["type"] == kind]
        return found[0] if found else ""

    def ready(self, name: str) -> bool:
        return self.condition(name, "Ready") == "True"

    def container(self, name: str) -> Tree:
        first: Tree = self.status(name).get("containerStatuses", [{}])[0]
        return first


def pod(name: str, *containers: Tree, **spec: Any) -> Tree:
    meta = {"name": name, "namespace": "default", "uid": f"{name}-0000-{os.getpid()}", "generation": 1}
    spec = {"nodeName": "node1", "containers": list(containers), "restartPolicy": "Always"} | spec
    return {"metadata": meta, "spec": {"terminationGracePeriodSeconds": 5} | spec}


def echo(**more: Any) -> Tree:
    return {"name": "echo", "image": "svcplane/echo", "ports": [{"containerPort": 8080, "protocol": "TCP"}]} | more


def shell(script: str, name: str = "main", **more: Any) -> Tree:
    return {"name": name, "image": "none", "command": ["sh", "-c", script]} | more


class Bench:
    def __init__(self, state: Path) -> None:
        self.state = state
        self.api = ToyApi()

    async def start(self) -> Agent:
        api = self.api
        around = Surroundings(
            "node1",
            ("192.0.2.1",),
            (CIDR,),
            self.state,
            PREFIX,
            (sys.executable,),
            api,
            KernelLinks(),
            AddressBook((CIDR,)),
            Recorder(api, SYSTEM_CLOCK, "svcplane-node", "node1"),
            SYSTEM_CLOCK,
        )
        self.agent = api.agent = Agent(around)
        await self.agent.adopt()
        await self.agent.listed([api.pod(name) for name in api.pods])
        return self.agent

    def log(self, name: str, container: str = "main", attempt: int = 0) -> str:
        uid = self.api.pods[name]["metadata"]["uid"]
        text = log_path(pod_directory(self.state, uid), container, attempt).read_text()
        return "".join(line.split(" ", 3)[3] + "\n" for line in text.splitlines())

    async def delete(self, name: str, grace_s: int = 5) -> None:
        tree = copy.deepcopy(self.api.pods[name])
        tree["metadata"] |= {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": grace_s}
        self.api.put(tree)
        await self.api.until(lambda: name not in self.api.pods)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    await made.start()
    yield made
    await made.agent.close(stop_pods=True, grace_s=1)
    assert not KernelLinks().namespaces(PREFIX)


async def test_echo_pod_becomes_ready_with_address_and_goes_when_deleted(bench: Bench) -> None:
    api = bench.api
    api.put(pod("web", echo(readinessProbe={"httpGet": {"path": "/healthz", "port": 8080}, "periodSeconds": 1})))
    await api.until(lambda: api.ready("web"))
    status = api.status("web")
    assert status["phase"] == "Running"
    assert status["podIPs"] == [{"ip": CIDR.replace(".0/24", ".2")}]
    assert status["hostIP"] == "192.0.2.1"
    assert api.container("web")["containerID"].startswith("svcplane://")
    assert {c["type"]: c["status"] for c in status["conditions"]} == dict.fromkeys(
        ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"), "True"
    )
    (namespace,) = KernelLinks().namespaces(PREFIX)
    await bench.delete("web")
    assert not pids_in(namespace)
    assert not KernelLinks().namespaces(PREFIX)
    async with asyncio.timeout(10):
        while list((bench.state / "pods").iterdir()):
            await asyncio.sleep(0.01)


async def test_probe_that_fails_makes_the_pod_unready_until_it_succeeds_again(bench: Bench, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    api = bench.api
    probe = {"exec": {"command": ["test", "-e", str(gate)]}, "periodSeconds": 1, "failureThreshold": 1}
    api.put(pod("web", echo(readinessProbe=probe)))
    await api.until(lambda: api.ready("web"))
    gate.unlink()
    await api.until(lambda: not api.ready("web"))
    assert api.container("web")["state"].keys() == {"running"}
    gate.touch()
    await api.until(lambda: api.ready("web"))
    assert api.container("web")["restartCount"] == 0


async def test_liveness_failure_restarts_the_container(bench: Bench) -> None:
    api = bench.api
    probe = {"tcpSocket": {"port": 9}, "periodSeconds": 1, "failureThreshold": 1}
    api.put(pod("web", echo(livenessProbe=probe)))
    await api.until(lambda: api.container("web").get("restartCount", 0) >= 1)
    assert any(reason == "Unhealthy" and "Liveness probe failed" in text for reason, text in api.events)


async def test_crashing_container_is_restarted_at_once_and_then_backs_off(bench: Bench) -> None:
    api = bench.api
    api.put(pod("web", shell("exit 3")))
    await api.until(
        lambda: api.container("web").get("state", {}).get("waiting", {}).get("reason") == "CrashLoopBackOff"
    )
    container = api.container("web")
    assert container["restartCount"] == 1
    assert container["lastState"]["terminated"]["exitCode"] == 3
    assert container["state"]["waiting"]["message"].startswith("back-off 10s restarting failed container=main pod=web_")


async def test_init_containers_run_in_order_and_sidecars_stay(bench: Bench) -> None:
    api = bench.api
    inits = [
        shell("echo one; sleep 0.2", "one"),
        shell("exec sleep 1000", "side", restartPolicy="Always"),
        shell("echo two", "two"),
    ]
    api.put(pod("web", shell("echo main; exec sleep 1000"), initContainers=inits))
    await api.until(lambda: api.ready("web"))
    states = [status["state"] for status in api.status("web")["initContainerStatuses"]]
    assert [next(iter(state)) for state in states] == ["terminated", "running", "terminated"]
    assert api.status("web")["initContainerStatuses"][1]["started"] is True
    async with asyncio.timeout(10):
        while bench.log("web") != "main\n":
            await asyncio.sleep(0.01)


async def test_pod_that_never_restarts_ends_succeeded_and_gives_back_its_address(bench: Bench) -> None:
    api = bench.api
    api.put(pod("job", shell("exit 0"), restartPolicy="Never"))
    await api.until(lambda: api.status("job").get("phase") == "Succeeded")
    assert api.container("job")["state"]["terminated"]["reason"] == "Completed"
    assert api.condition("job", "Ready") == "False"
    async with asyncio.timeout(10):
        while KernelLinks().namespaces(PREFIX):
            await asyncio.sleep(0.01)
    assert api.status("job")["podIP"]


async def test_container_without_command_says_what_to_do(bench: Bench) -> None:
    api = bench.api
    api.put(pod("web", {"name": "main", "image": "nginx"}))
    await api.until(
        lambda: api.container("web").get("state", {}).get("waiting", {}).get("reason") == "CreateContainerConfigError"
    )
    assert "svcplane runs processes, not images: set command" in api.container("web")["state"]["waiting"]["message"]


async def test_process_that_ignores_term_is_killed_when_its_grace_is_over(bench: Bench) -> None:
    api = bench.api
    api.put(pod("web", shell("trap '' TERM; while :; do sleep 0.1; done")))
    await api.until(lambda: api.ready("web"))
    await bench.delete("web", grace_s=1)


async def test_environment_arguments_and_fields_reach_the_process(bench: Bench) -> None:
    env = [
        {"name": "A", "value": "x"},
        {"name": "B", "value": "$(A)y $(NONE) $$(A)"},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
    ]
    container = {"name": "main", "command": ["sh", "-c", 'echo "$B|$IP|$1|$(pwd)"', "sh"], "args": ["$(A)$(A)"]}
    bench.api.put(pod("web", container | {"env": env, "workingDir": "/tmp"}, restartPolicy="Never"))
    await bench.api.until(lambda: bench.api.status("web").get("phase") == "Succeeded")
    assert bench.log("web") == f"xy $(NONE) $(A)|{CIDR.replace('.0/24', '.2')}|xx|/tmp\n"


async def test_agent_that_comes_back_adopts_its_pods_without_a_restart(bench: Bench) -> None:
    api = bench.api
    probe = {"tcpSocket": {"port": 8080}, "periodSeconds": 1}
    api.put(pod("web", echo(readinessProbe=probe)))
    await api.until(lambda: api.ready("web"))
    before = (api.container("web"), api.status("web")["podIP"])
    await bench.agent.close(stop_pods=False)
    api.agent = None
    assert KernelLinks().namespaces(PREFIX)
    changes = api.version
    await bench.start()
    await asyncio.sleep(1.5)
    assert (api.container("web"), api.status("web")["podIP"]) == before
    assert api.version == changes, "the status must not flap when the agent returns"


async def test_pod_deleted_while_the_agent_was_away_is_ended_when_it_returns(bench: Bench) -> None:
    api = bench.api
    api.put(pod("web", echo()))
    await api.until(lambda: api.ready("web"))
    await bench.agent.close(stop_pods=False)
    api.agent = None
    api.remove("web")
    await bench.start()
    assert not KernelLinks().namespaces(PREFIX)


async def test_stopped_node_runs_its_pods_again_with_a_higher_restart_count(bench: Bench) -> None:
    api = bench.api
    api.put(pod("web", echo()))
    await api.until(lambda: api.ready("web"))
    await bench.agent.close(stop_pods=True)
    api.agent = None
    assert not KernelLinks().namespaces(PREFIX)
    await bench.start()
    await api.until(lambda: api.container("web").get("restartCount") == 1 and api.ready("web"))
