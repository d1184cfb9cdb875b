"""Empties a namespace that is being deleted, then lets it go.

What kinds there are is asked of the API, so that nothing is left behind on a cluster with more of them than svcplane
has.  Pods go first: what they use stays until they have ended (KEP-5080).
Source: pkg/controller/namespace/deletion.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from svcplane.api.core import Namespace, Pod
from svcplane.api.resources import NAMESPACES
from svcplane.api.status import StatusError
from svcplane.base.clock import SYSTEM_CLOCK, Clock, rfc3339
from svcplane.client.workqueue import WorkQueue
from svcplane.controllers.cluster import Cluster

Tree = dict[str, Any]
#: What the conditions say where all is well: reason and message by type.
WELL = {
    "NamespaceDeletionDiscoveryFailure": ("ResourcesDiscovered", "All resources successfully discovered"),
    "NamespaceDeletionGroupVersionParsingFailure": ("ParsedGroupVersions", "All legacy kube types successfully parsed"),
    "NamespaceDeletionContentFailure": (
        "ContentDeleted",
        "All content successfully deleted, may be waiting on finalization",
    ),
    "NamespaceContentRemaining": ("ContentRemoved", "All content successfully removed"),
    "NamespaceFinalizersRemaining": ("ContentHasNoFinalizers", "All content-preserving finalizers finished"),
}


@dataclass(frozen=True, slots=True)
class Kind:
    """One that lives in namespaces.  `group` is empty for core."""

    group: str
    version: str
    plural: str
    verbs: frozenset[str]

    def path(self, namespace: str, name: str = "") -> str:
        prefix = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        return f"{prefix}/namespaces/{namespace}/{self.plural}" + (f"/{name}" if name else "")


def conditions(found: Sequence[Tree], left: Mapping[str, int], finalizers: Mapping[str, int], now: str) -> list[Tree]:
    """A namespace's conditions.  Pure.  `left`: objects by `plural.group`, `finalizers`: objects by what holds them."""
    trouble: dict[str, tuple[str, str]] = {}
    if left:
        listed = ", ".join(sorted(f"{kind} has {count} resource instances" for kind, count in left.items()))
        trouble["NamespaceContentRemaining"] = "SomeResourcesRemain", f"Some resources are remaining: {listed}"
    if finalizers:
        listed = ", ".join(sorted(f"{name} in {count} resource instances" for name, count in finalizers.items()))
        text = f"Some content in the namespace has finalizers remaining: {listed}"
        trouble["NamespaceFinalizersRemaining"] = "SomeFinalizersRemain", text
    known = {condition["type"]: condition for condition in found}
    others = [condition for condition in found if condition["type"] not in WELL]
    made = []
    for type_, well in WELL.items():
        status, (reason, message) = ("True", trouble[type_]) if type_ in trouble else ("False", well)
        before = known.get(type_, {})
        since = before.get("lastTransitionTime", now) if before.get("status") == status else now
        condition = {"type": type_, "status": status, "lastTransitionTime": since}
        made.append({**condition, "reason": reason, "message": message})
    return others + made


class NamespaceController:
    """One key for each namespace."""

    name = "namespace"

    def __init__(self, cluster: Cluster, clock: Clock = SYSTEM_CLOCK) -> None:
        self._cluster, self._client, self._clock = cluster, cluster.client, clock
        self.queue: WorkQueue[str] = WorkQueue(first_s=0.2, max_s=30.0)
        cluster.namespaces.on_change(self._changed)
        cluster.pods.on_change(self._pod_changed)

    def _changed(self, old: Namespace | None, new: Namespace | None) -> None:
        going = old is not None and old.metadata.deletion_timestamp is not None
        if new is not None and new.metadata.deletion_timestamp is not None and not going:
            self.queue.add(new.key)

    def _pod_changed(self, old: Pod | None, new: Pod | None) -> None:
        if old is None or new is not None:
            return
        namespace = self._cluster.namespaces.items.get(old.metadata.namespace)
        if namespace is not None and namespace.metadata.deletion_timestamp is not None:
            self.queue.add(namespace.key)

    async def sync(self, key: str) -> bool:
        """False: something is left, try again later."""
        try:
            namespace = await self._client.get(NAMESPACES, "", key)
        except StatusError as error:
            return error.code == 404
        if not namespace["metadata"].get("deletionTimestamp"):
            return True
        left: Counter[str] = Counter()
        finalizers: Counter[str] = Counter()
        for kind in await self._kinds():
            await self._empty(kind, key, left, finalizers)
            if kind.plural == "pods" and left:
                break
        namespace = await self._tell(namespace, left, finalizers)
        if left:
            return False
        body = {**namespace, "spec": {"finalizers": []}}
        await self._client.update(NAMESPACES, "", key, body, subresource="finalize")
        return True

    async def _kinds(self) -> list[Kind]:
        """Pods first."""
        groups = (await self._get("/apis")).get("groups", [])
        places = [("", "v1"), *(group["preferredVersion"]["groupVersion"].split("/", 1) for group in groups)]
        found = []
        for group, version in places:
            path = f"/apis/{group}/{version}" if group else f"/api/{version}"
            for entry in (await self._get(path)).get("resources", []):
                verbs = frozenset(entry.get("verbs", []))
                if entry.get("namespaced") and "/" not in entry["name"] and {"list", "delete"} <= verbs:
                    found.append(Kind(group, version, entry["name"], verbs))
        return sorted(found, key=lambda kind: (kind.group, kind.plural) != ("", "pods"))

    async def _get(self, path: str) -> Tree:
        tree: Tree = msgspec.json.decode((await self._client.call("GET", path)).body)
        return tree

    async def _empty(self, kind: Kind, namespace: str, left: Counter[str], finalizers: Counter[str]) -> None:
        path = kind.path(namespace)
        if "deletecollection" in kind.verbs:
            await self._client.call("DELETE", path)
        else:
            for item in (await self._get(path)).get("items") or []:
                await self._delete(kind.path(namespace, item["metadata"]["name"]))
        for item in (await self._get(path)).get("items") or []:
            left[f"{kind.plural}.{kind.group}"] += 1
            finalizers.update(item["metadata"].get("finalizers", []))

    async def _delete(self, path: str) -> None:
        try:
            await self._client.call("DELETE", path)
        except StatusError as error:
            if error.code != 404:
                raise

    async def _tell(self, namespace: Tree, left: Mapping[str, int], finalizers: Mapping[str, int]) -> Tree:
        """Write the conditions where they have changed; the namespace as it is then."""
        found = namespace.get("status", {}).get("conditions", [])
        wanted = conditions(found, left, finalizers, rfc3339(self._clock.wall()))
        if wanted == found:
            return namespace
        meta = namespace["metadata"]
        patch = {"metadata": {"resourceVersion": meta["resourceVersion"]}, "status": {"conditions": wanted}}
        return await self._client.patch(NAMESPACES, "", meta["name"], patch, subresource="status")

    def failed(self, key: str) -> None:
        """Nothing of ours to forget."""
