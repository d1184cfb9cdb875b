"""A container's probes over time, with checks whose results are given."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from svcplane.api.core import Container
from svcplane.node import probes
from svcplane.node.checks import Result, Target
from svcplane.node.model import Health
from svcplane.node.probes import Kind, Prober


class Rig:
    """`answers`: port -> what a check of it finds.  Sleeping gives way and counts."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, container: dict[str, object]) -> None:
        self.answers: dict[int, Result] = {}
        self.told: list[tuple[Kind, Result]] = []
        self.checks: list[int] = []
        self.times: list[float] = []  # slept in all before each check
        self.slept = 0.0
        monkeypatch.setattr(probes, "check", self.check)
        made = msgspec.convert({"name": "c", **container}, Container)
        target = Target(made, "", "10.0.0.1", self.exec)
        self.prober = Prober(
            target, probes.health_at_start(made), self.sleep, lambda _: None, lambda *what: self.told.append(what)
        )

    async def exec(self, argv: list[str], timeout_s: float) -> tuple[int, str]:
        return 0, ""

    async def check(self, probe: probes.Probe, target: Target) -> Result:
        port = probe.tcp_socket.port if probe.tcp_socket else 0
        self.checks.append(int(port))
        self.times.append(self.slept)
        return self.answers[int(port)]

    async def sleep(self, seconds: float) -> None:
        self.slept += seconds
        await asyncio.sleep(0)

    async def until(self, condition: Callable[[], bool]) -> Health:
        task = asyncio.create_task(self.prober.run())
        async with asyncio.timeout(5):
            while not condition():
                await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return self.prober.health


def probe(port: int, period: int) -> dict[str, object]:
    return {"tcpSocket": {"port": port}, "periodSeconds": period, "failureThreshold": 2}


async def test_readiness_is_asked_as_soon_as_the_container_has_started(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch, {"startupProbe": probe(1, 1), "readinessProbe": probe(2, 1000)})
    rig.answers = {1: Result(True), 2: Result(True)}
    health = await rig.until(lambda: rig.prober.health.ready)
    assert health == Health(started=True, ready=True)
    assert rig.checks[:2] == [1, 2]
    assert rig.times[1] < 1000


async def test_check_that_could_not_be_made_restarts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch, {"livenessProbe": probe(1, 1)})
    rig.answers = {1: Result(False, "couldn't find port", unknown=True)}
    health = await rig.until(lambda: len(rig.checks) > 5)
    assert health.failed == ""
    assert rig.told[0] == (Kind.LIVENESS, rig.answers[1])
    rig.answers = {1: Result(False, "refused")}
    assert (await rig.until(lambda: bool(rig.prober.health.failed))).failed


async def test_success_with_a_warning_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig(monkeypatch, {"readinessProbe": probe(1, 1)})
    rig.answers = {1: Result(True, "Probe terminated redirects", warning=True)}
    assert (await rig.until(lambda: rig.prober.health.ready)).ready
    assert rig.told[0] == (Kind.READINESS, rig.answers[1])
