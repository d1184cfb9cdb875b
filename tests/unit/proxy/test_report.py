"""A Lease tells what is programmed: made, renewed when it changes, given up where it may not be written."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from svcplane.api.http import Request, Response
from svcplane.api.resources import LEASES
from svcplane.client.api import ApiClient
from svcplane.client.transport import InProcessTransport
from svcplane.proxy import report as report_module
from svcplane.proxy.programmed import ANNOTATION, LEASE_NAMESPACE, Programmed, from_text, to_text
from svcplane.proxy.report import LeaseReporter
from svcplane.testing.server import in_process_server


class Teller:
    def __init__(self) -> None:
        self.changed, self.value = asyncio.Event(), Programmed("5", "7", "nftables")

    def programmed(self) -> Programmed:
        return self.value


@pytest.fixture
async def transport(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[InProcessTransport]:
    monkeypatch.setattr(report_module, "AT_MOST_EVERY_S", 0.01)
    async with in_process_server() as server:
        yield InProcessTransport(server.handle)


async def reported(transport: InProcessTransport, wanted: Programmed) -> None:
    api = ApiClient(transport)
    async with asyncio.timeout(10):
        while True:
            items = (await api.list(LEASES, LEASE_NAMESPACE))["items"]
            if items and from_text(items[0]["metadata"]["annotations"][ANNOTATION]) == wanted:
                assert items[0]["metadata"]["name"] == "svcplane-proxy-node1"
                return
            await asyncio.sleep(0.01)


async def test_the_lease_follows_what_is_programmed(transport: InProcessTransport) -> None:
    teller = Teller()
    task = asyncio.create_task(LeaseReporter(transport, "node1").run(teller))
    try:
        await reported(transport, teller.value)
        teller.value = Programmed("6", "9", "nftables")
        teller.changed.set()
        await reported(transport, teller.value)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_cluster_that_refuses_is_left_alone() -> None:
    calls = []

    async def refuse(request: Request) -> Response:
        calls.append(request.path)
        return Response(403, b'{"kind":"Status","message":"no","reason":"Forbidden","code":403}')

    async with asyncio.timeout(10):
        await LeaseReporter(InProcessTransport(refuse), "node1").run(Teller())
    assert len(calls) == 1


@pytest.mark.parametrize(
    ("service", "slices", "covered"),
    [("5", ("7",), True), ("6", ("7",), False), ("5", ("7", "8"), False), ("5", (), True), ("x", (), False)],
)
def test_versions_are_compared_as_numbers(service: str, slices: tuple[str, ...], covered: bool) -> None:
    assert Programmed("5", "7").covers(service, slices) is covered
    assert not Programmed().covers("1", ())


def test_text_of_an_annotation() -> None:
    assert from_text(to_text(Programmed("5", "7", "ipvs"))) == Programmed("5", "7", "ipvs")
    assert from_text("nonsense") is None
