"""Why a Pod is, or is not, an endpoint of a Service that selects it.  Pure.

Source: k8s.io/endpointslice/util ShouldPodBeInEndpoints; core/v1 Pod conditions and container states.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from svcplane.api.core import Container, ContainerStatus, Pod, PodCondition, Probe, Service
from svcplane.controllers import pods as p
from svcplane.proxy.tracker import ZONE_LABEL
from svcplane.understand.finding import Finding, Severity
from svcplane.understand.ports import port_findings
from svcplane.understand.view import ClusterView, Event, age

ENDPOINT, UNREADY, DRAINING, EXCLUDED = "endpoint", "not ready", "terminating", "no endpoint"


@dataclass(frozen=True, slots=True)
class PodStory:
    """`state`: endpoint (takes connections), not ready, terminating, no endpoint.  `why` is for people."""

    name: str
    state: str
    why: str
    node: str
    zone: str
    addresses: tuple[str, ...]
    findings: tuple[Finding, ...] = ()


def pod_story(service: Service, pod: Pod, view: ClusterView) -> PodStory:
    """A Pod that the selector matches."""
    state, findings = _judge(service, pod, view)
    ports = port_findings(service, pod)
    node = view.node(pod.spec.node_name)
    addresses = [entry.ip for entry in pod.status.pod_ips] or [pod.status.pod_ip]
    why = "; ".join(finding.text for finding in (*findings, *ports)) or "ready"
    return PodStory(
        name=pod.metadata.name,
        state=state,
        why=why,
        node=pod.spec.node_name,
        zone=node.metadata.labels.get(ZONE_LABEL, "") if node is not None else "",
        addresses=tuple(filter(None, addresses)),
        findings=(*findings, *ports),
    )


def _judge(service: Service, pod: Pod, view: ClusterView) -> tuple[str, tuple[Finding, ...]]:
    subject = f"pod/{pod.metadata.name}"
    if pod.status.phase in p.ENDED:
        said = f"has ended (phase {pod.status.phase}{_said(pod.status.reason, pod.status.message)})"
        remedy = "start a new Pod; one that has ended never serves again"
        return EXCLUDED, (Finding("pod-ended", Severity.PROBLEM, subject, said, remedy),)
    if p.is_terminating(pod):
        return DRAINING, (_terminating(pod, subject, view),)
    families = service.spec.ip_families or ["IPv4"]
    lacking = [family for family in families if not p.pod_ip(pod, family)]
    if len(lacking) == len(families):
        return EXCLUDED, (_no_address(pod, subject, view),)
    notes = tuple(
        Finding("pod-one-family", Severity.WARNING, subject, f"has no {family} address, the Service has one", "")
        for family in lacking
    )
    if pod.spec.node_name and view.live and view.node(pod.spec.node_name) is None:
        text = f"is bound to node {pod.spec.node_name}, which does not exist"
        remedy = "delete the Pod, or register the node again"
        return EXCLUDED, (*notes, Finding("pod-node-missing", Severity.PROBLEM, subject, text, remedy))
    if not p.is_ready(pod):
        finding = _unready(pod, subject, view)
        if service.spec.publish_not_ready_addresses:
            return ENDPOINT, (*notes, _softened(finding))
        return UNREADY, (*notes, finding)
    return ENDPOINT, notes


def _softened(finding: Finding) -> Finding:
    text = f"{finding.text}; yet it is published (publishNotReadyAddresses)"
    return Finding(finding.code, Severity.WARNING, finding.subject, text, finding.remedy)


def _terminating(pod: Pod, subject: str, view: ClusterView) -> Finding:
    serving = "still serves" if p.is_ready(pod) else "serves no more"
    since = age(pod.metadata.deletion_timestamp, view.now_s)
    # the timestamp is when it must have ended: in the future while the grace period runs
    text = f"is terminating and {serving}" + (f"; its time ended {since} ago" if since and since != "0s" else "")
    return Finding("pod-terminating", Severity.WARNING, subject, text, "wait for its replacement to become ready")


def _said(*parts: str) -> str:
    found = [part for part in parts if part]
    return f": {': '.join(found)}" if found else ""


def _condition(pod: Pod, kind: str) -> PodCondition | None:
    return next((condition for condition in pod.status.conditions if condition.type == kind), None)


def _no_address(pod: Pod, subject: str, view: ClusterView) -> Finding:
    scheduled = _condition(pod, "PodScheduled")
    if not pod.spec.node_name:
        said = _said(scheduled.reason, scheduled.message) if scheduled else ""
        if view.live and not view.nodes and not said:
            text = "has no address: this cluster shows no node that it could run on"
            return Finding(
                "pod-unscheduled", Severity.PROBLEM, subject, text, "see why no node is there: svcplane get nodes"
            )
        text = f"has no address: it is not on a node yet{said}"
        return Finding("pod-unscheduled", Severity.PROBLEM, subject, text, "make room or relax its node selector")
    waits = list(_waiting(pod))
    text = f"has no address yet on node {pod.spec.node_name}" + (f": {waits[0][1]}" if waits else "")
    node = view.node(pod.spec.node_name)
    if node is not None and not _node_ready(node.status.conditions):
        text += f"; node {pod.spec.node_name} is not ready"
    remedy = f"look at the node's agent: kubectl describe pod {pod.metadata.name}"
    return Finding("pod-no-address", Severity.PROBLEM, subject, text, remedy)


def _node_ready(conditions: Iterable[object]) -> bool:
    return any(getattr(c, "type", "") == "Ready" and getattr(c, "status", "") == "True" for c in conditions)


def _waiting(pod: Pod) -> Iterable[tuple[str, str]]:
    """(container, why) of containers that do not run."""
    for status in (*pod.status.init_container_statuses, *pod.status.container_statuses):
        waiting = status.state.get("waiting")
        if waiting:
            yield status.name, f"container {status.name} waits{_said(waiting.get('reason', ''), _first(waiting))}"
        terminated = status.state.get("terminated")
        if terminated and not (status in pod.status.init_container_statuses and terminated.get("exitCode") == 0):
            yield status.name, f"container {status.name} has ended with status {terminated.get('exitCode')}"


def _first(state: dict[str, object]) -> str:
    return str(state.get("message") or "").split("\n")[0][:160]


def _unready(pod: Pod, subject: str, view: ClusterView) -> Finding:
    ready = _condition(pod, "Ready")
    since = age(ready.last_transition_time, view.now_s) if ready else ""
    head = "is not ready" + (f" since {since} ({ready.last_transition_time})" if since and ready else "")
    waits = list(_waiting(pod))
    if waits:
        name, why = waits[0]
        remedy = f"kubectl logs {pod.metadata.name} -c {name} --previous"
        return Finding("pod-container-waits", Severity.PROBLEM, subject, f"{head}: {why}{_last_end(pod, name)}", remedy)
    gates = [gate.condition_type for gate in pod.spec.readiness_gates if not _is_true(pod, gate.condition_type)]
    unready = [status for status in pod.status.container_statuses if not status.ready]
    if not unready and gates:
        text = f"{head}: readiness gate {gates[0]} is not True"
        remedy = f"find the controller that sets condition {gates[0]}"
        return Finding("pod-readiness-gate", Severity.PROBLEM, subject, text, remedy)
    if unready:
        return _unready_container(pod, unready[0], head, subject, view.events)
    said = _said(ready.reason, ready.message) if ready else ": it has no Ready condition"
    remedy = f"look at the agent of node {pod.spec.node_name}" if pod.spec.node_name else "bind it to a node"
    return Finding("pod-not-ready", Severity.PROBLEM, subject, head + said, remedy)


def _is_true(pod: Pod, kind: str) -> bool:
    condition = _condition(pod, kind)
    return condition is not None and condition.status == "True"


def _last_end(pod: Pod, name: str) -> str:
    for status in pod.status.container_statuses:
        ended = status.last_state.get("terminated") if status.name == name else None
        if ended:
            return f" (last run ended with status {ended.get('exitCode')}, {status.restart_count} restarts)"
    return ""


def _unready_container(pod: Pod, status: ContainerStatus, head: str, subject: str, events: Sequence[Event]) -> Finding:
    container = next((c for c in pod.spec.containers if c.name == status.name), None)
    started = _failing(container, status)
    if started is None:
        text = f"{head}: container {status.name} is not ready"
        return Finding("pod-not-ready", Severity.PROBLEM, subject, text, f"kubectl describe pod {pod.metadata.name}")
    kind, probe = started
    said = _probe_said(pod, kind, events)
    text = f"{head}: the {kind} probe of container {status.name} fails: {describe_probe(probe)}{said}"
    remedy = f"make the container answer {describe_probe(probe)}, or correct the probe"
    return Finding("pod-probe-fails", Severity.PROBLEM, subject, text, remedy)


def _failing(container: Container | None, status: ContainerStatus) -> tuple[str, Probe] | None:
    """The probe that keeps a running container from being ready: startup goes before readiness."""
    if container is None:
        return None
    if container.startup_probe is not None and not status.started:
        return "startup", container.startup_probe
    return ("readiness", container.readiness_probe) if container.readiness_probe is not None else None


def describe_probe(probe: Probe) -> str:
    """`HTTP GET :8080/healthz`, `TCP :8080`, `command ls /ready`."""
    if probe.http_get is not None:
        return f"{probe.http_get.scheme} GET {probe.http_get.host}:{probe.http_get.port}{probe.http_get.path}"
    if probe.tcp_socket is not None:
        return f"TCP {probe.tcp_socket.host}:{probe.tcp_socket.port}"
    if probe.exec is not None:
        return f"command {' '.join(probe.exec.command)}"
    return "gRPC"


def _probe_said(pod: Pod, kind: str, events: Sequence[Event]) -> str:
    """The newest event of the probe, where events are kept."""
    mine = [
        event
        for event in events
        if event.reason == "Unhealthy"
        and event.involved_object.name == pod.metadata.name
        and event.metadata.namespace == pod.metadata.namespace
        and kind in event.message.casefold()
    ]
    if not mine:
        return ""
    newest = max(mine, key=lambda event: event.at)
    return f" ({newest.message.strip().splitlines()[0][:160]})"
