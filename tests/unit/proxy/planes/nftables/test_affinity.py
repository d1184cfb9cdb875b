"""Whom affinity holds to what in nftables mode, through changes of a Service and restarts of the proxy."""

import errno
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from svcplane.base.net import Family
from svcplane.kernel.nft.fake import FakeNft
from svcplane.kernel.nft.objects import Element, NftError, TableContent
from svcplane.proxy.model import (
    DetectLocal,
    Endpoint,
    NodeConfig,
    NodeState,
    Origin,
    Packet,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
)
from svcplane.proxy.planes.nftables.names import (
    endpoint_data,
    endpoint_id,
    nodeport_key,
    owner_of,
    packed_ip,
    unword,
    word,
)
from svcplane.proxy.planes.nftables.plane import NftablesPlane

NAME, OTHER = (ServicePortName("default", name, "p", Protocol.TCP) for name in ("sticky", "other"))
CONFIG = NodeConfig("node1", Family.IPV4, DetectLocal.CLUSTER_CIDR, ("10.244.0.0/16",))
NODE = NodeState("node1", "a", ("172.30.0.11",))
PORT = ServicePort(NAME, "10.96.0.10", 80, 30080, affinity_timeout_s=60)
HERE, ALSO, AWAY = (
    Endpoint(ip, 8080, node, node == "node1")
    for ip, node in (("10.244.1.11", "node1"), ("10.244.1.12", "node1"), ("10.244.2.11", "node2"))
)
CLIENT = "172.30.0.100"
TO_CLUSTER = Packet(Origin.OUTSIDE, CLIENT, PORT.cluster_ip, Protocol.TCP, 80)
TO_NODE = Packet(Origin.OUTSIDE, CLIENT, "172.30.0.11", Protocol.TCP, 30080)


def having(*endpoints: Endpoint, **fields: object) -> ProxyState:
    port = replace(PORT, **fields)  # type: ignore[arg-type]
    other = ServicePort(OTHER, "10.96.0.11", 80, affinity_timeout_s=60)
    return ProxyState(CONFIG, NODE, {NAME: port, OTHER: other}, {NAME: endpoints, OTHER: (HERE, ALSO, AWAY)})


class World:
    """A proxy over a kernel in memory."""

    def __init__(self) -> None:
        self.kernel = FakeNft()
        self.plane = NftablesPlane(CONFIG, self.kernel)

    async def sync(self, state: ProxyState) -> None:
        self.state = state
        await self.plane.sync(state, None if not self.kernel.content else frozenset({NAME, OTHER}), now=0.0)

    def restart(self) -> None:
        self.plane = NftablesPlane(CONFIG, self.kernel)

    @property
    def content(self) -> TableContent:
        (content,) = self.kernel.content.values()
        return content

    def remember(self, endpoint: Endpoint) -> None:
        """As a connection of the client to this endpoint of the Service would have the kernel do."""
        elements = self.content.elements
        pool = elements["service-nodeport-pools"][nodeport_key(Protocol.TCP, PORT.node_port)].data
        assert isinstance(pool, bytes)
        owner, data = owner_of(unword(pool)), endpoint_data(endpoint.ip, endpoint.port)
        place = packed_ip(CLIENT) + word(owner)
        for key, element in elements["endpoints-by-id"].items():
            if element.data == data and owner_of(unword(key[:4])) == owner:
                elements.setdefault("affinity", {})[place] = Element(place, key[4:], expires_ms=9000)

    async def goes_to(self, packet: Packet) -> set[str]:
        found, _ = await self.plane.trace(self.state, packet)
        return {outcome.endpoint for outcome in found}


@pytest.mark.parametrize(
    ("policy", "remembered", "cluster", "node"),
    [
        ({}, AWAY, {AWAY}, {AWAY}),
        ({"external_policy_local": True}, HERE, {HERE}, {HERE}),
        ({"external_policy_local": True}, AWAY, {AWAY}, {HERE, ALSO}),  # not an endpoint for this address
        ({"internal_policy_local": True}, ALSO, {ALSO}, {ALSO}),
        ({"internal_policy_local": True}, AWAY, {HERE, ALSO}, {AWAY}),
        ({"internal_policy_local": True, "external_policy_local": True}, ALSO, {ALSO}, {ALSO}),
    ],
)
async def test_a_client_keeps_its_endpoint_by_whichever_address_it_comes(
    policy: dict[str, bool], remembered: Endpoint, cluster: set[Endpoint], node: set[Endpoint]
) -> None:
    world = World()
    await world.sync(having(HERE, ALSO, AWAY, **policy))
    world.remember(remembered)
    assert await world.goes_to(TO_CLUSTER) == {str(endpoint) for endpoint in cluster}
    assert await world.goes_to(TO_NODE) == {str(endpoint) for endpoint in node}
    assert len(await world.goes_to(replace(TO_CLUSTER, dst="10.96.0.11"))) == 3  # of another Service
    world.restart()
    (entry,) = await world.plane.affinity(world.state)
    assert (entry.service, entry.client, entry.endpoint) == (NAME, CLIENT, str(remembered))
    await world.plane.forget_affinity(msgspec.structs.replace(entry, service=OTHER))
    assert await world.plane.affinity(world.state) == [entry]
    await world.plane.forget_affinity(entry)
    assert not await world.plane.affinity(world.state)


