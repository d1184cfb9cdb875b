"""One service port and its usable endpoints -> its chains of the nat table, and its rules in the dispatch trees.  Pure.

Rules are in the spelling of iptables-save, so that what is read back can be compared with what was written.
An endpoint is one rule of its service port's chain: the choice, the memory of the client and the translation in one.
Source: kube-proxy 1.36 iptables mode, for what the rules do.
"""

import ipaddress
from dataclasses import dataclass, field

from svcplane.base.net import Family, contains, family_of
from svcplane.kernel.iptables.text import Rules, odds, quoted
from svcplane.proxy.model import DetectLocal, Endpoint, NodeConfig, ServicePort
from svcplane.proxy.planes.iptables import names as n
from svcplane.proxy.topology import EndpointChoice

MARK = "-j KUBE-MARK-MASQ"


@dataclass(frozen=True, slots=True)
class Front:
    """A rule of a dispatch tree: `tree` as in `layout.TREES`, `key` an address or a port number."""

    tree: str
    key: int
    rule: str


@dataclass(slots=True)
class Fragment:
    """What one service port needs."""

    chains: dict[str, Rules] = field(default_factory=dict)  # table nat
    fronts: list[Front] = field(default_factory=list)


def single(ip: str) -> str:
    """An address as iptables-save prints it."""
    return f"{ip}/32" if family_of(ip) is Family.IPV4 else f"{ip}/128"


def local_match(config: NodeConfig, *, inverted: bool = False) -> list[str]:
    """Matches of packets from Pods, one rule each; inverted, there is one at most."""
    mark = "! " if inverted else ""
    match config.detect_local:
        case DetectLocal.CLUSTER_CIDR | DetectLocal.NODE_CIDR:
            found = [f"{mark}-s {cidr} " for cidr in config.local_cidrs]
        case DetectLocal.BRIDGE_INTERFACE if config.local_interface:
            found = [f"{mark}-i {config.local_interface} "]
        case DetectLocal.INTERFACE_NAME_PREFIX if config.local_interface:
            found = [f"{mark}-i {config.local_interface}+ "]
        case _:
            found = []
    return found[:1] if inverted else found


def compile_port(port: ServicePort, choice: EndpointChoice, config: NodeConfig) -> Fragment:
    """`choice` is what `topology.categorize` says of the service port's endpoints on this node."""
    out = Fragment()
    name = port.name
    cluster = n.port_chain("SVC", name)
    local = n.port_chain("SVL", name) if choice.local or port.uses_local_endpoints else ""
    masquerade = _masquerade(port, config)
    if choice.cluster:
        out.chains[cluster] = (*masquerade, *_choose(port, choice.cluster, config.family))
    if choice.local:
        out.chains[local] = (*masquerade, *_choose(port, choice.local, config.family))
    endpoints, chain = (choice.local, local) if port.internal_policy_local else (choice.cluster, cluster)
    key = int(ipaddress.ip_address(port.cluster_ip))
    if endpoints:
        out.fronts.append(Front("services", key, _at(port, port.cluster_ip, "cluster IP", f"-j {chain}")))
    else:
        rule = _at(port, port.cluster_ip, _lack(choice), _refusal(choice, config.family))
        out.fronts.append(Front("refuse-internal", key, rule))
    if port.externally_reachable:
        _external(out, port, choice, config)
    _hairpins(out, port, choice)
    if port.health_check_node_port:
        number = port.health_check_node_port
        text = quoted(f"{name} health check node port")
        rule = f"-p tcp -m comment --comment {text} -m tcp --dport {number} -j ACCEPT"
        out.fronts.append(Front("health", number, rule))
    return out


def _at(port: ServicePort, ip: str, what: str, then: str) -> str:
    proto = port.protocol.lower()
    text = quoted(f"{port.name} {what}")
    return f"-d {single(ip)} -p {proto} -m comment --comment {text} -m {proto} --dport {port.port} {then}"


def _masquerade(port: ServicePort, config: NodeConfig) -> tuple[str, ...]:
    at = f"-d {single(port.cluster_ip)} "
    if config.masquerade_all:
        return (f"{at}{MARK}",)
    # iptables-save prints -s before -d, and -i after both
    before = config.detect_local in (DetectLocal.CLUSTER_CIDR, DetectLocal.NODE_CIDR)
    found = local_match(config, inverted=True)
    return tuple(f"{match}{at}{MARK}" if before else f"{at}{match}{MARK}" for match in found)


