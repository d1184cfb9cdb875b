"""The proxy on a node: source -> tracker -> plane, for each family; then flows, health and metrics.

One task owns the state.  Nothing is written before Services and EndpointSlices are both listed.  A failed sync is
tried again with back-off, as a full one.  Every few seconds the plane is asked whether the kernel is as it was left.
"""

import asyncio
import json
import logging
import os
import time
from typing import Any

from svcplane.api.core import Node, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.api.networking import ServiceCIDR
from svcplane.base.clock import parse_rfc3339
from svcplane.base.errors import EnvironmentProblem, SvcplaneError
from svcplane.base.net import Family, family_of
from svcplane.base.tasks import cancel_and_wait
from svcplane.kernel.addresses import Local, local
from svcplane.proxy import looking
from svcplane.proxy.family import FamilyProxy, MakePlane, remove, switch
from svcplane.proxy.health import TO_BE_DELETED, CheckPorts, Health, HealthServer, Page, health_page
from svcplane.proxy.history import Entry, History, take
from svcplane.proxy.inspect import InspectServer, Query, plain
from svcplane.proxy.metrics import Metrics
from svcplane.proxy.model import ServicePortName
from svcplane.proxy.pages import pages
from svcplane.proxy.planes import PLANES, make_plane
from svcplane.proxy.programmed import Programmed
from svcplane.proxy.report import LeaseReporter
from svcplane.proxy.settings import Facts, Settings, gather, node_configs
from svcplane.proxy.snapshot import FamilySnapshot, Snapshot, encode
from svcplane.proxy.sources import Source
from svcplane.proxy.tracker import TRIGGER_TIME
from svcplane.proxy.zpages import flagz, statusz

log = logging.getLogger(__name__)
CHECK_EVERY_S = 3.0
_TEXT = "text/plain; charset=utf-8"
_METRICS_PATHS = ("/configz", "/flagz", "/healthz", "/metrics", "/proxyMode", "/statusz")


