"""What becomes of a connection on a node: the desired outcome, the kernel's, and whether they agree.  Pure.

The oracle says what ought to happen; a plane's trace what the live kernel state does.  The words for why are
derived from the desired state, never from the kernel's.
"""

from collections.abc import Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from svcplane.base.errors import ConfigError
from svcplane.base.net import canonical_ip, join_host_port
from svcplane.proxy import oracle
from svcplane.proxy.model import Endpoint, Origin, Outcome, Packet, Protocol, ProxyState, ServicePort, Verdict
from svcplane.proxy.oracle import Frontend, ModeTraits, decide, frontend_of, is_local_pod, source_allowed
from svcplane.proxy.topology import categorize, usable
from svcplane.understand.finding import Finding, Severity, worst_first
from svcplane.understand.foreign import Connection, Drop


def traits_of(mode: str) -> ModeTraits:
    """What is no defect in a mode; of an unknown one, the common ground."""
    traits = getattr(oracle, mode.upper(), None)
    return traits if isinstance(traits, ModeTraits) else ModeTraits()


@dataclass(frozen=True, slots=True)
class Share:
    """An endpoint a new connection may get.  `probability` is 0 to 1; `sees`: whose address the Pod sees."""

    endpoint: str
    pod: str
    node: str
    probability: float
    sees: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """A rule that is not the proxy's and drops or rejects (`verb`) the way to an endpoint; `sure`: else it may."""

    endpoint: str
    verb: str
    hook: str
    family: str
    table: str
    chain: str
    rule: str
    sure: bool


@dataclass(frozen=True, slots=True)
class Trace:
    """`expected`: the oracle's outcomes; `live`: the kernel's, None where they could not be read (`unread`).

    `verdict` is what becomes of the packet, by the live rules where they were read and by everybody else's where
    `blocked` tells of them.
    """

    source: str
    client: str
    destination: str
    mode: str
    service: str
    by: str
    verdict: str
    why: str
    shares: tuple[Share, ...]
    passed_over: tuple[tuple[str, str], ...]  # (endpoint, why it gets nothing)
    expected: tuple[Outcome, ...]
    live: tuple[Outcome, ...] | None
    way: tuple[tuple[str, ...], ...]
    agree: bool | None
    findings: tuple[Finding, ...]
    unread: str = ""
    blocked: tuple[Blocked, ...] = ()


def ways(found: Trace, *, own: bool, local: Container[str], iifname: str, oifname: str) -> Iterator[Connection]:
    """The connections a trace leads to: to each endpoint, or to the destination itself where nothing translates.

    `local`: addresses of this node; `oifname`: the interface towards the first of them.
    """
    ip, port, protocol = destination(found.destination)
    ends = [destination(share.endpoint)[:2] for share in found.shares]
    if not ends and found.verdict == Verdict.PASS:
        ends = [(ip, port)]
    for host, number in ends:
        yield Connection(found.client, ip, port, host, number, protocol.lower(), own, host in local, iifname, oifname)


def with_drops(found: Trace, drops: Sequence[tuple[Connection, Drop]], findings: Iterable[Finding]) -> Trace:
    """A trace with what other people's rules do to it: they have the last word on the verdict."""
    blocked = [
        Blocked(
            join_host_port(way.endpoint, way.endpoint_port),
            drop.verb.value,
            drop.hook,
            drop.chain.family,
            drop.chain.table,
            drop.chain.name,
            drop.rule,
            drop.sure,
        )
        for way, drop in drops
    ]
    first: dict[str, Drop] = {}
    for way, drop in drops:
        if drop.sure:
            first.setdefault(join_host_port(way.endpoint, way.endpoint_port), drop)
    ends = [share.endpoint for share in found.shares] or [found.destination.rpartition("/")[0]]
    left = [end for end in ends if end not in first]
    verdict, why = found.verdict, found.why
    if first:
        verbs = {drop.verb.value for drop in first.values()} | ({found.verdict} if left else set())
        verdict = ", ".join(sorted(verbs))
        which = f"to {len(first)} of {len(ends)} endpoints " if left else ""
        why = f"{which}by a rule that is not svcplane's, {next(iter(first.values()))}; without it: {found.why}"
    return replace(
        found,
        verdict=verdict,
        why=why,
        blocked=tuple(blocked),
        findings=worst_first([*findings, *found.findings]),
    )


def destination(text: str) -> tuple[str, int, Protocol]:
    """`IP:PORT[/PROTOCOL]`, IPv6 in brackets; the host may be anything for callers to look up.  Raises ConfigError."""
    where, slash, protocol = text.partition("/") if not text.startswith("svc/") else _service_form(text)
    host, colon, port = where.rpartition(":")
    wanted = protocol.upper() if slash else "TCP"
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536 or wanted not in set(Protocol):
        raise ConfigError(f"{text}: must be IP:PORT or svc/NAME:PORT, with /udp or /sctp where it is not TCP")
    bare = host.removeprefix("[").removesuffix("]")
    if ":" in bare and not host.startswith("["):
        raise ConfigError(f"{text}: put an IPv6 address in brackets, [{bare}]:{port}")
    return canonical_ip(bare) or bare, int(port), Protocol(wanted)


