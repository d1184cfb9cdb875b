"""The laws of a plane, for ipvs over an in-memory kernel: what the oracle says, and content with what it did."""

import asyncio
from collections.abc import Sequence

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.fakeipvs import FakeKernel, KilledIpvs
from tests.proxystates import GATEWAY, NODE_IP, OTHER_IP, OUTSIDE, PODS, in_family, node_configs, proxy_states

from svcplane.base.net import Family, join_host_port
from svcplane.kernel.ipvs import objects as o
from svcplane.proxy.model import Origin, Packet, ProxyState
from svcplane.proxy.oracle import IPVS, decide
from svcplane.proxy.planes.ipvs.names import Kind

LAWS = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
NODES = frozenset(in_family(family, ip) for family in Family for ip in (NODE_IP, GATEWAY))
LATER = 1e9  # every drain is over
SOURCES = [(Origin.POD, PODS[0]), (Origin.POD, PODS[1]), (Origin.NODE, NODE_IP)]
SOURCES += [(Origin.OUTSIDE, ip) for ip in (*OUTSIDE, PODS[2])]


def every_packet(state: ProxyState) -> list[Packet]:
    """From everywhere to every address of every service port, and next to it."""
    found = []
    family = state.config.family
    for port in state.services.values():
        places = [(ip, number) for ip in (port.cluster_ip, *port.external_vips) for number in (port.port, 81)]
        nodes = [in_family(family, ip) for ip in (NODE_IP, GATEWAY, OTHER_IP)]
        places += [(ip, port.node_port) for ip in nodes if port.node_port]
        for origin, source in SOURCES:
            src = in_family(family, source)
            for dst, number in places:
                found.append(Packet(origin, src, dst, port.protocol, number))
            remembered = join_host_port(in_family(family, PODS[0]), 8080)
            found.append(Packet(origin, src, port.cluster_ip, port.protocol, port.port, remembered=remembered))
    return found


@LAWS
@given(st.data())
def test_a_packet_goes_where_the_oracle_says(data: st.DataObject) -> None:
    before = data.draw(proxy_states(node_configs()))
    state = data.draw(proxy_states(st.just(before.config)))

    async def check() -> None:
        plane = FakeKernel().plane(state.config)
        await plane.sync(before, None, now=0.0)
        await plane.sync(state, frozenset(before.services) | frozenset(state.services), now=1.0)
        for packet in every_packet(state):
            found, way = await plane.trace(state, packet)
            assert found == decide(state, packet, IPVS), (packet, way)

    asyncio.run(check())


@LAWS
@given(st.data())
def test_changes_end_where_a_start_would_have_begun(data: st.DataObject) -> None:
    before = data.draw(proxy_states(node_configs()))
    state = data.draw(proxy_states(st.just(before.config)))

    async def check() -> None:
        changed, fresh = FakeKernel(), FakeKernel()
        plane = changed.plane(state.config)
        await plane.sync(before, None, now=0.0)
        await plane.sync(state, frozenset(before.services) | frozenset(state.services), now=1.0)
        await plane.sync(state, frozenset(), now=LATER)
        await fresh.plane(state.config).sync(state, None, now=0.0)
        assert changed.ipvs.content == fresh.ipvs.content
        assert changed.ipvs.targets == fresh.ipvs.targets
        assert changed.ipset.content == fresh.ipset.content
        assert changed.device.content == fresh.device.content
        assert changed.iptables.tables == fresh.iptables.tables
        assert not await plane.plan(state)
        assert await plane.intact()
        restarted = changed.plane(state.config)
        assert not (await restarted.sync(state, None, now=2.0)).operation_count
        await restarted.cleanup()
        assert (changed.ipvs.content, changed.ipset.content, changed.device.content) == ({}, {}, None)
        assert changed.iptables.tables == FakeKernel().iptables.tables

    asyncio.run(check())


FOREIGN = o.ServerKey("tcp", "192.0.2.1", 80)


