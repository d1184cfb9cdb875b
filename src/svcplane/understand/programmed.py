"""What each node's proxy has programmed of a Service, by its Lease.  Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from svcplane.api.core import Service
from svcplane.api.discovery import EndpointSlice
from svcplane.proxy.programmed import ANNOTATION, LEASE_PREFIX, Programmed, from_text
from svcplane.proxy.tracker import is_ours
from svcplane.understand.finding import Finding, Severity
from svcplane.understand.view import ClusterView, Lease, duration, seconds_of

CURRENT, BEHIND, STOPPED, UNKNOWN = "current", "behind", "stopped", "unknown"


@dataclass(frozen=True, slots=True)
class NodeProgress:
    """`state` as above; `said` for people."""

    node: str
    state: str
    said: str


def progress(service: Service, slices: Sequence[EndpointSlice], view: ClusterView) -> tuple[NodeProgress, ...]:
    """Of every node.  A node whose proxy has never told anything is unknown: it may run another proxy."""
    leases = {lease.metadata.name: lease for lease in view.leases if lease.metadata.name.startswith(LEASE_PREFIX)}
    versions = tuple(slice_.metadata.resource_version for slice_ in slices)
    found = []
    for node in view.nodes:
        name = node.metadata.name
        lease = leases.get(LEASE_PREFIX + name)
        found.append(_of(name, lease, service.metadata.resource_version, versions, view.now_s))
    return tuple(found)


def _of(node: str, lease: Lease | None, service: str, slices: tuple[str, ...], now_s: float) -> NodeProgress:
    told = from_text(lease.metadata.annotations.get(ANNOTATION, "")) if lease is not None else None
    if lease is None or told is None:
        return NodeProgress(node, UNKNOWN, "its proxy does not report")
    renewed = seconds_of(lease.spec.renew_time)
    silent_s = now_s - renewed if renewed is not None else 0.0
    if not lease.spec.holder_identity:
        return NodeProgress(node, STOPPED, f"stopped: its proxy ended {duration(max(0.0, silent_s))} ago")
    if silent_s > (lease.spec.lease_duration_seconds or 40):
        return NodeProgress(node, STOPPED, f"stopped: its proxy was last heard of {duration(silent_s)} ago")
    if told.covers(service, slices):
        return NodeProgress(node, CURRENT, f"current, mode {told.mode}")
    return NodeProgress(node, BEHIND, f"behind: {_gap(told, service, slices)}")


def _gap(told: Programmed, service: str, slices: tuple[str, ...]) -> str:
    if not told.covers(service, ()):
        return f"Services up to version {told.services or 'none'}, this one is {service}"
    newest = max(slices, key=lambda version: int(version) if version.isdigit() else 0, default="")
    return f"endpoints up to version {told.slices or 'none'}, the newest is {newest}"


def progress_findings(service: Service, found: Sequence[NodeProgress]) -> tuple[Finding, ...]:
    """Nothing of a Service that no proxy serves."""
    if not is_ours(service):
        return ()
    findings = []
    for node in found:
        if node.state == STOPPED:
            text = f"{node.said}: its rules stay as they were then, and changes of endpoints do not reach it"
            remedy = f"start svcplane proxy on {node.node}; svcplane doctor there says more"
            findings.append(Finding("proxy-stopped", Severity.PROBLEM, f"node/{node.node}", text, remedy))
        elif node.state == BEHIND:
            text = f"has not programmed this Service's present state: {node.said}"
            remedy = f"svcplane wait svc/{service.metadata.name} --programmed; where it stays, the proxy's log says why"
            findings.append(Finding("node-behind", Severity.WARNING, f"node/{node.node}", text, remedy))
    return tuple(findings)


def is_done(found: Sequence[NodeProgress]) -> bool:
    """Whether every node that runs our proxy is current, and one does at all."""
    told = [node for node in found if node.state != UNKNOWN]
    return bool(told) and all(node.state == CURRENT for node in told)
