"""Readiness, liveness and startup probes: thresholds and schedule.

Source: the kubelet's prober.  A result counts once it was seen successThreshold or failureThreshold times in a
row.  Until then: liveness counts as success, readiness and startup as failure.  Readiness and liveness wait for
startup, and are then made at once.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from enum import StrEnum

from svcplane.api.core import Container, Probe
from svcplane.node.checks import Result, Target, check
from svcplane.node.model import Health


class Kind(StrEnum):
    """The word is the one in the events' text."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


@dataclass(frozen=True, slots=True)
class Tally:
    """One probe's record: how often in a row the last result came, and the verdict in force."""

    last_ok: bool | None = None
    in_a_row: int = 0
    verdict: bool | None = None  # None: not yet decided


def fold(tally: Tally, probe: Probe, ok: bool) -> Tally:
    """The record after one more result."""
    count = tally.in_a_row + 1 if tally.last_ok is ok else 1
    threshold = probe.success_threshold if ok else probe.failure_threshold
    verdict = ok if count >= max(1, threshold) else tally.verdict
    return Tally(ok, count, verdict)


def probes_of(container: Container) -> dict[Kind, Probe]:
    pairs = (
        (Kind.STARTUP, container.startup_probe),
        (Kind.LIVENESS, container.liveness_probe),
        (Kind.READINESS, container.readiness_probe),
    )
    return {kind: probe for kind, probe in pairs if probe is not None}


def due(kind: Kind, health: Health, has_startup: bool) -> bool:
    """Whether a probe is to be made at all now."""
    if health.failed:
        return False
    if kind is Kind.STARTUP:
        return not health.started
    return health.started or not has_startup


def health_at_start(container: Container) -> Health:
    """A container that has just been started."""
    started = container.startup_probe is None
    return Health(started=started, ready=started and container.readiness_probe is None)


def verdict(health: Health, container: Container, kind: Kind, tally: Tally, text: str) -> Health:
    """What a probe's record means for the container."""
    probe = probes_of(container)[kind]
    if tally.verdict is None:
        return health
    if kind is Kind.READINESS:
        return replace(health, ready=tally.verdict)
    if tally.verdict:
        if kind is Kind.STARTUP and not health.started:
            return replace(health, started=True, ready=container.readiness_probe is None)
        return health
    grace = probe.termination_grace_period_seconds
    word = kind.value.lower()
    failed = f"Container {container.name} failed {word} probe, will be restarted"
    return replace(health, ready=False, failed=failed, grace_s=grace)


@dataclass(slots=True)
class Prober:
    """All probes of one run.  `changed` is called with a new Health, `tell` with results that are no plain success."""

    target: Target
    health: Health
    sleep: Callable[[float], Awaitable[None]]
    changed: Callable[[Health], None]
    tell: Callable[[Kind, Result], None]
    terminating: bool = False
    _begun: asyncio.Event = field(default_factory=asyncio.Event)  # the startup probe has succeeded

    async def run(self) -> None:
        """Until cancelled.  Raises nothing."""
        if self.health.started:
            self._begun.set()
        async with asyncio.TaskGroup() as group:
            for kind, probe in probes_of(self.target.container).items():
                group.create_task(self._one(kind, probe), name=f"{kind} {self.target.container.name}")

    async def _one(self, kind: Kind, probe: Probe) -> None:
        container = self.target.container
        tally = Tally()
        await self.sleep(float(probe.initial_delay_seconds))
        if kind is not Kind.STARTUP and container.startup_probe is not None:
            await self._begun.wait()
        while True:
            if kind is Kind.STARTUP and (self.health.started or self.health.failed):
                return
            if due(kind, self.health, container.startup_probe is not None) and self._wanted(kind):
                result = await check(probe, self.target)
                if not result.ok or result.warning:
                    self.tell(kind, result)
                if not result.unknown:
                    tally = fold(tally, probe, result.ok)
                    self._judge(verdict(self.health, container, kind, tally, result.text))
            await self.sleep(float(max(1, probe.period_seconds)))

    def _judge(self, health: Health) -> None:
        if health != self.health:
            self.health = health
            if health.started:
                self._begun.set()
            self.changed(health)

    def _wanted(self, kind: Kind) -> bool:
        """A terminating Pod's readiness is still watched (it may serve); it is not restarted any more."""
        return kind is Kind.READINESS or not self.terminating
