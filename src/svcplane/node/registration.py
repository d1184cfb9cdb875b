"""This node's Node object and its heartbeat Lease.

Source: the kubelet: the Node's status is written when it changes and every five minutes; the Lease in
kube-node-lease is renewed every ten seconds (a quarter of its duration).  A Node that somebody deleted is registered
again then, for which a kubelet has to be restarted.
"""

import asyncio
import logging
import os
import platform
from dataclasses import dataclass
from pathlib import Path

from svcplane import __version__
from svcplane.api.resources import LEASES, NAMESPACES, NODES
from svcplane.api.status import StatusError
from svcplane.base.clock import Clock, rfc3339, rfc3339_micro
from svcplane.base.errors import SvcplaneError, TransportError
from svcplane.node.api import Api, Tree

log = logging.getLogger(__name__)

LEASE_NAMESPACE = "kube-node-lease"
LEASE_DURATION_S, RENEW_S, STATUS_S, RETRY_S = 40, 10.0, 300.0, 1.0
MAX_PODS = 110
NOT_READY = "node.kubernetes.io/not-ready"


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """What is written about this node."""

    name: str
    ips: tuple[str, ...]
    pod_cidrs: tuple[str, ...]
    labels: tuple[tuple[str, str], ...] = ()
    agent_port: int = 0


def node_tree(facts: NodeFacts) -> Tree:
    """The Node to create."""
    arch = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
    labels = {"kubernetes.io/hostname": facts.name, "kubernetes.io/os": "linux", "kubernetes.io/arch": arch}
    tree: Tree = {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": facts.name, "labels": labels | dict(facts.labels)},
        "spec": {},
    }
    if facts.pod_cidrs:
        tree["spec"] = {"podCIDR": facts.pod_cidrs[0], "podCIDRs": list(facts.pod_cidrs)}
    return tree