async def harm(kernel: FakeKernel, data: st.DataObject) -> None:
    """What somebody else, or a proxy that died half-way, may have left."""
    for key in data.draw(st.lists(st.sampled_from(sorted(kernel.ipvs.content) or [FOREIGN]), max_size=2, unique=True)):
        if key in kernel.ipvs.content:
            change = data.draw(st.sampled_from([o.DeleteServer(key), o.EditServer(key, o.Server("lc", 60))]))
            await kernel.ipvs.commit([change])
    for key, targets in kernel.ipvs.targets.items():
        if targets and data.draw(st.booleans()):
            target = data.draw(st.sampled_from(sorted(targets)))
            gone = data.draw(st.booleans())
            await kernel.ipvs.commit([o.DeleteDestination(key, target) if gone else o.EditDestination(key, target, 9)])
    # our servers are known by the device's addresses or by the sets, so one of them stays; node ports, and addresses
    # that a neighbour may have, by the sets alone
    near = {entry.ip for name, (_, found) in kernel.ipset.content.items() if Kind.NEIGHBOUR in name for entry in found}
    alone = NODES | near
    if data.draw(st.booleans()):
        for _, entries in kernel.ipset.content.values():
            found = sorted(entry for entry in entries if entry.ip not in alone)
            if found and data.draw(st.booleans()):
                entries.discard(data.draw(st.sampled_from(found)))
    elif kernel.device.content:
        kernel.device.content.discard(data.draw(st.sampled_from(sorted(kernel.device.content))))
    kernel.intake.there = data.draw(st.sets(st.sampled_from((1 << 13, 1 << 3))))
    for table in kernel.iptables.tables.values():
        for chain in list(table):
            if table[chain] and data.draw(st.booleans()):
                table[chain] = table[chain][1:]


@LAWS
@given(st.data())
def test_whatever_is_left_of_before_the_kernel_ends_as_wanted(data: st.DataObject) -> None:
    before = data.draw(proxy_states(node_configs()))
    state = data.draw(proxy_states(st.just(before.config)))

    async def check() -> None:
        kernel = FakeKernel()
        theirs: Sequence[o.Change] = [o.AddServer(FOREIGN, o.Server("sh")), o.AddDestination(FOREIGN, ("192.0.2.7", 1))]
        await kernel.ipvs.commit(theirs)
        await kernel.plane(before.config).sync(before, None, now=0.0)
        await harm(kernel, data)
        untouched = kernel.ipvs.content.get(FOREIGN), kernel.ipvs.targets.get(FOREIGN)
        plane = kernel.plane(state.config)
        await plane.sync(state, None, now=1.0)
        assert not await plane.plan(state)
        for packet in every_packet(state):
            found, way = await plane.trace(state, packet)
            assert found == decide(state, packet, IPVS), (packet, way)
        assert (kernel.ipvs.content.get(FOREIGN), kernel.ipvs.targets.get(FOREIGN)) == untouched
        await plane.cleanup()
        assert set(kernel.ipvs.content) <= {FOREIGN}
        assert (kernel.ipset.content, kernel.device.content, kernel.intake.there) == ({}, None, set())

    asyncio.run(check())


@LAWS
@given(st.data(), st.integers(0, 12))
def test_a_proxy_killed_in_the_middle_of_a_sync_leaves_what_the_next_one_completes(
    data: st.DataObject, steps: int
) -> None:
    before = data.draw(proxy_states(node_configs()))
    state = data.draw(proxy_states(st.just(before.config)))

    async def check() -> None:
        kernel, fresh = FakeKernel(), FakeKernel()
        plane = kernel.plane(state.config)
        await plane.sync(before, None, now=0.0)
        kernel.ipvs.die_after(steps)
        touched = frozenset(before.services) | frozenset(state.services)
        try:
            await plane.sync(state, touched, now=1.0)
        except KilledIpvs:
            pass
        kernel.ipvs.die_after(None)
        plane = kernel.plane(state.config)
        await plane.sync(state, None, now=1.0)
        await plane.sync(state, frozenset(), now=LATER)
        await fresh.plane(state.config).sync(state, None, now=0.0)
        assert (kernel.ipvs.content, kernel.ipvs.targets) == (fresh.ipvs.content, fresh.ipvs.targets)
        assert (kernel.ipset.content, kernel.device.content) == (fresh.ipset.content, fresh.device.content)
        assert not await plane.plan(state)

    asyncio.run(check())
