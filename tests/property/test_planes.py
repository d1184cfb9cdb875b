"""The laws of a plane, over the in-memory kernel: it does what the oracle says, and is content with what it did."""

import asyncio
import copy
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.proxystates import node_configs, packets, proxy_states
from tests.relayworkers import FakeWorkers

from svcplane.base.net import Family
from svcplane.kernel.iptables.fake import FakeIptables
from svcplane.kernel.nft.fake import FakeNft
from svcplane.kernel.nft.objects import Chain, TableContent, TableName
from svcplane.proxy.model import NodeConfig
from svcplane.proxy.oracle import IPTABLES, NFTABLES, USERSPACE, ModeTraits, decide
from svcplane.proxy.plane import Plane
from svcplane.proxy.planes.iptables.plane import IptablesPlane
from svcplane.proxy.planes.nftables.plane import NftablesPlane
from svcplane.proxy.planes.userspace.plane import UserspacePlane
from svcplane.proxy.planes.userspace.relaying import Relaying

LAWS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@dataclass(frozen=True)
class Mode:
    """`kernel()` makes one with somebody else's objects in it; `plane` a proxy on it; `seen` what is in it.

    `harm(kernel, data)` does to ours what a half-applied transaction or somebody's careless hand may do.
    """

    name: str
    traits: ModeTraits
    kernel: Callable[[], Any]
    plane: Callable[[NodeConfig, Any], Plane]
    seen: Callable[[Any], Any]
    harm: Callable[[Any, st.DataObject], None]

    def __str__(self) -> str:
        return self.name


FOREIGN_TABLE = TableName(Family.IPV4, "somebody")


def nft_kernel() -> FakeNft:
    kernel = FakeNft()
    kernel.content[FOREIGN_TABLE] = TableContent(chains={"own": Chain("own")}, rules={"own": ()})
    return kernel


def nft_harm(kernel: FakeNft, data: st.DataObject) -> None:
    """Elements and the rules of chains vanish."""
    for table, content in kernel.content.items():
        if table == FOREIGN_TABLE:
            continue
        for elements in content.elements.values():
            for key in [key for key in elements if data.draw(st.booleans())]:
                del elements[key]
        for chain in content.rules:
            if data.draw(st.integers(0, 5)) == 0:
                content.rules[chain] = ()
    kernel.touch()


def iptables_kernel() -> FakeIptables:
    kernel = FakeIptables()
    kernel.tables["nat"] |= {"DOCKER": ("-i docker0 -j RETURN",), "POSTROUTING": ("-s 172.17.0.0/16 -j MASQUERADE",)}
    kernel.tables["filter"] |= {"INPUT": ("-s 192.0.2.1/32 -j DROP",), "KUBE-FIREWALL": ("-j RETURN",)}
    return kernel


def iptables_harm(kernel: FakeIptables, data: st.DataObject) -> None:
    """Chains are emptied, cut or doubled; jumps vanish."""
    for chains in kernel.tables.values():
        for name, rules in list(chains.items()):
            if name in ("INPUT", "POSTROUTING") or not rules:
                continue
            kept = [rule for rule in rules if "KUBE-" not in rule or data.draw(st.integers(0, 3))]
            if name.startswith("KUBE-") and name != "KUBE-FIREWALL":
                chains[name] = data.draw(st.sampled_from([rules, (), rules[:1], rules * 2]))
            else:
                chains[name] = tuple(kept)


def relayed(config: NodeConfig, kernel: FakeNft) -> Plane:
    return UserspacePlane(config, kernel, Relaying(FakeWorkers()))


MODES = [
    Mode("nftables", NFTABLES, nft_kernel, NftablesPlane, lambda kernel: kernel.content, nft_harm),
    Mode("iptables", IPTABLES, iptables_kernel, IptablesPlane, lambda kernel: kernel.tables, iptables_harm),
    Mode("userspace", USERSPACE, nft_kernel, relayed, lambda kernel: kernel.content, nft_harm),
]
every_mode = pytest.mark.parametrize("mode", MODES, ids=str)


