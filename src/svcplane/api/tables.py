"""`meta.k8s.io/v1` Table: what `kubectl get` prints.  Pure.  Source: pkg/printers/internalversion."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from svcplane.api import podrow
from svcplane.api.resources import (
    ENDPOINT_SLICES,
    ENDPOINTS,
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
from svcplane.api.strategy import Tree

NONE, UNKNOWN = "<none>", "<unknown>"
ROLE = "node-role.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class Column:
    """`priority` above 0: shown with `-o wide` only."""

    name: str
    type: str = "string"
    priority: int = 0
    format: str = ""


#: How long ago a timestamp is, for people.
Since = Callable[[str | None], str]


def _age_of(obj: Tree, since: Since) -> str:
    return since(obj["metadata"].get("creationTimestamp"))


def age(timestamp: str | None, now_wall: float) -> str:
    """`5s`, `3m20s`, `2h`, `4d` as duration.HumanDuration."""
    if not timestamp:
        return UNKNOWN
    try:
        then = datetime.fromisoformat(timestamp.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return UNKNOWN
    return human_duration(now_wall - then)


def human_duration(seconds: float) -> str:
    if seconds < -1:
        return "<invalid>"
    whole = max(0, int(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if whole < 120:
        return f"{whole}s"
    if minutes < 10:
        return f"{minutes}m{whole % 60}s" if whole % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if hours < 192:
        return f"{days}d{hours % 24}h" if hours % 24 else f"{days}d"
    if hours < 24 * 365 * 2:
        return f"{days}d"
    if hours < 24 * 365 * 8:
        years, rest = days // 365, days % 365
        return f"{years}y{rest}d" if rest else f"{years}y"
    return f"{days // 365}y"


def _labels(labels: dict[str, str]) -> str:
    """In the order of the whole texts, not of the keys: `a-b=1` comes before `a=1`."""
    return ",".join(sorted(f"{key}={value}" for key, value in labels.items())) or NONE


def _service(obj: Tree, since: Since) -> list[Any]:
    spec = obj.get("spec", {})
    kind = spec.get("type", "ClusterIP")
    ips = [ip for ip in spec.get("clusterIPs", []) or [spec.get("clusterIP")] if ip]
    ports = ",".join(
        f"{port['port']}:{port['nodePort']}/{port['protocol']}"
        if port.get("nodePort")
        else f"{port['port']}/{port['protocol']}"
        for port in spec.get("ports", [])
    )
    return [
        obj["metadata"]["name"],
        kind,
        ips[0] if ips else NONE,
        _external(obj, kind),
        ports or NONE,
        _age_of(obj, since),
        _labels(spec.get("selector", {})),
    ]


def _external(obj: Tree, kind: str) -> str:
    spec = obj.get("spec", {})
    external = list(spec.get("externalIPs", []))
    if kind == "ExternalName":
        return str(spec.get("externalName", ""))
    if kind == "LoadBalancer":
        ingress = obj.get("status", {}).get("loadBalancer", {}).get("ingress", [])
        found = {item.get("ip") or item.get("hostname") or "" for item in ingress} - {""}
        return ",".join([*sorted(found), *external]) or "<pending>"
    return ",".join(external) or NONE


def _endpoints(obj: Tree, since: Since) -> list[Any]:
    found: list[str] = []
    count = 0
    for subset in obj.get("subsets", []):
        for port in subset.get("ports", [{}]) or [{}]:
            for address in subset.get("addresses", []):
                count += 1
                if len(found) < 3:
                    ip = address.get("ip", "")
                    shown = f"[{ip}]" if ":" in ip else ip
                    found.append(f"{shown}:{port['port']}" if port.get("port") else ip)
    text = ",".join(found) if obj.get("subsets") else NONE  # nothing at all where no address is ready
    return [obj["metadata"]["name"], text + (f" + {count - 3} more..." if count > 3 else ""), _age_of(obj, since)]


def _slice(obj: Tree, since: Since) -> list[Any]:
    ports = [str(port["port"] if "port" in port else port.get("name", "*")) for port in obj.get("ports") or []]
    addresses = [ip for endpoint in obj.get("endpoints") or [] for ip in endpoint.get("addresses", [])]
    return [
        obj["metadata"]["name"],
        obj.get("addressType", ""),
        _first_three(ports, "<unset>"),
        _first_three(addresses, "<unset>"),
        _age_of(obj, since),
    ]


def _first_three(values: list[str], empty: str) -> str:
    if len(values) > 3:
        return f"{','.join(values[:3])} + {len(values) - 3} more..."
    return ",".join(values) or empty


def _node(obj: Tree, since: Since) -> list[Any]:
    status, meta = obj.get("status", {}), obj["metadata"]
    conditions = {item.get("type"): item.get("status") for item in status.get("conditions", [])}
    shown = {"True": "Ready", "False": "NotReady"}.get(conditions.get("Ready", ""), "Unknown")
    if "Ready" in conditions and conditions["Ready"] not in ("True", "False"):
        shown = "NotReady"
    if obj.get("spec", {}).get("unschedulable"):
        shown += ",SchedulingDisabled"
    labels = meta.get("labels", {})
    roles = {key.removeprefix(ROLE) for key in labels if key.startswith(ROLE)} | {labels.get("kubernetes.io/role", "")}
    address = {item.get("type"): item.get("address") for item in reversed(status.get("addresses", []))}
    info = status.get("nodeInfo", {})
    return [
        meta["name"],
        shown,
        ",".join(sorted(roles - {""})) or NONE,
        _age_of(obj, since),
        info.get("kubeletVersion", ""),
        address.get("InternalIP") or NONE,
        address.get("ExternalIP") or NONE,
        info.get("osImage") or UNKNOWN,
        info.get("kernelVersion") or UNKNOWN,
        info.get("containerRuntimeVersion") or UNKNOWN,
    ]


def _namespace(obj: Tree, since: Since) -> list[Any]:
    return [obj["metadata"]["name"], obj.get("status", {}).get("phase", ""), _age_of(obj, since)]


def _lease(obj: Tree, since: Since) -> list[Any]:
    return [obj["metadata"]["name"], obj.get("spec", {}).get("holderIdentity") or "", _age_of(obj, since)]


def _event(obj: Tree, since: Since) -> list[Any]:
    target, source, series = obj.get("involvedObject", {}), obj.get("source", {}), obj.get("series")
    name = target.get("kind", "").lower() + (f"/{target['name']}" if target.get("name") else "")
    first = since(obj.get("firstTimestamp") or obj.get("eventTime"))
    last, count = first, obj.get("count") or 1
    if series:
        last, count = since(series.get("lastObservedTime")), series.get("count", 0)
    elif obj.get("lastTimestamp"):
        last = since(obj["lastTimestamp"])
    component = source.get("component") or obj.get("reportingComponent", "")
    instance = source.get("host") or obj.get("reportingInstance", "")
    return [
        last,
        obj.get("type", ""),
        obj.get("reason", ""),
        name,
        target.get("fieldPath", ""),
        f"{component}, {instance}" if instance else component,
        str(obj.get("message", "")).strip(),
        first,
        count,
        obj["metadata"]["name"],
    ]


def _ip_address(obj: Tree, since: Since) -> list[Any]:
    parent, text = obj.get("spec", {}).get("parentRef"), NONE
    if parent is not None:
        kind = ".".join(part for part in (parent.get("resource", ""), parent.get("group", "")) if part).lower()
        text = "/".join([kind, *filter(None, [parent.get("namespace", "")]), parent.get("name", "")])
    return [obj["metadata"]["name"], text, _age_of(obj, since)]  # the age has no column, upstream's neither


def _service_cidr(obj: Tree, since: Since) -> list[Any]:
    return [obj["metadata"]["name"], ",".join(obj.get("spec", {}).get("cidrs", [])), _age_of(obj, since)]


_AGE, _NAME = Column("Age"), Column("Name", format="name")
_Cells = Callable[[Tree, Since], list[Any]]
_PRINTERS: dict[Resource, tuple[tuple[Column, ...], _Cells]] = {
    SERVICES: (
        (_NAME, Column("Type"), Column("Cluster-IP"), Column("External-IP"), Column("Port(s)"), _AGE)
        + (Column("Selector", priority=1),),
        _service,
    ),
    ENDPOINTS: ((_NAME, Column("Endpoints"), _AGE), _endpoints),
    ENDPOINT_SLICES: ((_NAME, Column("AddressType"), Column("Ports"), Column("Endpoints"), _AGE), _slice),
    PODS: (
        (_NAME, Column("Ready"), Column("Status"), Column("Restarts"), _AGE)
        + tuple(Column(name, priority=1) for name in ("IP", "Node", "Nominated Node", "Readiness Gates")),
        podrow.cells,
    ),
    NODES: (
        (_NAME, Column("Status"), Column("Roles"), _AGE, Column("Version"))
        + tuple(
            Column(name, priority=1)
            for name in ("Internal-IP", "External-IP", "OS-Image", "Kernel-Version", "Container-Runtime")
        ),
        _node,
    ),
    NAMESPACES: ((_NAME, Column("Status"), _AGE), _namespace),
    LEASES: ((_NAME, Column("Holder"), _AGE), _lease),
    EVENTS: (
        (Column("Last Seen"), Column("Type"), Column("Reason"), Column("Object"))
        + (Column("Subobject", priority=1), Column("Source", priority=1), Column("Message"))
        + (Column("First Seen", priority=1), Column("Count", priority=1))
        + (Column("Name", priority=1, format="name"),),
        _event,
    ),
    IP_ADDRESSES: ((_NAME, Column("ParentRef")), _ip_address),
    SERVICE_CIDRS: ((_NAME, Column("CIDRs"), _AGE), _service_cidr),
}


def columns(resource: Resource) -> list[dict[str, Any]]:
    found = _PRINTERS.get(resource, ((_NAME, _AGE), None))[0]
    return [
        {"name": c.name, "type": c.type, "format": c.format, "description": "", "priority": c.priority} for c in found
    ]


def partial_metadata(obj: Tree) -> Tree:
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": obj["metadata"]}


def row(resource: Resource, obj: Tree, include: str, now_wall: float) -> dict[str, Any]:
    """`include`: None, Metadata or Object."""
    printer = _PRINTERS.get(resource)

    def since(timestamp: str | None) -> str:
        return age(timestamp, now_wall)

    cells = printer[1](obj, since) if printer else [obj["metadata"]["name"], _age_of(obj, since)]
    shown = {"None": None, "Object": obj}.get(include, partial_metadata(obj))
    found = {"conditions": conditions} if resource is PODS and (conditions := podrow.conditions(obj)) else {}
    return {"cells": cells, **found, "object": shown}


def table(
    resource: Resource,
    objects: list[Tree],
    list_meta: dict[str, Any],
    include: str,
    now_wall: float,
    *,
    header: bool = True,
) -> dict[str, Any]:
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": list_meta,
        "columnDefinitions": columns(resource) if header else None,
        "rows": [row(resource, obj, include, now_wall) for obj in objects],
    }
