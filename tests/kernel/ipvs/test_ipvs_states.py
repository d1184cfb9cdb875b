"""Real packets through random states: who answers, and whom it sees, is what the oracle says.

Both families, TCP, UDP and SCTP; from outside, from Pods and from the node; every way to tell Pods from others,
masquerading of all, source ranges, policies, hints, endpoints that terminate, restarts.  `SVCPLANE_STATES` is how many
states and `SVCPLANE_SEED` which; a failure names them.
"""

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

import pytest
from tests.kernel.ipvs.world import World, node_with_pods, thread_in

from svcplane.base.net import Family, join_host_port
from svcplane.proxy.model import (
    DetectLocal,
    Endpoint,
    NodeConfig,
    NodeState,
    Origin,
    Outcome,
    Packet,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
    Verdict,
)
from svcplane.proxy.oracle import IPVS, decide
from svcplane.proxy.planes.ipvs.make import make

pytestmark = [pytest.mark.root, pytest.mark.tools("linux.uml", "modprobe", "ipset"), pytest.mark.timeout(3600)]
STATES = int(os.environ.get("SVCPLANE_STATES", "4"))
SEED = int(os.environ.get("SVCPLANE_SEED", "6"))
PACKETS = 24  # of each state
ANSWER_S, SILENCE_S = 8.0, 0.4  # for an answer that must come, and one that must not
KINDS = {
    Protocol.TCP: (socket.SOCK_STREAM, 0),
    Protocol.UDP: (socket.SOCK_DGRAM, 0),
    Protocol.SCTP: (socket.SOCK_STREAM, socket.IPPROTO_SCTP),
}


@dataclass(frozen=True)
class Place:
    """The addresses of one family."""

    family: Family
    node: tuple[str, ...]
    clients: tuple[str, ...]
    networks: tuple[str, ...]  # of Pods; of clients and the node; of one client alone
    vip: str  # and what is before the last number of a cluster, external, load-balancer address

    def pod(self, name: str) -> str:
        return World.pod_ip(name, six=self.family is Family.IPV6)

    def address(self, what: int, number: int) -> str:
        return f"{self.vip.split()[what]}{number}"


PLACES = (
    Place(
        Family.IPV4,
        ("127.0.0.1", "10.9.0.1", "10.244.1.1"),
        ("10.9.0.2", "10.9.1.3"),
        ("10.244.0.0/16", "10.9.0.0/24", "10.9.1.3/32"),
        "10.96.1. 198.51.100. 203.0.113.",
    ),
    Place(
        Family.IPV6,
        ("::1", "fd09::1", "fd00:10:244::1"),
        ("fd09::2",),
        ("fd00:10:244::/56", "fd09::/64", "fd09::2/128"),
        "fd00:10:96::1: fd00:51::1: fd00:52::1:",
    ),
)


def config(random: Random, place: Place) -> NodeConfig:
    detect = random.choice(list(DetectLocal))
    by_interface = {DetectLocal.BRIDGE_INTERFACE: "p1", DetectLocal.INTERFACE_NAME_PREFIX: "p"}
    by_cidr = detect in (DetectLocal.CLUSTER_CIDR, DetectLocal.NODE_CIDR)
    return NodeConfig(
        "n",
        place.family,
        detect,
        place.networks[:1] if by_cidr else (),
        by_interface.get(detect, ""),
        masquerade_all=random.random() < 0.2,
        nodeport_addresses=random.choice(((), (), (place.networks[1],))),
        primary_ips=place.node[1:2],
        iptables_variant="legacy",
    )


def state(random: Random, place: Place, chosen: NodeConfig) -> ProxyState:
    services, behind = {}, {}
    for number in range(1, random.randint(2, 5)):
        name = ServicePortName("default", f"s{number}", "p", random.choice(list(Protocol)))
        many = random.choice(("", "n", "e", "l", "nel", "nel"))
        services[name] = ServicePort(
            name,
            place.address(0, number),
            80,
            node_port=30000 + number if "n" in many else 0,
            external_ips=(place.address(1, number),) if "e" in many else (),
            load_balancer_ips=(place.address(2, number),) if "l" in many else (),
            source_ranges=random.choice(((), (), place.networks[1:2], place.networks[2:], place.networks[:1])),
            affinity_timeout_s=random.choice((0, 0, 600)),
            internal_policy_local=random.random() < 0.3,
            external_policy_local=random.random() < 0.5,
        )
        pods = random.sample(("p1", "p2", "p3"), random.choice((0, 1, 2, 3, 3)))
        # p3 counts as a Pod of another node, though its way leads through this one
        if found := [endpoint(random, place, pod) for pod in pods]:
            behind[name] = tuple(sorted(found))
    return ProxyState(chosen, NodeState("n", "a", place.node), services, behind)


def endpoint(random: Random, place: Place, pod: str) -> Endpoint:
    ready = random.random() < 0.8
    return Endpoint(
        place.pod(pod),
        8080,
        is_local=pod != "p3",
        ready=ready,
        serving=ready or random.random() < 0.5,
        terminating=not ready and random.random() < 0.5,
        zone_hints=random.choice(((), (), ("a",), ("b",))),
        node_hints=random.choice(((), (), (), ("n",))),
    )


