"""The proxy on a node: sources -> tracker -> plane, for each family; then flows, health and metrics.

One task owns the state.  Nothing is written before Services and EndpointSlices are both listed.  A failed sync is
tried again with back-off, as a full one.  Every few seconds the plane is asked whether the kernel is as it was left.
"""

import asyncio
import logging
import time
from collections import deque
from dataclasses import dataclass, replace

from svcplane.api.core import Node, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.api.resources import ENDPOINT_SLICES, NODES, SERVICES
from svcplane.base.errors import SvcplaneError
from svcplane.base.net import Family
from svcplane.client.api import ApiClient
from svcplane.client.informer import Informer
from svcplane.client.transport import Transport
from svcplane.kernel.addresses import local_addresses
from svcplane.kernel.conntrack import run as conntrack_run
from svcplane.kernel.conntrack.text import Entry
from svcplane.proxy.conntrack import Flow, stale
from svcplane.proxy.health import TO_BE_DELETED, CheckPorts, Health, HealthServer, Metrics, health_page
from svcplane.proxy.model import NodeConfig, Protocol, ServicePortName
from svcplane.proxy.plane import Plane, SyncReport
from svcplane.proxy.tracker import HEADLESS_LABEL, PROXY_NAME_LABEL, Tracker

log = logging.getLogger(__name__)
CHECK_EVERY_S = 3.0
HISTORY = 1000


@dataclass(frozen=True, slots=True)
class AgentConfig:
    """`healthz` and `metrics` are (host, port), or None for no listener."""

    node_name: str
    mode: str
    min_sync_period_s: float = 0.0
    healthz: tuple[str, int] | None = ("0.0.0.0", 10256)
    metrics: tuple[str, int] | None = ("127.0.0.1", 10249)


class _Family:
    """One family's tracker and plane, and what waits to be synced."""

    def __init__(self, config: NodeConfig, plane: Plane) -> None:
        self.tracker, self.plane = Tracker(config), plane
        self.label = config.family.api_name
        self.touched: set[ServicePortName] = set()
        self.full = True
        self.failures = 0


