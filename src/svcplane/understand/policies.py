"""Traffic policies and topology hints of a Service: on which nodes they leave it without an endpoint.  Pure.

Source: KEP-2086 (internal traffic policy), KEP-1669 (external), KEP-2433 and KEP-4444 (topology).
"""

from collections.abc import Iterable, Sequence

from svcplane.api.core import Node, Service
from svcplane.api.discovery import Endpoint, EndpointSlice
from svcplane.proxy.tracker import ZONE_LABEL
from svcplane.understand.finding import Finding, Severity

SHOWN = 5


def policy_findings(service: Service, slices: Sequence[EndpointSlice], nodes: Sequence[Node]) -> tuple[Finding, ...]:
    """Nothing is said where no endpoint is usable at all: that is another finding."""
    usable = _usable([endpoint for slice_ in slices for endpoint in slice_.endpoints or ()])
    if not usable:
        return ()
    with_one = {endpoint.node_name for endpoint in usable}
    without = [node.metadata.name for node in nodes if node.metadata.name not in with_one]
    subject, spec = f"svc/{service.metadata.name}", service.spec
    found = []
    here = f"its endpoints are on {_names(sorted(filter(None, with_one)))}"
    if spec.internal_traffic_policy == "Local" and without:
        text = f"internalTrafficPolicy Local: on {_names(without)} no endpoint is local, so that connections to the"
        text += f" ClusterIP made there are dropped; {here}"
        remedy = "run a Pod on every node (DaemonSet), or set internalTrafficPolicy to Cluster"
        found.append(Finding("internal-local-without-endpoint", Severity.PROBLEM, subject, text, remedy))
    external = spec.type in ("NodePort", "LoadBalancer") or bool(spec.external_ips)
    if spec.external_traffic_policy == "Local" and external and without:
        balanced = spec.type == "LoadBalancer" and bool(spec.health_check_node_port)
        text = f"externalTrafficPolicy Local: on {_names(without)} no endpoint is local, so that connections from"
        text += f" outside to {_outside(service)} there are dropped; {here}"
        remedy = (
            "run a Pod on these nodes, send clients to nodes that have one, or set externalTrafficPolicy to Cluster"
        )
        severity = Severity.WARNING if balanced else Severity.PROBLEM
        if balanced:
            remedy = f"none, if the load balancer asks health check node port {spec.health_check_node_port}; {remedy}"
        found.append(Finding("external-local-without-endpoint", severity, subject, text, remedy))
    return (*found, *_hints(service, usable, nodes))


def _usable(endpoints: Iterable[Endpoint]) -> list[Endpoint]:
    found = list(endpoints)
    ready = [endpoint for endpoint in found if endpoint.conditions.ready is not False]
    return ready or [e for e in found if e.conditions.terminating and e.conditions.serving is not False]


def _outside(service: Service) -> str:
    ports = [str(port.node_port) for port in service.spec.ports if port.node_port]
    return f"node port {', '.join(ports)}" if ports else "its external IPs"


def _names(names: Sequence[str]) -> str:
    kind = "node" if len(names) == 1 else "nodes"
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"{kind} {', '.join(names[:SHOWN])}{more}" if names else "no node"


def _hints(service: Service, usable: Sequence[Endpoint], nodes: Sequence[Node]) -> list[Finding]:
    """Topology: who is served from another zone, though the Service asks for its own."""
    if not service.spec.traffic_distribution:
        return []
    zones = {node.metadata.labels.get(ZONE_LABEL, "") for node in nodes} - {""}
    lonely = sorted(zones - {endpoint.zone or "" for endpoint in usable})
    subject = f"svc/{service.metadata.name}"
    distribution = service.spec.traffic_distribution
    if not zones and distribution != "PreferSameNode":
        text = f"trafficDistribution {distribution} has no effect: no node has the label {ZONE_LABEL}"
        return [Finding("zones-unknown", Severity.WARNING, subject, text, f"label the nodes with {ZONE_LABEL}")]
    if lonely:
        text = f"trafficDistribution {distribution}: zone {', '.join(lonely)} has no endpoint and uses other zones'"
        return [Finding("zone-without-endpoint", Severity.NOTE, subject, text, "run a Pod in each zone")]
    return []
