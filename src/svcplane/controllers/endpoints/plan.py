"""Pods in, the one Endpoints object of a Service out.  Pure.

Source: pkg/controller/endpoint/endpoints_controller.go, pkg/api/v1/endpoints RepackSubsets.
"""

from collections.abc import Sequence
from typing import Any

from svcplane.api.core import Pod, Service
from svcplane.base.net import canonical_ip
from svcplane.controllers import pods as p

MAX_ADDRESSES = 1000
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MANAGED_BY, CONTROLLER = "endpoints.kubernetes.io/managed-by", "endpoint-controller"
Tree = dict[str, Any]


def desired(service: Service, pods: Sequence[Pod], current: Tree | None, trigger_time: str) -> Tree | None:
    """The object to write, or None where `current` is right already.  `current` may be absent (None)."""
    subsets, truncated = _truncate(_subsets(service, pods))
    labels = {key: value for key, value in service.metadata.labels.items() if key != p.HEADLESS_LABEL}
    labels[MANAGED_BY] = CONTROLLER
    if p.is_headless(service):
        labels[p.HEADLESS_LABEL] = ""
    meta: Tree = dict(current["metadata"]) if current else {}
    annotations = dict(meta.get("annotations", {}))
    if truncated:
        annotations[OVER_CAPACITY] = "truncated"
    else:
        annotations.pop(OVER_CAPACITY, None)
    if current is not None:
        same = (
            current.get("subsets", []) == subsets
            and meta.get("labels", {}) == labels
            and meta.get("annotations", {}) == annotations
        )
        if same:
            return None
    if trigger_time:
        annotations[p.TRIGGER_TIME] = trigger_time
    else:
        annotations.pop(p.TRIGGER_TIME, None)
    meta |= {"name": service.metadata.name, "namespace": service.metadata.namespace, "labels": labels}
    meta["annotations"] = annotations
    if not annotations:
        del meta["annotations"]
    tree: Tree = {"apiVersion": "v1", "kind": "Endpoints", "metadata": meta}
    if subsets:
        tree["subsets"] = subsets
    return tree


def _subsets(service: Service, pods: Sequence[Pod]) -> list[Tree]:
    """Canonical subsets: addresses with the same ports together, everything sorted."""
    spec = service.spec
    # address -> its ports, ready or not
    by_address: dict[tuple[str, bool, str], tuple[Tree, set[tuple[str, int, str, str | None]]]] = {}
    family = (spec.ip_families or ["IPv4"])[0]
    for pod in pods:
        if pod.status.phase in p.ENDED or (p.is_terminating(pod) and not spec.publish_not_ready_addresses):
            continue
        ip = p.pod_ip(pod, family)
        if not ip:
            continue
        ready = spec.publish_not_ready_addresses or p.is_ready(pod)
        if not ready and pod.spec.restart_policy != "Always" and pod.status.phase in p.ENDED:
            continue
        address = _address(service, pod, ip)
        key = (canonical_ip(ip) or ip, ready, pod.metadata.uid)
        if not spec.ports:
            if p.is_headless(service):
                by_address.setdefault(key, (address, set()))
            continue
        for port in spec.ports:
            number = p.target_port(pod, port)
            if number is not None:
                entry = by_address.setdefault(key, (address, set()))
                entry[1].add((port.name, number, port.protocol, port.app_protocol))
    groups: dict[tuple[tuple[str, int, str, str | None], ...], Tree] = {}
    for (_, ready, _), (address, ports) in sorted(by_address.items(), key=lambda item: item[0]):
        place = tuple(sorted(ports, key=lambda port: (port[0], port[1], port[2])))
        group = groups.setdefault(place, {"ready": [], "notReady": []})
        group["ready" if ready else "notReady"].append(address)
    subsets = []
    for place in sorted(groups, key=str):
        subset: Tree = {}
        if groups[place]["ready"]:
            subset["addresses"] = groups[place]["ready"]
        if groups[place]["notReady"]:
            subset["notReadyAddresses"] = groups[place]["notReady"]
        if place:
            subset["ports"] = [_port(*port) for port in place]
        subsets.append(subset)
    return subsets


def _port(name: str, number: int, protocol: str, app: str | None) -> Tree:
    tree: Tree = {"port": number, "protocol": protocol}
    if name:
        tree["name"] = name
    if app is not None:
        tree["appProtocol"] = app
    return tree


def _address(service: Service, pod: Pod, ip: str) -> Tree:
    meta = pod.metadata
    address: Tree = {"ip": ip}
    if pod.spec.node_name:
        address["nodeName"] = pod.spec.node_name
    address["targetRef"] = {"kind": "Pod", "namespace": meta.namespace, "name": meta.name, "uid": meta.uid}
    hostname = p.hostname_for(pod, service)
    if hostname:
        address["hostname"] = hostname
    return address


def _truncate(subsets: list[Tree]) -> tuple[list[Tree], bool]:
    """At most MAX_ADDRESSES addresses: ready ones first, each subset giving up in proportion."""
    ready = sum(len(subset.get("addresses", [])) for subset in subsets)
    unready = sum(len(subset.get("notReadyAddresses", [])) for subset in subsets)
    if ready + unready <= MAX_ADDRESSES:
        return subsets, False
    ready_room = min(ready, MAX_ADDRESSES)
    kept = _take(subsets, "addresses", ready, ready_room)
    left = _take(subsets, "notReadyAddresses", unready, MAX_ADDRESSES - ready_room)
    result = []
    for subset, some, others in zip(subsets, kept, left, strict=True):
        if not some and not others:
            continue
        shorter: Tree = {}
        if some:
            shorter["addresses"] = some
        if others:
            shorter["notReadyAddresses"] = others
        if subset.get("ports"):
            shorter["ports"] = subset["ports"]
        result.append(shorter)
    return result, True


def _take(subsets: list[Tree], field: str, total: int, room: int) -> list[list[Tree]]:
    taken: list[list[Tree]] = []
    left = room
    for index, subset in enumerate(subsets):
        addresses = subset.get(field, [])
        share = left if index == len(subsets) - 1 else len(addresses) * room // total if total else 0
        taken.append(addresses[: min(share, left)])
        left -= len(taken[-1])
    return taken
