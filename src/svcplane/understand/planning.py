"""What applying objects would change: their fields, Services' endpoints, kernel operations.  Pure."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from svcplane.api.core import Node, Pod, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.controllers import pods as p
from svcplane.controllers.slices.plan import desired
from svcplane.proxy.plane import Operation
from svcplane.proxy.tracker import SERVICE_NAME_LABEL
from svcplane.understand.explain import slices_of
from svcplane.understand.view import ClusterView, from_trees

Tree = Mapping[str, Any]
#: What the server keeps for itself.
_ITS_OWN = ("managedFields", "resourceVersion", "generation", "uid", "creationTimestamp")


@dataclass(frozen=True, slots=True)
class FieldChange:
    """`before` None: the field is new; `after` None: it goes."""

    path: str
    before: Any
    after: Any


@dataclass(frozen=True, slots=True)
class ObjectPlan:
    """`verb`: create, change, unchanged, refused (`why`)."""

    object: str
    verb: str
    changes: tuple[FieldChange, ...] = ()
    why: str = ""


@dataclass(frozen=True, slots=True)
class EndpointPlan:
    """Ready endpoints of a Service port that come and go, as `ip:port (pod)`."""

    service: str
    comes: tuple[str, ...]
    goes: tuple[str, ...]


def object_plan(name: str, before: Tree | None, after: Tree) -> ObjectPlan:
    changes = tuple(_differences("", before or {}, after))
    if before is None:
        return ObjectPlan(name, "create", changes)
    return ObjectPlan(name, "change" if changes else "unchanged", changes)


def _differences(path: str, before: Any, after: Any) -> Iterator[FieldChange]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        for key in dict.fromkeys([*before, *after]):
            if key in _ITS_OWN or (not path and key in ("status", "apiVersion", "kind")):
                continue
            yield from _differences(f"{path}.{key}".lstrip("."), before.get(key), after.get(key))
    elif isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        for index, (one, other) in enumerate(zip(before, after, strict=True)):
            yield from _differences(f"{path}[{index}]", one, other)
    elif before != after:
        yield FieldChange(path, before, after)


def applied(view: ClusterView, trees: Iterable[Tree]) -> ClusterView:
    """The view after objects were written, with the slices that the controllers would make of it.

    A Pod that is new has no address yet, and is no endpoint.
    """
    written = from_trees(trees, live=True, now_s=view.now_s)
    services = _replaced(view.services, written.services)
    pods = _replaced(view.pods, written.pods)
    slices = _replaced(view.slices, written.slices)
    names = {pod.key for pod in written.pods}
    moved = [*written.pods, *(pod for pod in view.pods if pod.key in names)]  # as they will be, and as they are
    touched = {service.key for service in written.services}
    touched |= {service.key for service in services if any(_selects(service, pod) for pod in moved)}
    after = replace(view, services=services, pods=pods, slices=slices)
    for service in services:
        if service.key in touched and service.spec.selector:
            after = replace(after, slices=_with_slices(service, after))
    return after


def _selects(service: Service, pod: Pod) -> bool:
    return service.metadata.namespace == pod.metadata.namespace and p.selects(service, pod)


def _replaced(old: Sequence[Any], new: Sequence[Any]) -> tuple[Any, ...]:
    fresh = {item.key: item for item in new}
    return tuple(fresh.pop(item.key, item) for item in old) + tuple(fresh.values())


def _with_slices(service: Service, view: ClusterView) -> tuple[EndpointSlice, ...]:
    """All slices, those of one Service as its controller would have them."""
    others = tuple(s for s in view.slices if s not in slices_of(service, view))
    pods = [pod for pod in view.pods if _selects(service, pod)]
    nodes = {node.metadata.name: node for node in view.nodes}
    if not nodes:
        nodes = {pod.spec.node_name: Node() for pod in pods}  # a dump without Nodes says nothing of them
    made = []
    for family in service.spec.ip_families or ["IPv4"]:
        groups, _ = desired(service, pods, nodes, family)
        for number, (ports, endpoints) in enumerate(groups.items()):
            meta = {
                "name": f"{service.metadata.name}-{family.lower()}-{number}",
                "namespace": service.metadata.namespace,
                "labels": {SERVICE_NAME_LABEL: service.metadata.name},
            }
            tree = {
                "metadata": meta,
                "addressType": family,
                "ports": [{"name": name, "protocol": protocol, "port": port} for name, protocol, port, _ in ports],
                "endpoints": list(endpoints.values()),
            }
            made.append(msgspec.convert(tree, EndpointSlice))
    return (*others, *made)


def endpoint_plans(before: ClusterView, after: ClusterView) -> tuple[EndpointPlan, ...]:
    """Services whose ready endpoints would differ."""
    found = []
    keys = dict.fromkeys(service.key for service in (*before.services, *after.services))
    for key in keys:
        old, new = _ready(before, key), _ready(after, key)
        if old != new:
            found.append(EndpointPlan(key, tuple(sorted(new - old)), tuple(sorted(old - new))))
    return tuple(found)


def _ready(view: ClusterView, key: str) -> set[str]:
    service = next((service for service in view.services if service.key == key), None)
    if service is None:
        return set()
    found = set()
    for slice_ in slices_of(service, view):
        for endpoint in slice_.endpoints or ():
            if endpoint.conditions.ready is False:
                continue
            pod = f" ({endpoint.target_ref.name})" if endpoint.target_ref else ""
            found |= {f"{ip}:{port.port}{pod}" for ip in endpoint.addresses[:1] for port in slice_.ports or ()}
    return found


def new_operations(present: Sequence[Operation], wanted: Sequence[Operation]) -> tuple[Operation, ...]:
    """The kernel operations that come of a change and not of a drift that is there already."""
    drift = {(op.verb, op.object) for op in present}
    return tuple(op for op in wanted if (op.verb, op.object) not in drift)
