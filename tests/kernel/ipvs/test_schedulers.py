"""Every scheduler gives the distribution it promises, with real connections to real servers.

Source: ipvsadm(8) and net/netfilter/ipvs/ip_vs_*.c for what each promises.
"""

import subprocess
from collections import Counter
from collections.abc import Iterator

import pytest
from tests.kernel.ipvs.world import World, node_with_pods

from svcplane.kernel.ipvs import objects as o
from svcplane.kernel.ipvs.run import IpvsSocket

pytestmark = [pytest.mark.root, pytest.mark.tools("linux.uml", "modprobe")]
CLIENTS = [f"10.9.{net}.{host}" for net in range(2) for host in range(2, 10)]


@pytest.fixture(scope="module")
def node() -> Iterator[World]:
    with node_with_pods() as made:
        subprocess.run(["ip", "addr", "add", f"{World.VIP}/32", "dev", "lo"], check=True)
        yield made


@pytest.fixture
def world(node: World) -> World:
    """At a port of its own, so that no connection of another test counts."""
    node.port += 1
    return node


def key(world: World) -> o.ServerKey:
    return o.ServerKey("tcp", World.VIP, world.port)


async def serve(world: World, server: o.Server, **weights: int) -> IpvsSocket:
    ipvs = IpvsSocket()
    changes: list[o.Change] = [o.AddServer(key(world), server)]
    changes += [o.AddDestination(key(world), (World.pod_ip(name), 8080), weight) for name, weight in weights.items()]
    assert not await ipvs.commit(changes)
    return ipvs


async def weigh(world: World, ipvs: IpvsSocket, name: str, weight: int) -> None:
    assert not await ipvs.commit([o.EditDestination(key(world), (World.pod_ip(name), 8080), weight)])


async def test_rr_takes_turns(world: World) -> None:
    await serve(world, o.Server("rr"), p1=1, p2=1, p3=1)
    found = world.pods_of(9)
    assert sorted(found[:3]) == ["p1", "p2", "p3"]
    assert found == found[:3] * 3


async def test_wrr_takes_turns_by_weight(world: World) -> None:
    await serve(world, o.Server("wrr"), p1=1, p2=2, p3=3)
    assert Counter(world.pods_of(12)) == {"p1": 2, "p2": 4, "p3": 6}


async def test_lc_goes_where_the_fewest_connections_are(world: World) -> None:
    ipvs = await serve(world, o.Server("lc"), p1=1, p2=0)
    held = [world.connect() for _ in range(4)]
    assert {connection.pod for connection in held} == {"p1"}
    await weigh(world, ipvs, "p2", 1)
    late = [world.connect().pod for _ in range(4)]
    assert late == ["p2"] * 4  # p1 holds four: every new one goes to p2 until it does too
    assert Counter(world.connect().pod for _ in range(4)) == {"p1": 2, "p2": 2}


async def test_wlc_weighs_the_connections(world: World) -> None:
    await serve(world, o.Server("wlc"), p1=1, p2=3)
    assert Counter(world.connect().pod for _ in range(8)) == {"p1": 2, "p2": 6}


async def test_sed_under_load_goes_where_the_wait_is_shortest(world: World) -> None:
    await serve(world, o.Server("sed"), p1=1, p2=3)
    first = [world.connect().pod for _ in range(2)]
    assert first == ["p2", "p2"]  # one on p1 would wait longer than a second one on p2
    assert Counter([*first, *(world.connect().pod for _ in range(6))]) == {"p1": 2, "p2": 6}


async def test_nq_leaves_nobody_idle(world: World) -> None:
    await serve(world, o.Server("nq"), p1=1, p2=3)
    assert {world.connect().pod for _ in range(2)} == {"p1", "p2"}
    assert Counter(world.connect().pod for _ in range(6)) == {"p1": 1, "p2": 5}


@pytest.mark.parametrize("scheduler", ["sh", "mh"])
async def test_a_source_stays_with_its_pod_and_leaves_it_only_when_that_drains(world: World, scheduler: str) -> None:
    ipvs = await serve(world, o.Server(scheduler, flags=o.FALLBACK), p1=1, p2=1, p3=1)
    pods = {client: world.pods_of(1, client)[0] for client in CLIENTS}
    assert len(set(pods.values())) > 1
    assert pods == {client: world.pods_of(1, client)[0] for client in CLIENTS}
    gone = pods[CLIENTS[0]]
    await weigh(world, ipvs, gone, 0)
    after = {client: world.pods_of(1, client)[0] for client in CLIENTS}
    assert gone not in after.values()
    stay = {client for client, pod in pods.items() if pod != gone}
    moved = {client for client in stay if after[client] != pods[client]}
    assert len(moved) <= (0 if scheduler == "sh" else len(CLIENTS) // 4)


@pytest.mark.parametrize("scheduler", ["dh", "lblc", "lblcr"])
async def test_a_destination_address_has_one_pod(world: World, scheduler: str) -> None:
    await serve(world, o.Server(scheduler), p1=1, p2=1, p3=1)
    assert len({pod for client in CLIENTS for pod in world.pods_of(1, client)}) == 1


@pytest.mark.parametrize("scheduler", ["lblc", "lblcr"])
async def test_locality_gives_way_when_its_pod_drains(world: World, scheduler: str) -> None:
    ipvs = await serve(world, o.Server(scheduler), p1=1, p2=1)
    first = world.pods_of(3)
    await weigh(world, ipvs, first[0], 0)
    assert set(world.pods_of(3)) == {"p1", "p2"} - set(first)


async def test_fo_has_one_pod_and_a_spare(world: World) -> None:
    ipvs = await serve(world, o.Server("fo"), p1=1, p2=3, p3=2)
    assert world.pods_of(3) == ["p2"] * 3
    await weigh(world, ipvs, "p2", 0)
    assert world.pods_of(3) == ["p3"] * 3


async def test_ovf_fills_one_pod_before_the_next(world: World) -> None:
    await serve(world, o.Server("ovf"), p1=2, p2=3)
    # the kernel looks whether there are more than the weight: each takes one above it
    assert [world.connect().pod for _ in range(7)] == ["p2"] * 4 + ["p1"] * 3
    with pytest.raises(OSError, match="refused"):
        world.connect()


async def test_persistence_by_client_and_by_its_network(world: World) -> None:
    ipvs = await serve(world, o.Server("rr", 60), p1=1, p2=1, p3=1)
    assert len(set(world.pods_of(4))) == 1
    assert not await ipvs.commit([o.EditServer(key(world), o.Server("rr", 60, 24))])
    here = {world.pods_of(1, client)[0] for client in CLIENTS if client.startswith("10.9.1.")}
    assert len(here) == 1
    connections = await ipvs.connections()
    templates = {(each.client, each.server) for each in connections if each.is_template}
    assert ("10.9.1.0", (World.VIP, world.port)) in templates
