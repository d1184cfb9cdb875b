"""Deletes what belongs to an owner that is gone, and lets owners go that wait for it or leave it behind.

Owners and what they own are Services, Pods, Nodes, Endpoints and EndpointSlices; an ownerReference to another kind
is nothing we could look up, and is left alone.  Source: pkg/controller/garbagecollector.
"""

from collections.abc import Callable
from typing import Any

from svcplane.api.meta import Object
from svcplane.api.resources import BY_KIND, COLLECTED, FOREGROUND, ORPHAN, Resource
from svcplane.api.status import StatusError
from svcplane.client.informer import Informer
from svcplane.client.workqueue import WorkQueue
from svcplane.controllers.cluster import Cluster

Place = tuple[str, str]  # plural, key


class GarbageCollector:
    """One key for each owner's uid."""

    name = "garbage-collector"

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.queue: WorkQueue[str] = WorkQueue(first_s=0.05, max_s=30.0)
        self._informers: dict[str, tuple[Resource, Informer[Any]]] = {}
        self._owners: dict[str, Place] = {}  # by uid, those that are there
        self._owned: dict[str, set[Place]] = {}  # by the owner's uid
        followed: dict[str, Informer[Any]] = {
            "services": cluster.services,
            "pods": cluster.pods,
            "nodes": cluster.nodes,
            "endpoints": cluster.endpoints,
            "endpointslices": cluster.slices,
        }
        for resource in COLLECTED:
            informer = followed[resource.plural]
            self._informers[resource.plural] = resource, informer
            informer.on_change(self._note(resource))

    def _note(self, resource: Resource) -> Callable[[Object | None, Object | None], None]:
        def changed(old: Object | None, new: Object | None) -> None:
            for obj, there in ((old, False), (new, True)):
                if obj is None:
                    continue
                place = resource.plural, obj.key
                for owner in obj.metadata.owner_references:
                    self._link(owner.uid, place, there=there)
                    if owner.uid not in self._owners or new is None:
                        self.queue.add(owner.uid)
            if new is not None:
                self._owners[new.metadata.uid] = resource.plural, new.key
                if new.metadata.deletion_timestamp and {FOREGROUND, ORPHAN} & set(new.metadata.finalizers):
                    self.queue.add(new.metadata.uid)
            elif old is not None:
                self._owners.pop(old.metadata.uid, None)
                if old.metadata.uid in self._owned:
                    self.queue.add(old.metadata.uid)

        return changed

    def _link(self, uid: str, place: Place, *, there: bool) -> None:
        if there:
            self._owned.setdefault(uid, set()).add(place)
            return
        group = self._owned.get(uid, set())
        group.discard(place)
        if not group:
            self._owned.pop(uid, None)

    def _find(self, place: Place) -> tuple[Resource, Object | None]:
        resource, informer = self._informers[place[0]]
        return resource, informer.items.get(place[1])

    async def sync(self, uid: str) -> bool:
        """False: try again later."""
        owned = sorted(self._owned.get(uid, ()))
        place = self._owners.get(uid)
        if place is None:
            for one in owned:
                if await self._is_gone(uid, one):
                    await self._let_go(uid, one, delete=True)
            return True
        resource, owner = self._find(place)
        if owner is None or not owner.metadata.deletion_timestamp:
            return True
        if ORPHAN in owner.metadata.finalizers:
            for one in owned:
                await self._let_go(uid, one, delete=False)
            await self._finish(resource, owner, ORPHAN)
        elif FOREGROUND in owner.metadata.finalizers:
            for one in owned:
                await self._let_go(uid, one, delete=True)
            if not any(self._blocks(uid, one) for one in owned):
                await self._finish(resource, owner, FOREGROUND)
        return True

    async def _is_gone(self, uid: str, place: Place) -> bool:
        """Whether the owner that an object names is not there: we may just not have heard of it yet."""
        _, obj = self._find(place)
        for owner in obj.metadata.owner_references if obj is not None else ():
            resource = BY_KIND.get((owner.api_version, owner.kind))
            if owner.uid != uid or resource not in COLLECTED or resource is None or obj is None:
                continue
            namespace = obj.metadata.namespace if resource.namespaced else ""
            try:
                found = await self._cluster.client.get(resource, namespace, owner.name)
            except StatusError as error:
                if error.code != 404:
                    raise
                return True
            return bool(found["metadata"]["uid"] != uid)
        return False

    def _blocks(self, uid: str, place: Place) -> bool:
        _, obj = self._find(place)
        references = obj.metadata.owner_references if obj is not None else []
        return any(owner.uid == uid and owner.block_owner_deletion for owner in references)

    async def _let_go(self, uid: str, place: Place, *, delete: bool) -> None:
        """Delete what has no other owner, where it is to be deleted; else take the reference away."""
        resource, obj = self._find(place)
        if obj is None or (delete and obj.metadata.deletion_timestamp):
            return
        meta = obj.metadata
        others = [owner for owner in meta.owner_references if owner.uid != uid]
        namespace, _, name = place[1].rpartition("/")
        client = self._cluster.client
        try:
            if delete and not others:
                await client.delete(resource, namespace, name, uid=meta.uid)
                return
            tree = await client.get(resource, namespace, name)
            kept = [ref for ref in tree["metadata"].get("ownerReferences", []) if ref["uid"] != uid]
            patch = {"ownerReferences": kept or None, "resourceVersion": tree["metadata"]["resourceVersion"]}
            await client.patch(resource, namespace, name, {"metadata": patch})
        except StatusError as error:
            if error.code != 404:
                raise

    async def _finish(self, resource: Resource, owner: Object, finalizer: str) -> None:
        meta = owner.metadata
        kept = [name for name in meta.finalizers if name != finalizer]
        patch = {"finalizers": kept or None, "resourceVersion": meta.resource_version}
        try:
            await self._cluster.client.patch(resource, meta.namespace, meta.name, {"metadata": patch})
        except StatusError as error:
            if error.code != 404:
                raise

    def failed(self, key: str) -> None:
        """Nothing of ours to forget."""
