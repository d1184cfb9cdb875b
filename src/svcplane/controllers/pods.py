"""What Pods are to Services: which are endpoints, in which state, at which port.  Pure.

Source: k8s.io/endpointslice/util, pkg/controller/util/endpoint.
"""

from svcplane.api.core import Pod, Service, ServicePort
from svcplane.base.net import canonical_ip, family_of

TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
HEADLESS_LABEL = "service.kubernetes.io/headless"
ENDED = ("Failed", "Succeeded")


def is_ready(pod: Pod) -> bool:
    return any(condition.type == "Ready" and condition.status == "True" for condition in pod.status.conditions)


def is_terminating(pod: Pod) -> bool:
    return pod.metadata.deletion_timestamp is not None


def is_headless(service: Service) -> bool:
    return service.spec.cluster_ip == "None"


def pod_ip(pod: Pod, family: str) -> str:
    """The Pod's address of a family (`IPv4`, `IPv6`), canonical, or an empty text."""
    addresses = [entry.ip for entry in pod.status.pod_ips] or ([pod.status.pod_ip] if pod.status.pod_ip else [])
    for address in addresses:
        canonical = canonical_ip(address)
        if canonical is not None and family_of(canonical).api_name == family:
            return canonical
    return ""


def target_port(pod: Pod, port: ServicePort) -> int | None:
    """The number behind a service port's target on this Pod; None where it has no such named port."""
    target = port.target_port
    if isinstance(target, int):
        return target
    sidecars = [container for container in pod.spec.init_containers if container.restart_policy == "Always"]
    for container in (*pod.spec.containers, *sidecars):
        for declared in container.ports:
            if declared.name == target and declared.protocol == port.protocol:
                return declared.container_port
    return None


def hostname_for(pod: Pod, service: Service) -> str:
    """The Pod's hostname where the Service governs its subdomain."""
    spec, meta = pod.spec, pod.metadata
    if spec.hostname and spec.subdomain == service.metadata.name and meta.namespace == service.metadata.namespace:
        return spec.hostname
    return ""


def selects(service: Service, pod: Pod) -> bool:
    selector, labels = service.spec.selector, pod.metadata.labels
    return bool(selector) and all(labels.get(key) == value for key, value in selector.items())


def matters(old: Pod, new: Pod) -> bool:
    """Whether a change of a Pod can change endpoints."""
    a, b = old.metadata, new.metadata
    return (
        a.labels != b.labels
        or a.deletion_timestamp != b.deletion_timestamp
        or a.uid != b.uid
        or is_ready(old) != is_ready(new)
        or old.status.phase != new.status.phase
        or old.status.pod_ip != new.status.pod_ip
        or old.status.pod_ips != new.status.pod_ips
        or old.spec != new.spec
    )
