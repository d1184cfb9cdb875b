"""Tracked flows -> connections and bytes of each Service port and endpoint.  Pure."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from svcplane.base.net import canonical_ip, join_host_port
from svcplane.kernel.conntrack.text import Counted, Entry
from svcplane.proxy.model import ProxyState, ServicePortName
from svcplane.proxy.plane import Relayed, RelayedConnection

#: States of TCP in which nothing more is sent.
OVER = frozenset({"TIME_WAIT", "CLOSE", "CLOSE_WAIT", "LAST_ACK"})


@dataclass(frozen=True, slots=True)
class Row:
    """Of a Service port, or of one of its endpoints.  Bytes a second are None where the kernel does not count.

    `aside_s`: how long the relay of userspace mode chooses others, because this endpoint did not answer.
    """

    service: str
    endpoint: str
    pod: str
    new_per_s: float
    active: int
    sent_per_s: float | None
    received_per_s: float | None
    aside_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Connection:
    """One open connection, or flow of datagrams, with its bytes so far; times are None where nobody keeps them."""

    service: str
    client: str
    endpoint: str
    pod: str
    age_s: float | None
    idle_s: float | None
    sent: int | None
    received: int | None


class Frontends:
    """Whose address and port a flow was sent to."""

    def __init__(self, states: Iterable[ProxyState]) -> None:
        self._by_address: dict[tuple[str, str, int], ServicePortName] = {}
        self._by_port: dict[tuple[str, int], ServicePortName] = {}
        self.pods: dict[str, str] = {}
        for state in states:
            for name, port in state.services.items():
                protocol = name.protocol.lower()
                for ip in (port.cluster_ip, *port.external_vips):
                    self._by_address[protocol, ip, port.port] = name
                if port.node_port:
                    self._by_port[protocol, port.node_port] = name
                self.pods.update((str(endpoint), endpoint.pod) for endpoint in state.endpoints.get(name, ()))

    def service_of(self, protocol: str, entry: Entry) -> ServicePortName | None:
        name = self._by_address.get((protocol, canonical_ip(entry.dst) or entry.dst, entry.dport))
        if name is None and (entry.dst, entry.dport) != (entry.reply_src, entry.reply_sport):
            name = self._by_port.get((protocol, entry.dport))
        return name


def rows(
    frontends: Frontends, before: Iterable[Counted], after: Iterable[Counted], new: Iterable[Counted], seconds: float
) -> tuple[Row, ...]:
    """Two looks at the flows, and those that began in the `seconds` between.  The busiest Service port first, each
    followed by its endpoints."""
    earlier = {flow.key: flow for flow in before}
    begun, active = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    sent, received = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
    counts = False
    for flow in new:
        begun.update(_places(frontends, flow))
    for flow in after:
        places = _places(frontends, flow)
        if flow.state not in OVER:
            active.update(places)
        if flow.sent is None or flow.received is None:
            continue
        counts = True
        old = earlier.get(flow.key)
        # a port may be used again: counters that fell are of another flow
        old_sent, old_received = (old.sent or 0, old.received or 0) if old else (0, 0)
        fresh = flow.sent < old_sent or flow.received < old_received
        for place in places:
            sent[place] += flow.sent - (0 if fresh else old_sent)
            received[place] += flow.received - (0 if fresh else old_received)
    made = [
        Row(
            service,
            endpoint,
            frontends.pods.get(endpoint, ""),
            round(begun[service, endpoint] / seconds, 2),
            active[service, endpoint],
            round(sent[service, endpoint] / seconds, 1) if counts else None,
            round(received[service, endpoint] / seconds, 1) if counts else None,
        )
        for service, endpoint in {*begun, *active, *sent}
    ]
    return _busiest_first(made)


def _places(frontends: Frontends, flow: Counted) -> list[tuple[str, str]]:
    """The Service port (endpoint empty) and the endpoint a flow counts for."""
    name = frontends.service_of(flow.protocol, flow.entry)
    if name is None:
        return []
    ip = canonical_ip(flow.entry.reply_src) or flow.entry.reply_src
    return [(str(name), ""), (str(name), join_host_port(ip, flow.entry.reply_sport))]


def relayed_rows(
    before: Iterable[Relayed], after: Iterable[Relayed], pods: Mapping[str, str], seconds: float
) -> tuple[Row, ...]:
    """Of a relay's own counters, at two looks.  The order is that of `rows`."""
    earlier = {(one.service, one.endpoint): one for one in before}
    counts: dict[tuple[str, str], list[int]] = {}
    aside: dict[tuple[str, str], float] = {}
    for one in after:
        old = earlier.get((one.service, one.endpoint))
        # a worker that was started anew counts from nothing again
        base = old if old is not None and old.connections <= one.connections else None
        passed = (
            one.connections - (base.connections if base else 0),
            one.active,
            max(0, one.to_endpoint - (base.to_endpoint if base else 0)),
            max(0, one.to_client - (base.to_client if base else 0)),
        )
        if one.aside_s:
            aside[str(one.service), one.endpoint] = one.aside_s
        elif not any(passed):
            continue
        for place in ((str(one.service), ""), (str(one.service), one.endpoint)):
            total = counts.setdefault(place, [0, 0, 0, 0])
            for index, value in enumerate(passed):
                total[index] += value
    made = [
        Row(
            service,
            endpoint,
            pods.get(endpoint, ""),
            round(new / seconds, 2),
            active,
            round(sent / seconds, 1),
            round(received / seconds, 1),
            aside.get((service, endpoint), 0.0),
        )
        for (service, endpoint), (new, active, sent, received) in counts.items()
    ]
    return _busiest_first(made)


def connections(frontends: Frontends, flows: Iterable[Counted]) -> tuple[Connection, ...]:
    """Of Services, as the kernel tracks them."""
    found = []
    for flow in flows:
        name = frontends.service_of(flow.protocol, flow.entry) if flow.state not in OVER else None
        if name is None:
            continue
        ip = canonical_ip(flow.entry.reply_src) or flow.entry.reply_src
        endpoint = join_host_port(ip, flow.entry.reply_sport)
        client = join_host_port(canonical_ip(flow.entry.src) or flow.entry.src, flow.entry.sport)
        pod = frontends.pods.get(endpoint, "")
        found.append(Connection(str(name), client, endpoint, pod, None, None, flow.sent, flow.received))
    return _in_order(found)


def relayed_connections(relayed: Iterable[RelayedConnection], pods: Mapping[str, str]) -> tuple[Connection, ...]:
    """Of a relay's own knowledge."""
    return _in_order(
        Connection(
            str(one.service),
            one.client,
            one.endpoint,
            pods.get(one.endpoint, ""),
            one.age_s,
            one.idle_s,
            one.to_endpoint,
            one.to_client,
        )
        for one in relayed
    )


def _in_order(found: Iterable[Connection]) -> tuple[Connection, ...]:
    return tuple(sorted(found, key=lambda one: (one.service, one.client)))


def _busiest_first(made: Iterable[Row]) -> tuple[Row, ...]:
    found = list(made)
    totals = {row.service: (row.new_per_s, row.active) for row in found if not row.endpoint}
    return tuple(sorted(found, key=lambda row: (tuple(-n for n in totals[row.service]), row.service, row.endpoint)))
