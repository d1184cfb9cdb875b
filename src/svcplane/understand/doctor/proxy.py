"""The proxy of this node: stopped, behind, told a wrong cluster CIDR; flows to endpoints that are gone.  Pure."""

from collections.abc import Iterable

from svcplane.base.net import Family, canonical_ip, contains, family_of, join_host_port
from svcplane.proxy.conntrack import stale
from svcplane.proxy.model import DetectLocal, NodeConfig, ProxyState
from svcplane.proxy.ours import TABLES
from svcplane.understand.doctor.examined import Examined
from svcplane.understand.finding import Finding, Severity


def check(seen: Examined) -> Iterable[Finding]:
    yield from running(seen)
    for family, state in seen.states.items():
        yield from cluster_cidr(seen, family, state.config)
    yield from stale_flows(seen)


def running(seen: Examined) -> Iterable[Finding]:
    if seen.unreachable:
        text = f"does not answer: {seen.unreachable}; rules stay as they are, changes do not arrive"
        yield Finding("api-unreachable", Severity.PROBLEM, "API server", text, "check the server and the way to it")
    if seen.programmed is None:
        tables = any(table in TABLES for _, table in seen.rules.tables)
        chains = seen.mode in ("iptables", "ipvs") and any(
            chain.name == "KUBE-SERVICES" and chain.rules for chain in seen.rules.chains.values()
        )
        left = "its rules are left as they were and follow no change" if tables or chains else "it has no rules here"
        text = f"no svcplane proxy runs on this node: {left}"
        rival = "kube-proxy" in seen.facts.programs
        remedy = "start it: svcplane proxy --kubeconfig FILE; its log tells why it ended"
        severity = Severity.NOTE if rival else Severity.PROBLEM
        yield Finding("proxy-stopped", severity, f"node {seen.node}", text, remedy)
        return
    behind = [name for family, state in seen.states.items() for name in _different(state, seen.programmed.get(family))]
    if behind:
        shown = ", ".join(behind[:3]) + (f" and {len(behind) - 3} more" if len(behind) > 3 else "")
        text = f"the proxy of this node wants something else than the API for {shown}"
        remedy = "look again in a few seconds; where it stays, the proxy's log tells why it hears nothing"
        yield Finding("proxy-behind", Severity.WARNING, f"node {seen.node}", text, remedy)


def _different(desired: ProxyState, programmed: ProxyState | None) -> list[str]:
    if programmed is None:
        return []
    names = {*desired.services, *programmed.services}
    return sorted(
        str(name)
        for name in names
        if desired.services.get(name) != programmed.services.get(name)
        or desired.endpoints.get(name) != programmed.endpoints.get(name)
    )


def cluster_cidr(seen: Examined, family: Family, config: NodeConfig) -> Iterable[Finding]:
    subject = "--cluster-cidr"
    if config.detect_local is DetectLocal.NONE:
        if seen.states[family].endpoints:
            text = (
                f"is not given for {family.api_name}: Pods cannot be told from others, so that connections from outside"
            )
            text += " to ClusterIPs are not masqueraded"
            yield Finding("cluster-cidr-missing", Severity.WARNING, subject, text, "give the proxy --cluster-cidr")
        return
    if config.detect_local not in (DetectLocal.CLUSTER_CIDR, DetectLocal.NODE_CIDR) or not config.local_cidrs:
        return
    shown = ", ".join(config.local_cidrs)
    outside = [f"{ip} ({pod})" for ip, pod in _pods(seen, family) if not _within(config, ip)]
    if outside and config.detect_local is DetectLocal.CLUSTER_CIDR:
        text = f"is {shown}, which does not hold the Pod address {outside[0]}"
        text += f" and {len(outside) - 1} others" if len(outside) > 1 else ""
        text += ": Pods are taken for outsiders and masqueraded, and lose the short cut of externalTrafficPolicy Local"
        remedy = "give the proxy the range the Pods have"
        yield Finding("cluster-cidr-wrong", Severity.PROBLEM, subject, text, remedy)
    nodes = [ip for ip in _node_ips(seen, family) if _within(config, ip)]
    if nodes:
        text = f"is {shown}, which holds the node address {nodes[0]}: clients that are no Pods are taken for Pods and"
        text += " not masqueraded, so that answers from Pods of other nodes never reach them"
        remedy = "give the proxy the range of the Pods alone"
        yield Finding("cluster-cidr-wrong", Severity.PROBLEM, subject, text, remedy)


def _within(config: NodeConfig, ip: str) -> bool:
    return any(contains(cidr, ip) for cidr in config.local_cidrs)


def _pods(seen: Examined, family: Family) -> list[tuple[str, str]]:
    if seen.cluster is None:
        return []
    return [
        (address, f"pod/{pod.metadata.name}")
        for pod in seen.cluster.pods
        if not pod.spec.host_network
        for entry in pod.status.pod_ips
        if (address := canonical_ip(entry.ip)) is not None and family_of(address) is family
    ]


def _node_ips(seen: Examined, family: Family) -> list[str]:
    if seen.cluster is None:
        return list(seen.states[family].config.primary_ips)
    return [
        address
        for node in seen.cluster.nodes
        for entry in node.status.addresses
        if entry.type in ("InternalIP", "ExternalIP")
        and (address := canonical_ip(entry.address)) is not None
        and family_of(address) is family
    ]


def stale_flows(seen: Examined, client: str = "", frontend: tuple[str, int, str] = ("", 0, "")) -> Iterable[Finding]:
    """Of everybody, or of one client to one frontend (address, port, protocol)."""
    for state in seen.states.values():
        for flow in stale(seen.udp_flows, state):
            if client and (flow.src, (flow.dst, flow.dport, flow.protocol)) != (client, frontend):
                continue
            target = join_host_port(flow.reply_src, flow.reply_sport)
            text = f"UDP flow of {join_host_port(flow.src, flow.sport)} to {join_host_port(flow.dst, flow.dport)} goes"
            text += f" to {target}, which is no serving endpoint: its datagrams are lost as long as they keep coming"
            remedy = f"conntrack -D -p udp -s {flow.src} --sport {flow.sport} -d {flow.dst} --dport {flow.dport}"
            yield Finding("stale-udp-flow", Severity.PROBLEM, target, text, remedy)
