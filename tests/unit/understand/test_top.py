"""Flows as connections and bytes of Services."""

from dataclasses import replace

from svcplane.base.net import Family
from svcplane.kernel.conntrack.text import Counted, parse_counted
from svcplane.proxy.model import (
    Endpoint,
    NodeConfig,
    NodeState,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
)
from svcplane.proxy.plane import Relayed, RelayedConnection
from svcplane.understand.top import Connection, Frontends, Row, connections, relayed_connections, relayed_rows, rows

NAME = ServicePortName("shop", "web", "http", Protocol.TCP)
STATE = ProxyState(
    NodeConfig("node1", Family.IPV4),
    NodeState("node1"),
    {NAME: ServicePort(NAME, "10.96.0.10", 80, node_port=30080)},
    {NAME: (Endpoint("10.244.1.5", 8080, pod="shop/web-1"),)},
)
LIST = """
tcp      6 431999 ESTABLISHED src=10.244.1.9 dst=10.96.0.10 sport=4000 dport=80 packets=6 bytes=398 \
src=10.244.1.5 dst=10.244.1.9 sport=8080 dport=4000 packets=6 bytes=1627 [ASSURED] mark=0 use=1
tcp      6 100 TIME_WAIT src=10.244.1.9 dst=172.30.0.11 sport=4001 dport=30080 packets=6 bytes=100 \
src=10.244.1.5 dst=172.30.0.11 sport=8080 dport=4001 packets=6 bytes=200 [ASSURED] mark=0 use=1
tcp      6 431999 ESTABLISHED src=10.0.0.1 dst=10.0.0.2 sport=1 dport=22 packets=1 bytes=1 \
src=10.0.0.2 dst=10.0.0.1 sport=22 dport=1 packets=1 bytes=1 mark=0 use=1
icmp     1 29 src=10.0.0.1 dst=10.0.0.2 type=8 code=0 id=1 src=10.0.0.2 dst=10.0.0.1 type=0 code=0 id=1
"""
NEW = (
    "    [NEW] tcp      6 120 SYN_SENT src=10.244.1.9 dst=10.96.0.10 sport=4002 dport=80 [UNREPLIED] "
    "src=10.244.1.5 dst=10.244.1.9 sport=8080 dport=4002\n"
)


def test_lines_of_both_kinds_are_read() -> None:
    found = parse_counted(LIST)
    assert [(flow.protocol, flow.state, flow.sent, flow.received) for flow in found] == [
        ("tcp", "ESTABLISHED", 398, 1627),
        ("tcp", "TIME_WAIT", 100, 200),
        ("tcp", "ESTABLISHED", 1, 1),
    ]
    event = parse_counted(NEW)[0]
    assert (event.state, event.sent, event.entry.reply_sport) == ("SYN_SENT", None, 8080)


def test_rows_tell_rates_of_services_and_endpoints() -> None:
    after = parse_counted(LIST)
    before = [replace(after[0], sent=198, received=627)]
    found = rows(Frontends([STATE]), before, after, parse_counted(NEW * 4), 2.0)
    expected = (2.0, 1, 150.0, 600.0)
    assert found == (
        Row("shop/web:http", "", "", *expected),
        Row("shop/web:http", "10.244.1.5:8080", "shop/web-1", *expected),
    )


def test_a_port_that_is_used_again_does_not_count_backwards() -> None:
    after = parse_counted(LIST)[:1]
    before = [replace(after[0], sent=9999, received=9999)]
    assert rows(Frontends([STATE]), before, after, (), 1.0)[0].sent_per_s == 398.0


def test_without_accounting_bytes_are_unknown() -> None:
    silent: list[Counted] = [replace(flow, sent=None, received=None) for flow in parse_counted(LIST)]
    assert {row.sent_per_s for row in rows(Frontends([STATE]), silent, silent, (), 1.0)} == {None}


def test_endpoint_that_the_relay_sets_aside_is_told_of_even_without_traffic() -> None:
    endpoint = "10.244.1.5:8080"
    quiet = [Relayed(NAME, endpoint, 0, 3, 10, 20)]
    assert relayed_rows(quiet, quiet, {}, 1.0) == ()
    aside = [Relayed(NAME, endpoint, 0, 3, 10, 20, aside_s=4.5)]
    found = relayed_rows(quiet, aside, {endpoint: "shop/web-1"}, 1.0)
    assert found[-1] == Row("shop/web:http", endpoint, "shop/web-1", 0, 0, 0, 0, aside_s=4.5)


def test_each_open_connection_of_a_service_is_listed() -> None:
    (tracked,) = connections(Frontends([STATE]), parse_counted(LIST))
    assert tracked == Connection(
        "shop/web:http", "10.244.1.9:4000", "10.244.1.5:8080", "shop/web-1", None, None, 398, 1627
    )
    one = RelayedConnection(NAME, "10.244.1.9:4000", "10.244.1.5:8080", 2.0, 1.0, 398, 1627)
    (relayed,) = relayed_connections([one], {"10.244.1.5:8080": "shop/web-1"})
    assert relayed == Connection(
        "shop/web:http", "10.244.1.9:4000", "10.244.1.5:8080", "shop/web-1", 2.0, 1.0, 398, 1627
    )
