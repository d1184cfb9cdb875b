"""What the nftables plane takes for a difference, and how planes of nf_tables mend what somebody did to their table."""

from collections.abc import Callable
from dataclasses import replace

import msgspec
import pytest
from tests.relayworkers import FakeWorkers

from svcplane.base.net import Family
from svcplane.kernel.nft.fake import FakeNft
from svcplane.kernel.nft.objects import Chain, DataType, Set, TableContent
from svcplane.proxy.model import (
    Endpoint,
    NodeConfig,
    NodeState,
    Origin,
    Packet,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
    Verdict,
)
from svcplane.proxy.plane import Plane
from svcplane.proxy.planes.nftables.layout import GUARDS
from svcplane.proxy.planes.nftables.names import Class, Kind, table_name
from svcplane.proxy.planes.nftables.plane import NftablesPlane
from svcplane.proxy.planes.userspace.plane import UserspacePlane
from svcplane.proxy.planes.userspace.relaying import Relaying

NAME = ServicePortName("default", "sticky", "p", Protocol.TCP)
CONFIG = NodeConfig(node_name="node1", family=Family.IPV4)
PORT = ServicePort(name=NAME, cluster_ip="10.96.0.10", port=80, affinity_timeout_s=5)


def state(count: int) -> ProxyState:
    found = tuple(Endpoint(ip=f"10.244.1.{at + 1}", port=8080, node_name="node1", is_local=True) for at in range(count))
    return ProxyState(CONFIG, NodeState("node1", "a", ("172.30.0.11",)), {NAME: PORT}, {NAME: found})


async def test_chains_of_a_size_that_a_service_has_grown_out_of_are_no_drift() -> None:
    kernel = FakeNft()
    plane = NftablesPlane(CONFIG, kernel)
    for count in (1, 2, 9):
        await plane.sync(state(count), frozenset({NAME}) if count > 1 else None, now=float(count))
    another = NftablesPlane(CONFIG, kernel)  # as `svcplane plan --drift`, a process of its own
    assert not await another.plan(state(9))
    assert await another.plan(state(8))  # one endpoint less is
    await another.sync(state(9), None, now=20.0)
    assert not await another.plan(state(9))


def test_a_class_survives_its_packed_form() -> None:
    for kind in Kind:
        class_ = Class(kind, 86400, 8191)
        assert Class.unpacked(class_.packed) == class_


Make = Callable[[NodeConfig, FakeNft], Plane]


def relayed(config: NodeConfig, kernel: FakeNft) -> Plane:
    return UserspacePlane(config, kernel, Relaying(FakeWorkers()))


either = pytest.mark.parametrize("make", [NftablesPlane, relayed])


async def synced(kernel: FakeNft, make: Make = NftablesPlane) -> Plane:
    plane = make(CONFIG, kernel)
    await plane.sync(state(2), None, now=0.0)
    assert await plane.intact()
    return plane


def put_to_sleep(table: TableContent) -> None:
    table.dormant = True


def drop_what_falls_off(table: TableContent) -> None:
    table.chains["filter-forward"] = msgspec.structs.replace(table.chains["filter-forward"], drops=True)


def put_in_a_set(table: TableContent) -> None:
    table.sets["foreign"] = Set("foreign", (DataType.MARK,))


@either
@pytest.mark.parametrize("edit", [put_to_sleep, drop_what_falls_off, put_in_a_set])
async def test_an_edit_around_the_rules_is_seen_and_mended(edit: Callable[[TableContent], None], make: Make) -> None:
    kernel = FakeNft()
    plane = await synced(kernel, make)
    (table,) = kernel.content
    edit(kernel.content[table])
    kernel.touch(table)
    assert not await plane.intact()
    await plane.sync(state(2), None, now=1.0)
    assert await plane.intact()
    assert not await plane.plan(state(2))