def _service_form(text: str) -> tuple[str, str, str]:
    head, slash, protocol = text.removeprefix("svc/").partition("/")
    return f"svc/{head}", slash, protocol


def trace(
    state: ProxyState,
    packet: Packet,
    mode: str,
    traits: ModeTraits,
    *,
    source: str,
    live: tuple[frozenset[Outcome], Sequence[str]] | None,
    unread: str = "",
) -> Trace:
    """`live`: what the plane's trace gave, `unread` why it is None.  `source`: the packet's source for people."""
    expected = decide(state, packet, traits)
    outcomes = live[0] if live is not None else expected
    front = frontend_of(state, packet, traits)
    agree = None if live is None else live[0] == expected
    why = _why(state, packet, traits, front, expected)
    findings = list(_findings(state, packet, mode, front, expected, outcomes, agree, why))
    return Trace(
        source=source,
        client=packet.src,
        destination=f"{join_host_port(packet.dst, packet.dport)}/{packet.protocol}",
        mode=mode,
        service=str(front.port.name) if front else "",
        by=_by(front, packet) if front else "",
        verdict=_verdict(outcomes),
        why=why,
        shares=_shares(state, front, packet, outcomes),
        passed_over=_passed_over(state, front, outcomes),
        expected=tuple(sorted(expected)),
        live=tuple(sorted(live[0])) if live is not None else None,
        way=tuple(tuple(way.split(" -> ")) for way in live[1]) if live is not None else (),
        agree=agree,
        findings=tuple(findings),
        unread=unread,
    )


def _verdict(outcomes: Iterable[Outcome]) -> str:
    return ", ".join(sorted({outcome.verdict.value for outcome in outcomes}))


def _by(front: Frontend, packet: Packet) -> str:
    if front.cluster_ip:
        return "ClusterIP"
    if front.load_balancer:
        return "load-balancer IP"
    return "external IP" if packet.dst in front.port.external_ips else f"node port {packet.dport}"


def _local_only(front: Frontend) -> bool:
    return front.port.internal_policy_local if front.cluster_ip else front.port.external_policy_local


def _why(
    state: ProxyState, packet: Packet, traits: ModeTraits, front: Frontend | None, expected: frozenset[Outcome]
) -> str:
    """Why the desired verdict is what it is."""
    verdicts = {outcome.verdict for outcome in expected}
    if front is None:
        return _no_service(state, packet, verdicts)
    port = front.port
    if Verdict.DELIVER in verdicts:
        return _why_delivered(state, packet, front)
    if front.load_balancer and not source_allowed(port, state, packet):
        return f"{packet.src} is in none of the loadBalancerSourceRanges ({', '.join(port.source_ranges)})"
    endpoints = state.endpoints.get(port.name, ())
    if _local_only(front) and categorize(port, endpoints, state.node).has_any:
        kind = "internal" if front.cluster_ip else "external"
        return f"{kind}TrafficPolicy Local, and no usable endpoint is on node {state.node.name}"
    if not endpoints:
        return f"{port.name} has no endpoint at all"
    return f"none of the {len(endpoints)} endpoints of {port.name} is ready"


def _no_service(state: ProxyState, packet: Packet, verdicts: set[Verdict]) -> str:
    same = _of_address(state, packet.dst)
    if same:
        known = ", ".join(sorted({f"{port.port}/{port.protocol}" for port in same}))
        owner = f"{same[0].name.namespace}/{same[0].name.name}"
        wanted = f"{packet.dport}/{packet.protocol}"
        return f"{packet.dst} belongs to Service {owner}, which has no port {wanted}: it has {known}"
    ports = [port for port in state.services.values() if port.node_port == packet.dport]
    here = packet.dst in state.node.local_addresses
    if ports and here:
        silent = f"{packet.dport} is the node port of {ports[0].name}, but node ports do not answer on {packet.dst}"
        return (
            silent
            if verdicts == {Verdict.PASS}
            else f"{silent}; while no endpoint here serves it, it is refused there too"
        )
    if Verdict.DROP in verdicts:
        return f"{packet.dst} is in the Service range, and no Service has it"
    if ports:
        return f"{packet.dport} is the node port of {ports[0].name}, but {packet.dst} is no address of this node"
    return "no Service has this address and port: the packet goes on untouched"


def _of_address(state: ProxyState, ip: str) -> list[ServicePort]:
    """The service ports that have an address of their own."""
    return [port for port in state.services.values() if ip in (port.cluster_ip, *port.external_vips)]


def _why_delivered(state: ProxyState, packet: Packet, front: Frontend) -> str:
    port = front.port
    endpoints = state.endpoints.get(port.name, ())
    choice = categorize(port, endpoints, state.node)
    if port.affinity_timeout_s and packet.remembered:
        in_use = any(str(endpoint) == packet.remembered for endpoint in choice.reachable)
        if in_use:
            return f"session affinity: {packet.src} sticks to {packet.remembered}"
        return f"session affinity remembers {packet.remembered}, which is in use no more: another is chosen"
    if not any(endpoint.ready for endpoint in endpoints):
        return "no endpoint is ready: those that terminate and still serve are used"
    if _local_only(front):
        if is_local_pod(state.config, packet) and not front.cluster_ip:
            return "policy Local does not bind Pods of the cluster: every endpoint is used"
        return "policy Local: endpoints of this node"
    hinted = len(choice.cluster) < sum(1 for endpoint in endpoints if endpoint.ready)
    return "by topology hints: endpoints near this node" if hinted else "one of all ready endpoints"


