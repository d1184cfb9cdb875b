"""Tracked flows -> what goes over each translation."""

from svcplane.kernel.conntrack.text import Counted, parse_counted
from svcplane.kernel.conntrack.traffic import Translated, translations

LINE = (
    "tcp 6 100 {state} src=10.244.1.9 dst=10.96.0.10 sport={sport} dport=80 packets=3 bytes={sent}"
    " src=10.244.2.2 dst=10.244.1.9 sport=8080 dport={sport} packets=3 bytes={received} [ASSURED] mark=0 use=1"
)
PLAIN = "udp 17 20 src=10.0.0.1 dst=10.0.0.2 sport=53 dport=53 src=10.0.0.2 dst=10.0.0.1 sport=53 dport=53 use=1"


def flows(*lines: str) -> list[Counted]:
    return parse_counted("\n".join(lines))


def line(sport: int, sent: int, received: int, state: str = "ESTABLISHED") -> str:
    return LINE.format(sport=sport, sent=sent, received=received, state=state)


def test_flows_of_one_translation_are_summed() -> None:
    before = flows(line(1000, 100, 1000), PLAIN)
    after = flows(line(1000, 150, 1500), line(1001, 10, 20, "TIME_WAIT"), PLAIN)
    assert translations(before, after, flows(line(1001, 0, 0, "SYN_SENT"))) == [
        Translated("tcp", "10.96.0.10", 80, "10.244.2.2", 8080, new=1, active=1, sent=60, received=520)
    ]


def test_port_used_again_is_another_flow() -> None:
    [one] = translations(flows(line(1000, 900, 9000)), flows(line(1000, 10, 20)), [])
    assert (one.sent, one.received) == (10, 20)


def test_flows_that_are_over_and_silent_are_left_out() -> None:
    closed = line(1000, 100, 100, "TIME_WAIT")
    assert translations(flows(closed), flows(closed), []) == []


def test_bytes_are_unknown_where_the_kernel_does_not_count() -> None:
    uncounted = line(1, 2, 3).replace("packets=3 bytes=2 ", "").replace("packets=3 bytes=3 ", "")
    [one] = translations([], flows(uncounted), [])
    assert (one.active, one.sent, one.received) == (1, None, None)
