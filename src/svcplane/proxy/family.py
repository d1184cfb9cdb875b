"""One IP family of the proxy: its tracker, its plane, and what waits to be synced."""

import contextlib
import logging
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import cast

from svcplane.base.errors import EnvironmentProblem, KernelError, SvcplaneError
from svcplane.base.net import Family, join_host_port
from svcplane.kernel.conntrack import run as conntrack_run
from svcplane.kernel.conntrack.text import Entry
from svcplane.proxy.conntrack import Flow, concerned, end_tcp, stale
from svcplane.proxy.metrics import Metrics
from svcplane.proxy.model import NodeConfig, Protocol, ProxyState, ServicePortName
from svcplane.proxy.plane import Plane, RelayingPlane, SyncReport
from svcplane.proxy.policy import LocalGaps
from svcplane.proxy.tracker import Tracker

log = logging.getLogger(__name__)
MakePlane = Callable[[str, NodeConfig], Plane]
FIRST_RETRY_S, LAST_RETRY_S = 0.5, 30.0
#: Modes in which flows are answered by the node itself, which moves those it has to other endpoints on its own.
RELAYING = frozenset({"userspace"})
#: Modes whose TCP connections are known to connection tracking alone; ipvs has drains of its own.
ENDING = frozenset({"nftables", "iptables"})


class FamilyProxy:
    """`touched` and `full` say what the next sync must look at; `due_at` when one must happen without a change."""

    def __init__(self, config: NodeConfig, metrics: Metrics) -> None:
        self.tracker = Tracker(config)
        self.family, self.label = config.family, config.family.api_name
        self.mode = ""
        self.plane: Plane | None = None
        self.touched: set[ServicePortName] = set()
        self.full = True
        self.triggers: list[float] = []  # wall seconds at which the changes that wait were caused
        self.due_at: float | None = None
        self.error = ""  # why the last sync failed
        self._failures = 0
        self._retry_at = 0.0
        self._gaps = LocalGaps()
        self._told: set[str] = set()  # what is wrong with annotations, and with the host
        self._metrics = metrics

    @property
    def state(self) -> ProxyState:
        return self.tracker.state

    def touch(self, names: frozenset[ServicePortName]) -> None:
        if not self.full:
            self.touched |= names

    @property
    def is_pending(self) -> bool:
        """Whether a change waits for the kernel."""
        return self.full or bool(self.touched)

    def wants_sync(self, now: float) -> bool:
        if now < self._retry_at:
            return False
        return self.full or bool(self.touched) or (self.due_at is not None and now >= self.due_at)

    def next_at(self) -> float | None:
        """When to look again, where no change comes."""
        if self._retry_at and (self.full or self.touched):
            return self._retry_at
        return self.due_at

    async def sync(self) -> SyncReport | None:
        """Bring the plane up to date; None where that failed, and a full one will be tried again."""
        assert self.plane is not None
        names, full, began = frozenset(self.touched), self.full, time.monotonic()
        self.touched, self.full, self.due_at = set(), False, None
        triggers, self.triggers = self.triggers, []
        try:
            report = await self.plane.sync(self.state, None if full else names, now=began)
        except SvcplaneError as error:
            self.full = True
            self.triggers = triggers
            self._failures += 1
            self._metrics.failed(self.label, self.mode, full=full)
            wait = min(LAST_RETRY_S, FIRST_RETRY_S * 2 ** min(self._failures, 6))
            self._retry_at = time.monotonic() + wait
            self.error = str(error)
            log.error("sync failed, again in %.1f s: family=%s error=%s", wait, self.label, error)
            return None
        self._failures, self._retry_at, self.due_at, self.error = 0, 0.0, report.wake_at, ""
        self._account(report, None if full else names, time.monotonic() - began, triggers)
        await self._clean_flows(None if full else names)
        return report

    def _account(
        self, report: SyncReport, names: frozenset[ServicePortName] | None, seconds: float, triggers: list[float]
    ) -> None:
        metrics, wall = self._metrics, time.time()
        metrics.synced(self.label, seconds, report)
        for trigger in triggers:
            metrics.programming.labels(self.label).observe(max(0.0, wall - trigger))
        self._gaps.update(self.state, names)
        self._tell_of_annotations(self.state.services if names is None else names)
        metrics.no_local.labels("internal", self.label).set(len(self._gaps.internal))
        metrics.no_local.labels("external", self.label).set(len(self._gaps.external))
        if report.operation_count:
            # a single change among thousands a second is in the history and the metrics, and here for who asks
            level = logging.INFO if report.full else logging.DEBUG
            log.log(level, "synced: family=%s operations=%d full=%s", self.label, report.operation_count, report.full)

    def _tell_of_annotations(self, names: Iterable[ServicePortName]) -> None:
        for name in names:
            port = self.state.services.get(name)
            if port is None or not port.annotations or name.protocol is not Protocol.TCP:
                continue
            _, problem = end_tcp(port, self.state.config.end_tcp_connections)
            if problem and problem not in self._told:
                self._told.add(problem)
                log.warning("%s", problem)

    async def _clean_flows(self, names: frozenset[ServicePortName] | None) -> None:
        began, looked = time.monotonic(), False
        for protocol in (Protocol.UDP, Protocol.TCP) if self.mode in ENDING else (Protocol.UDP,):
            state = concerned(self.state, names, protocol)
            if state.services:
                looked = True
                await self._clean(state, protocol)
        if looked:
            self._metrics.flows_seconds.labels(self.label).observe(time.monotonic() - began)

    async def _clean(self, state: ProxyState, protocol: Protocol) -> None:
        kind = protocol.lower()
        try:
            flows = [_flow(protocol, entry) for entry in await conntrack_run.flows(self.family, kind)]
            relays = cast("RelayingPlane", self.plane).relays if self.mode in RELAYING else None
            ways = dict.fromkeys(
                ((flow.dst, flow.dport), (flow.reply_src, flow.reply_sport))
                for flow in stale(flows, state, protocol, relays)
            )
            for to, answered_by in ways:
                count = await conntrack_run.delete(self.family, kind, to, answered_by)
                self._metrics.flows.labels(self.label).inc(count)
                log.info(
                    "deleted stale flows: protocol=%s count=%d to=%s endpoint=%s",
                    kind,
                    count,
                    join_host_port(*to),
                    join_host_port(*answered_by),
                )
        except SvcplaneError as error:
            problem = f"stale flows were not looked for: protocol={kind}: {error}"
            if problem not in self._told:
                self._told.add(problem)
                log.warning("%s", problem)

    async def is_intact(self) -> bool:
        """Whether nobody changed our rules; True where that cannot be told, or a sync is due anyway."""
        if self.plane is None or self.full or self.touched:
            return True
        try:
            return await self.plane.intact()
        except SvcplaneError as error:
            log.warning("cannot check the rules: family=%s error=%s", self.label, error)
            return True

    async def close(self) -> None:
        if self.plane is not None:
            await self.plane.close()


