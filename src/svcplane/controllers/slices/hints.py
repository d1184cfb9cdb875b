"""Topology hints: for which zones or nodes an endpoint is meant.  Pure.

`trafficDistribution` PreferClose and PreferSameZone name each ready endpoint's own zone, PreferSameNode its node too.
The annotation `topology-mode: Auto` shares endpoints among zones by their CPUs and comes first.
Source: KEP-2433, KEP-3015; k8s.io/endpointslice/topologycache, trafficdist.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from svcplane.api.core import Node, Service

Tree = dict[str, Any]
MODES = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints")
ZONE = "topology.kubernetes.io/zone"
OVERLOAD = 0.2


def is_auto(service: Service) -> bool:
    annotations = service.metadata.annotations
    return any(annotations.get(mode, "").lower() == "auto" for mode in MODES)


def add_hints(service: Service, slices: list[Tree], nodes: Mapping[str, Node]) -> None:
    """Set or remove the hints of all endpoints of one family's slices."""
    endpoints = [endpoint for slice_ in slices for endpoint in slice_.get("endpoints") or []]
    wanted: dict[int, Tree] = {}
    if is_auto(service):
        wanted = _auto(endpoints, nodes)
    elif service.spec.traffic_distribution in ("PreferClose", "PreferSameZone", "PreferSameNode"):
        wanted = _distribution(endpoints, same_node=service.spec.traffic_distribution == "PreferSameNode")
    for endpoint in endpoints:
        hints = wanted.get(id(endpoint))
        if hints:
            endpoint["hints"] = hints
        else:
            endpoint.pop("hints", None)


def _ready(endpoint: Tree) -> bool:
    return endpoint.get("conditions", {}).get("ready") is not False


def _distribution(endpoints: list[Tree], *, same_node: bool) -> dict[int, Tree]:
    found: dict[int, Tree] = {}
    for endpoint in endpoints:
        if not _ready(endpoint):
            continue
        hints: Tree = {}
        if endpoint.get("zone"):
            hints["forZones"] = [{"name": endpoint["zone"]}]
        if same_node and endpoint.get("nodeName"):
            hints["forNodes"] = [{"name": endpoint["nodeName"]}]
        if hints:
            found[id(endpoint)] = hints
    return found


def cpu_of(text: str) -> Fraction:
    """A CPU quantity in cores."""
    if text.endswith("m"):
        return Fraction(int(text[:-1] or "0"), 1000)
    try:
        return Fraction(text)
    except ValueError:
        return Fraction(0)


def cpu_ratios(nodes: Mapping[str, Node]) -> dict[str, float] | None:
    """Each zone's part of all CPUs; None where a ready node lacks a zone or CPUs, or there is one zone only."""
    totals: dict[str, Fraction] = {}
    for node in nodes.values():
        ready = any(c.type == "Ready" and c.status == "True" for c in node.status.conditions)
        if not ready or "node-role.kubernetes.io/control-plane" in node.metadata.labels:
            continue
        zone, cpu = node.metadata.labels.get(ZONE, ""), cpu_of(node.status.allocatable.get("cpu", "0"))
        if not zone or not cpu:
            return None
        totals[zone] = totals.get(zone, Fraction(0)) + cpu
    if len(totals) < 2:
        return None
    whole = sum(totals.values())
    return {zone: float(cpu / whole) for zone, cpu in totals.items()}


def _auto(endpoints: list[Tree], nodes: Mapping[str, Node]) -> dict[int, Tree]:
    ratios = cpu_ratios(nodes)
    ready = [endpoint for endpoint in endpoints if _ready(endpoint)]
    if ratios is None or not ready or any(not endpoint.get("zone") for endpoint in ready):
        return {}
    total = len(ready)
    least: dict[str, int] = {}
    for zone, ratio in ratios.items():
        desired = ratio * total
        least[zone] = math.ceil(desired / (1 + OVERLOAD))
    if sum(least.values()) > total:
        return {}
    by_zone: dict[str, list[Tree]] = {zone: [] for zone in ratios}
    for endpoint in ready:
        if endpoint["zone"] not in by_zone:
            return {}
        by_zone[endpoint["zone"]].append(endpoint)
    spare = [e for zone, group in sorted(by_zone.items()) for e in group[least[zone] :]]
    assigned = {id(e): zone for zone, group in by_zone.items() for e in group}
    for zone in sorted(by_zone):
        for _ in range(least[zone] - len(by_zone[zone])):
            if not spare:
                return {}
            assigned[id(spare.pop())] = zone
    return {id(e): {"forZones": [{"name": assigned[id(e)]}]} for e in ready}
