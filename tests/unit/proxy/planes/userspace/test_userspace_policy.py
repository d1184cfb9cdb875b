"""Annotations and the PROXY protocol's header."""

import pytest

from svcplane.proxy.model import Endpoint, Protocol, ServicePort, ServicePortName
from svcplane.proxy.planes.userspace import policy as p
from svcplane.proxy.planes.userspace.balance import Strategy
from svcplane.proxy.planes.userspace.proxyprotocol import header


def port(protocol: Protocol = Protocol.TCP, **annotations: str) -> ServicePort:
    keys = {"balance": p.BALANCE, "weights": p.WEIGHTS, "proxy": p.PROXY_PROTOCOL, "idle": p.IDLE_TIMEOUT}
    keys["retry"] = p.RETRY
    given = tuple((keys[name], value) for name, value in annotations.items())
    return ServicePort(ServicePortName("d", "s", "p", protocol), "10.96.0.1", 80, annotations=given)


def test_nothing_asked_is_the_default() -> None:
    assert p.read_policy(port()) == (p.Policy(), ())


def test_everything_asked() -> None:
    asked = port(balance="least-connections", weights="web-*=9, canary=1", proxy="v2", idle="60", retry="unanswered")
    wanted = p.Policy(Strategy.LEAST_CONNECTIONS, (("web-*", 9), ("canary", 1)), 2, 60, True)
    assert p.read_policy(asked) == (wanted, ())


@pytest.mark.parametrize(
    "asked",
    [{"balance": "best"}, {"weights": "web"}, {"weights": "web=-1"}, {"weights": "web=1001"}, {"proxy": "v3"}]
    + [{"idle": "1h"}, {"idle": "9999999"}, {"retry": "always"}],
)
def test_wrong_values_are_told_and_passed_over(asked: dict[str, str]) -> None:
    found, problems = p.read_policy(port(**asked))
    assert found == p.Policy()
    assert len(problems) == 1
    assert next(iter(asked.values())) in problems[0]
    assert "d/s:p" in problems[0]


def test_proxy_protocol_is_for_tcp() -> None:
    found, problems = p.read_policy(port(Protocol.UDP, proxy="v1"))
    assert not found.proxy_protocol
    assert problems


def test_first_pattern_that_matches_a_pod_counts() -> None:
    pods = [Endpoint("10.0.0.1", 80, pod="d/web-1"), Endpoint("10.0.0.2", 80, pod="d/web-2"), Endpoint("10.0.0.3", 80)]
    found = p.Policy(weights=(("web-1", 0), ("web-*", 5))).weigh(pods)
    assert found == ((("10.0.0.1", 80), 0), (("10.0.0.2", 80), 5))


def test_header_version_1() -> None:
    found = header(1, ("192.168.0.1", 56324), ("192.168.0.11", 443))
    assert found == b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    assert header(1, ("fd00::1", 1), ("fd00::2", 2)) == b"PROXY TCP6 fd00::1 fd00::2 1 2\r\n"


def test_header_version_2() -> None:
    found = header(2, ("10.1.2.3", 0x1234), ("10.4.5.6", 80))
    assert found[:12] == bytes.fromhex("0d0a0d0a000d0a515549540a")
    assert found[12:16] == bytes((0x21, 0x11, 0, 12))
    assert found[16:] == bytes((10, 1, 2, 3, 10, 4, 5, 6, 0x12, 0x34, 0, 80))
    six = header(2, ("fd00::1", 1), ("fd00::2", 2))
    assert six[12:16] == bytes((0x21, 0x21, 0, 36))
    assert len(six) == 16 + 36
