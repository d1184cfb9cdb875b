"""The real kernel's rules answer as the oracle, in random states of up to 200 service ports, one after another.

Both families, every protocol, policies, affinity, and every way to run a proxy, which changes in between.
`SVCPLANE_STATES` is how many (make soak: 500; else a sample); a failure names its seed.
"""

import asyncio
import os
import subprocess
from collections.abc import Iterator
from random import Random

import pytest
from tests.randomstates import config, packet, state
from tests.relayworkers import FakeWorkers

from svcplane.base.net import Family
from svcplane.kernel.iptables.run import IptablesTools
from svcplane.kernel.links.run import inside
from svcplane.kernel.nft.run import NftSocket
from svcplane.proxy.model import NodeConfig, ProxyState
from svcplane.proxy.oracle import IPTABLES, NFTABLES, USERSPACE, ModeTraits, decide
from svcplane.proxy.plane import Plane
from svcplane.proxy.planes.iptables.plane import IptablesPlane
from svcplane.proxy.planes.nftables.plane import NftablesPlane
from svcplane.proxy.planes.userspace.plane import UserspacePlane
from svcplane.proxy.planes.userspace.relaying import Relaying

STATES = int(os.environ.get("SVCPLANE_STATES", "6"))
SEED = int(os.environ.get("SVCPLANE_SEED", "6"))
PACKETS = 30
pytestmark = [pytest.mark.root, pytest.mark.tools("ip", "iptables-nft", "iptables-legacy"), pytest.mark.timeout(3600)]


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"svcplane-random-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=20)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True, timeout=20)


def plane(run: str, chosen: NodeConfig) -> tuple[Plane, ModeTraits]:
    if run == "userspace":
        return UserspacePlane(chosen, NftSocket(), Relaying(FakeWorkers())), USERSPACE
    if run == "nftables":
        return NftablesPlane(chosen, NftSocket()), NFTABLES
    return IptablesPlane(chosen, IptablesTools(chosen.family, run.removeprefix("iptables-"))), IPTABLES


async def check(run: str, family: Family, seed: int, states: int) -> None:
    random = Random(seed)
    chosen = config(random, family)
    proxy, traits = plane(run, chosen)
    before: ProxyState | None = None
    for number in range(states):
        changes = random.random() < 0.3
        chosen = config(random, family) if changes else chosen
        wanted = state(random, chosen)
        touched = frozenset(wanted.services).union(before.services) if before and not changes else None
        if random.random() < 0.2:
            await proxy.close()
            proxy, touched = plane(run, chosen)[0], None  # killed and started again
        await proxy.sync(wanted, touched, now=0.0)
        assert await proxy.intact()
        for _ in range(PACKETS):
            sent = packet(random, wanted)
            found, way = await proxy.trace(wanted, sent)
            assert found == decide(wanted, sent, traits), (family, seed, number, sent, way)
        before = wanted
    await proxy.cleanup()
    await proxy.close()


@pytest.mark.parametrize("run", ["nftables", "iptables-nft", "iptables-legacy", "userspace"])
def test_the_kernel_answers_as_the_oracle(run: str, namespace: str) -> None:
    with inside(namespace):
        for seed, family in enumerate(Family):
            asyncio.run(check(run, family, seed + SEED, states=STATES // len(Family)))