def node_status(facts: NodeFacts, now: str, ready: bool, since: str, why: str = "") -> Tree:
    """The Node's status; `since` is when Ready last changed."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 1024
    room = {"cpu": str(os.cpu_count() or 1), "memory": f"{memory}Ki", "pods": str(MAX_PODS)}
    addresses = [{"type": "InternalIP", "address": ip} for ip in facts.ips]
    reason, message = ("KubeletReady", "svcplane node is posting ready status") if ready else ("NodeShutdown", why)
    return {
        "capacity": room,
        "allocatable": room,
        "addresses": [*addresses, {"type": "Hostname", "address": facts.name}],
        "conditions": [
            {
                "type": "Ready",
                "status": "True" if ready else "False",
                "reason": reason,
                "message": message,
                "lastHeartbeatTime": now,
                "lastTransitionTime": since,
            }
        ],
        "daemonEndpoints": {"kubeletEndpoint": {"Port": facts.agent_port}},
        "nodeInfo": {
            "machineID": _text_of("/etc/machine-id"),
            "systemUUID": "",
            "bootID": _text_of("/proc/sys/kernel/random/boot_id"),
            "kernelVersion": platform.release(),
            "osImage": _os_image(),
            "containerRuntimeVersion": f"svcplane://{__version__}",
            "kubeletVersion": f"v1.36.2+svcplane-{__version__}",
            "kubeProxyVersion": "",
            "operatingSystem": "linux",
            "architecture": node_tree(facts)["metadata"]["labels"]["kubernetes.io/arch"],
        },
    }


def _text_of(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _os_image() -> str:
    for line in _text_of("/etc/os-release").splitlines():
        if line.startswith("PRETTY_NAME="):
            return line.partition("=")[2].strip('"')
    return "Linux"


class Registration:
    """Keeps the Node and its Lease."""

    def __init__(self, facts: NodeFacts, api: Api, clock: Clock) -> None:
        self.facts = facts
        self._api, self._clock = api, clock
        self._since = ""

    async def register(self) -> tuple[str, ...]:
        """Create or adopt the Node and write its status; returns its Pod CIDRs.  Retries until the API answers."""
        while True:
            try:
                cidrs = await self._register()
                await self._renew()
                return cidrs
            except TransportError as error:
                log.warning("node not registered yet: node=%s error=%s", self.facts.name, error)
                await self._clock.sleep(RETRY_S)

    async def _register(self) -> tuple[str, ...]:
        facts = self.facts
        try:
            node = await self._api.create(NODES, "", node_tree(facts))
        except StatusError as error:
            if error.code != 409:
                raise
            labels = node_tree(facts)["metadata"]["labels"]
            node = await self._api.get(NODES, "", facts.name)
            has = node.get("spec", {}).get("podCIDR")
            patch: Tree = {"metadata": {"labels": labels}}
            if facts.pod_cidrs and not has:
                patch["spec"] = node_tree(facts)["spec"]
            node = await self._api.patch(NODES, "", facts.name, patch)
        await self.write_status(ready=True)
        spec = node.get("spec", {})
        taints = spec.get("taints") or []
        wanted = [taint for taint in taints if taint.get("key") != NOT_READY]
        if wanted != taints:  # a server puts it on a new node; there need be no controller that takes it off
            await self._api.patch(NODES, "", facts.name, {"spec": {"taints": wanted or None}})
        return tuple(spec.get("podCIDRs") or ([spec["podCIDR"]] if spec.get("podCIDR") else []))

    async def write_status(self, *, ready: bool, why: str = "") -> None:
        now = rfc3339(self._clock.wall())
        if not ready or not self._since:
            self._since = now
        status = node_status(self.facts, now, ready, self._since, why)
        await self._api.patch(NODES, "", self.facts.name, {"status": status}, subresource="status")

    async def _renew(self) -> None:
        name, now = self.facts.name, rfc3339_micro(self._clock.wall())
        spec = {"holderIdentity": name, "leaseDurationSeconds": LEASE_DURATION_S, "renewTime": now}
        try:
            await self._api.patch(LEASES, LEASE_NAMESPACE, name, {"spec": spec})
        except StatusError as error:
            if error.code != 404:
                raise
            await self._create_lease(spec)

    async def _create_lease(self, spec: Tree) -> None:
        meta = {"name": self.facts.name, "namespace": LEASE_NAMESPACE}
        lease = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": meta, "spec": spec}
        try:
            await self._api.create(LEASES, LEASE_NAMESPACE, lease)
        except StatusError as error:
            if error.code != 404:
                raise
            namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": LEASE_NAMESPACE}}
            await self._api.create(NAMESPACES, "", namespace)
            await self._api.create(LEASES, LEASE_NAMESPACE, lease)

    async def run(self) -> None:
        """Renew until cancelled; a Node that was deleted is registered again."""
        next_status = self._clock.now() + STATUS_S
        while True:
            await self._clock.sleep(RENEW_S)
            try:
                await self._api.get(NODES, "", self.facts.name)
                await self._renew()
                if self._clock.now() >= next_status:
                    await self.write_status(ready=True)
                    next_status = self._clock.now() + STATUS_S
            except StatusError as error:
                if error.code == 404:
                    log.warning("the Node was deleted, registering it again: node=%s", self.facts.name)
                    await self._register_again()
                else:
                    log.error("heartbeat refused: node=%s error=%s", self.facts.name, error)
            except TransportError as error:
                log.warning("heartbeat not written: node=%s error=%s", self.facts.name, error)

    async def _register_again(self) -> None:
        try:
            await self.register()
        except StatusError as error:
            log.error("node not registered: node=%s error=%s", self.facts.name, error)

    async def goodbye(self, why: str) -> None:
        """Say that the node is shut down; best effort."""
        try:
            async with asyncio.timeout(2):
                await self.write_status(ready=False, why=why)
        except (SvcplaneError, TimeoutError) as error:
            log.info("goodbye not written: node=%s error=%s", self.facts.name, error)