class Agent:
    """Run with `await agent.run()`; `history` keeps what was done and why."""

    def __init__(
        self, config: AgentConfig, transport: Transport, planes: dict[Family, tuple[NodeConfig, Plane]]
    ) -> None:
        self._config = config
        client = ApiClient(transport, "svcplane-proxy")
        labels = f"!{PROXY_NAME_LABEL}"
        self._services: Informer[Service] = Informer(client, SERVICES, Service, labels=labels)
        self._slices: Informer[EndpointSlice] = Informer(
            client, ENDPOINT_SLICES, EndpointSlice, labels=f"!{HEADLESS_LABEL},{labels}"
        )
        self._node: Informer[Node] = Informer(client, NODES, Node, fields=f"metadata.name={config.node_name}")
        self._families = [_Family(node_config, plane) for node_config, plane in planes.values()]
        self.health = Health(families=tuple(family.label for family in self._families))
        self.metrics = Metrics()
        self._checks = CheckPorts(self.health)
        self._servers = HealthServer()
        self._wake = asyncio.Event()
        self.history: deque[tuple[float, str, SyncReport]] = deque(maxlen=HISTORY)

    # -- changes -----------------------------------------------------------------------------------------------------

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        self.metrics.services.inc()
        for family in self._families:
            self._touch(family, family.tracker.service_changed(old, new))

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        self.metrics.endpoints.inc()
        for family in self._families:
            self._touch(family, family.tracker.slice_changed(old, new))

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        taints = [taint.key for taint in new.spec.taints] if new is not None else []
        gone = new is None or new.metadata.deletion_timestamp is not None
        self.health.node_eligible = not gone and TO_BE_DELETED not in taints
        for family in self._families:
            self._touch(family, family.tracker.node_changed(new))

    def _touch(self, family: _Family, names: frozenset[ServicePortName]) -> None:
        if names:
            family.touched |= names
            self.health.queued(time.monotonic())
            self.metrics.queued.labels(family.label).set_to_current_time()
            self._wake.set()

    # -- life ----------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled.  The kernel's rules stay as they are."""
        for family in self._families:
            await family.plane.preflight()
        await self._listen()
        await self._look_at_addresses()
        self._services.on_change(self._service_changed)
        self._slices.on_change(self._slice_changed)
        self._node.on_change(self._node_changed)
        informers = (self._services, self._slices, self._node)
        for informer in informers:
            informer.start()
        try:
            await self._services.synced.wait()
            await self._slices.synced.wait()
            await self._node.synced.wait()
            async with asyncio.TaskGroup() as group:
                group.create_task(self._sync_forever())
                group.create_task(self._check_forever())
        finally:
            for informer in informers:
                await informer.close()
            await self._checks.close()
            await self._servers.close()
            for family in self._families:
                await family.plane.close()

    async def _listen(self) -> None:
        if self._config.healthz is not None:
            await self._servers.listen(*self._config.healthz, lambda path: health_page(self.health, path))
        if self._config.metrics is not None:
            await self._servers.listen(*self._config.metrics, self._metrics_page)

    def _metrics_page(self, path: str) -> tuple[int, bytes, str, dict[str, str]]:
        if path == "/metrics":
            return 200, self.metrics.render(), "text/plain; version=0.0.4", {}
        if path == "/proxyMode":
            return 200, self._config.mode.encode(), "text/plain; charset=utf-8", {}
        if path in ("/healthz", "/livez"):
            return health_page(self.health, path)
        return 404, b"404 page not found\n", "text/plain; charset=utf-8", {}

    async def _look_at_addresses(self) -> None:
        try:
            found = await local_addresses()
        except SvcplaneError as error:
            log.warning("cannot look at addresses: %s", error)
            return
        for family in self._families:
            addresses = found.get(family.tracker.state.config.family, ())
            if family.tracker.addresses_changed(addresses):
                family.full = True
                self._wake.set()

    # -- syncing -------------------------------------------------------------------------------------------------------

    async def _sync_forever(self) -> None:
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            began = time.monotonic()
            touched: dict[ServicePortName, None] | None = {}
            retry_in = 0.0
            for family in self._families:
                if family.full:
                    touched = None
                elif touched is not None:
                    touched.update(dict.fromkeys(family.touched))
                retry_in = max(retry_in, await self._sync(family))
            for problem in await self._checks.update(tuple(f.tracker.state for f in self._families), touched):
                log.warning("%s", problem)
            if retry_in:
                asyncio.get_running_loop().call_later(retry_in, self._wake.set)
            left = self._config.min_sync_period_s - (time.monotonic() - began)
            if left > 0:
                await asyncio.sleep(left)

    async def _sync(self, family: _Family) -> float:
        """Bring one family's plane up to date; seconds to a retry, 0 where it went well."""
        if not family.full and not family.touched:
            return 0.0
        names, full = frozenset(family.touched), family.full
        family.touched, family.full = set(), False
        began = time.monotonic()
        try:
            report = await family.plane.sync(family.tracker.state, None if full else names, now=began)
        except SvcplaneError as error:
            family.full = True
            family.failures += 1
            self.metrics.failures.labels(family.label).inc()
            wait: float = min(30.0, 0.5 * 2 ** min(family.failures, 6))
            log.error("sync failed, again in %.1f s: family=%s error=%s", wait, family.label, error)
            return wait
        family.failures = 0
        seconds = time.monotonic() - began
        self.metrics.sync.labels(family.label).observe(seconds)
        (self.metrics.full if report.full else self.metrics.partial).labels(family.label).observe(seconds)
        self.metrics.last.labels(family.label).set_to_current_time()
        self.health.synced(time.time())
        self.history.append((time.time(), family.label, report))
        if report.operation_count:
            log.info("synced: family=%s operations=%d full=%s", family.label, report.operation_count, report.full)
        await self._clean_flows(family, None if full else names)
        return 0.0

    async def _clean_flows(self, family: _Family, names: frozenset[ServicePortName] | None) -> None:
        state = family.tracker.state
        if names is not None:
            udp = {name for name in names if name.protocol is Protocol.UDP}
            if not udp:
                return
            state = replace(
                state,
                services={name: state.services[name] for name in udp if name in state.services},
                endpoints={name: state.endpoints[name] for name in udp if name in state.endpoints},
            )
        elif not any(name.protocol is Protocol.UDP for name in state.services):
            return
        try:
            entries = await conntrack_run.flows(state.config.family, "udp")
            flows = {_flow(entry): entry for entry in entries}
            for flow in stale(flows, state):
                await conntrack_run.delete(state.config.family, "udp", flows[flow])
                self.metrics.flows.labels(family.label).inc()
                log.info("deleted stale flow: client=%s:%d to=%s:%d", flow.src, flow.sport, flow.dst, flow.dport)
        except SvcplaneError as error:
            log.warning("stale flows were not looked for: %s", error)

    async def _check_forever(self) -> None:
        """Notice foreign changes and new addresses."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            await self._look_at_addresses()
            for family in self._families:
                if family.full or family.touched:
                    continue
                try:
                    if not await family.plane.intact():
                        log.warning("somebody changed our rules, repairing: family=%s", family.label)
                        family.full = True
                        self._wake.set()
                except SvcplaneError as error:
                    log.warning("cannot check the rules: family=%s error=%s", family.label, error)


def _flow(entry: Entry) -> Flow:
    return Flow(Protocol.UDP, entry.src, entry.sport, entry.dst, entry.dport, entry.reply_src, entry.reply_sport)
