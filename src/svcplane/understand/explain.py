"""The whole story of one Service: what it is, who is behind it and why, and what is wrong first of all.  Pure."""

from dataclasses import dataclass

from svcplane.api.core import Node, Pod, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.base.errors import ConfigError
from svcplane.base.net import canonical_ip
from svcplane.controllers import pods as p
from svcplane.proxy.tracker import DEFAULT_TIMEOUT_S, PROXY_NAME_LABEL, SERVICE_NAME_LABEL, ZONE_LABEL
from svcplane.understand.finding import Finding, Severity, worst_first
from svcplane.understand.further import Further, further
from svcplane.understand.labels import NearMiss, near_misses
from svcplane.understand.pods import ENDPOINT, PodStory, pod_story
from svcplane.understand.policies import policy_findings
from svcplane.understand.ports import label
from svcplane.understand.programmed import progress, progress_findings
from svcplane.understand.similar import did_you_mean
from svcplane.understand.view import ClusterView, duration


@dataclass(frozen=True, slots=True)
class SliceStory:
    name: str
    family: str
    ports: tuple[str, ...]
    ready: int
    not_ready: int
    terminating: int


@dataclass(frozen=True, slots=True)
class NodeStory:
    """`local`: ready endpoints on the node; `programmed`: what its proxy reports of this Service."""

    name: str
    zone: str
    ready: bool
    local: int
    programmed: str


@dataclass(frozen=True, slots=True)
class Story:
    """`findings` are the problems, the worst first; the rest is the state they were found in.

    `further`: what to ask next where there is no problem.
    """

    service: str
    type: str
    findings: tuple[Finding, ...]
    addresses: tuple[str, ...]
    ports: tuple[str, ...]
    selector: dict[str, str]
    policies: tuple[str, ...]
    pods: tuple[PodStory, ...]
    near_misses: tuple[NearMiss, ...]
    slices: tuple[SliceStory, ...]
    nodes: tuple[NodeStory, ...]
    further: tuple[Further, ...] = ()


def explain(view: ClusterView, namespace: str, name: str) -> Story:
    """Raises ConfigError where there is no such Service, with the name that was perhaps meant."""
    service = view.service(namespace, name)
    if service is None:
        raise ConfigError(_no_service(view, namespace, name))
    pods = tuple(pod_story(service, pod, view) for pod in view.pods if _is_mine(service, pod))
    misses = near_misses(namespace, service.spec.selector, view.pods) if service.spec.selector else ()
    slices = slices_of(service, view)
    programmed = progress(service, slices, view)
    said = {node.node: node.said for node in programmed}
    nodes = tuple(_node_story(node, slices, said[node.metadata.name]) for node in view.nodes)
    findings = [*_about_service(service, view), *_about_selection(service, pods, misses, slices)]
    findings += [finding for pod in pods for finding in pod.findings]
    if view.live:
        findings += _about_slices(service, view, pods, slices)
        findings += progress_findings(service, programmed)
    if view.live or slices:
        findings += policy_findings(service, slices, view.nodes)
    return Story(
        service=service.key,
        type=service.spec.type,
        findings=worst_first(findings),
        addresses=_addresses(service),
        ports=tuple(_port(service, index) for index in range(len(service.spec.ports))),
        selector=dict(service.spec.selector),
        policies=_policies(service),
        pods=tuple(sorted(pods, key=lambda pod: (pod.state == ENDPOINT, pod.name))),
        near_misses=misses,
        slices=tuple(_slice_story(slice_) for slice_ in slices),
        nodes=nodes,
        further=further(service, findings),
    )


def _no_service(view: ClusterView, namespace: str, name: str) -> str:
    here = [service.metadata.name for service in view.services if service.metadata.namespace == namespace]
    elsewhere = [s.metadata.namespace for s in view.services if s.metadata.name == name]
    if elsewhere:
        return f"there is no Service {name} in namespace {namespace}; there is one in {', '.join(sorted(elsewhere))}"
    return f"there is no Service {name} in namespace {namespace}{did_you_mean(name, here)}"


def _is_mine(service: Service, pod: Pod) -> bool:
    return pod.metadata.namespace == service.metadata.namespace and p.selects(service, pod)