def _choose(port: ServicePort, endpoints: tuple[Endpoint, ...], family: Family) -> list[str]:
    proto = port.protocol.lower()
    targets = [f"-j DNAT --to-destination {endpoint}" for endpoint in endpoints]
    if not port.affinity_timeout_s:
        chances = (odds(index, len(targets)) for index in range(len(targets) - 1))
        return [f"-p {proto} {chance}{target}" for chance, target in zip([*chances, ""], targets, strict=True)]
    mask = "255.255.255.255" if family is Family.IPV4 else "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
    lists = [f"--name {n.endpoint_list(port.name, str(endpoint))} --mask {mask} --rsource " for endpoint in endpoints]
    check = f"-m recent --update --seconds {port.affinity_timeout_s} --reap "
    rules = [f"-p {proto} {check}{kept}{target}" for kept, target in zip(lists, targets, strict=True)]
    for index, (kept, target) in enumerate(zip(lists, targets, strict=True)):
        chance = odds(index, len(targets)) if index < len(targets) - 1 else ""
        rules.append(f"-p {proto} {chance}-m recent --set {kept}{target}")
    return rules


def _lack(choice: EndpointChoice) -> str:
    return "has no local endpoints" if choice.has_any else "has no endpoints"


def _refusal(choice: EndpointChoice, family: Family) -> str:
    if choice.has_any:
        return "-j DROP"
    return f"-j REJECT --reject-with {'icmp' if family is Family.IPV4 else 'icmp6'}-port-unreachable"


def _external(out: Fragment, port: ServicePort, choice: EndpointChoice, config: NodeConfig) -> None:
    name, external = port.name, n.port_chain("EXT", port.name)
    rules = _external_rules(port, choice, config)
    if rules:
        out.chains[external] = rules
    refused = not (choice.local if port.external_policy_local else choice.cluster)
    refusal = _refusal(choice, config.family)
    for ip in port.external_vips:
        key = int(ipaddress.ip_address(ip))
        balanced = ip in port.load_balancer_ips
        firewall = bool(port.source_ranges) and balanced
        what = "loadbalancer IP" if balanced else "external IP"
        if rules:
            chain = n.port_chain("FW", name) if firewall else external
            out.fronts.append(Front("services", key, _at(port, ip, what, f"-j {chain}")))
        if rules and firewall:
            denied = _at(port, ip, f"traffic not accepted by {n.port_chain('FW', name)}", "-j DROP")
            out.fronts.append(Front("firewall", key, denied))
        if refused:
            out.fronts.append(Front("refuse-external", key, _at(port, ip, _lack(choice), refusal)))
    if rules and port.source_ranges and port.load_balancer_ips:
        out.chains[n.port_chain("FW", name)] = _firewall(port, config, external)
    if port.node_port:
        proto = port.protocol.lower()
        for wanted, tree, what, then in (
            (bool(rules), "nodeports", "node port", f"-j {external}"),
            (refused, "refuse-nodeports", _lack(choice), refusal),
        ):
            if wanted:
                text = quoted(f"{name} {what}")
                rule = f"-p {proto} -m comment --comment {text} -m {proto} --dport {port.node_port} {then}"
                out.fronts.append(Front(f"{tree}-{proto}", port.node_port, rule))


def _external_rules(port: ServicePort, choice: EndpointChoice, config: NodeConfig) -> Rules:
    cluster, local = n.port_chain("SVC", port.name), n.port_chain("SVL", port.name)
    if not port.external_policy_local:
        return (MARK, f"-j {cluster}") if choice.cluster else ()
    rules: list[str] = []
    if choice.cluster:
        # from inside the cluster every endpoint serves: the sender could reach it by the ClusterIP as well
        rules += [f"{match}-j {cluster}" for match in local_match(config)]
        rules += [f"-m addrtype --src-type LOCAL {then}" for then in (MARK, f"-j {cluster}")]
    if choice.local:
        rules.append(f"-j {local}")
    return tuple(rules)


def _firewall(port: ServicePort, config: NodeConfig, external: str) -> Rules:
    """Sources that may pass; what comes back from here is dropped by table filter."""
    allowed = list(port.source_ranges)
    if any(contains(cidr, ip) for cidr in port.source_ranges for ip in config.primary_ips):
        # the node reaching an address bound to itself has that address as its source
        allowed += [single(ip) for ip in port.load_balancer_ips]
    # iptables-save leaves out a source that is everywhere
    return tuple(f"-j {external}" if cidr.endswith("/0") else f"-s {cidr} -j {external}" for cidr in allowed)


def _hairpins(out: Fragment, port: ServicePort, choice: EndpointChoice) -> None:
    """Endpoints that may be chosen for themselves: the answer must come back through this node.

    By the short cut of policy Local also those of other nodes: their Pod may call this node's node port.
    """
    short_cut = port.external_policy_local and port.externally_reachable
    for ip in {endpoint.ip for endpoint in choice.reachable if endpoint.is_local or short_cut}:
        at = single(ip)
        rule = f"-s {at} -d {at} -m conntrack --ctstate DNAT -j MASQUERADE --random-fully"
        out.fronts.append(Front("hairpin", int(ipaddress.ip_address(ip)), rule))
