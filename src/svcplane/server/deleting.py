"""Deleting objects: preconditions, grace periods, finalizers, what goes with a Service.

Source: k8s.io/apiserver/pkg/registry/generic/registry/store.go, k8s.io/apiserver/pkg/registry/rest/delete.go.
"""

from collections.abc import Mapping
from datetime import datetime

from svcplane.api import codec
from svcplane.api import status as st
from svcplane.api.http import Request
from svcplane.api.resources import COLLECTED, ENDPOINTS, FOREGROUND, NAMESPACES, ORPHAN, SERVICES, Resource
from svcplane.api.strategy import Strategy, Tree
from svcplane.base.clock import Clock, rfc3339
from svcplane.server.allocation import Allocated, ServiceAllocation
from svcplane.server.options import DeleteOptions, Preconditions, delete_options
from svcplane.server.routes import Route
from svcplane.server.written import CHANGED, TRIES, Written, commit
from svcplane.store.contract import Delete, KeyValue, PreconditionFailed, Put, Revision, Store, Transaction, Unchanged

PROTECTED_NAMESPACES = frozenset({"default", "kube-system", "kube-public"})
#: Kinds whose DELETE answers with the object instead of a Status.
RETURNS_DELETED = frozenset({"Service", "Pod"})


class Deleter:
    """Implements delete."""

    def __init__(
        self, store: Store, strategies: Mapping[Resource, Strategy], allocation: ServiceAllocation, *, clock: Clock
    ) -> None:
        self._store, self._strategies, self._allocation, self._clock = store, strategies, allocation, clock

    async def delete(self, route: Route, request: Request) -> Written:
        return await self.delete_object(route, delete_options(request))

    async def delete_object(self, route: Route, options: DeleteOptions) -> Written:
        resource = route.resource
        if resource is NAMESPACES and route.name in PROTECTED_NAMESPACES:
            raise st.forbidden("namespaces", route.name, "this namespace may not be deleted")
        for _ in range(TRIES):
            item = await self._store.get(resource.key(route.namespace, route.name))
            if item is None:
                raise st.not_found(resource.plural, route.name, resource.group)
            obj = codec.load(item.value, item.revision, resource)
            _check_preconditions(obj, options, resource)
            try:
                return await self._delete(resource, obj, item, options)
            except PreconditionFailed:
                continue
        raise st.conflict(resource.plural, route.name, CHANGED, resource.group)

    async def _delete(self, resource: Resource, obj: Tree, item: KeyValue, options: DeleteOptions) -> Written:
        strategy, meta = self._strategies[resource], obj["metadata"]
        grace = strategy.grace_period_on_delete(obj, options.grace_period_seconds)
        held = list(meta.get("finalizers", []))
        if resource in COLLECTED:
            meta["finalizers"] = with_propagation(held, options)
            if not meta["finalizers"]:
                del meta["finalizers"]
        finalizers = _finalizers(obj, resource)
        waits = bool(grace) or bool(finalizers)
        sooner = (grace or 0) < meta.get("deletionGracePeriodSeconds", 0)
        # old clients that ask for dependents to go too are told where the object stays for a while
        status = 202 if waits and options.orphan_dependents is False else 200
        if waits and meta.get("deletionTimestamp") and not sooner:
            # a propagation policy comes too late while a grace period runs
            if meta.get("deletionGracePeriodSeconds") or held == meta.get("finalizers", []):
                return Written(status, item.value, item.revision)
        if waits or grace is not None:
            if not meta.get("deletionTimestamp"):
                if meta.get("generation", 0) > 0:
                    meta["generation"] += 1
                meta["deletionTimestamp"] = rfc3339(self._clock.wall() + (grace or 0))
            elif sooner:  # counted from when it was asked for first
                asked = datetime.fromisoformat(meta["deletionTimestamp"]).timestamp()
                meta["deletionTimestamp"] = rfc3339(asked - meta["deletionGracePeriodSeconds"] + (grace or 0))
            if resource is not NAMESPACES:
                meta["deletionGracePeriodSeconds"] = grace or 0
            if resource is NAMESPACES:
                obj.setdefault("status", {})["phase"] = "Terminating"
        if not waits:
            if grace is not None and not options.is_dry_run:
                item = await self._mark(resource, obj, item)
            revision = item.revision if options.is_dry_run else await self.remove(resource, obj, item)
            if resource.kind in RETURNS_DELETED:
                return Written(200, codec.encode_stored(obj), revision)
            return Written(200, body=_deleted_status(resource, meta))
        stored = codec.encode_stored(obj)
        if options.is_dry_run:
            return Written(status, stored, item.revision)
        revision = await commit(self._store, item.key, stored, item.revision, Allocated())
        return Written(status, stored, revision)

    async def _mark(self, resource: Resource, obj: Tree, item: KeyValue) -> KeyValue:
        """Watchers of a kind with grace periods see the mark of a deletion first, even where the period is none."""
        stored = codec.encode_stored(obj)
        if stored == item.value:
            return item
        revision = await commit(self._store, item.key, stored, item.revision, Allocated())
        obj["metadata"]["resourceVersion"] = str(revision)
        return KeyValue(item.key, stored, revision, item.created)

    async def remove(self, resource: Resource, obj: Tree, item: KeyValue) -> Revision:
        """Take it and what it holds out of the store.  Raises PreconditionFailed where it has changed."""
        operations: tuple[Put | Delete, ...] = (Delete(item.key),)
        conditions: tuple[Unchanged, ...] = (Unchanged(item.key, item.revision),)
        if resource is SERVICES:
            meta = obj["metadata"]
            allocated = await self._allocation.on_delete(obj)
            operations += (*allocated.operations, Delete(ENDPOINTS.key(meta["namespace"], meta["name"])))
            conditions += tuple(allocated.preconditions)
        return await self._store.commit(Transaction(operations, conditions))