def _flow(protocol: Protocol, entry: Entry) -> Flow:
    return Flow(protocol, entry.src, entry.sport, entry.dst, entry.dport, entry.reply_src, entry.reply_sport)


async def verify(plane: Plane, state: ProxyState) -> None:
    """Raise KernelError unless the kernel holds exactly what `state` wants."""
    if not await plane.intact():
        raise KernelError(f"{plane.mode}: the rules are not as they were written")
    left = await plane.plan(state)
    if left:
        first = left[0]
        raise KernelError(f"{plane.mode}: {len(left)} things are not as written, first: {first.verb} {first.object}")


async def switch(families: list[FamilyProxy], mode: str, configs: dict[Family, NodeConfig], make: MakePlane) -> None:
    """Program another mode, verify it, and only then remove what was there.

    While both are there a new connection is translated by whichever hook comes first, to the same endpoints; one
    that was translated stays so.  On an error everything of the new mode is removed, and the old one goes on.
    """
    fresh: list[tuple[FamilyProxy, Plane]] = []
    try:
        for family in families:
            plane = make(mode, configs[family.family])
            fresh.append((family, plane))
            # a copy: what changes meanwhile is no fault of the new rules
            now_state = family.state
            state = replace(
                now_state,
                config=configs[family.family],
                services=dict(now_state.services),
                endpoints=dict(now_state.endpoints),
            )
            await plane.preflight()
            await plane.sync(state, None, now=time.monotonic())
            await verify(plane, state)
    except SvcplaneError:
        for _, plane in fresh:
            with contextlib.suppress(SvcplaneError):
                await plane.cleanup()
            await plane.close()
        raise
    for family, plane in fresh:
        old, family.plane, family.mode = family.plane, plane, mode
        family.tracker.config_changed(configs[family.family])
        family.full = True  # what came while we switched
        if old is not None:
            await remove(old, family.label)


async def remove(plane: Plane, label: str) -> None:
    """Take a mode's rules away; a host that cannot have that mode has none of its rules."""
    try:
        await plane.cleanup()
    except EnvironmentProblem as error:
        log.debug("nothing to remove: mode=%s family=%s: %s", plane.mode, label, error)
    except SvcplaneError as error:
        log.warning("cannot remove the rules of another mode: mode=%s family=%s: %s", plane.mode, label, error)
    finally:
        await plane.close()
