"""Keeps the slices that mirror Endpoints; see the plan."""

import msgspec

from svcplane.api.core import Endpoints, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.api.resources import ENDPOINT_SLICES
from svcplane.client.workqueue import WorkQueue
from svcplane.controllers.cluster import Cluster
from svcplane.controllers.events import EventRecorder
from svcplane.controllers.mirror.plan import CONTROLLER, Plan, is_mirrored, plan
from svcplane.controllers.own_slices import OwnSlices


class MirrorController:
    """One key for each Endpoints object, `namespace/name`."""

    name = "endpointslicemirroring"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.queue: WorkQueue[str] = WorkQueue(first_s=1.0, max_s=1000.0)
        self._events = EventRecorder(cluster.client, "endpoint-slice-mirroring-controller")
        self._own = OwnSlices(cluster.slices, CONTROLLER, self.queue.add)
        cluster.services.on_change(self._service_changed)
        cluster.endpoints.on_change(self._endpoints_changed)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        """Only whether there is one, and whether it selects, matters."""
        if (old is None) != (new is None) or (old and new and bool(old.spec.selector) != bool(new.spec.selector)):
            service = new or old
            assert service is not None
            if self._own.of(service.key) or service.key in self._cluster.endpoints.items:
                self.queue.add(service.key)

    def _endpoints_changed(self, old: Endpoints | None, new: Endpoints | None) -> None:
        endpoints = new or old
        assert endpoints is not None
        service = self._cluster.services.items.get(endpoints.key)
        if self._own.of(endpoints.key) or (service is not None and not service.spec.selector):
            self.queue.add(endpoints.key)

    async def sync(self, key: str) -> bool:
        """False: try again later."""
        endpoints = self._cluster.endpoints.items.get(key)
        service = self._cluster.services.items.get(key)
        existing = self._own.of(key)
        namespace = key.partition("/")[0]
        if endpoints is None or service is None or service.spec.selector or not is_mirrored(endpoints):
            for name in list(existing):
                await self._cluster.delete(ENDPOINT_SLICES, namespace, name)
                self._own.deleted(key, name)
            return True
        made = plan(endpoints, list(existing.values()))
        await self._tell(endpoints, made)
        client = self._cluster.client
        for tree in made.creates:
            answer = await client.create(ENDPOINT_SLICES, namespace, tree)
            self._own.wrote(key, msgspec.convert(answer, EndpointSlice))
        for tree in made.updates:
            answer = await client.update(ENDPOINT_SLICES, namespace, tree["metadata"]["name"], tree)
            self._own.wrote(key, msgspec.convert(answer, EndpointSlice))
        for name in made.deletes:
            await self._cluster.delete(ENDPOINT_SLICES, namespace, name)
            self._own.deleted(key, name)
        return True

    async def _tell(self, endpoints: Endpoints, made: Plan) -> None:
        """Say what could not be mirrored."""
        if made.invalid:
            text = f"Skipped {made.invalid} invalid IP addresses when mirroring to EndpointSlices"
            await self._events.warn(endpoints, "Endpoints", "v1", "InvalidIPAddress", text)
        if made.over:
            text = (
                "A max of 1000 addresses can be mirrored to EndpointSlices per Endpoints subset. "
                f"{made.over + made.invalid} addresses were skipped"
            )
            await self._events.warn(endpoints, "Endpoints", "v1", "TooManyAddressesToMirror", text)

    def failed(self, key: str) -> None:
        """A write was refused: what we take for written may not be there."""
        self._own.distrust(key)