def slices_of(service: Service, view: ClusterView) -> tuple[EndpointSlice, ...]:
    meta = service.metadata
    return tuple(
        slice_
        for slice_ in view.slices
        if slice_.metadata.namespace == meta.namespace and slice_.metadata.labels.get(SERVICE_NAME_LABEL) == meta.name
    )


# -- what it is ------------------------------------------------------------------------------------------------


def _addresses(service: Service) -> tuple[str, ...]:
    spec = service.spec
    found = [f"ClusterIP {ip}" for ip in spec.cluster_ips or filter(None, [spec.cluster_ip])]
    found += [f"external IP {ip}" for ip in spec.external_ips]
    for entry in service.status.load_balancer.ingress:
        found.append(f"load balancer {entry.ip or entry.hostname}")
    if spec.external_name:
        found.append(f"DNS alias of {spec.external_name}")
    return tuple(found)


def _port(service: Service, index: int) -> str:
    port = service.spec.ports[index]
    node_port = f", node port {port.node_port}" if port.node_port else ""
    return f"{label(port)} -> {port.target_port or port.port}{node_port}"


def _policies(service: Service) -> tuple[str, ...]:
    spec = service.spec
    found = [f"internalTrafficPolicy {spec.internal_traffic_policy or 'Cluster'}"]
    if spec.type in ("NodePort", "LoadBalancer") or spec.external_ips:
        found.append(f"externalTrafficPolicy {spec.external_traffic_policy or 'Cluster'}")
    if spec.traffic_distribution:
        found.append(f"trafficDistribution {spec.traffic_distribution}")
    if spec.session_affinity == "ClientIP":
        config = spec.session_affinity_config
        timeout = (config.client_ip.timeout_seconds if config and config.client_ip else None) or DEFAULT_TIMEOUT_S
        found.append(f"session affinity ClientIP, forgotten after {duration(timeout)} of silence")
    else:
        found.append("no session affinity")
    if spec.load_balancer_source_ranges:
        found.append(f"load balancer open to {', '.join(spec.load_balancer_source_ranges)} only")
    if spec.publish_not_ready_addresses:
        found.append("publishes addresses that are not ready")
    return tuple(found)


def _slice_story(slice_: EndpointSlice) -> SliceStory:
    endpoints = slice_.endpoints or []
    terminating = sum(1 for endpoint in endpoints if endpoint.conditions.terminating)
    ready = sum(1 for endpoint in endpoints if endpoint.conditions.ready is not False)
    ports = tuple(
        f"{port.name or ''} {port.port or 'any'}/{port.protocol or 'TCP'}".strip() for port in slice_.ports or ()
    )
    rest = (
        len(endpoints) - ready - sum(1 for e in endpoints if e.conditions.terminating and e.conditions.ready is False)
    )
    return SliceStory(slice_.metadata.name, slice_.address_type, ports, ready, rest, terminating)


def _node_story(node: Node, slices: tuple[EndpointSlice, ...], programmed: str) -> NodeStory:
    name = node.metadata.name
    local = {
        endpoint.addresses[0]
        for slice_ in slices
        for endpoint in slice_.endpoints or ()
        if endpoint.node_name == name and endpoint.conditions.ready is not False and endpoint.addresses
    }
    ready = any(condition.type == "Ready" and condition.status == "True" for condition in node.status.conditions)
    return NodeStory(name, node.metadata.labels.get(ZONE_LABEL, ""), ready, len(local), programmed)


# -- what is wrong ---------------------------------------------------------------------------------------------


def _about_service(service: Service, view: ClusterView) -> list[Finding]:
    spec, subject = service.spec, f"svc/{service.metadata.name}"
    found = []
    if service.metadata.deletion_timestamp:
        found.append(Finding("service-deleted", Severity.WARNING, subject, "is being deleted"))
    if spec.type == "ExternalName":
        text = f"is a DNS alias of {spec.external_name}: no address, no endpoints, no proxy is involved"
        found.append(Finding("external-name", Severity.NOTE, subject, text, "look at the name it stands for"))
    elif spec.cluster_ip == "None":
        text = "is headless: clients get the Pods' own addresses from DNS, no proxy is involved"
        found.append(Finding("headless", Severity.NOTE, subject, text))
    elif PROXY_NAME_LABEL in service.metadata.labels:
        other = service.metadata.labels[PROXY_NAME_LABEL]
        text = f"is left to the proxy {other!r} by its label {PROXY_NAME_LABEL}"
        found.append(Finding("other-proxy", Severity.WARNING, subject, text, "remove the label to have it served here"))
    if spec.type == "LoadBalancer" and view.live and not service.status.load_balancer.ingress:
        text = "has no load balancer address yet: nothing has set status.loadBalancer.ingress"
        remedy = "check the cloud's or your own load balancer controller; its node port works meanwhile"
        found.append(Finding("load-balancer-pending", Severity.WARNING, subject, text, remedy))
    return found


