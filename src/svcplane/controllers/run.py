"""The controllers put together: informers in, plans, writes out.  `run_controllers` is the library entry."""

import asyncio
import logging
from typing import Any

import msgspec

from svcplane.api.core import Endpoints, Namespace, Node, Pod, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.api.resources import (
    ENDPOINT_SLICES,
    ENDPOINTS,
    NAMESPACES,
    NODES,
    PODS,
    RESOURCES,
    SERVICES,
    Resource,
)
from svcplane.api.status import StatusError
from svcplane.base.errors import TransportError
from svcplane.client.api import ApiClient
from svcplane.client.informer import Informer
from svcplane.client.transport import Transport
from svcplane.client.workqueue import WorkQueue
from svcplane.controllers import pods as p
from svcplane.controllers.endpoints import plan as endpoints_plan
from svcplane.controllers.slices import plan as slices_plan
from svcplane.controllers.view import SelectorIndex, TriggerTimes

log = logging.getLogger(__name__)
NAMES = ("endpoints", "endpointslice", "namespace")
STALE_RETRY_S = 0.05


class Controllers:
    """Endpoints and EndpointSlices of Services with selectors; the emptying of namespaces."""

    def __init__(self, transport: Transport, names: tuple[str, ...] = NAMES) -> None:
        self._names = names
        client = ApiClient(transport, "svcplane-controllers")
        self._client = client
        self.services: Informer[Service] = Informer(client, SERVICES, Service)
        self.pods: Informer[Pod] = Informer(client, PODS, Pod)
        self.nodes: Informer[Node] = Informer(client, NODES, Node)
        self.slices: Informer[EndpointSlice] = Informer(client, ENDPOINT_SLICES, EndpointSlice)
        self.endpoints: Informer[Endpoints] = Informer(client, ENDPOINTS, Endpoints)
        self.namespaces: Informer[Namespace] = Informer(client, NAMESPACES, Namespace)
        self._index = SelectorIndex()
        self._slices_of: dict[str, dict[str, EndpointSlice]] = {}
        self._expected: dict[str, dict[str, str]] = {}  # service -> slice -> version we wrote, until seen
        self._slice_queue: WorkQueue[str] = WorkQueue(first_s=1.0, max_s=1000.0)
        self._endpoints_queue: WorkQueue[str] = WorkQueue(first_s=0.005, max_s=1000.0)
        self._namespace_queue: WorkQueue[str] = WorkQueue(first_s=0.2, max_s=30.0)
        self._slice_times, self._endpoints_times = TriggerTimes(), TriggerTimes()

    async def run(self) -> None:
        """Until cancelled."""
        self.services.on_change(self._service_changed)
        self.pods.on_change(self._pod_changed)
        self.nodes.on_change(self._node_changed)
        self.slices.on_change(self._slice_changed)
        self.endpoints.on_change(self._endpoints_changed)
        self.namespaces.on_change(self._namespace_changed)
        informers = (self.services, self.pods, self.nodes, self.slices, self.endpoints, self.namespaces)
        for informer in informers:
            informer.start()
        try:
            for informer in informers:
                await informer.synced.wait()
            async with asyncio.TaskGroup() as group:
                for _ in range(5):
                    if "endpointslice" in self._names:
                        group.create_task(self._slice_queue.work(self._guard(self._sync_slices)))
                    if "endpoints" in self._names:
                        group.create_task(self._endpoints_queue.work(self._guard(self._sync_endpoints)))
                if "namespace" in self._names:
                    group.create_task(self._namespace_queue.work(self._guard(self._sync_namespace)))
        finally:
            for informer in informers:
                await informer.close()

    @staticmethod
    def _guard(sync: Any) -> Any:
        async def guarded(key: str) -> bool:
            try:
                return bool(await sync(key))
            except (StatusError, TransportError) as error:
                if not (isinstance(error, StatusError) and error.code in (404, 409)):
                    log.warning("sync failed: key=%s error=%s", key, error)
                return False

        return guarded

    # -- what changed ------------------------------------------------------------------------------------------------

    def _touch(self, key: str) -> None:
        self._slice_queue.add(key)
        self._endpoints_queue.add(key)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        self._index.service_changed(old, new)
        service = new or old
        if service is not None:
            self._touch(service.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        self._index.pod_changed(old, new)
        if old is not None and new is not None and not p.matters(old, new):
            return
        for key in self._index.services_of((old, new)):
            self._touch(key)

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        before = old.metadata.labels.get(slices_plan.ZONE) if old else None
        after = new.metadata.labels.get(slices_plan.ZONE) if new else None
        appeared = (old is None) != (new is None)
        if not appeared and before == after:
            if old is None or new is None or old.status.allocatable == new.status.allocatable:
                ready_before = old.status.conditions if old else []
                if [c.status for c in ready_before] == [c.status for c in (new.status.conditions if new else [])]:
                    return
        for key in self.services.items:
            self._slice_queue.add(key)

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        slice_ = new or old
        if slice_ is None:
            return
        labels = slice_.metadata.labels
        if labels.get(slices_plan.MANAGED_BY) != slices_plan.CONTROLLER:
            return
        key = f"{slice_.metadata.namespace}/{labels.get(slices_plan.SERVICE_NAME, '')}"
        group = self._slices_of.setdefault(key, {})
        name = slice_.metadata.name
        if new is None:
            group.pop(name, None)
            if not group:
                self._slices_of.pop(key, None)
        else:
            group[name] = new
        expected = self._expected.get(key, {})
        if new is not None and expected.get(name) == new.metadata.resource_version:
            del expected[name]
            return
        if new is None and name in expected:
            del expected[name]
            if not expected:
                return
        self._slice_queue.add(key)

    def _endpoints_changed(self, old: Endpoints | None, new: Endpoints | None) -> None:
        if new is None and old is not None and old.key in self.services.items:
            self._endpoints_queue.add(old.key)

    def _namespace_changed(self, old: Namespace | None, new: Namespace | None) -> None:
        if new is not None and new.metadata.deletion_timestamp is not None:
            self._namespace_queue.add(new.key)

    # -- slices ----------------------------------------

    async def _sync_slices(self, key: str) -> bool:
        service = self.services.items.get(key)
        existing = list(self._slices_of.get(key, {}).values())
        namespace = key.partition("/")[0]
        if service is None or service.metadata.deletion_timestamp is not None:
            self._expected.pop(key, None)
            self._slice_times.forget(key)
            if service is None:
                for slice_ in existing:
                    await self._delete(ENDPOINT_SLICES, namespace, slice_.metadata.name)
            return True
        if not service.spec.selector or service.spec.type == "ExternalName":
            return True
        if self._expected.get(key):
            # our own writes have not come back yet: planning on what we see would write twice
            self._slice_queue.add_after(key, STALE_RETRY_S)
            return True
        pods = self._index.pods_of(service)
        nodes = self.nodes.items
        time = self._slice_times.compute(service, pods)
        plan = slices_plan.plan(service, pods, nodes, existing, time)
        expected = self._expected.setdefault(key, {})
        for tree in plan.creates:
            made = await self._client.create(ENDPOINT_SLICES, namespace, tree)
            self._expect(key, expected, made)
        for tree in plan.updates:
            made = await self._client.update(ENDPOINT_SLICES, namespace, tree["metadata"]["name"], tree)
            self._expect(key, expected, made)
        for doomed in plan.deletes:
            await self._delete(ENDPOINT_SLICES, namespace, doomed)
        return not plan.retry

    def _expect(self, key: str, expected: dict[str, str], made: dict[str, Any]) -> None:
        meta = made["metadata"]
        seen = self._slices_of.get(key, {}).get(meta["name"])
        if seen is None or int(seen.metadata.resource_version) < int(meta["resourceVersion"]):
            expected[meta["name"]] = meta["resourceVersion"]

    async def _delete(self, resource: Resource, namespace: str, name: str) -> None:
        """One that is gone already is as wanted."""
        try:
            await self._client.delete(resource, namespace, name)
        except StatusError as error:
            if error.code != 404:
                raise

    # -- endpoints ----------------------------------------

    async def _sync_endpoints(self, key: str) -> bool:
        service = self.services.items.get(key)
        namespace, _, name = key.partition("/")
        if service is None:
            self._endpoints_times.forget(key)
            if key in self.endpoints.items:
                await self._delete(ENDPOINTS, namespace, name)
            return True
        if not service.spec.selector or service.spec.type == "ExternalName":
            return True
        pods = self._index.pods_of(service)
        current = self.endpoints.items.get(key)
        time = self._endpoints_times.compute(service, pods)
        tree = msgspec.to_builtins(current) if current is not None else None
        wanted = endpoints_plan.desired(service, pods, tree, time)
        if wanted is None:
            return True
        if current is None:
            await self._client.create(ENDPOINTS, namespace, wanted)
        else:
            await self._client.update(ENDPOINTS, namespace, name, wanted)
        return True

    # -- namespaces ----------------------------------------

    async def _sync_namespace(self, key: str) -> bool:
        """Delete everything in it, then let it go."""
        try:
            namespace = await self._client.get(NAMESPACES, "", key)
        except StatusError as error:
            return error.code == 404
        if not namespace["metadata"].get("deletionTimestamp"):
            return True
        left = 0
        for resource in RESOURCES:
            if not resource.namespaced:
                continue
            await self._client.call("DELETE", resource.path(key))
            left += len((await self._client.list(resource, key))["items"])
        if left:
            return False
        body = {**namespace, "spec": {"finalizers": []}}
        await self._client.update(NAMESPACES, "", key, body, subresource="finalize")
        return True


async def run_controllers(transport: Transport, names: tuple[str, ...] = NAMES) -> None:
    """Run the named controllers until cancelled."""
    await Controllers(transport, names).run()
