"""What a Service asks of the relay, and what the relay tells of it, with real packets."""

import asyncio
import json
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable

import pytest

from noderig import ENDPOINTS, NODE_IP, VIP, Proxy, Rig, ip
from svcplane.kernel.links.run import inside
from svcplane.proxy import pages
from svcplane.proxy.plane import Relayed

pytestmark = [
    pytest.mark.root,
    pytest.mark.tools("ip", "nft", "conntrack"),
    pytest.mark.xdist_group("proxy"),
    pytest.mark.timeout(120),
]
CLIENT_IP = "10.200.0.2"
VIP6, ENDPOINT6 = "fd00:96::10", "fd00:201::2"
SIGNATURE = bytes.fromhex("0d0a0d0a000d0a515549540a")


def start(rig: Rig, *endpoints: str, **asked: str) -> Proxy:
    """The Service with annotations, and a proxy that serves it."""
    annotations = {f"svcplane.dev/{key.replace('_', '-')}": value for key, value in asked.items()}
    rig.write(*(endpoints or ENDPOINTS), annotations=annotations)
    proxy = rig.proxy("--proxy-mode", "userspace")
    proxy.ready()
    return proxy


def relayed(rig: Rig) -> tuple[Relayed, ...]:
    """What the proxy tells `svcplane top`, which takes longer to start."""
    with inside(rig.node):
        return asyncio.run(pages.relayed())


