"""Keeps the Endpoints object of each Service with a selector; see the plan."""

import asyncio

import msgspec

from svcplane.api.core import Endpoints, Pod, Service
from svcplane.api.resources import ENDPOINTS, SERVICES
from svcplane.api.status import StatusError
from svcplane.base.errors import SvcplaneError
from svcplane.client.workqueue import WorkQueue
from svcplane.controllers import pods as p
from svcplane.controllers.cluster import Cluster
from svcplane.controllers.dirty import Dirty
from svcplane.controllers.endpoints.addresses import Addresses
from svcplane.controllers.endpoints.plan import Tree, desired, is_ours
from svcplane.controllers.events import EventRecorder, worth_telling
from svcplane.controllers.settling import NEW_S, Settling
from svcplane.controllers.view import TriggerTimes

#: From so many Pods on, changes wait for `GATHER_S` so that one write serves several.
MANY, GATHER_S = 500, 0.1


class EndpointsController:
    """One key for each Service, `namespace/name`."""

    name = "endpoints"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.queue: WorkQueue[str] = WorkQueue(first_s=0.005, max_s=1000.0)
        self._times = TriggerTimes()
        self._dirty = Dirty()
        self._settling = Settling()
        self._own: dict[str, Endpoints] = {}  # our last write, until the watch has shown it
        self._addresses: dict[str, Addresses] = {}
        self._events = EventRecorder(cluster.client, "endpoint-controller")
        self._found: set[str] = set()  # what an earlier run left, until looked at
        cluster.services.on_change(self._service_changed)
        cluster.pods.on_change(self._pod_changed)
        cluster.endpoints.on_change(self._endpoints_changed)

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        service = new or old
        assert service is not None
        self._dirty.all(service.key)
        if old is None:
            self._settling.appeared(service.key, asyncio.get_running_loop().time())
            self.queue.add_after(service.key, NEW_S)
        else:
            self.queue.add(service.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is not None and new is not None and not p.matters(old, new):
            return
        pod = new or old
        assert pod is not None
        for key in self._cluster.index.services_of((old, new)):
            self._dirty.pod(key, pod.key)
            if len(self._addresses.get(key, ())) < MANY:
                self.queue.add(key)
            else:
                self.queue.add_after(key, GATHER_S)

    def _endpoints_changed(self, old: Endpoints | None, new: Endpoints | None) -> None:
        endpoints = new or old
        assert endpoints is not None
        own = self._own.get(endpoints.key)
        if own is not None and (new is None or _version(new) >= _version(own)):
            del self._own[endpoints.key]
        if new is None and endpoints.key in self._cluster.services.items:
            self.queue.add(endpoints.key)
        if new is not None and not self._cluster.listed and is_ours(new.metadata.labels):
            self._found.add(new.key)  # its Service may have been deleted while nobody looked
            self.queue.add(new.key)

    async def sync(self, key: str) -> bool:
        """False: try again later."""
        cluster = self._cluster
        service = cluster.services.items.get(key)
        changed = self._dirty.take(key)
        if service is None:
            for known in (self._times, self._settling):
                known.forget(key)
            self._addresses.pop(key, None)
            if self._current(key) is not None and not await self._is_there(key):
                self._own.pop(key, None)
                await cluster.delete(ENDPOINTS, *_split(key))
            self._found.discard(key)
            return True
        self._found.discard(key)
        if not service.spec.selector or service.spec.type == "ExternalName":
            self._addresses.pop(key, None)
            return True
        time = self._times.owed(key, self._update(service, changed))
        current = self._current(key)
        if current is None and not self._addresses[key]:
            wait = self._settling.wait_s(key, asyncio.get_running_loop().time())
            if wait:
                self._times.undone(key, time)
                self.queue.add_after(key, wait)
                return True
        wanted = desired(self._addresses[key], msgspec.to_builtins(current) if current is not None else None, time)
        if wanted is not None:
            await self._write(key, wanted, time, new=current is None)
        return True

    async def _is_there(self, key: str) -> bool:
        """Whether a Service that our list lacked is there: it may have come after that list."""
        if key not in self._found:
            return False
        try:
            await self._cluster.client.get(SERVICES, *_split(key))
        except StatusError as error:
            if error.code != 404:
                raise
            return False
        return True

    async def _write(self, key: str, wanted: Tree, time: str, *, new: bool) -> None:
        client, (namespace, name) = self._cluster.client, _split(key)
        try:
            if new:
                answer = await client.create(ENDPOINTS, namespace, wanted)
            else:
                answer = await client.update(ENDPOINTS, namespace, name, wanted)
        except SvcplaneError as error:
            self._times.undone(key, time)
            if worth_telling(error):
                what = f"create endpoint for service {key}" if new else f"update endpoint {key}"
                reason = "FailedToCreateEndpoint" if new else "FailedToUpdateEndpoint"
                about = msgspec.convert(wanted, Endpoints)
                await self._events.warn(about, "Endpoints", "v1", reason, f"Failed to {what}: {error}")
            raise
        written = msgspec.convert(answer, Endpoints)
        seen = self._cluster.endpoints.items.get(key)
        if seen is None or _version(seen) < _version(written):
            self._own[key] = written

    def _current(self, key: str) -> Endpoints | None:
        return self._own.get(key) or self._cluster.endpoints.items.get(key)

    def _update(self, service: Service, changed: set[str] | None) -> str:
        """Bring the Service's addresses up to date; the trigger time of the change."""
        cluster, key = self._cluster, service.key
        addresses = self._addresses.get(key)
        if addresses is None or changed is None or addresses.service is not service:
            addresses = self._addresses[key] = Addresses(service)
            pods = cluster.index.pods_of(service)
            for pod in pods:
                addresses.put(pod.key, pod)
            return self._times.compute(service, pods)
        present = []
        for pod_key in changed:
            found = cluster.pods.items.get(pod_key)
            if found is not None and not p.selects(service, found):
                found = None
            addresses.put(pod_key, found)
            if found is not None:
                present.append(found)
        return self._times.compute_some(service, present)

    def failed(self, key: str) -> None:
        """What we take for written may not be there."""
        self._own.pop(key, None)


def _version(endpoints: Endpoints) -> int:
    return int(endpoints.metadata.resource_version or "0")


def _split(key: str) -> tuple[str, str]:
    namespace, _, name = key.partition("/")
    return namespace, name
