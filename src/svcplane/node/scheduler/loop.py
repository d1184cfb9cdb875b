"""Pods without a node -> bindings.  One task; every change of a Pod or Node wakes it.

A Pod is bound through `pods/binding` where the server offers it, as on any Kubernetes, else by a patch.
"""

import asyncio
import logging

from svcplane.api.core import Node, Pod
from svcplane.api.resources import NODES, PODS
from svcplane.api.status import StatusError
from svcplane.base.clock import SYSTEM_CLOCK, Clock
from svcplane.base.errors import TransportError
from svcplane.client.api import ApiClient
from svcplane.client.informer import Informer
from svcplane.client.transport import Transport
from svcplane.node.api import Recorder
from svcplane.node.scheduler.choose import choose, load_of

log = logging.getLogger(__name__)

RETRY_S = 1.0


class Scheduler:
    """`run` until cancelled."""

    def __init__(self, transport: Transport, clock: Clock = SYSTEM_CLOCK) -> None:
        self._client = ApiClient(transport, "svcplane-scheduler")
        self._pods: Informer[Pod] = Informer(self._client, PODS, Pod)
        self._nodes: Informer[Node] = Informer(self._client, NODES, Node)
        self._wake = asyncio.Event()
        self._bound: dict[str, str] = {}  # uid -> node: bound by us, not yet seen
        self._told: dict[str, str] = {}  # uid -> why it waits
        self._recorder = Recorder(self._client, clock, "svcplane-scheduler", "")

    async def run(self) -> None:
        for informer in (self._pods, self._nodes):
            informer.on_change(lambda _old, _new: self._wake.set())
            informer.start()
        try:
            await self._pods.synced.wait()
            await self._nodes.synced.wait()
            while True:
                self._wake.clear()
                if not await self._round():
                    await asyncio.sleep(RETRY_S)
                    continue
                await self._wake.wait()
        finally:
            await self._pods.close()
            await self._nodes.close()

    async def _round(self) -> bool:
        """Bind every Pod that waits; False if one has to be tried again soon."""
        pods = self._pods.items.values()
        waiting = [pod for pod in pods if not pod.spec.node_name and pod.metadata.deletion_timestamp is None]
        uids = {pod.metadata.uid for pod in waiting}
        self._bound = {uid: node for uid, node in self._bound.items() if uid in uids}
        self._told = {uid: why for uid, why in self._told.items() if uid in uids}
        load = load_of(pods)
        for node in self._bound.values():
            load[node] = load.get(node, 0) + 1
        good = True
        for pod in waiting:
            uid = pod.metadata.uid
            if uid in self._bound:
                continue
            choice = choose(pod, self._nodes.items.values(), load)
            if not choice.node:
                await self._tell(pod, choice.reason)
                continue
            if await self._bind(pod, choice.node):
                self._bound[uid] = choice.node
                load[choice.node] = load.get(choice.node, 0) + 1
            else:
                good = False
        return good

    async def _tell(self, pod: Pod, reason: str) -> None:
        if self._told.get(pod.metadata.uid) != reason:
            self._told[pod.metadata.uid] = reason
            await self._recorder.event(pod, "Warning", "FailedScheduling", reason)

    async def _bind(self, pod: Pod, node: str) -> bool:
        meta = pod.metadata
        try:
            await self._bind_once(pod, node)
        except StatusError as error:
            if error.code in (404, 409):
                return True  # gone or bound by another: the watch will tell
            log.error("not bound: pod=%s node=%s error=%s", pod.key, node, error)
            return False
        except TransportError as error:
            log.warning("not bound: pod=%s node=%s error=%s", pod.key, node, error)
            return False
        log.info("bound: pod=%s node=%s", pod.key, node)
        text = f"Successfully assigned {meta.namespace}/{meta.name} to {node}"
        await self._recorder.event(pod, "Normal", "Scheduled", text)
        return True

    async def _bind_once(self, pod: Pod, node: str) -> None:
        meta = pod.metadata
        if "binding" in PODS.subresources:
            body = {
                "apiVersion": "v1",
                "kind": "Binding",
                "metadata": {"name": meta.name, "namespace": meta.namespace, "uid": meta.uid},
                "target": {"apiVersion": "v1", "kind": "Node", "name": node},
            }
            await self._client.call("POST", PODS.path(meta.namespace, meta.name, "binding"), body=body)
        else:
            patch = {"metadata": {"uid": meta.uid}, "spec": {"nodeName": node}}
            await self._client.patch(PODS, meta.namespace, meta.name, patch)
