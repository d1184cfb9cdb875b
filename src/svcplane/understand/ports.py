"""Whether a Service's target ports are there on a Pod; what was meant where they are not.  Pure."""

from svcplane.api.core import ContainerPort, Pod, Service, ServicePort
from svcplane.controllers.pods import target_port
from svcplane.understand.finding import Finding, Severity
from svcplane.understand.similar import did_you_mean, nearest


def label(port: ServicePort) -> str:
    """A service port for people: `http 80/TCP`."""
    return f"{port.name} {port.port}/{port.protocol}".strip()


def declared_ports(pod: Pod) -> list[ContainerPort]:
    sidecars = [container for container in pod.spec.init_containers if container.restart_policy == "Always"]
    return [port for container in (*pod.spec.containers, *sidecars) for port in container.ports]


def port_findings(service: Service, pod: Pod) -> tuple[Finding, ...]:
    """Findings about the target ports of a Pod that the Service selects."""
    found = []
    for port in service.spec.ports:
        target = port.target_port
        if isinstance(target, str) and target_port(pod, port) is None:
            found.append(_missing_name(service, pod, port, target))
        elif isinstance(target, int):
            found += _undeclared(pod, port, target or port.port)
    return tuple(found)


def _missing_name(service: Service, pod: Pod, port: ServicePort, target: str) -> Finding:
    declared = declared_ports(pod)
    names = sorted({entry.name for entry in declared if entry.name and entry.protocol == port.protocol})
    subject = f"pod/{pod.metadata.name}"
    other = next((entry for entry in declared if entry.name == target), None)
    if other is not None:
        text = f"has port {target!r} with protocol {other.protocol}, port {label(port)} of the Service wants it"
        text += f" with {port.protocol}"
        return Finding("port-protocol", Severity.PROBLEM, subject, text, "give both the same protocol")
    has = f"it has {', '.join(map(repr, names))}" if names else "it names none"
    text = f"has no port named {target!r}, the targetPort of port {label(port)}: {has}{did_you_mean(target, names)}"
    meant = nearest(target, names)
    remedy = f"name one of the Pod's container ports {target!r}, or give the Service a number"
    if meant:
        remedy = f"set targetPort of {service.metadata.name} to {meant!r}, or rename the container port"
    return Finding("port-name-missing", Severity.PROBLEM, subject, text, remedy)


def _undeclared(pod: Pod, port: ServicePort, target: int) -> list[Finding]:
    """Container ports are for information only, so that a number nobody declares is a hint and no proof."""
    declared = [entry for entry in declared_ports(pod) if entry.protocol == port.protocol]
    if not declared or any(entry.container_port == target for entry in declared):
        return []
    known = ", ".join(str(entry.container_port) for entry in declared)
    text = f"declares port {known}, port {label(port)} of the Service goes to {target}"
    remedy = f"check that something listens on {target}; else correct targetPort"
    return [Finding("port-undeclared", Severity.WARNING, f"pod/{pod.metadata.name}", text, remedy)]