@pytest.mark.parametrize(
    "between",
    [having(ALSO), having(), having(HERE, ALSO, affinity_timeout_s=0)],
    ids=["it leaves", "all leave", "affinity None"],
)
async def test_an_endpoint_that_comes_back_is_another_one(between: ProxyState) -> None:
    world = World()
    await world.sync(having(HERE, ALSO))
    for _ in range(3):
        world.remember(HERE)
        assert await world.goes_to(TO_CLUSTER) == {str(HERE)}
        await world.sync(between)
        await world.sync(having(HERE, ALSO))
        assert await world.goes_to(TO_CLUSTER) == {str(HERE), str(ALSO)}
        await world.plane.sync(world.state, None, now=1.0)  # a repair begins to count where the last one ended


async def test_an_endpoint_is_another_one_after_a_restart_within_the_second_of_the_first_start() -> None:
    world = World()
    await world.sync(having(HERE, ALSO))
    await world.sync(having(ALSO))
    await world.sync(having(HERE, ALSO))
    world.restart()
    await world.plane.sync(world.state, None, now=1.0)
    world.remember(HERE)
    await world.sync(having(ALSO))
    await world.sync(having(HERE, ALSO))
    assert await world.goes_to(TO_CLUSTER) == {str(HERE), str(ALSO)}


async def test_a_departure_counts_that_the_kernel_took_and_did_not_confirm(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    await world.sync(having(HERE, ALSO))
    world.remember(HERE)
    commit = world.kernel.commit

    async def taken(*arguments: Any) -> int:
        await commit(*arguments)
        raise NftError(errno.ENOBUFS, "the answer was lost")

    monkeypatch.setattr(world.kernel, "commit", taken)
    with pytest.raises(NftError):
        await world.sync(having(ALSO))
    monkeypatch.undo()
    await world.sync(having(ALSO))
    await world.sync(having(HERE, ALSO))
    assert await world.goes_to(TO_CLUSTER) == {str(HERE), str(ALSO)}


async def test_forgetting_a_client_hides_nobodys_edit() -> None:
    world = World()
    await world.sync(having(HERE, ALSO))
    world.remember(HERE)
    world.content.rules["services"] = ()
    world.kernel.touch()
    (entry,) = await world.plane.affinity(world.state)
    await world.plane.forget_affinity(entry)
    assert not await world.plane.intact()


@pytest.mark.parametrize("policy", [{}, {"external_policy_local": True}])
async def test_what_stays_is_remembered_through_changes_and_restarts(policy: dict[str, bool]) -> None:
    world = World()
    await world.sync(having(HERE, ALSO, AWAY))
    await world.sync(having(HERE, ALSO))
    await world.sync(having(HERE, ALSO, AWAY))  # what one forgets
    world.remember(HERE)
    await world.sync(having(HERE, AWAY, port=8080, **policy))
    await world.sync(having(HERE, AWAY, **policy))
    assert await world.goes_to(TO_CLUSTER) == {str(HERE)}
    world.restart()
    assert not await world.plane.plan(world.state)
    await world.plane.sync(world.state, None, now=1.0)
    assert await world.goes_to(TO_CLUSTER) == {str(HERE)}
    await world.sync(having(HERE, ALSO, AWAY))
    assert await world.goes_to(TO_NODE) == {str(HERE)}


def test_identities_are_distinct() -> None:
    first = endpoint_id("10.0.0.1", 80, 0, ())
    assert endpoint_id("10.0.0.1", 80, 0, {first}) == first + 1
    assert endpoint_id("10.0.0.1", 80, 1, ()) not in (first, endpoint_id("10.0.0.1", 80, 2, ()))
