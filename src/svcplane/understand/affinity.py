"""Remembered clients against the endpoints there are.  Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from svcplane.proxy.model import ProxyState
from svcplane.proxy.plane import AffinityEntry
from svcplane.understand.finding import Finding, Severity
from svcplane.understand.probing import GOOD, UNCLEAR


@dataclass(frozen=True, slots=True)
class Sticking:
    """`state`: of the endpoint: ready, terminating, not ready, gone."""

    client: str
    service: str
    protocol: str
    endpoint: str
    pod: str
    expires_in_s: float
    state: str


def describe(entry: AffinityEntry, state: ProxyState) -> Sticking:
    known = {str(endpoint): endpoint for endpoint in state.endpoints.get(entry.service, ())}
    endpoint = known.get(entry.endpoint)
    if endpoint is None:
        said = "gone"
    elif endpoint.terminating:
        said = "terminating"
    else:
        said = "ready" if endpoint.ready else "not ready"
    pod = endpoint.pod if endpoint else ""
    protocol = entry.service.protocol.value
    return Sticking(entry.client, str(entry.service), protocol, entry.endpoint, pod, entry.expires_in_s, said)


def dead_findings(found: Iterable[Sticking], answers: Mapping[str, str]) -> tuple[Finding, ...]:
    """Clients that stick to an endpoint which counts as ready and does not answer.  `answers` by endpoint."""
    findings = []
    for one in found:
        seen = answers.get(one.endpoint)
        if seen is None or seen in GOOD or seen in UNCLEAR or one.state != "ready":
            continue
        who = f"pod {one.pod} ({one.endpoint})" if one.pod else one.endpoint
        text = f"client {one.client} sticks to {who}, which counts as ready and does not answer this node ({seen})"
        remedy = f"svcplane affinity evict {one.client} --service {one.service}; give the Pod a readiness probe that"
        remedy += " tells when it is dead"
        findings.append(Finding("affinity-to-dead-pod", Severity.PROBLEM, one.service, text, remedy))
    return tuple(findings)
