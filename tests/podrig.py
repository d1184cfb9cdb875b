"""The node agent with real namespaces and processes against an API of a few lines."""

import asyncio
import copy
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from svcplane.api.core import Pod
from svcplane.api.patch import merge
from svcplane.api.resources import PODS, Resource
from svcplane.api.status import conflict, not_found
from svcplane.base.clock import SYSTEM_CLOCK
from svcplane.kernel.links.run import KernelLinks
from svcplane.node.addresses import AddressBook
from svcplane.node.agent import Agent
from svcplane.node.api import Recorder
from svcplane.node.sandbox import log_path, pod_directory
from svcplane.node.surroundings import Surroundings

Tree = dict[str, Any]
PREFIX = f"sva{os.getpid()}-"
CIDR = f"10.{os.getpid() % 200 + 20}.{os.getpid() // 200 % 250}.0/24"


class ToyApi:
    """Pods in memory; tells the agent of changes at once.  Everything else is accepted and kept as events."""

    def __init__(self) -> None:
        self.pods: dict[str, Tree] = {}
        self.others: dict[tuple[str, str], Tree] = {}  # plural and name -> ConfigMap, Secret
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
        if (resource.plural, name) not in self.others:
            raise not_found(resource.plural, name)
        return self.others[resource.plural, name]

    async def create(self, resource: Resource, namespace: str, obj: Tree) -> Tree:
        if resource.kind == "TokenRequest":
            return {"status": {"token": f"token of {resource.plural}", "expirationTimestamp": "2126-01-01T00:00:00Z"}}
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
