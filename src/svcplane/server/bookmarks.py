"""The bookmark events of a watch: a resourceVersion in an otherwise empty object.

Source: k8s.io/apiserver pkg/storage/etcd3/watcher.go, pkg/endpoints/handlers/watch.go.
"""

from typing import Any

from svcplane.api import codec, tables
from svcplane.api.resources import (
    ENDPOINT_SLICES,
    EVENTS,
    IP_ADDRESSES,
    LEASES,
    NAMESPACES,
    NODES,
    PODS,
    SERVICE_CIDRS,
    SERVICES,
    Resource,
)
from svcplane.api.strategies.node import NODE_INFO
from svcplane.api.strategy import Tree
from svcplane.server.negotiation import Wanted, in_version

INITIAL_EVENTS_END = "k8s.io/initial-events-end"
#: What an object without any content shows all the same, as a bookmark does.
EMPTY: dict[Resource, Tree] = {
    SERVICES: {"spec": {}, "status": {"loadBalancer": {}}},
    PODS: {"spec": {"containers": None}, "status": {}},
    NODES: {
        "spec": {},
        "status": {"daemonEndpoints": {"kubeletEndpoint": {"Port": 0}}, "nodeInfo": dict.fromkeys(NODE_INFO, "")},
    },
    NAMESPACES: {"spec": {}, "status": {}},
    ENDPOINT_SLICES: {"addressType": "", "endpoints": None, "ports": None},
    LEASES: {"spec": {}},
    IP_ADDRESSES: {"spec": {}},
    SERVICE_CIDRS: {"spec": {}, "status": {}},
    EVENTS: {
        "involvedObject": {},
        "source": {},
        **dict.fromkeys(("firstTimestamp", "lastTimestamp", "eventTime")),
        **dict.fromkeys(("reportingComponent", "reportingInstance"), ""),
    },
}


def bookmark(resource: Resource, revision: int, wanted: Wanted, *, initial_end: bool = False) -> bytes:
    """The line of a watch; `wanted` as the client asked for it, `initial_end` marks the end of the initial events."""
    meta: dict[str, object] = {"resourceVersion": str(revision)}
    if initial_end:
        meta["annotations"] = {INITIAL_EVENTS_END: "true"}
    obj: dict[str, Any] = {
        "kind": resource.kind,
        "apiVersion": resource.api_version,
        "metadata": meta,
        **EMPTY.get(resource, {}),
    }
    if wanted.form == "Table":
        obj = tables.table(resource, [], {"resourceVersion": str(revision)}, "None", 0.0)
    elif wanted.form:
        obj = {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": meta}
    return b'{"type":"BOOKMARK","object":%s}\n' % codec.encode(in_version(obj, wanted.version))