@every_mode
@LAWS
@given(data=st.data())
def test_a_packet_goes_where_the_oracle_says(mode: Mode, data: st.DataObject) -> None:
    before = data.draw(proxy_states(node_configs()))
    state = data.draw(proxy_states(st.just(before.config)))
    wanted = [data.draw(packets(state)) for _ in range(6)]

    async def check() -> None:
        plane = mode.plane(state.config, mode.kernel())
        await plane.sync(before, None, now=0.0)
        touched = frozenset(before.services) | frozenset(state.services)
        await plane.sync(state, touched, now=1.0)
        for packet in wanted:
            found, way = await plane.trace(state, packet)
            assert found == decide(state, packet, mode.traits), (packet, way)

    asyncio.run(check())


@every_mode
@LAWS
@given(data=st.data())
def test_planning_again_yields_nothing(mode: Mode, data: st.DataObject) -> None:
    state = data.draw(proxy_states())

    async def check() -> None:
        kernel = mode.kernel()
        plane = mode.plane(state.config, kernel)
        await plane.sync(state, None, now=0.0)
        assert not await plane.plan(state)
        assert await plane.intact()
        again = await mode.plane(state.config, kernel).sync(state, None, now=1.0)
        assert not again.operation_count, again.operations

    asyncio.run(check())


@every_mode
@LAWS
@given(data=st.data())
def test_small_steps_end_where_one_large_step_does(mode: Mode, data: st.DataObject) -> None:
    states = [data.draw(proxy_states(node_configs()))]
    states += [data.draw(proxy_states(st.just(states[0].config))) for _ in range(3)]
    last = states[-1]

    async def check() -> None:
        kernel = mode.kernel()
        plane = mode.plane(last.config, kernel)
        await plane.sync(states[0], None, now=0.0)
        for before, state in pairwise(states):
            touched = frozenset(before.services) | frozenset(state.services)
            await plane.sync(state, touched, now=1.0)
        assert await plane.intact()
        # a class of frontends, once met, is kept until the next start: a chain and its entry in a map
        again = await mode.plane(last.config, kernel).plan(last)
        left = [found for found in again if not any(part in found.object for part in ("-classes", "-pick-"))]
        assert left == []

    asyncio.run(check())


@every_mode
@LAWS
@given(data=st.data())
def test_whatever_is_left_of_before_the_kernel_ends_as_wanted(mode: Mode, data: st.DataObject) -> None:
    before, state = data.draw(proxy_states()), data.draw(proxy_states())
    wanted = [data.draw(packets(state)) for _ in range(6)]

    async def check() -> None:
        kernel = mode.kernel()
        await mode.plane(before.config, kernel).sync(before, None, now=0.0)
        mode.harm(kernel, data)
        plane = mode.plane(state.config, kernel)
        await plane.sync(state, None, now=1.0)
        assert list(await plane.plan(state)) == []
        for packet in wanted:
            found, way = await plane.trace(state, packet)
            assert found == decide(state, packet, mode.traits), (packet, way)

    asyncio.run(check())


@every_mode
@LAWS
@given(data=st.data())
def test_what_is_not_ours_stays_and_what_is_ours_goes(mode: Mode, data: st.DataObject) -> None:
    before = data.draw(proxy_states(node_configs()))
    state = data.draw(proxy_states(st.just(before.config)))

    async def check() -> None:
        kernel = mode.kernel()
        empty = copy.deepcopy(mode.seen(kernel))
        plane = mode.plane(state.config, kernel)
        await plane.sync(before, None, now=0.0)
        await plane.sync(state, frozenset(before.services) | frozenset(state.services), now=1.0)
        assert mode.seen(kernel) != empty
        await plane.cleanup()
        assert mode.seen(kernel) == empty
        await plane.cleanup()
        assert mode.seen(kernel) == empty

    asyncio.run(check())