class Agent:
    """Run with `await agent.run()`; `history` keeps what was done and why.

    `settings` may be given anew while it runs (`reconfigure`).  `configz`, `flags`: what /configz and /flagz show.
    `reporter` tells the cluster what is programmed.
    """

    def __init__(
        self,
        settings: Settings,
        source: Source,
        make: MakePlane = make_plane,
        reporter: LeaseReporter | None = None,
    ) -> None:
        self._settings, self._source, self._make, self._reporter = settings, source, make, reporter
        self._began_wall = time.time()
        self._local = Local()
        self._node: Node | None = None  # as it was last
        self.metrics = Metrics()
        basic = node_configs(settings, Facts())
        self._families = [FamilyProxy(config, self.metrics) for config in basic.values()]
        labels = tuple(family.label for family in self._families)
        self.health = Health(timeout_s=2 * settings.sync_period_s, families=labels)
        self._checks = CheckPorts(self.health)
        self._servers = HealthServer()
        self._wake = asyncio.Event()
        self._at_kernel = asyncio.Lock()  # rules half written are not to be taken for somebody's change
        self._timer: asyncio.TimerHandle | None = None
        self._unsettled = True  # settings or facts changed
        self._applied = settings
        served = ((settings.healthz, self._health_page), (settings.metrics, self._metrics_page))
        self._closed = {address: page for address, page in served if address is not None}
        self._told: set[str] = set()
        self._sweeping: asyncio.Task[None] | None = None
        self.synced = asyncio.Event()  # the rules of all families have been written once
        self.configz: dict[str, Any] = {}
        self.flags: dict[str, str] = {}
        self.history = History()
        self.changed = asyncio.Event()  # what is programmed may have changed
        self._programmed = Programmed()
        self._syncing = False
        self.inspect_pages = {"/state": self._state_page, "/history": self._history_page}
        self._inspect = InspectServer({**self.inspect_pages, **pages(self._families), **looking.pages(self._families)})

    @property
    def mode(self) -> str:
        """The mode whose rules are in the kernel."""
        return self._applied.mode

    def reconfigure(self, settings: Settings) -> None:
        """Take on new settings: another mode is programmed and verified before the present one is removed.

        The node's name and the listeners stay as they were.
        """
        self._settings = settings
        self.health.timeout_s = 2 * settings.sync_period_s
        self._unsettle()

    # -- changes ----------------------------------------------------------------------------------------------------

    def _service_changed(self, old: Service | None, new: Service | None) -> None:
        self.metrics.services.inc()
        self.metrics.services_pending.inc()
        self.changed.set()
        for family in self._families:
            self._touch(family, family.tracker.service_changed(old, new))

    def _slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        self.metrics.endpoints.inc()
        self.metrics.endpoints_pending.inc()
        trigger = self._trigger(old, new)
        self.changed.set()
        for family in self._families:
            touched = family.tracker.slice_changed(old, new)
            if touched and trigger is not None:
                family.triggers.append(trigger)
            self._touch(family, touched)

    def _trigger(self, old: EndpointSlice | None, new: EndpointSlice | None) -> float | None:
        """When what this change tells of happened, by whoever wrote it; not from before this proxy began."""
        text = new.metadata.annotations.get(TRIGGER_TIME) if new is not None else None
        if text is None or (old is not None and old.metadata.annotations.get(TRIGGER_TIME) == text):
            return None
        wall = parse_rfc3339(text)
        return wall if wall is not None and wall > self._began_wall else None

    def _node_changed(self, old: Node | None, new: Node | None) -> None:
        taints = [taint.key for taint in new.spec.taints] if new is not None else []
        gone = new is None or new.metadata.deletion_timestamp is not None
        self.health.node_eligible = not gone and TO_BE_DELETED not in taints
        if new is None:  # what was known of it holds to the end: kube-proxy ends, and leaves its rules as they are
            log.warning("the Node is deleted: rules go on as they were for it")
            return
        self._node = new
        for family in self._families:
            self._touch(family, family.tracker.node_changed(new))
        self._unsettle()

    def _cidrs_changed(self, old: ServiceCIDR | None, new: ServiceCIDR | None) -> None:
        self._unsettle()

    def _unsettle(self) -> None:
        self._unsettled = True
        self._wake.set()

    def _touch(self, family: FamilyProxy, names: frozenset[ServicePortName]) -> None:
        if names:
            family.touch(names)
            self.health.queued(family.label, time.monotonic())
            self.metrics.queued.labels(family.label).set_to_current_time()
            self._wake.set()

    # -- life ---------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until cancelled.  The kernel's rules stay as they are."""
        source = self._source
        source.services.on_change(self._service_changed)
        source.slices.on_change(self._slice_changed)
        source.nodes.on_change(self._node_changed)
        source.cidrs.on_change(self._cidrs_changed)
        try:
            await self._listen()
            await self._open_inspection()
            source.start()
            for ready in (source.services.synced, source.slices.synced, source.nodes.synced, source.cidrs.tried):
                await ready.wait()
            await self._look_at_addresses()
            await self._begin()
            async with asyncio.TaskGroup() as group:
                if self._reporter is not None:
                    group.create_task(self._reporter.run(self))
                group.create_task(self._sync_forever())
                group.create_task(self._check_forever())
        finally:
            if self._timer is not None:
                self._timer.cancel()
            await cancel_and_wait(self._sweeping)
            await source.close()
            await self._checks.close()
            await self._servers.close()
            await self._inspect.close()
            for family in self._families:
                await family.close()

    async def _listen(self) -> None:
        """Open what is not open.  A port that is taken is tried again, unless that is to be the end."""
        closed, self._closed = self._closed, {}
        for address, page in closed.items():
            try:
                await self._servers.listen(*address, page)
            except EnvironmentProblem as error:
                if self._settings.bind_hard_fail:
                    raise
                self._closed[address] = page
                if str(error) not in self._told:
                    self._told.add(str(error))
                    log.error("%s; trying again", error)

    async def _open_inspection(self) -> None:
        try:
            await self._inspect.start()
        except EnvironmentProblem as error:
            log.warning("%s", error)

    async def _begin(self) -> None:
        """The planes of each family this host can have.

        Raises EnvironmentProblem where it cannot have that of the node's first address, or none at all.
        """
        facts = self._facts()
        configs = node_configs(self._settings, facts)
        able: list[FamilyProxy] = []
        problems: dict[Family, EnvironmentProblem] = {}
        for family in self._families:
            family.tracker.config_changed(configs[family.family])
            family.mode = self._settings.mode
            family.plane = self._make(family.mode, configs[family.family])
            try:
                await family.plane.preflight()
                able.append(family)
            except EnvironmentProblem as error:
                problems[family.family] = error
                await family.close()
        primary = family_of(facts.node_ips[0]) if facts.node_ips else None
        if primary in problems:
            raise problems[primary]
        for lacking, problem in problems.items():
            if not able:
                raise problem
            log.warning("no %s: %s", lacking.api_name, problem)
        self._families = able
        self.health.families = tuple(family.label for family in able)
        self._applied, self._unsettled = self._settings, False

    # -- pages --------------------------------------------------------------------------------------------------------

    def _health_page(self, path: str) -> Page:
        page = health_page(self.health, path)
        if path in ("/healthz", "/livez"):
            (self.metrics.healthz if path == "/healthz" else self.metrics.livez).labels(str(page[0])).inc()
        return page

    def _metrics_page(self, path: str) -> Page:
        if path == "/metrics":
            return 200, self.metrics.render(), "text/plain; version=0.0.4; charset=utf-8", {}
        if path == "/proxyMode":
            return 200, self.mode.encode(), _TEXT, {"X-Content-Type-Options": "nosniff"}
        if path == "/configz":
            return 200, json.dumps(self.configz).encode(), "application/json", {}
        if path == "/healthz":  # that this server answers; of the proxy tells the other listener
            return 200, b"ok", _TEXT, {"X-Content-Type-Options": "nosniff"}
        if path == "/statusz":
            return 200, statusz(self._began_wall, time.time(), _METRICS_PATHS), _TEXT, {}
        if path == "/flagz":
            return 200, flagz(self.flags), _TEXT, {}
        return 404, b"404 page not found\n", _TEXT, {}

    def _state_page(self, query: Query) -> bytes:
        """The desired state, or the one of `at` (wall seconds).  Raises ValueError."""
        states = [family.state for family in self._families]
        if "at" in query:
            states = [self.history.state_at(state, float(query["at"])) for state in states]
        families = tuple(FamilySnapshot.of(state) for state in states)
        return encode(Snapshot(self._settings.node_name, self.mode, os.getpid(), self._began_wall, families))

    def _history_page(self, query: Query) -> bytes:
        """Entries, of one `service` or from `since` (wall seconds) on.  Raises ValueError."""
        return plain(self.history.entries(query.get("service", ""), float(query.get("since", "0"))))

    # -- what is programmed -------------------------------------------------------------------------------------------

    def _versions(self) -> Programmed:
        return Programmed(self._source.services.version, self._source.slices.version, self.mode)

    def programmed(self) -> Programmed:
        """The versions whose changes are all in the kernel."""
        settled = not self._syncing and not any(family.is_pending for family in self._families)
        if settled and self.health.updated_wall:
            self._programmed = self._versions()
        return self._programmed

    # -- facts --------------------------------------------------------------------------------------------------------

    async def _look_at_addresses(self) -> None:
        try:
            found = await local()
        except SvcplaneError as error:
            log.warning("cannot look at addresses: %s", error)
            return
        if found == self._local:
            return
        self._local = found
        self._unsettle()
        for family in self._families:
            here, networks = found.addresses.get(family.family, ()), found.networks.get(family.family, ())
            if family.tracker.addresses_changed(here, networks):
                family.full = True

    def _facts(self) -> Facts:
        cidrs = [cidr for item in self._source.cidrs.items.values() for cidr in item.spec.cidrs]
        return gather(self._node, self._local.addresses, cidrs, self._settings.bind_address)

    async def _settle(self) -> None:
        """Follow changed settings and facts."""
        self._unsettled = False
        settings = self._settings
        configs = node_configs(settings, self._facts())
        if settings.mode != self._applied.mode:
            try:
                if self._sweeping is not None:
                    await self._sweeping  # it may be about to remove the very mode that is wanted now
                await switch(self._families, settings.mode, configs, self._make)
                log.info("switched: from=%s to=%s", self._applied.mode, settings.mode)
                self._note("", "switch", f"from {self._applied.mode} to {settings.mode}")
            except SvcplaneError as error:
                log.error("cannot switch to %s, staying with %s: %s", settings.mode, self._applied.mode, error)
                if self._settings is settings:
                    self._settings = self._applied
                return
        for family in self._families:
            if family.state.config != configs[family.family]:
                family.tracker.config_changed(configs[family.family])
                family.full = True
        self._applied = settings

    # -- syncing ------------------------------------------------------------------------------------------------------

    async def _sync_forever(self) -> None:
        self._wake.set()
        while True:
            await self._wake.wait()
            self._wake.clear()
            began = time.monotonic()
            async with self._at_kernel:
                if self._unsettled:
                    await self._settle()
                await self._sync_all()
            if not self.synced.is_set() and all(f.label in self.health.updated_wall for f in self._families):
                self.synced.set()
                self._sweeping = asyncio.create_task(self._sweep(), name="sweep")
            self._set_timer()
            left = self._settings.min_sync_period_s - (time.monotonic() - began)
            if left > 0:
                await asyncio.sleep(left)

    async def _sync_all(self) -> None:
        touched: dict[ServicePortName, None] | None = {}
        self.metrics.services_pending.set(0)
        self.metrics.endpoints_pending.set(0)
        versions, self._syncing, good = self._versions(), True, True
        try:
            for family in self._families:
                if not family.wants_sync(time.monotonic()):
                    good = good and not family.is_pending
                    continue
                if family.full:
                    touched = None
                elif touched is not None:
                    touched.update(dict.fromkeys(family.touched))
                good = await self._sync_one(family) and good
        finally:
            self._syncing = False
        if good:
            self._programmed = versions
        self.changed.set()
        for problem in await self._checks.update(tuple(family.state for family in self._families), touched):
            log.warning("%s", problem)

    async def _sync_one(self, family: FamilyProxy) -> bool:
        """False where it failed, and will be tried again."""
        began = time.monotonic()
        taken = take(family.state, None if family.full else family.touched)
        report = await family.sync()
        if report is None:
            self._note(family.label, "failure", family.error)
            return False
        entry = Entry(
            at_s=time.time(),
            family=family.label,
            mode=family.mode,
            what="full sync" if report.full else "sync",
            seconds=time.monotonic() - began,
            operation_count=report.operation_count,
        )
        self.history.synced(entry, taken, report.operations)
        self.health.synced(family.label, time.time())
        if family.is_pending:  # came meanwhile
            self.health.queued(family.label, began)
        return True

    def _note(self, family: str, what: str, why: str) -> None:
        self.history.note(Entry(time.time(), family, self.mode, what, why))

    def _set_timer(self) -> None:
        """Wake for a retry or a drain."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        moments = [at for family in self._families if (at := family.next_at()) is not None]
        if moments:
            wait = max(0.0, min(moments) - time.monotonic())
            self._timer = asyncio.get_running_loop().call_later(wait, self._wake.set)

    async def _sweep(self) -> None:
        """Remove what this proxy left in another mode before it was started in this one."""
        for family in self._families:
            for mode in PLANES:
                if mode != family.mode:
                    await remove(self._make(mode, family.state.config), family.label)

    async def _check_forever(self) -> None:
        """Notice foreign changes and new addresses; try again what could not be opened."""
        while True:
            await asyncio.sleep(CHECK_EVERY_S)
            await self._listen()
            await self._look_at_addresses()
            for family in self._families:
                async with self._at_kernel:
                    intact = await family.is_intact()
                if not intact:
                    log.warning("somebody changed our rules, repairing: family=%s", family.label)
                    self.metrics.repairs.labels(family.label).inc()
                    self._note(family.label, "repair", "somebody changed our rules")
                    family.full = True
                    self._wake.set()
            if self._checks.failed:
                self._wake.set()
