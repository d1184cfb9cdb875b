"""The addresses of a Service in, its Endpoints object out.  Pure.

Source: pkg/controller/endpoint/endpoints_controller.go.
"""

from collections.abc import Mapping
from typing import Any

from svcplane.controllers import pods as p
from svcplane.controllers.endpoints.addresses import Addresses

MAX_ADDRESSES = 1000
OVER_CAPACITY = "endpoints.kubernetes.io/over-capacity"
MANAGED_BY, CONTROLLER = "endpoints.kubernetes.io/managed-by", "endpoint-controller"
Tree = dict[str, Any]


def desired(addresses: Addresses, current: Tree | None, trigger_time: str) -> Tree | None:
    """The object to write, or None where `current` is right already.  `current` may be absent (None)."""
    service = addresses.service
    subsets, truncated = addresses.subsets(MAX_ADDRESSES)
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
            and _of_service(meta.get("labels", {})) == _of_service(labels)
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


def is_ours(labels: Mapping[str, str]) -> bool:
    """Whether an Endpoints object with these labels was written by this controller."""
    return labels.get(MANAGED_BY) == CONTROLLER


def _of_service(labels: Tree) -> Tree:
    """Without those that we add: an object that lacks only these is not written for them."""
    return {key: value for key, value in labels.items() if key not in (MANAGED_BY, p.HEADLESS_LABEL)}