async def test_nothing_passes_through_a_table_that_is_switched_off() -> None:
    kernel = FakeNft()
    plane = await synced(kernel)
    packet = Packet(Origin.POD, "10.244.1.9", "10.96.0.10", Protocol.TCP, 80)
    found, _ = await plane.trace(state(2), packet)
    assert {outcome.verdict for outcome in found} == {Verdict.DELIVER}
    (table,) = kernel.content
    put_to_sleep(kernel.content[table])
    found, _ = await plane.trace(state(2), packet)
    assert {outcome.verdict for outcome in found} == {Verdict.PASS}


async def test_packets_pay_for_source_ranges_only_while_some_load_balancer_has_them() -> None:
    guards = {chain.name for chain in GUARDS}
    guarded = replace(PORT, load_balancer_ips=("203.0.113.5",), source_ranges=("198.51.100.0/24",))
    kernel = FakeNft()
    plane = NftablesPlane(CONFIG, kernel)

    async def there(port: ServicePort, touched: frozenset[ServicePortName] | None, by: NftablesPlane) -> set[str]:
        await by.sync(replace(state(2), services={NAME: port}), touched, now=0.0)
        assert await by.intact()
        content = await kernel.read(table_name(Family.IPV4))
        assert content is not None
        return guards & set(content.chains)

    assert not await there(PORT, None, plane)
    assert await there(guarded, frozenset({NAME}), plane) == guards
    assert await there(PORT, frozenset({NAME}), plane) == set()
    assert await there(guarded, None, plane) == guards
    # a proxy that starts finds them, keeps or takes them away, and makes no other table for it
    await plane.sync(replace(state(2), services={NAME: guarded}), None, now=0.0)
    assert not await NftablesPlane(CONFIG, kernel).plan(replace(state(2), services={NAME: guarded}))
    told = await NftablesPlane(CONFIG, kernel).plan(state(2))
    assert not any(operation.object.startswith("table") for operation in told)
    assert await there(PORT, None, NftablesPlane(CONFIG, kernel)) == set()
    told = await NftablesPlane(CONFIG, kernel).plan(replace(state(2), services={NAME: guarded}))
    assert {"add chain " + name for name in guards} <= {f"{one.verb} {one.object}" for one in told}
    assert not any(operation.object.startswith("table") for operation in told)


async def test_a_chain_of_another_kind_in_place_of_one_for_source_ranges_is_seen_and_replaced() -> None:
    guarded = replace(
        state(2), services={NAME: replace(PORT, load_balancer_ips=("203.0.113.5",), source_ranges=("198.51.100.0/24",))}
    )
    kernel = FakeNft()
    plane = NftablesPlane(CONFIG, kernel)
    await plane.sync(guarded, None, now=0.0)
    (table,) = kernel.content
    for guard in GUARDS:
        kernel.content[table].chains[guard.name] = Chain(guard.name)
    kernel.touch(table)
    assert not await plane.intact()
    await plane.sync(guarded, None, now=1.0)
    assert await plane.intact()
    assert {kernel.content[table].chains[guard.name] for guard in GUARDS} == set(GUARDS)


@either
async def test_a_table_that_cannot_be_mended_is_made_anew(make: Make) -> None:
    guarded = replace(
        state(2), services={NAME: replace(PORT, load_balancer_ips=("203.0.113.5",), source_ranges=("198.51.100.0/24",))}
    )
    kernel = FakeNft()
    plane = make(CONFIG, kernel)
    await plane.sync(guarded, None, now=0.0)
    (content,) = kernel.content.values()
    (sources,) = (name for name in content.sets if name.startswith("sources-"))
    content.rules[sources.replace("sources-", "firewall-")] = ()
    del content.sets[sources], content.elements[sources]  # a mended chain would begin with its deletion
    kernel.touch()
    assert not await plane.intact()
    await plane.sync(guarded, None, now=1.0)
    assert await plane.intact()
    (content,) = kernel.content.values()
    assert sources in content.sets
