"""What to ask next where a Service's own story is fine and a connection fails all the same.  Pure.

A Service's story is the cluster's; the way of a packet is a node's.  So the next verbs run on the node that the packet
passes: the client's own, or the one that a client outside sends to.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from svcplane.api.core import Service, ServicePort
from svcplane.proxy.tracker import is_ours
from svcplane.understand.finding import Finding, has_problem


@dataclass(frozen=True, slots=True)
class Further:
    """A command for the node that the client's packets pass, and what it tells."""

    command: str
    tells: str


def further(service: Service, findings: Iterable[Finding]) -> tuple[Further, ...]:
    """Nothing where a problem was found, or no proxy serves the Service."""
    if has_problem(findings) or not is_ours(service) or not service.spec.ports:
        return ()
    meta, spec = service.metadata, service.spec
    where = "" if meta.namespace == "default" else f" -n {meta.namespace}"
    target = f"svc/{meta.name}:{_port(spec.ports[0])}"
    steps = [
        Further(
            f"svcplane trace {target} --from ADDRESS{where}",
            "what becomes of the client's packets there: rules, other people's too, settings, stale flows",
        )
    ]
    if spec.session_affinity == "ClientIP":
        steps.append(
            Further(
                f"svcplane affinity list --service {meta.namespace}/{meta.name} --probe",
                "whether affinity holds a client to a Pod that is dead",
            )
        )
    steps.append(Further("svcplane doctor", "what else is wrong with that node"))
    return tuple(steps)


def _port(port: ServicePort) -> str:
    return f"{port.port}" if port.protocol == "TCP" else f"{port.port}/{port.protocol.lower()}"