def packets(state: ProxyState, place: Place) -> Iterator[tuple[str, Packet]]:
    """From everywhere to every address of every service port, with the namespace's ending it is sent from."""
    for port in state.services.values():
        goals = [(ip, port.port) for ip in (port.cluster_ip, *port.external_vips)]
        goals += [(ip, port.node_port) for ip in place.node[1:] if port.node_port]
        goals.append((port.cluster_ip, 81))
        for dst, number in goals:
            for client in place.clients:
                yield "c", Packet(Origin.OUTSIDE, client, dst, port.protocol, number, in_interface="c0")
            for pod in ("p1", "p3"):
                yield pod, Packet(Origin.POD, place.pod(pod), dst, port.protocol, number, in_interface=pod)
            source = dst if dst in place.node else place.node[1]
            yield "", Packet(Origin.NODE, source, dst, port.protocol, number)


def sent(world: World, at: str, packet: Packet, wait_s: float) -> tuple[str, str]:
    """(the Pod that answers, whom it sees), or (`refused` or `silence`, ``)."""
    kind, protocol = KINDS[packet.protocol]
    family = socket.AF_INET6 if ":" in packet.dst else socket.AF_INET
    with thread_in(f"{world.node}{at}"):
        asking = socket.socket(family, kind, protocol)
    with contextlib.closing(asking):
        asking.settimeout(wait_s)
        if packet.origin is Origin.OUTSIDE:
            asking.bind((packet.src, 0))
        try:
            asking.connect((packet.dst, packet.dport))
            answer = asked(asking, wait_s) if packet.protocol is Protocol.UDP else asking.recv(100)
            pod, seen = answer.decode().split()
        except ConnectionRefusedError:
            return "refused", ""
        except TimeoutError:
            return "silence", ""
        return pod, seen


def asked(asking: socket.socket, wait_s: float) -> bytes:
    """A datagram's answer; asked again each second, for the kernel tells a host of refusals so often and no more."""
    asking.settimeout(min(wait_s, 1.0))
    until = time.monotonic() + wait_s
    while True:
        with contextlib.suppress(PermissionError):  # dropped before it left the node; a refusal comes beside it
            asking.send(b"who")
        try:
            return asking.recv(100)
        except TimeoutError:
            if time.monotonic() > until:
                raise


def expected(place: Place, packet: Packet, outcome: Outcome) -> tuple[str, str]:
    """What is seen of an outcome."""
    if outcome.verdict is Verdict.DROP:
        return "silence", ""
    if outcome.verdict is not Verdict.DELIVER:
        return "refused", ""
    pod = next(
        pod for pod in ("p1", "p2", "p3") if outcome.endpoint in (f"{place.pod(pod)}:8080", f"[{place.pod(pod)}]:8080")
    )
    if outcome.masqueraded:
        return pod, place.node[2]
    return pod, packet.dst if packet.origin is Origin.NODE else packet.src


def check(world: World, place: Place, state: ProxyState, at: str, packet: Packet) -> None:
    outcomes = decide(state, packet, IPVS)
    if any(outcome.endpoint == join_host_port(packet.src, 8080) and not outcome.masqueraded for outcome in outcomes):
        return  # a Pod of another node that reaches itself through this one: lost, as in the other modes
    wanted = {expected(place, packet, outcome) for outcome in outcomes}
    wait_s = SILENCE_S if any(pod == "silence" for pod, _ in wanted) else ANSWER_S
    sticks = any(port.affinity_timeout_s and port.protocol is packet.protocol for port in state.services.values())
    if packet.protocol is Protocol.SCTP and ("refused", "") in wanted:
        # its sockets do not heed the ICMP error, only what this host's own SCTP says where no server is
        assert sent(world, at, packet, SILENCE_S)[0] in ("refused", "silence"), packet
        return
    found = {sent(world, at, packet, wait_s) for _ in wanted}
    assert found <= wanted if sticks else found == wanted, (packet, found, wanted)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with node_with_pods() as made:
        yield made


@pytest.mark.parametrize("place", PLACES, ids=["IPv4", "IPv6"])
async def test_real_packets_go_where_the_oracle_says(world: World, place: Place) -> None:
    random = Random(SEED)
    chosen = config(random, place)
    plane, before = make(chosen), None
    try:
        for number in range(STATES):
            if random.random() < 0.6:
                chosen = config(random, place)
            wanted = state(random, place, chosen)
            same = before is not None and before.config == chosen
            touched = frozenset(wanted.services) | frozenset(before.services) if before and same else None
            if random.random() < 0.2:
                await plane.close()
                plane, touched = make(chosen), None  # killed and started again
            await plane.sync(wanted, touched, now=time.monotonic())
            assert await plane.intact()
            possible = list(packets(wanted, place))
            for at, packet in random.sample(possible, min(PACKETS, len(possible))):
                try:
                    check(world, place, wanted, at, packet)
                except AssertionError as error:
                    way = (await plane.trace(wanted, packet))[1]
                    raise AssertionError(f"{error}\nseed {SEED}, state {number}: {wanted}\n{way}") from None
            before = wanted
    finally:
        await plane.cleanup()
        await plane.close()
