"""Others change nf_tables: a plane reads its table again only where its own table is concerned."""

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import replace

import pytest

from svcplane.base.net import Family
from svcplane.kernel.links.run import inside
from svcplane.kernel.nft import events
from svcplane.kernel.nft.objects import TableContent, TableName
from svcplane.kernel.nft.run import NftSocket
from svcplane.proxy.model import Endpoint, NodeConfig, NodeState, Protocol, ProxyState, ServicePort, ServicePortName
from svcplane.proxy.planes.nftables.plane import NftablesPlane

pytestmark = [pytest.mark.root, pytest.mark.tools("ip", "nft")]
NAME = ServicePortName("default", "web", "", Protocol.TCP)


class Counting(NftSocket):
    """Counts how often the table is read."""

    reads = 0

    async def read(self, table: TableName, *, elements: bool = True) -> TableContent | None:
        self.reads += 1
        return await super().read(table, elements=elements)


def state(port: int, family: Family = Family.IPV4) -> ProxyState:
    ip, backend = ("10.96.0.1", "10.0.0.1") if family is Family.IPV4 else ("fd00::1", "fd01::1")
    services = {NAME: ServicePort(NAME, ip, 80)}
    endpoints = {NAME: (Endpoint(backend, port),)}
    return ProxyState(NodeConfig("n", family), NodeState("n"), services, endpoints)


@pytest.fixture
def run() -> Iterator[Callable[[Callable[[], Awaitable[None]]], None]]:
    name = f"nftev{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True)

    def run(body: Callable[[], Awaitable[None]]) -> None:
        async def whole() -> None:
            await body()

        with inside(name):
            asyncio.run(whole())

    try:
        yield run
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True)


def nft(text: str) -> None:
    """As somebody else; in this thread's namespace."""
    subprocess.run(["nft", "-f", "-"], input=text.encode(), check=True)


Run = Callable[[Callable[[], Awaitable[None]]], None]


def test_other_tables_are_no_reason_to_read(run: Run) -> None:
    async def body() -> None:
        socket = Counting()
        plane = NftablesPlane(state(1).config, socket)
        await plane.sync(state(1), None, now=0)
        reads = socket.reads
        for number in range(5):
            nft(f"add table ip foreign{number}; add set ip foreign{number} s {{ type ipv4_addr; }}")
            nft(f"add element ip foreign{number} s {{ 192.0.2.1 }}")
            assert await plane.intact()
            nft(f"delete table ip foreign{number}")
            report = await plane.sync(state(number + 2), frozenset({NAME}), now=0)
            assert not report.full
        assert socket.reads == reads
        await plane.close()

    run(body)


def test_the_families_do_not_disturb_each_other(run: Run) -> None:
    async def body() -> None:
        sockets = {family: Counting() for family in Family}
        planes = {family: NftablesPlane(state(1, family).config, sockets[family]) for family in Family}
        for family, plane in planes.items():
            await plane.sync(state(1, family), None, now=0)
        before = [socket.reads for socket in sockets.values()]
        for port in range(2, 8):
            for family, plane in planes.items():
                assert await plane.intact()
                assert not (await plane.sync(state(port, family), frozenset({NAME}), now=0)).full
        assert [socket.reads for socket in sockets.values()] == before
        for plane in planes.values():
            await plane.close()

    run(body)


def test_an_edit_of_our_table_is_seen_and_repaired(run: Run) -> None:
    async def body() -> None:
        socket = Counting()
        plane = NftablesPlane(state(1).config, socket)
        await plane.sync(state(1), None, now=0)
        nft("add table ip foreign")
        nft("flush map ip svcplane service-ips")
        assert not await plane.intact()
        report = await plane.sync(state(2), frozenset({NAME}), now=0)
        assert report.full
        assert await plane.intact()
        nft("flush ruleset")
        assert not await plane.intact()
        await plane.close()

    run(body)


def test_lost_notifications_lead_to_a_look_and_not_to_a_wrong_belief(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_BUFFER", 1)

    async def body() -> None:
        socket = Counting()
        plane = NftablesPlane(state(1).config, socket)
        await plane.sync(state(1), None, now=0)
        elements = ", ".join(f"192.0.{n // 250}.{n % 250 + 1}" for n in range(2000))
        nft("add table ip foreign; add set ip foreign s { type ipv4_addr; }")
        nft(f"add element ip foreign s {{ {elements} }}")
        reads = socket.reads
        assert await plane.intact()
        assert socket.reads == reads + 1
        nft("flush map ip svcplane service-ips")
        nft("flush set ip foreign s")
        assert not await plane.intact()
        changed = replace(state(3), services={NAME: ServicePort(NAME, "10.96.0.2", 80)})
        assert (await plane.sync(changed, None, now=0)).full
        assert await plane.intact()
        await plane.close()

    run(body)
