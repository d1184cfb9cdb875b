"""Endpoints shared out among zones by the zones' CPUs: `topology-mode: Auto`.  Pure.

Each zone is to have its part of the ready endpoints, and never so few that one of them would carry more than a fifth
over its part.  An endpoint serves its own zone first; zones with too many give some to zones with too few.
Source: k8s.io/endpointslice/topologycache.
"""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

from svcplane.api.core import Node

Tree = dict[str, Any]
ZONE = "topology.kubernetes.io/zone"
EXCLUDED = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
OVERLOAD = 0.2

NO_NODE_INFO = "Insufficient Node information: allocatable CPU or zone not specified on one or more nodes"
TOO_FEW = "Insufficient number of endpoints"
OVERLOADED = "Unable to allocate minimum required endpoints to each zone without exceeding overload threshold"
NO_ZONE = "One or more endpoints do not have a zone specified"


@dataclass(frozen=True, slots=True)
class Allocation:
    """How many endpoints a zone may have at most, and should have."""

    maximum: int
    desired: float


def is_ready(endpoint: Tree) -> bool:
    return endpoint.get("conditions", {}).get("ready") is True


def is_counted(node: Node) -> bool:
    """Whether a node's CPUs count."""
    status = next((c.status for c in node.status.conditions if c.type == "Ready"), "")
    return status == "True" and not any(label in node.metadata.labels for label in EXCLUDED)


def cpu_of(text: str) -> Fraction:
    """A CPU quantity in cores; what is none counts as 0."""
    try:
        return Fraction(int(text[:-1]), 1000) if text.endswith("m") else Fraction(text)
    except ValueError:
        return Fraction(0)


def cpu_ratios(nodes: Mapping[str, Node]) -> dict[str, float] | None:
    """Each zone's part of all CPUs; None where a ready node lacks a zone or CPUs, or there is one zone only."""
    totals: dict[str, Fraction] = {}
    for node in nodes.values():
        if not is_counted(node):
            continue
        zone, cpu = node.metadata.labels.get(ZONE, ""), cpu_of(node.status.allocatable.get("cpu", "0"))
        if not zone or not cpu:
            return None
        totals[zone] = totals.get(zone, Fraction(0)) + cpu
    if len(totals) < 2:
        return None
    whole = math.ceil(sum(totals.values()) * 1000)
    return {zone: math.ceil(cpu * 1000) / whole for zone, cpu in sorted(totals.items())}


def share_out(changing: list[Tree], unchanged: Sequence[Tree], nodes: Mapping[str, Node]) -> str:
    """Give every ready endpoint its hint; returns why not, and leaves hints as they happen to be then.

    An unchanged slice is touched only where its hints are missing or would leave another zone too little.
    """
    total = sum(1 for _ in _ready((*changing, *unchanged)))
    allocations = _allocations(total, cpu_ratios(nodes))
    if isinstance(allocations, str):
        return allocations
    given: Counter[str] = Counter()
    for slice_ in unchanged:
        found = _valid_hints(slice_, given, allocations)
        if found is None:
            changing.append(slice_)
        else:
            given.update(found)
    for slice_ in changing:
        for endpoint in slice_.get("endpoints") or ():
            endpoint.pop("hints", None)
    for endpoint in _ready(changing):
        if not endpoint.get("zone"):
            return NO_ZONE
        given[endpoint["zone"]] += 1
        endpoint["hints"] = {"forZones": [{"name": endpoint["zone"]}]}
    _redistribute(changing, *_givers_and_receivers(allocations, given))
    return ""


def _ready(slices: Sequence[Tree]) -> Iterator[Tree]:
    return (e for slice_ in slices for e in slice_.get("endpoints") or () if is_ready(e))


def _allocations(total: int, ratios: dict[str, float] | None) -> dict[str, Allocation] | str:
    """By zone, or why there are none."""
    if ratios is None:
        return NO_NODE_INFO
    counts = f"({total} endpoints, {len(ratios)} zones)"
    if len(ratios) > total:
        return f"{TOO_FEW} {counts}"
    desired = {zone: ratio * total for zone, ratio in ratios.items()}
    minimum = {zone: math.ceil(part * (1 / (1 + OVERLOAD))) for zone, part in desired.items()}
    spare = total - sum(minimum.values())
    if spare < 0:
        return f"{OVERLOADED} {counts}"
    return {zone: Allocation(least + spare, max(desired[zone], float(least))) for zone, least in minimum.items()}


def _valid_hints(slice_: Tree, given: Counter[str], allocations: dict[str, Allocation]) -> Counter[str] | None:
    """What a slice gives each zone; None: it needs other hints."""
    found: Counter[str] = Counter()
    for endpoint in _ready([slice_]):
        zones = [zone["name"] for zone in endpoint.get("hints", {}).get("forZones", [])]
        if not zones or any(zone not in allocations for zone in zones):
            return None
        found.update(zones)
    if any(count + given[zone] > allocations[zone].maximum for zone, count in found.items()):
        return None
    return found


def _givers_and_receivers(allocations: dict[str, Allocation], given: Counter[str]) -> tuple[Counter[str], Counter[str]]:
    """How many endpoints each zone gives away and gets: the fullest gives to the neediest while that helps."""
    over = {zone: given[zone] - one.desired for zone, one in allocations.items() if given[zone] > one.desired}
    under = {zone: one.desired - given[zone] for zone, one in allocations.items() if given[zone] < one.desired}
    giving: Counter[str] = Counter()
    receiving: Counter[str] = Counter()
    while over and under:
        giver, receiver = max(over, key=lambda zone: over[zone]), max(under, key=lambda zone: under[zone])
        more, less = over[giver], under[receiver]
        if (more < 1.0 and less < 1.0) or more < 0.5 or less < 0.5:
            break
        giving[giver] += 1
        over[giver] -= 1
        receiving[receiver] += 1
        under[receiver] -= 1
    return giving, receiving


def _redistribute(slices: Sequence[Tree], giving: Counter[str], receiving: Counter[str]) -> None:
    for endpoint in _ready(slices):
        if not giving[endpoint["zone"]]:
            continue
        receiver = next((zone for zone, count in sorted(receiving.items()) if count), None)
        if receiver is None:
            return
        endpoint["hints"] = {"forZones": [{"name": receiver}]}
        giving[endpoint["zone"]] -= 1
        receiving[receiver] -= 1
