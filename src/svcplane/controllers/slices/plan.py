"""Pods and slices in, slices to create, update and delete out.  Pure.

Packing changes as few slices as possible: present endpoints stay where they are, new ones fill slices that change
anyway, then one that does not, then new slices.  Source: k8s.io/endpointslice reconciler.go, topologycache.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from svcplane.api.core import Node, Pod, Service
from svcplane.api.discovery import MANAGED_BY, SERVICE_NAME, EndpointSlice
from svcplane.controllers import pods as p
from svcplane.controllers.slices.hints import add_hints
from svcplane.controllers.slices.shares import ZONE

CONTROLLER = "endpointslice-controller.k8s.io"
MAX_PER_SLICE = 100
RESERVED_LABELS = (SERVICE_NAME, MANAGED_BY, p.HEADLESS_LABEL)
Tree = dict[str, Any]
Identity = tuple[tuple[str, ...], str, str, str]  # addresses, hostname, the Pod's namespace and name
PortMap = tuple[tuple[str, str, int | None, str | None], ...]  # name, protocol, port, appProtocol


@dataclass(slots=True)
class Plan:
    """`updates` are whole slices under their old names; `retry`: a Pod's node is not known yet, `skipped` says which.

    `refused`: by family, why `topology-mode: Auto` cannot be done; empty where it is done or not asked for.
    """

    creates: list[Tree] = field(default_factory=list)
    updates: list[Tree] = field(default_factory=list)
    deletes: list[str] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    @property
    def retry(self) -> bool:
        return bool(self.skipped)


@dataclass(slots=True)
class _Slice:
    tree: Tree
    changed: bool = False


def to_tree(slice_: EndpointSlice) -> Tree:
    tree: Tree = msgspec.to_builtins(slice_)
    for endpoint in tree.get("endpoints") or ():
        endpoint.setdefault("conditions", {})
    return tree


def plan(
    service: Service,
    pods: Sequence[Pod],
    nodes: Mapping[str, Node],
    existing: Sequence[EndpointSlice],
    trigger_time: str,
    *,
    max_per_slice: int = MAX_PER_SLICE,
) -> Plan:
    """`existing`: the slices of this controller with the service's label.  `trigger_time`: RFC 3339, or empty.

    A slice that belongs to an earlier Service of the same name is not used again: it goes with its owner.
    """
    result = Plan()
    families = service.spec.ip_families or ["IPv4"]
    usable = [slice_ for slice_ in existing if slice_.address_type in families and is_owned(slice_, service)]
    for family in families:
        wanted, skipped = desired(service, pods, nodes, family)
        result.skipped += [text for text in skipped if text not in result.skipped]
        mine = [_Slice(to_tree(slice_)) for slice_ in usable if slice_.address_type == family]
        _plan_family(service, family, wanted, mine, nodes, trigger_time, max_per_slice, result)
    used = {slice_.metadata.name for slice_ in usable}
    result.deletes += [slice_.metadata.name for slice_ in existing if slice_.metadata.name not in used]
    if service.metadata.deletion_timestamp is not None:
        result.creates.clear()  # the garbage collector would delete them while we replace them
    return result


def is_owned(slice_: EndpointSlice, service: Service) -> bool:
    return any(owner.uid == service.metadata.uid for owner in slice_.metadata.owner_references)


def desired(
    service: Service, pods: Sequence[Pod], nodes: Mapping[str, Node], family: str
) -> tuple[dict[PortMap, dict[str, Tree]], list[str]]:
    """Endpoints by ports, then by the Pod's uid; and a text for each Pod whose node is missing."""
    groups: dict[PortMap, dict[str, Tree]] = {}
    skipped: list[str] = []
    publish = service.spec.publish_not_ready_addresses
    for pod in pods:
        if pod.status.phase in p.ENDED:
            continue
        address = p.pod_ip(pod, family)
        if not address:
            continue
        node = nodes.get(pod.spec.node_name)
        if node is None and not publish:
            text = f"skipping Pod {pod.metadata.name} for Service {service.key}: Node {pod.spec.node_name} Not Found"
            skipped.append(text)
            continue
        ports = _ports(service, pod)
        groups.setdefault(ports, {})[pod.metadata.uid] = _endpoint(service, pod, address, node)
    return groups, skipped


