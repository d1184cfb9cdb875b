"""Keeps the EndpointSlices of each Service with a selector; see the plan."""

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec

from svcplane.api.core import Node, Pod, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.api.resources import ENDPOINT_SLICES
from svcplane.client.workqueue import WorkQueue
from svcplane.controllers import pods as p
from svcplane.controllers.cluster import Cluster
from svcplane.controllers.dirty import Dirty
from svcplane.controllers.events import EventRecorder, worth_telling
from svcplane.controllers.own_slices import Group, OwnSlices
from svcplane.controllers.settling import NEW_S, Settling
from svcplane.controllers.slices.hints import is_auto
from svcplane.controllers.slices.placed import Placed
from svcplane.controllers.slices.plan import CONTROLLER, plan
from svcplane.controllers.slices.shares import ZONE, is_counted
from svcplane.controllers.view import TriggerTimes

#: From so many endpoints on, Pods that come and go wait for `GATHER_S` so that one plan serves several.
MANY, GATHER_S = 500, 0.1
#: Writes of one sync that are under way together.
AT_ONCE = 32
Tree = dict[str, Any]


class SlicesController:
    """One key for each Service, `namespace/name`."""

    name = "endpointslice"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.queue: WorkQueue[str] = WorkQueue(first_s=1.0, max_s=1000.0)
        self._own = OwnSlices(cluster.slices, CONTROLLER, self._all_changed)
        self._times = TriggerTimes()
        self._dirty = Dirty()
        self._settling = Settling()
        self._placed: dict[str, Placed] = {}
        self._events = EventRecorder(cluster.client, "endpoint-slice-controller")
        self._told: dict[str, dict[str, str]] = {}  # what events said of hints, by family
        cluster.services.on_change(self._service_changed)
        cluster.pods.on_change(self._pod_changed)
        cluster.nodes.on_change(self._node_changed)

    def _all_changed(self, key: str) -> None:
        self._dirty.all(key)
        self.queue.add(key)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        service = new or old
        assert service is not None
        if old is None:
            self._settling.appeared(service.key, asyncio.get_running_loop().time())
            self._dirty.all(service.key)
            self.queue.add_after(service.key, NEW_S)
        else:
            self._all_changed(service.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is not None and not p.matters(old, new):
            return
        pod = new or old
        assert pod is not None
        for key in self._cluster.index.services_of((old, new)):
            self._dirty.pod(key, pod.key)
            placed = self._placed.get(key)
            if placed is None or len(placed) < MANY or (new is not None and placed.has(new)):
                self.queue.add(key)
            else:
                self.queue.add_after(key, GATHER_S)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        """Endpoints on a Node that is gone stay until something else of their Services changes: it may come back."""
        cluster = self._cluster
        if not cluster.listed or _relevant(old) == _relevant(new):
            return  # what is listed at the start is planned anyway
        touched = {key for key, service in cluster.services.items.items() if is_auto(service)}
        if new is not None and (old is None or old.metadata.labels.get(ZONE) != new.metadata.labels.get(ZONE)):
            here = (pod for pod in cluster.pods.items.values() if pod.spec.node_name == new.metadata.name)
            touched |= cluster.index.services_of(here)
        for key in touched:
            self._all_changed(key)

    async def sync(self, key: str) -> bool:
        """False: try again later."""
        cluster = self._cluster
        service = cluster.services.items.get(key)
        changed = self._dirty.take(key)
        if service is None:
            for known in (self._times, self._settling):
                known.forget(key)
            self._placed.pop(key, None)
            self._told.pop(key, None)
            # those that were orphaned on purpose stay
            mine = [name for name, slice_ in self._own.of(key).items() if slice_.metadata.owner_references]
            await self._delete(key, mine)
            return True
        if not service.spec.selector or service.spec.type == "ExternalName":
            self._placed.pop(key, None)
            return True
        if changed is not None and await self._edit(service, changed):
            return True
        return await self._plan(service)

    async def _edit(self, service: Service, changed: set[str]) -> bool:
        """Deal with Pods that stay where they are; False where that is not enough."""
        placed = self._placed.get(service.key)
        if placed is None or placed.service is not service:
            return False
        found = [self._cluster.pods.items.get(key) for key in changed]
        pods = [pod for pod in found if pod is not None and p.selects(service, pod)]
        if len(pods) < len(changed):
            return False
        key = service.key
        time = self._times.owed(key, self._times.compute_some(service, pods))
        trees = placed.edit(pods, self._cluster.nodes.items, self._own.of(key), time)
        if trees is None:
            self._times.undone(key, time)
            return False
        await self._write(service, time, [], trees)
        return True

    async def _plan(self, service: Service) -> bool:
        cluster, key = self._cluster, service.key
        self._placed.pop(key, None)
        pods = cluster.index.pods_of(service)
        time = self._times.owed(key, self._times.compute(service, pods))
        existing = list(_staying(self._own.of(key)).values())
        made = plan(service, pods, cluster.nodes.items, existing, time)
        if not existing and not any(tree["endpoints"] for tree in made.creates):
            wait = self._settling.wait_s(key, asyncio.get_running_loop().time())
            if wait:
                self._times.undone(key, time)
                self._dirty.all(key)
                self.queue.add_after(key, wait)
                return True
        await self._write(service, time, made.creates, made.updates, made.skipped)
        await self._delete(key, made.deletes)
        await self._tell(service, existing, made.refused)
        if made.retry:
            await self._say(service, made.skipped)
            return False
        self._placed[key] = Placed(service, _staying(self._own.of(key)))
        return True

    async def _tell(self, service: Service, existing: list[EndpointSlice], refused: dict[str, str]) -> None:
        """Events where `topology-mode: Auto` begins or ends to be done, or cannot be done for a new reason."""
        hinted = any(endpoint.hints for slice_ in existing for endpoint in slice_.endpoints or ())
        before = self._told.get(service.key, dict.fromkeys(refused, "") if is_auto(service) and hinted else {})
        now = refused if is_auto(service) else {}
        for family in sorted({*before, *now}):
            if before.get(family) == now.get(family):
                continue
            why = now.get(family, "Topology Aware Hints has been disabled")
            text = f"{why or 'Topology Aware Hints has been enabled'}, addressType: {family}"
            if not why:
                await self._events.tell(service, "Service", "v1", "TopologyAwareHintsEnabled", text)
            elif family in now or not before[family]:
                await self._events.warn(service, "Service", "v1", "TopologyAwareHintsDisabled", text)
        if now:
            self._told[service.key] = now
        else:
            self._told.pop(service.key, None)

    async def _say(self, service: Service, faults: Sequence[str]) -> None:
        """An Event of what keeps the slices from being right."""
        why = faults[0] if len(faults) == 1 else f"[{', '.join(faults)}]"
        text = f"Error updating Endpoint Slices for Service {service.key}: {why}"
        await self._events.warn(service, "Service", "v1", "FailedToUpdateEndpointSlices", text)

    async def _write(
        self, service: Service, time: str, creates: list[Tree], updates: list[Tree], skipped: Sequence[str] = ()
    ) -> None:
        """Several at once, so that the server can make them durable together.  `skipped`: to be told of too, where
        a write is refused."""
        key, client = service.key, self._cluster.client
        namespace = service.metadata.namespace
        calls = [client.create(ENDPOINT_SLICES, namespace, tree) for tree in creates]
        calls += [client.update(ENDPOINT_SLICES, namespace, tree["metadata"]["name"], tree) for tree in updates]
        answers: list[Tree | BaseException] = []
        for start in range(0, len(calls), AT_ONCE):
            answers += await asyncio.gather(*calls[start : start + AT_ONCE], return_exceptions=True)
        failures = [answer for answer in answers if isinstance(answer, BaseException)]
        for answer in answers:
            if not isinstance(answer, BaseException):
                self._own.wrote(key, msgspec.convert(answer, EndpointSlice))
        if failures:
            self._times.undone(key, time)
            refused = answers.index(failures[0])
            if isinstance(failures[0], Exception) and worth_telling(failures[0]):
                what = (
                    "create"
                    if refused < len(creates)
                    else f"update {updates[refused - len(creates)]['metadata']['name']}"
                )
                fault = f"failed to {what} EndpointSlice for Service {key}: {failures[0]}"
                await self._say(service, [*skipped, fault])
            raise failures[0]

    async def _delete(self, key: str, names: list[str]) -> None:
        namespace = key.partition("/")[0]
        for name in names:
            await self._cluster.delete(ENDPOINT_SLICES, namespace, name)
            self._own.deleted(key, name)

    def failed(self, key: str) -> None:
        """A write was refused: what we take for written may not be there."""
        self._own.distrust(key)
        self._dirty.all(key)


def _staying(group: Group) -> Group:
    """Without slices that are being deleted: one that a finalizer holds is as good as gone."""
    return {name: slice_ for name, slice_ in group.items() if slice_.metadata.deletion_timestamp is None}


def _relevant(node: Node | None) -> tuple[object, ...] | None:
    """What of a node endpoints and hints depend on."""
    if node is None:
        return None
    return node.metadata.labels.get(ZONE), node.status.allocatable.get("cpu"), is_counted(node)