def _about_selection(
    service: Service, pods: tuple[PodStory, ...], misses: tuple[NearMiss, ...], slices: tuple[EndpointSlice, ...]
) -> list[Finding]:
    subject, selector = f"svc/{service.metadata.name}", service.spec.selector
    if service.spec.type == "ExternalName":
        return []
    if not selector:
        return _without_selector(subject, slices)
    shown = ",".join(f"{key}={value}" for key, value in sorted(selector.items()))
    if not pods:
        near = misses[:3]
        text = f"its selector {shown} matches no Pod"
        text += "".join(f"; near miss: pod/{miss.pod.split('/', 1)[1]}: {miss.difference}" for miss in near)
        remedy = "correct the selector or the Pod's label" if near else "start Pods with these labels"
        return [Finding("selector-matches-nothing", Severity.PROBLEM, subject, text, remedy)]
    found = []
    if not any(pod.state == ENDPOINT and not _portless(service, pod) for pod in pods):
        text = f"no Pod takes connections: of the {len(pods)} that its selector matches none is a ready endpoint"
        found.append(Finding("no-ready-endpoint", Severity.PROBLEM, subject, text, "see the Pods' findings"))
    for miss in misses:
        if miss.misspelt:
            text = f"is not selected, by little: {miss.difference}"
            pod = f"pod/{miss.pod.split('/', 1)[1]}"
            found.append(Finding("label-near-miss", Severity.NOTE, pod, text, "correct its label, if it should serve"))
    return found


def _portless(service: Service, pod: PodStory) -> bool:
    """Whether none of the Service's ports is there on the Pod."""
    missing = sum(1 for f in pod.findings if f.code in ("port-name-missing", "port-protocol"))
    return bool(missing) and missing >= len(service.spec.ports)


def _without_selector(subject: str, slices: tuple[EndpointSlice, ...]) -> list[Finding]:
    if any(slice_.endpoints for slice_ in slices):
        text = "has no selector: its EndpointSlices are written by hand or by another controller"
        return [Finding("manual-endpoints", Severity.NOTE, subject, text)]
    text = "has no selector, and no EndpointSlice lists an endpoint for it"
    remedy = f"give it a selector, or write EndpointSlices with the label {SERVICE_NAME_LABEL}"
    return [Finding("no-selector", Severity.PROBLEM, subject, text, remedy)]


def _about_slices(
    service: Service, view: ClusterView, pods: tuple[PodStory, ...], slices: tuple[EndpointSlice, ...]
) -> list[Finding]:
    """What the controllers wrote against what the Pods are."""
    if not service.spec.selector or service.spec.type == "ExternalName":
        return []
    subject = f"svc/{service.metadata.name}"
    listed: dict[str, bool] = {}
    for slice_ in slices:
        for endpoint in slice_.endpoints or ():
            for address in endpoint.addresses[:1]:
                listed[canonical_ip(address) or address] = endpoint.conditions.ready is not False
    found = []
    for pod in pods:
        addresses = [canonical_ip(ip) or ip for ip in pod.addresses]
        there = [listed[ip] for ip in addresses if ip in listed]
        serves = pod.state == ENDPOINT and not _portless(service, pod)
        if serves and not any(there):
            found.append(f"pod/{pod.name} is ready and not listed as ready")
        elif not serves and any(there) and pod.state != ENDPOINT:
            found.append(f"pod/{pod.name} is {pod.state} and still listed as ready")
    known = {canonical_ip(ip) or ip for pod in pods for ip in pod.addresses}
    found += [f"{ip} is listed and no Pod has it" for ip in listed if ip not in known]
    if not found:
        return []
    text = f"its EndpointSlices are behind: {'; '.join(found[:3])}" + ("; ..." if len(found) > 3 else "")
    remedy = "check that the endpointslice controller runs (svcplane controllers, or kube-controller-manager)"
    return [Finding("slices-behind", Severity.PROBLEM, subject, text, remedy)]