def _ports(service: Service, pod: Pod) -> PortMap:
    found = []
    for port in service.spec.ports:
        number = p.target_port(pod, port)
        if number is not None:
            found.append((port.name, port.protocol, number, port.app_protocol))
    return tuple(found)


def _endpoint(service: Service, pod: Pod, address: str, node: Node | None) -> Tree:
    serving, terminating = p.is_ready(pod), p.is_terminating(pod)
    ready = service.spec.publish_not_ready_addresses or (serving and not terminating)
    meta = pod.metadata
    endpoint: Tree = {
        "addresses": [address],
        "conditions": {"ready": ready, "serving": serving, "terminating": terminating},
        "targetRef": {"kind": "Pod", "namespace": meta.namespace, "name": meta.name, "uid": meta.uid},
    }
    if pod.spec.node_name:
        endpoint["nodeName"] = pod.spec.node_name
    zone = node.metadata.labels.get(ZONE) if node else None
    if zone:
        endpoint["zone"] = zone
    hostname = p.hostname_for(pod, service)
    if hostname:
        endpoint["hostname"] = hostname
    return endpoint


def _port_trees(ports: PortMap) -> list[Tree] | None:
    trees = []
    for name, protocol, number, app in ports:
        tree: Tree = {"name": name, "protocol": protocol, "port": number}
        if app is not None:
            tree["appProtocol"] = app
        trees.append(tree)
    return trees or None


def port_map(tree: Tree) -> PortMap:
    return tuple(
        sorted(
            (port.get("name", ""), port.get("protocol", "TCP"), port.get("port"), port.get("appProtocol"))
            for port in tree.get("ports") or []
        )
    )


def _plan_family(
    service: Service,
    family: str,
    wanted: dict[PortMap, dict[str, Tree]],
    mine: list[_Slice],
    nodes: Mapping[str, Node],
    trigger_time: str,
    limit: int,
    result: Plan,
) -> None:
    by_ports: dict[PortMap, list[_Slice]] = {}
    for slice_ in mine:
        slice_.changed = _refresh_metadata(service, slice_.tree)
        by_ports.setdefault(port_map(slice_.tree), []).append(slice_)
    kept: list[_Slice] = []
    fresh: list[Tree] = []
    doomed: list[_Slice] = []
    for ports, endpoints in sorted(wanted.items(), key=lambda item: str(item[0])):
        slices = by_ports.pop(tuple(sorted(ports)), [])
        keep, drop, new = _pack(service, family, ports, endpoints, slices, limit)
        kept, doomed, fresh = kept + keep, doomed + drop, fresh + new
    doomed += [slice_ for slices in by_ports.values() for slice_ in slices]
    if not kept and not fresh:
        _placeholder(service, family, kept, fresh, doomed)
    # a slice to be deleted becomes one to be created, which saves a write
    while fresh and doomed:
        slice_, recycled = doomed.pop(), fresh.pop()
        old_meta = slice_.tree["metadata"]
        identity = {"name": old_meta["name"], "resourceVersion": old_meta.get("resourceVersion", "")}
        recycled["metadata"] |= identity  # as a new one in all else: others' annotations go with the old one
        kept.append(_Slice(recycled, changed=True))
    changing = [slice_.tree for slice_ in kept if slice_.changed] + fresh
    unchanged = [slice_ for slice_ in kept if not slice_.changed]
    before = [_hints(slice_.tree) for slice_ in unchanged]
    result.refused[family] = add_hints(service, changing, [slice_.tree for slice_ in unchanged], nodes)
    for slice_, old in zip(unchanged, before, strict=True):
        slice_.changed = _hints(slice_.tree) != old
    for slice_ in kept:
        if slice_.changed:
            stamp(slice_.tree, trigger_time)
            result.updates.append(slice_.tree)
    for tree in fresh:
        stamp(tree, trigger_time)
        result.creates.append(tree)
    result.deletes += [slice_.tree["metadata"]["name"] for slice_ in doomed]


def _hints(tree: Tree) -> list[Tree | None]:
    return [endpoint.get("hints") for endpoint in tree.get("endpoints") or ()]


def _placeholder(service: Service, family: str, kept: list[_Slice], fresh: list[Tree], doomed: list[_Slice]) -> None:
    """A Service without endpoints has one empty slice a family."""
    for index, slice_ in enumerate(doomed):
        if not slice_.changed and not slice_.tree.get("endpoints") and not slice_.tree.get("ports"):
            kept.append(doomed.pop(index))
            return
    fresh.append(_new(service, family, (), []))


def _pack(
    service: Service,
    family: str,
    ports: PortMap,
    endpoints: dict[str, Tree],
    slices: list[_Slice],
    limit: int,
) -> tuple[list[_Slice], list[_Slice], list[Tree]]:
    """(slices that stay, slices that go, new slices)."""
    missing = {identity(endpoint): endpoint for endpoint in endpoints.values()}
    emptied = [slice_ for slice_ in slices if _keep_present(slice_, missing)]
    slices = [slice_ for slice_ in slices if slice_ not in emptied]
    left = list(missing.values())
    for slice_ in sorted((s for s in slices if s.changed), key=lambda s: -len(s.tree["endpoints"])):
        room = limit - len(slice_.tree["endpoints"])
        slice_.tree["endpoints"] += left[:room]
        left = left[room:]
    fresh: list[Tree] = []
    while len(left) >= limit:
        fresh.append(_new(service, family, ports, left[:limit]))
        left = left[limit:]
    if left:
        rooms = [s for s in slices if not s.changed and len(s.tree["endpoints"]) + len(left) <= limit]
        if rooms:
            fullest = max(rooms, key=lambda s: len(s.tree["endpoints"]))
            fullest.tree["endpoints"] += left
            fullest.changed = True
        else:
            fresh.append(_new(service, family, ports, left))
    return slices, emptied, fresh


def identity(endpoint: Tree) -> Identity:
    """Two endpoints that share it are one in two states; a Pod with another address is another endpoint."""
    target = endpoint.get("targetRef") or {}
    return (
        tuple(sorted(endpoint["addresses"])),
        endpoint.get("hostname", ""),
        target.get("namespace", ""),
        target.get("name", ""),
    )


def _keep_present(slice_: _Slice, missing: dict[Identity, Tree]) -> bool:
    """Take what is wanted and in the slice out of `missing`, brought up to date; drop the rest.

    True where that was all: such a slice is not filled again but goes, or is used again as a new one.
    """
    kept: list[Tree] = []
    before = slice_.tree.get("endpoints") or []
    for endpoint in before:
        new = missing.pop(identity(endpoint), None)
        if new is None:
            slice_.changed = True
            continue
        hints = endpoint.pop("hints", None)
        endpoint.pop("deprecatedTopology", None)
        if endpoint != new:
            slice_.changed = True
        kept.append({**new, **({"hints": hints} if hints else {})})
    slice_.tree["endpoints"] = kept
    return bool(before) and not kept


def _labels(service: Service) -> dict[str, str]:
    labels = {key: value for key, value in service.metadata.labels.items() if key not in RESERVED_LABELS}
    labels |= {SERVICE_NAME: service.metadata.name, MANAGED_BY: CONTROLLER}
    if p.is_headless(service):
        labels[p.HEADLESS_LABEL] = ""
    return labels


def _owner(service: Service) -> Tree:
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "name": service.metadata.name,
        "uid": service.metadata.uid,
        "controller": True,
        "blockOwnerDeletion": True,
    }


def _new(service: Service, family: str, ports: PortMap, endpoints: list[Tree]) -> Tree:
    return {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "generateName": f"{service.metadata.name}-",
            "namespace": service.metadata.namespace,
            "labels": _labels(service),
            "ownerReferences": [_owner(service)],
        },
        "addressType": family,
        "endpoints": list(endpoints),
        "ports": _port_trees(ports),
    }


def _refresh_metadata(service: Service, tree: Tree) -> bool:
    """Bring labels up to date; True where they were not.  Those that we add are no reason to write."""
    labels, meta = _labels(service), tree["metadata"]
    before = meta.get("labels", {})
    if _of_service(before) == _of_service(labels):
        return False
    meta["labels"] = labels
    return True


def _of_service(labels: dict[str, str]) -> dict[str, str]:
    return {key: value for key, value in labels.items() if key not in RESERVED_LABELS}


def stamp(tree: Tree, trigger_time: str) -> None:
    """The annotation tells since when the state that this write records exists."""
    annotations = tree["metadata"].setdefault("annotations", {})
    if trigger_time:
        annotations[p.TRIGGER_TIME] = trigger_time
    else:
        annotations.pop(p.TRIGGER_TIME, None)
    if not annotations:
        del tree["metadata"]["annotations"]
