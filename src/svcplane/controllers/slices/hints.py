"""Topology hints: for which zones or nodes an endpoint is meant.  Pure.

`trafficDistribution` PreferClose and PreferSameZone name each ready endpoint's own zone, PreferSameNode its node too.
The annotation `topology-mode: Auto` shares endpoints among zones by their CPUs (see `shares`) and comes first.
Source: KEP-2433, KEP-3015; k8s.io/endpointslice/topologycache, trafficdist.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from svcplane.api.core import Node, Service
from svcplane.controllers.slices import shares

Tree = dict[str, Any]
#: The first that is there decides.
MODES = ("service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode")
DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")


def is_auto(service: Service) -> bool:
    annotations = service.metadata.annotations
    mode = next((annotations[name] for name in MODES if name in annotations), "")
    return mode in ("Auto", "auto")


def add_hints(service: Service, changing: Sequence[Tree], unchanged: Sequence[Tree], nodes: Mapping[str, Node]) -> str:
    """Set or remove the hints of all endpoints of one family's slices.

    Slices that do not change otherwise keep the hints they have where those are good enough.  Returns why `Auto`
    cannot be done; empty where it is done or not asked for.
    """
    if is_auto(service):
        refusal = shares.share_out(list(changing), unchanged, nodes)
        if refusal:
            _clear((*changing, *unchanged))
        return refusal
    if service.spec.traffic_distribution in DISTRIBUTIONS:
        same_node = service.spec.traffic_distribution == "PreferSameNode"
        for slice_ in (*changing, *unchanged):
            _distribution(slice_, same_node=same_node)
    else:
        _clear((*changing, *unchanged))
    return ""


def _clear(slices: Sequence[Tree]) -> None:
    for slice_ in slices:
        for endpoint in slice_.get("endpoints") or ():
            endpoint.pop("hints", None)


def _distribution(slice_: Tree, *, same_node: bool) -> None:
    for endpoint in slice_.get("endpoints") or ():
        hints: Tree = {}
        if shares.is_ready(endpoint):
            if endpoint.get("zone"):
                hints["forZones"] = [{"name": endpoint["zone"]}]
            if same_node and endpoint.get("nodeName"):
                hints["forNodes"] = [{"name": endpoint["nodeName"]}]
        if hints:
            endpoint["hints"] = hints
        else:
            endpoint.pop("hints", None)