def with_propagation(finalizers: list[str], options: DeleteOptions) -> list[str]:
    """The finalizers of an object that is deleted with a propagation policy; without one they stay as they are."""
    policy = options.propagation_policy
    if policy is None and options.orphan_dependents is not None:
        policy = "Orphan" if options.orphan_dependents else "Background"
    if policy is None:
        return finalizers
    kept = [name for name in finalizers if name not in (ORPHAN, FOREGROUND)]
    return kept + {"Orphan": [ORPHAN], "Foreground": [FOREGROUND]}.get(policy, [])


def is_finished(obj: Tree, resource: Resource) -> bool:
    """Whether the last finalizer of an object that is being deleted has gone."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers") or meta.get("deletionGracePeriodSeconds"):
        return False
    return not (resource is NAMESPACES and obj.get("spec", {}).get("finalizers"))


def _finalizers(obj: Tree, resource: Resource) -> list[str]:
    meta = obj["metadata"]
    found = list(meta.get("finalizers", []))
    if resource is NAMESPACES:
        return found + list(obj.get("spec", {}).get("finalizers", []))
    return found


def _check_preconditions(obj: Tree, options: DeleteOptions, resource: Resource) -> None:
    wanted, meta = options.preconditions, obj["metadata"]
    if wanted is None:
        return
    if resource is NAMESPACES:
        _check_namespace(meta, wanted)
        return
    if wanted.uid is not None and wanted.uid != meta.get("uid"):
        why = (
            f"the UID in the precondition ({wanted.uid}) does not match the UID in record ({meta.get('uid')}). "
            "The object might have been deleted and then recreated"
        )
        raise _precondition_conflict(resource, meta["name"], why)
    if wanted.resource_version is not None and wanted.resource_version != meta.get("resourceVersion"):
        why = (
            f"the ResourceVersion in the precondition ({wanted.resource_version}) does not match the ResourceVersion "
            f"in record ({meta.get('resourceVersion')}). The object might have been modified"
        )
        raise _precondition_conflict(resource, meta["name"], why)


def _check_namespace(meta: Tree, wanted: Preconditions) -> None:
    """Namespaces have words of their own for it."""
    pairs = (("UID", wanted.uid, "uid"), ("ResourceVersion", wanted.resource_version, "resourceVersion"))
    for what, given, key in pairs:
        if given is not None and given != meta.get(key):
            why = f"Precondition failed: {what} in precondition: {given}, {what} in object meta: {meta.get(key)}"
            raise st.conflict("namespaces", meta["name"], why)


def _precondition_conflict(resource: Resource, name: str, why: str) -> st.StatusError:
    return st.conflict(resource.kind, name, why, resource.group)


def _deleted_status(resource: Resource, meta: Tree) -> Tree:
    details = {"name": meta["name"], "group": resource.group, "kind": resource.plural, "uid": meta.get("uid", "")}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }
