"""Services, Pods, Nodes and slices for the controllers' plans."""

from typing import Any

import msgspec

from svcplane.api.core import Node, Pod, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.controllers.slices.plan import Plan

Tree = dict[str, Any]
NAMED = [{"port": 80, "targetPort": "web", "protocol": "TCP"}]


def service(**spec: Any) -> Service:
    meta = spec.pop("metadata", {})
    wanted = {"ports": [{"port": 80, "targetPort": 8080}], "selector": {"app": "web"}, "clusterIP": "10.96.0.7"}
    named = {"name": "web", "namespace": "default", "uid": "service-uid"}
    return msgspec.convert({"metadata": named | meta, "spec": wanted | {"ipFamilies": ["IPv4"]} | spec}, Service)


def pod(number: int, *, ready: bool = True, node: str = "n1", ip: str = "", **more: Any) -> Pod:
    address = ip or f"10.1.{number // 250}.{number % 250 + 1}"
    tree: Tree = {
        "metadata": {"name": f"p{number}", "namespace": "default", "uid": f"u{number}", "labels": {"app": "web"}},
        "spec": {"nodeName": node},
        "status": {
            "phase": "Running",
            "podIPs": [{"ip": one} for one in address.split(",")],
            "conditions": [{"type": "Ready", "status": str(ready)}],
        },
    }
    for section in ("metadata", "spec", "status"):
        tree[section] |= more.get(section, {})
    return msgspec.convert(tree, Pod)


def pods(count: int, start: int = 0) -> list[Pod]:
    return [pod(number) for number in range(start, start + count)]


def node(name: str, zone: str = "", cpu: str = "4", *, ready: bool = True, **labels: str) -> Node:
    zones = {"topology.kubernetes.io/zone": zone} if zone else {}
    status = {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": str(ready)}]}
    return msgspec.convert({"metadata": {"name": name, "labels": zones | labels}, "status": status}, Node)


def nodes(*all_: Node) -> dict[str, Node]:
    return {one.metadata.name: one for one in all_ or (node("n1"),)}


def stored(plan: Plan, existing: list[EndpointSlice]) -> list[EndpointSlice]:
    """The slices after a server has taken a plan."""
    kept = {slice_.metadata.name: slice_ for slice_ in existing if slice_.metadata.name not in plan.deletes}
    for tree in plan.updates:
        kept[tree["metadata"]["name"]] = _taken(tree, tree["metadata"]["name"])
    for number, tree in enumerate(plan.creates):
        name = f"web-{len(existing) + number}"
        kept[name] = _taken(tree, name)
    return list(kept.values())


def _taken(tree: Tree, name: str) -> EndpointSlice:
    meta = {key: value for key, value in tree["metadata"].items() if key != "generateName"}
    return msgspec.convert({**tree, "metadata": {**meta, "name": name, "resourceVersion": "7"}}, EndpointSlice)