def eventually(look: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not look():
        assert time.monotonic() < end
        time.sleep(0.02)


def received(link: socket.socket, size: int) -> bytes:
    found = b""
    while len(found) < size:
        data = link.recv(size - len(found))
        assert data, found
        found += data
    return found


def test_pods_get_connections_by_weight(rig: Rig) -> None:
    spare = "10.201.0.4"
    ip("-n", rig.pods, "address", "add", f"{spare}/24", "dev", "eth0")
    rig.serve(spare)
    start(rig, *ENDPOINTS, spare, weights="web-2=3, web-4=0")
    found = Counter(rig.ask() for _ in range(80))
    assert found.total() == found["10.201.0.2"] + found["10.201.0.3"]
    assert 18 <= found["10.201.0.3"] <= 22  # each worker's own turns are exact


def test_new_connections_go_where_the_fewest_are(rig: Rig) -> None:
    start(rig, balance="least-connections")
    held = [rig.connect() for _ in range(6)]
    by_pod: dict[str, list[socket.socket]] = {address: [] for address in ENDPOINTS}
    for link in held:
        by_pod[link.makefile().readline().strip()].append(link)
    assert [len(links) for links in by_pod.values()] == [3, 3]
    free, busy = ENDPOINTS
    for link in by_pod[free]:
        link.shutdown(socket.SHUT_RDWR)
        link.close()
    eventually(lambda: sum(row.active for row in relayed(rig)) == 3)
    fresh = [rig.connect() for _ in range(3)]
    assert {link.makefile().readline().strip() for link in fresh} == {free}
    for link in (*fresh, *by_pod[busy]):
        link.close()


def test_pod_is_told_the_clients_address_and_the_one_it_dialed(rig: Rig) -> None:
    start(rig, ENDPOINTS[0], proxy_protocol="v1")
    for dialed in ((VIP, 80), (NODE_IP, 30080)):
        with rig.connect(*dialed) as link:
            here = link.getsockname()[1]
            wanted = f"{ENDPOINTS[0]}\nPROXY TCP4 {CLIENT_IP} {dialed[0]} {here} {dialed[1]}\r\n".encode()
            assert received(link, len(wanted)) == wanted  # the Pod sends back what it is told
            link.sendall(b"hello")
            assert received(link, 5) == b"hello"


def test_pod_is_told_it_in_the_binary_form_over_ipv6_too(rig: Rig) -> None:
    for space, device, address in (
        (rig.node, "c", "fd00:200::1"),
        (rig.client, "eth0", "fd00:200::2"),
        (rig.node, "p", "fd00:201::1"),
        (rig.pods, "eth0", ENDPOINT6),
    ):
        ip("-6", "-n", space, "address", "add", f"{address}/64", "dev", device, "nodad")
    ip("-6", "-n", rig.client, "route", "add", "default", "via", "fd00:200::1")
    rig.serve(ENDPOINT6)
    told = {"svcplane.dev/proxy-protocol": "v2"}
    rig.write(ENDPOINTS[0], annotations=told)
    rig.write(ENDPOINT6, name="six", cluster_ip=VIP6, node_port=30086, annotations=told, ipFamilies=["IPv6"])
    rig.proxy("--proxy-mode", "userspace").ready()
    for pod, vip, family in ((ENDPOINTS[0], VIP, socket.AF_INET), (ENDPOINT6, VIP6, socket.AF_INET6)):
        with inside(rig.client):
            link = socket.create_connection((vip, 80), timeout=5)
        with link:
            peer, here = link.getpeername()[0], link.getsockname()
            assert peer == vip
            body = socket.inet_pton(family, here[0]) + socket.inet_pton(family, vip) + struct.pack(">HH", here[1], 80)
            kind = 0x11 if family == socket.AF_INET else 0x21
            wanted = f"{pod}\n".encode() + SIGNATURE + struct.pack(">BBH", 0x21, kind, len(body)) + body
            assert received(link, len(wanted)) == wanted


def test_idle_connection_ends_and_a_busy_one_does_not(rig: Rig) -> None:
    start(rig, idle_timeout="2")
    with rig.connect() as idle, rig.connect() as busy:
        idle.recv(100)
        busy.recv(100)
        idle.settimeout(10)
        began = time.monotonic()
        while True:
            busy.sendall(b"x")
            assert busy.recv(1) == b"x"
            idle.settimeout(0.2)
            try:
                assert idle.recv(1) == b""
                break
            except TimeoutError:
                assert time.monotonic() - began < 8
        assert time.monotonic() - began > 1
        busy.sendall(b"y")
        assert busy.recv(1) == b"y"


def test_affinity_ends_when_its_time_is_up(rig: Rig) -> None:
    rig.write(*ENDPOINTS, sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": 3}})
    rig.proxy("--proxy-mode", "userspace").ready()
    (sticky,) = {rig.ask() for _ in range(4)}
    eventually(lambda: json.loads(rig.svcplane("affinity", "list", "-o", "json"))["clients"] == [])
    assert rig.ask() != sticky


def test_endpoint_that_does_not_answer_is_marked_until_it_does(rig: Rig) -> None:
    start(rig)
    dead = ENDPOINTS[1]
    rig.kill(dead)
    assert {rig.ask() for _ in range(4)} == {ENDPOINTS[0]}

    def aside() -> list[str]:
        return [row.endpoint for row in relayed(rig) if row.aside_s]

    assert aside() == [f"{dead}:8080"]
    rig.serve(dead)
    eventually(lambda: rig.ask() == dead, 40)
    eventually(lambda: aside() == [], 40)  # each worker finds out by itself


def test_each_connection_is_counted(rig: Rig) -> None:
    start(rig, ENDPOINTS[0])
    with rig.connect() as link:
        hello = f"{ENDPOINTS[0]}\n".encode()
        assert received(link, len(hello)) == hello
        link.sendall(b"12345")
        assert received(link, 5) == b"12345"
        (row,) = json.loads(rig.svcplane("top", "--connections", "-o", "json"))
        assert row.pop("age_s") >= row.pop("idle_s") >= 0
        assert row == {
            "service": "default/web",
            "client": f"{CLIENT_IP}:{link.getsockname()[1]}",
            "endpoint": f"{ENDPOINTS[0]}:8080",
            "pod": "default/web-2",
            "sent": 5,
            "received": len(hello) + 5,
        }
    eventually(lambda: not any(row.active for row in relayed(rig)))
    assert [(row.to_endpoint, row.to_client) for row in relayed(rig) if row.connections] == [(5, len(hello) + 5)]


def test_half_close_and_back_pressure_reach_through(rig: Rig) -> None:
    start(rig, ENDPOINTS[0])
    with rig.connect() as link:
        link.setblocking(False)
        sent, most = 0, 256 << 20
        chunk = b"z" * (1 << 18)
        quiet_since = time.monotonic()
        while time.monotonic() - quiet_since < 0.5:  # the Pod sends all back, and we read nothing
            try:
                sent += link.send(chunk)
                quiet_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.005)
            assert sent < most, "nothing held the client back"
        link.settimeout(10)
        link.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: link.recv(1 << 20), b""))
        assert len(answer) == sent + len(f"{ENDPOINTS[0]}\n")
