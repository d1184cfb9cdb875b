"""One service port and its usable endpoints -> its chains of the nat table and its rules elsewhere.  Pure.

Source: kube-proxy 1.36 iptables mode.
"""

from dataclasses import dataclass, field

from svcplane.base.net import contains
from svcplane.proxy.model import DetectLocal, Endpoint, NodeConfig, ServicePort
from svcplane.proxy.planes.iptables import names as n
from svcplane.proxy.topology import EndpointChoice

MARK = "-j KUBE-MARK-MASQ"


@dataclass(slots=True)
class Fragment:
    """`chains` are of table nat; the rest are rules for the shared chains named like them."""

    chains: dict[str, tuple[str, ...]] = field(default_factory=dict)
    services: list[str] = field(default_factory=list)  # nat KUBE-SERVICES
    nodeports: list[str] = field(default_factory=list)  # nat KUBE-NODEPORTS
    refuse_internal: list[str] = field(default_factory=list)  # filter KUBE-SERVICES
    refuse_external: list[str] = field(default_factory=list)  # filter KUBE-EXTERNAL-SERVICES
    firewall: list[str] = field(default_factory=list)  # filter KUBE-PROXY-FIREWALL


def local_match(config: NodeConfig, *, inverted: bool = False) -> list[str]:
    """Matches of packets from Pods, one rule each; for `inverted` one match, or none where nobody can tell."""
    mark = "! " if inverted else ""
    match config.detect_local:
        case DetectLocal.CLUSTER_CIDR | DetectLocal.NODE_CIDR:
            return [f"{mark}-s {cidr}" for cidr in config.local_cidrs]
        case DetectLocal.BRIDGE_INTERFACE if config.local_interface:
            return [f"{mark}-i {config.local_interface}"]
        case DetectLocal.INTERFACE_NAME_PREFIX if config.local_interface:
            return [f"{mark}-i {config.local_interface}+"]
        case _:
            return []


def _pick(port: ServicePort, endpoints: tuple[Endpoint, ...]) -> list[str]:
    chosen = [n.endpoint_chain(port.name, str(endpoint)) for endpoint in endpoints]
    rules = []
    if port.affinity_timeout_s:
        recent = f"--rcheck --seconds {port.affinity_timeout_s} --reap --rsource"
        rules += [f"-m recent --name {chain} {recent} -j {chain}" for chain in chosen]
    for index, chain in enumerate(chosen):
        left = len(chosen) - index
        odds = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
        rules.append(f"{odds}-j {chain}")
    return rules


def _endpoint_rules(port: ServicePort, endpoint: Endpoint) -> tuple[str, ...]:
    proto = port.protocol.lower()
    remember = f"-m recent --name {n.endpoint_chain(port.name, str(endpoint))} --set --rsource "
    return (
        f"-s {endpoint.ip} {MARK}",
        f"-p {proto} {remember if port.affinity_timeout_s else ''}-m {proto} -j DNAT --to-destination {endpoint}",
    )


def compile_port(port: ServicePort, choice: EndpointChoice, config: NodeConfig) -> Fragment:
    """`choice` is what `topology.categorize` says of the service port's endpoints on this node."""
    out = Fragment()
    proto, name = port.protocol.lower(), port.name
    cluster, local = n.port_chain("SVC", name), n.port_chain("SVL", name)
    refusal = "-j DROP" if choice.has_any else "-j REJECT"
    for endpoint in choice.reachable:
        out.chains[n.endpoint_chain(name, str(endpoint))] = _endpoint_rules(port, endpoint)
    to_cluster_ip = f"-d {port.cluster_ip} -p {proto} -m {proto} --dport {port.port}"
    if config.masquerade_all:
        masquerade = [f"{to_cluster_ip} {MARK}"]
    else:
        masquerade = [f"{to_cluster_ip} {match} {MARK}" for match in local_match(config, inverted=True)[:1]]
    if choice.cluster:
        out.chains[cluster] = (*masquerade, *_pick(port, choice.cluster))
    if choice.local:
        out.chains[local] = (*masquerade, *_pick(port, choice.local))
    internal, internal_chain = (choice.local, local) if port.internal_policy_local else (choice.cluster, cluster)
    if internal:
        out.services.append(f"{to_cluster_ip} -j {internal_chain}")
    else:
        out.refuse_internal.append(f"{to_cluster_ip} {refusal}")
    if port.externally_reachable:
        _external(out, port, choice, config, refusal)
    return out


def _external(out: Fragment, port: ServicePort, choice: EndpointChoice, config: NodeConfig, refusal: str) -> None:
    proto, external = port.protocol.lower(), n.port_chain("EXT", port.name)
    cluster, local = n.port_chain("SVC", port.name), n.port_chain("SVL", port.name)
    rules: list[str] = []
    if not port.external_policy_local:
        if choice.cluster:
            rules = [MARK, f"-j {cluster}"]
    else:
        if choice.cluster:
            rules += [f"{match} -j {cluster}" for match in local_match(config)]
            rules += [f"-m addrtype --src-type LOCAL {tail}" for tail in (MARK, f"-j {cluster}")]
        if choice.local:
            rules.append(f"-j {local}")
    if rules:
        out.chains[external] = tuple(rules)
    refused = not (choice.local if port.external_policy_local else choice.cluster)
    at = f"-p {proto} -m {proto} --dport"
    guarded = bool(port.source_ranges)
    for ip in port.external_vips:
        target = f"-d {ip} {at} {port.port}"
        firewall = guarded and ip in port.load_balancer_ips
        if rules:
            out.services.append(f"{target} -j {n.port_chain('FW', port.name) if firewall else external}")
        if firewall:
            out.firewall.append(f"{target} -j DROP")
        if refused:
            out.refuse_external.append(f"{target} {refusal}")
    if rules and guarded and port.load_balancer_ips:
        allowed = list(port.source_ranges)
        if any(contains(cidr, ip) for cidr in port.source_ranges for ip in config.primary_ips):
            allowed += port.load_balancer_ips
        out.chains[n.port_chain("FW", port.name)] = tuple(f"-s {source} -j {external}" for source in allowed)
    if port.node_port:
        if rules:
            out.nodeports.append(f"{at} {port.node_port} -j {external}")
        if refused:
            out.refuse_external.append(f"-m addrtype --dst-type LOCAL {at} {port.node_port} {refusal}")
