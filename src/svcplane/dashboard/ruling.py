"""What a node's proxy has to program: one rule for each address and port of a Service, with its purpose.  Pure.

The rules are what the planes compile from, in words that hold for every mode: by which address and port a Service is
reached on the node, which endpoints get the connections, and what happens where there is none.
"""

from collections.abc import Iterator
from dataclasses import dataclass

from svcplane.base.errors import ConfigError
from svcplane.base.net import join_host_port
from svcplane.dashboard.tracing import Cluster, state_of
from svcplane.proxy.model import Endpoint, ProxyState, ServicePort
from svcplane.proxy.topology import categorize


@dataclass(frozen=True, slots=True)
class Rule:
    """`match`: address, port and protocol of a packet; `action`: deliver, reject or drop; `purpose`: what it is for."""

    service: str
    kind: str
    match: str
    action: str
    endpoints: tuple[str, ...]
    purpose: str


def rules(cluster: Cluster, node: str, mode: str = "nftables") -> list[Rule]:
    """All rules of a node, both families, by Service.  Raises ConfigError where there is no such node."""
    if cluster.view.node(node) is None:
        raise ConfigError(f"there is no node {node}")
    states = [state_of(cluster, node, mode, ipv6=ipv6) for ipv6 in (False, True)]
    found = [rule for state in states for rule in _of_state(state)]
    return sorted(found, key=lambda rule: (rule.service, rule.kind, rule.match))


def _of_state(state: ProxyState) -> Iterator[Rule]:
    for name, port in state.services.items():
        choice = categorize(port, state.endpoints.get(name, ()), state.node)
        for kind, address, number, local in _frontends(port, state):
            endpoints = choice.local if local else choice.cluster
            action = "deliver" if endpoints else "drop" if local and choice.has_any else "reject"
            match = f"{join_host_port(address, number)} {port.protocol}"
            shown = tuple(str(endpoint) for endpoint in endpoints)
            yield Rule(str(name), kind, match, action, shown, _purpose(port, kind, endpoints, local=local))


def _frontends(port: ServicePort, state: ProxyState) -> Iterator[tuple[str, str, int, bool]]:
    """(kind, address, port, whether only this node's endpoints count)."""
    outside = port.external_policy_local
    yield "ClusterIP", port.cluster_ip, port.port, port.internal_policy_local
    for address in port.external_ips:
        yield "external IP", address, port.port, outside
    for address in port.load_balancer_ips:
        yield "load balancer", address, port.port, outside
    if port.node_port:
        for address in state.config.primary_ips:
            yield "node port", address, port.node_port, outside


def _purpose(port: ServicePort, kind: str, endpoints: tuple[Endpoint, ...], *, local: bool) -> str:
    where = " on this node" if local else ""
    if not endpoints:
        return f"no usable endpoint{where}: connections end here"
    count = len(endpoints)
    words = [f"one of {count} usable endpoints{where}, at random" if count > 1 else f"the only usable endpoint{where}"]
    if port.affinity_timeout_s:
        words.append(f"the same again for {port.affinity_timeout_s} s (ClientIP affinity)")
    if kind == "load balancer" and port.source_ranges:
        words.append(f"from {', '.join(port.source_ranges)} only")
    return "; ".join(words)
