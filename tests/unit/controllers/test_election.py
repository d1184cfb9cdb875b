"""Several candidates for one Lease, with a server in this process and time that jumps."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

from svcplane.api.http import Request, Response
from svcplane.base.errors import ConfigError, TransportError
from svcplane.base.tasks import cancel_and_wait
from svcplane.client.transport import InProcessTransport
from svcplane.controllers.election import Election, ElectionConfig, LeadershipLost, claim
from svcplane.server.app import ApiServer
from svcplane.testing.server import Caller, in_process_server
from svcplane.testing.waiting import until

LEASE = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/svcplane-controllers"


class FastClock:
    """A second lasts a hundredth of one."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()

    def now(self) -> float:
        return self._loop.time() * 100

    def wall(self) -> float:
        return 1_700_000_000 + self._loop.time() * 100

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds / 100)


class Severable(InProcessTransport):
    """A transport that can be cut."""

    cut = False

    async def send(self, request: Request) -> Response:
        if self.cut:
            raise TransportError("cut")
        return await super().send(request)


class Candidate:
    """Notes whether its work runs."""

    def __init__(self, server: ApiServer, identity: str) -> None:
        self.transport = Severable(server.handle)
        self.leads = False
        self.election = Election(self.transport, ElectionConfig(identity=identity), clock=FastClock())
        self.task = asyncio.create_task(self.election.run(self._work))

    async def _work(self) -> None:
        self.leads = True
        try:
            await asyncio.Event().wait()
        finally:
            self.leads = False

    async def leading(self) -> bool:
        return self.leads


@contextlib.asynccontextmanager
async def candidates(server: ApiServer, *names: str) -> AsyncIterator[list[Candidate]]:
    found = [Candidate(server, name) for name in names]
    try:
        yield found
    finally:
        for candidate in found:
            candidate.transport.cut = True  # no lease is given back: each run must end by itself
        await cancel_and_wait(*[candidate.task for candidate in found if not candidate.task.done()])


@pytest.fixture
async def server() -> AsyncIterator[ApiServer]:
    async with in_process_server() as started:
        yield started


async def spec_of(server: ApiServer) -> dict[str, Any]:
    _, lease = await Caller(server.handle).call("GET", LEASE)
    return dict(lease["spec"])


async def test_one_leads_and_the_next_takes_over_when_it_stops(server: ApiServer) -> None:
    async with candidates(server, "a") as (first,):
        await until(first.leading)
        async with candidates(server, "b") as (second,):
            before = await spec_of(server)

            async def renewed() -> bool:
                return (await spec_of(server))["renewTime"] != before["renewTime"]

            await until(renewed)
            assert (await spec_of(server))["holderIdentity"] == "a"
            assert not second.leads
            await cancel_and_wait(first.task)
            await until(second.leading)
            assert not first.leads
            after = await spec_of(server)
            assert (after["holderIdentity"], after["leaseTransitions"]) == ("b", 1)


async def test_leader_that_is_cut_off_stops_before_another_starts(server: ApiServer) -> None:
    async with candidates(server, "a") as (first,):
        await until(first.leading)
        async with candidates(server, "b") as (second,):
            first.transport.cut = True

            async def never_both() -> bool:
                assert not (first.leads and second.leads)
                return second.leads

            await until(never_both)
            with pytest.raises(LeadershipLost):
                await first.task


async def test_work_that_fails_fails_the_run_and_frees_the_lease(server: ApiServer) -> None:
    async def broken() -> None:
        raise TransportError("no more")

    election = Election(InProcessTransport(server.handle), ElectionConfig(identity="a"), clock=FastClock())
    with pytest.raises(TransportError, match="no more"):
        await election.run(broken)
    assert (await spec_of(server)).get("holderIdentity", "") == ""


def test_a_renewal_keeps_since_when_and_a_takeover_counts() -> None:
    first = claim({}, "a", "t1", 15)
    assert (first["acquireTime"], first["leaseTransitions"]) == ("t1", 0)
    second = claim(first, "a", "t2", 15)
    assert (second["acquireTime"], second["renewTime"], second["leaseTransitions"]) == ("t1", "t2", 0)
    third = claim(second, "b", "t3", 15)
    assert (third["acquireTime"], third["leaseTransitions"]) == ("t3", 1)


@pytest.mark.parametrize(
    "times",
    [
        {"lease_duration_s": 10.0},
        {"retry_period_s": 9.0},
        {"retry_period_s": 0.0},
        {"lease_duration_s": 0.5, "renew_deadline_s": 0.3, "retry_period_s": 0.1},
    ],
)
def test_times_that_cannot_work_are_refused(times: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="--leader-elect"):
        ElectionConfig(**times)
