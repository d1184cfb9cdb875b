"""The laws of a plane, over the in-memory kernel: it does what the oracle says, and is content with what it did."""

import asyncio

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.proxystates import node_configs, packets, proxy_states

from svcplane.kernel.nft.fake import FakeNft
from svcplane.proxy.oracle import NFTABLES, decide
from svcplane.proxy.planes.nftables.plane import NftablesPlane

LAWS = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@LAWS
@given(st.data())
def test_a_packet_goes_where_the_oracle_says(data: st.DataObject) -> None:
    before = data.draw(proxy_states(node_configs()))
    state = data.draw(proxy_states(st.just(before.config)))
    wanted = [data.draw(packets(state)) for _ in range(6)]

    async def check() -> None:
        plane = NftablesPlane(state.config, FakeNft())
        await plane.sync(before, None, now=0.0)
        touched = frozenset(before.services) | frozenset(state.services)
        await plane.sync(state, touched, now=1.0)
        for packet in wanted:
            found, way = await plane.trace(state, packet)
            assert found == decide(state, packet, NFTABLES), (packet, way)

    asyncio.run(check())


@LAWS
@given(st.data())
def test_planning_again_yields_nothing(data: st.DataObject) -> None:
    state = data.draw(proxy_states())

    async def check() -> None:
        plane = NftablesPlane(state.config, FakeNft())
        await plane.sync(state, None, now=0.0)
        assert not await plane.plan(state)
        assert await plane.intact()

    asyncio.run(check())
