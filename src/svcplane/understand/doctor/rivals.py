"""Other proxies on this node, and other people's rules that drop Services' packets.  Pure."""

from collections.abc import Callable, Iterable
from itertools import islice

from svcplane.base.net import Family, join_host_port
from svcplane.kernel.ruleset.objects import ForeignChain, Ruleset
from svcplane.proxy.model import Endpoint, ProxyState, ServicePort
from svcplane.proxy.topology import categorize
from svcplane.understand.doctor.examined import KUBE_PROXYS, Examined
from svcplane.understand.finding import Finding, Severity
from svcplane.understand.foreign import Connection, Drop, drops, stages

#: Enough to find a rule that is in the way; a rule against one Service of thousands is found by `svcplane trace`.
SERVICES, ENDPOINTS = 500, 3


def check(seen: Examined) -> Iterable[Finding]:
    yield from _proxies(seen)
    yield from _drops(seen)
    for problem in seen.rules.unread:
        yield Finding("rules-unread", Severity.WARNING, "rules", f"some could not be read: {problem}", "")


def _proxies(seen: Examined) -> Iterable[Finding]:
    if "kube-proxy" in seen.facts.programs:
        text = "runs in this network namespace beside svcplane: both translate the same packets"
        yield Finding("rival-running", Severity.PROBLEM, "kube-proxy", text, "stop one of them")
    tables = sorted(f"{family} {table}" for family, table in seen.rules.tables if table == KUBE_PROXYS)
    if tables:
        text = f"has rules in nftables table {', '.join(tables)}: they translate what svcplane translates"
        remedy = "stop kube-proxy, then run kube-proxy --cleanup, or nft delete table " + tables[0]
        yield Finding("rival-rules", Severity.PROBLEM, "kube-proxy", text, remedy)
    if seen.mode not in ("iptables", "ipvs"):
        chains = [c for c in seen.rules.chains.values() if c.table.startswith("nat") and c.name == "KUBE-SERVICES"]
        services = [c for c in seen.rules.chains.values() if c.name.startswith("KUBE-SVC-")]
        if any(chain.rules for chain in chains):
            text = f"has iptables rules here (KUBE-SERVICES, {len(services)} KUBE-SVC chains) while svcplane is in mode"
            text += f" {seen.mode}"
            remedy = "stop the other proxy, then svcplane proxy --cleanup, or kube-proxy --cleanup"
            yield Finding("rival-rules", Severity.PROBLEM, "another proxy", text, remedy)
    if seen.mode != "ipvs" and any(link.name == "kube-ipvs0" for link in seen.facts.links):
        text = "holds Services' addresses of a proxy in ipvs mode: this host answers for them itself"
        yield Finding("rival-ipvs", Severity.PROBLEM, "interface kube-ipvs0", text, "ip link delete kube-ipvs0")
    for name in ("cilium_host", "cilium_net"):
        if any(link.name == name for link in seen.facts.links):
            text = "Cilium is on this host; where it replaces kube-proxy, it translates before any rule here"
            yield Finding("rival-cilium", Severity.WARNING, f"interface {name}", text, "cilium status | grep KubeProxy")
            break


def _drops(seen: Examined) -> Iterable[Finding]:
    return _findings(
        (str(port.name), drop)
        for family, state in seen.states.items()
        for port in islice(state.services.values(), SERVICES)
        for drop in _of_port(seen, state, port, _client(state, family))
    )


def _findings(hits: Iterable[tuple[str, Drop]]) -> list[Finding]:
    """One for each rule, with all whom it hits."""
    told: dict[tuple[str, str], tuple[Drop, list[str]]] = {}
    for name, drop in hits:
        _, names = told.setdefault((drop.chain.name + drop.chain.table, drop.rule), (drop, []))
        if name not in names:
            names.append(name)
    return [finding_of(drop, names) for drop, names in told.values()]


def finding_of(drop: Drop, names: list[str]) -> Finding:
    """Names are what is hit: service ports, or a packet."""
    shown = ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    verb = {"drop": "drops", "reject": "rejects"}[drop.verb]
    text = f"a rule that is not svcplane's {verb if drop.sure else f'may {drop.verb}'} packets of {shown}: {drop}"
    remedy = f"ask who owns {drop.chain.family} table {drop.chain.table}; change the rule, or accept these packets"
    severity = Severity.PROBLEM if drop.sure else Severity.WARNING
    return Finding("foreign-rule-drops", severity, f"chain {drop.chain.name}", text, remedy + " before it")


def _client(state: ProxyState, family: Family) -> str:
    """Somebody of the cluster: another node's Pod would look like this."""
    here = [e.ip for group in state.endpoints.values() for e in group if e.is_local]
    there = [e.ip for group in state.endpoints.values() for e in group if not e.is_local]
    fallback = "192.0.2.1" if family is Family.IPV4 else "2001:db8::1"
    return next(iter(here), next(iter(there), fallback))


def _of_port(seen: Examined, state: ProxyState, port: ServicePort, client: str) -> Iterable[Drop]:
    choice = categorize(port, state.endpoints.get(port.name, ()), state.node)
    chosen: tuple[Endpoint, ...] = (choice.cluster or choice.local)[:ENDPOINTS]
    for endpoint in chosen:
        local = endpoint.ip in state.node.local_addresses
        protocol = port.protocol.lower()
        way = Connection(client, port.cluster_ip, port.port, endpoint.ip, endpoint.port, protocol, local=local)
        for stage in stages(way, seen.mode):
            yield from drops(seen.rules, stage, seen.is_ours)


def dropped(
    rules: Ruleset, ways: Iterable[Connection], mode: str, is_ours: Callable[[ForeignChain], bool], *, possible: bool
) -> list[tuple[Connection, Drop]]:
    """Every rule that is not the proxy's and drops a connection on its way; with `possible` also those that may.

    Of answers only what is sure is told: the client's port, which decides much of theirs, is not known.
    """
    return [
        (way, drop)
        for way in ways
        for stage in stages(way, mode)
        for drop in drops(rules, stage, is_ours, possible=possible and stage.packet.state == "new")
    ]


def drop_findings(found: Iterable[tuple[Connection, Drop]]) -> list[Finding]:
    """One for each rule, with the connections that it hits."""
    return _findings(
        (f"{way.client} to {join_host_port(way.endpoint, way.endpoint_port)}", drop) for way, drop in found
    )
