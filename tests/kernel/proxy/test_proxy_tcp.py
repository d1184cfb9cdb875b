"""Established TCP connections to an endpoint that goes: kept, or ended where that is asked for."""

import socket

import pytest

from noderig import ENDPOINTS, NODE_IP, Rig

pytestmark = [
    pytest.mark.root,
    pytest.mark.tools("ip", "nft", "iptables", "conntrack"),
    pytest.mark.xdist_group("proxy"),
]


def connected(rig: Rig, *where: object) -> socket.socket:
    link = rig.connect(*where)  # type: ignore[arg-type]
    assert link.recv(100).decode().strip() == ENDPOINTS[0]
    return link


def goes_on(link: socket.socket) -> bool:
    """Whether what is sent comes back; False where the connection is reset."""
    try:
        link.sendall(b"still there?")
        return link.recv(100) == b"still there?"
    except ConnectionResetError:
        return False


@pytest.mark.parametrize("mode", ["nftables", "iptables"])
def test_connections_end_with_their_endpoint_where_that_is_asked_for(rig: Rig, mode: str) -> None:
    rig.write(ENDPOINTS[0])
    proxy = rig.proxy("--proxy-mode", mode, "--end-tcp-connections=removed")
    proxy.ready()
    with connected(rig) as by_ip, connected(rig, NODE_IP, 30080) as by_port:
        rig.write(*ENDPOINTS)
        proxy.until(lambda: {rig.ask() for _ in range(9)} == set(ENDPOINTS))
        assert goes_on(by_ip)
        rig.write(*ENDPOINTS, unready=ENDPOINTS[0])
        proxy.until(lambda: {rig.ask() for _ in range(9)} == {ENDPOINTS[1]})
        assert goes_on(by_ip)  # it is still the Service's own
        rig.write(ENDPOINTS[1])
        proxy.until(lambda: proxy.log.count("deleted stale flows: protocol=tcp") == 2)
        assert not goes_on(by_ip)
        assert not goes_on(by_port)
    assert rig.ask() == ENDPOINTS[1]
    assert proxy.end() == 0


def test_a_service_may_ask_for_another_end_than_the_proxy(rig: Rig) -> None:
    rig.write(ENDPOINTS[0], annotations={"svcplane.dev/end-tcp-connections": "not-serving"})
    rig.write(ENDPOINTS[0], name="kept", cluster_ip="10.96.0.11", node_port=30081)
    proxy = rig.proxy()
    proxy.ready()
    with connected(rig) as ended, connected(rig, "10.96.0.11") as kept:
        rig.write(*ENDPOINTS, unready=ENDPOINTS[0], annotations={"svcplane.dev/end-tcp-connections": "not-serving"})
        rig.write(*ENDPOINTS, unready=ENDPOINTS[0], name="kept", cluster_ip="10.96.0.11", node_port=30081)
        proxy.until(lambda: "deleted stale flows: protocol=tcp count=1" in proxy.log)
        proxy.until(lambda: {rig.ask("10.96.0.11") for _ in range(9)} == {ENDPOINTS[1]})
        assert not goes_on(ended)
        assert goes_on(kept)
    rig.write(*ENDPOINTS, annotations={"svcplane.dev/end-tcp-connections": "sometimes"})
    proxy.until(lambda: "must be one of never, removed, not-serving; it is passed over" in proxy.log)