def _shares(
    state: ProxyState, front: Frontend | None, packet: Packet, outcomes: frozenset[Outcome]
) -> tuple[Share, ...]:
    chosen = sorted(outcome for outcome in outcomes if outcome.verdict is Verdict.DELIVER)
    known = {str(endpoint): endpoint for endpoint in _endpoints(state, front)}
    found = []
    for outcome in chosen:
        endpoint = known.get(outcome.endpoint)
        sees = "this node's address" if outcome.masqueraded else f"the client's address, {packet.src}"
        pod, node = (endpoint.pod, endpoint.node_name) if endpoint else ("unknown to the desired state", "")
        found.append(Share(outcome.endpoint, pod, node, 1 / len(chosen), sees))
    return tuple(found)


def _endpoints(state: ProxyState, front: Frontend | None) -> tuple[Endpoint, ...]:
    return state.endpoints.get(front.port.name, ()) if front else ()


def _passed_over(
    state: ProxyState, front: Frontend | None, outcomes: frozenset[Outcome]
) -> tuple[tuple[str, str], ...]:
    used = {outcome.endpoint for outcome in outcomes}
    found = []
    for endpoint in _endpoints(state, front):
        if str(endpoint) in used or front is None:
            continue
        found.append((str(endpoint), _unused(state, front, endpoint)))
    return tuple(found)


def _unused(state: ProxyState, front: Frontend, endpoint: Endpoint) -> str:
    port: ServicePort = front.port
    if endpoint.terminating:
        return "terminating"
    if not endpoint.ready:
        return "not ready"
    if _local_only(front) and not endpoint.is_local:
        return f"on node {endpoint.node_name}, and the policy is Local"
    cluster = categorize(port, state.endpoints.get(port.name, ()), state.node).cluster
    if endpoint not in cluster and endpoint in usable(state.endpoints.get(port.name, ())):
        return f"hinted for {', '.join(endpoint.zone_hints or endpoint.node_hints) or 'elsewhere'}"
    return "affinity holds another"


def _findings(
    state: ProxyState,
    packet: Packet,
    mode: str,
    front: Frontend | None,
    expected: frozenset[Outcome],
    outcomes: frozenset[Outcome],
    agree: bool | None,
    why: str,
) -> Iterable[Finding]:
    subject = str(front.port.name) if front else join_host_port(packet.dst, packet.dport)
    if agree is False:
        text = f"the kernel would {_verdict(outcomes)}, the desired state is {_verdict(expected)}"
        if _verdict(outcomes) == _verdict(expected):
            text = f"the kernel would {_verdict(outcomes)} otherwise than desired: {_difference(expected, outcomes)}"
        nothing = {outcome.verdict for outcome in outcomes} == {Verdict.PASS}
        remedy = f"see what a repair would do: svcplane plan --drift --proxy-mode {mode}"
        if nothing:
            text += "; this node has no rules for it"
            remedy = "check that the proxy runs on this node, in this mode (svcplane doctor)"
        yield Finding("kernel-differs", Severity.PROBLEM, subject, text, remedy)
    verdicts = {outcome.verdict for outcome in expected}
    if verdicts & {Verdict.DROP, Verdict.REJECT}:
        text = f"connections are {'dropped' if Verdict.DROP in verdicts else 'refused'}, as they must be: {why}"
        remedy = "check the address and the port"
        if front:
            remedy = f"svcplane explain svc/{front.port.name.name} -n {front.port.name.namespace}"
        yield Finding("refused-as-desired", Severity.PROBLEM, subject, text, remedy)
    if verdicts == {Verdict.PASS}:
        text = f"the proxy does nothing with it: {why}"
        severity = Severity.PROBLEM if _of_address(state, packet.dst) else Severity.WARNING
        yield Finding("not-a-service", severity, subject, text, "check the address and the port")


def _difference(expected: frozenset[Outcome], live: frozenset[Outcome]) -> str:
    def names(outcomes: Iterable[Outcome]) -> str:
        return ", ".join(o.endpoint + (" (masqueraded)" if o.masqueraded else "") for o in sorted(outcomes))

    lacking, extra = expected - live, live - expected
    parts = [f"lacking {names(lacking)}"] if lacking else []
    return "; ".join([*parts, *([f"beyond that {names(extra)}"] if extra else [])])


def origin_of(ip: str, state: ProxyState, pod_node: str) -> Origin:
    """Where a source is seen from this node.  `pod_node`: the node of the Pod that has the address, or empty."""
    if ip in state.node.local_addresses:
        return Origin.NODE
    return Origin.POD if pod_node and pod_node == state.node.name else Origin.OUTSIDE
