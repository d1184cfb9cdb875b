"""The ipvs plane: observe, plan, apply.  I/O only; everything it decides is in the modules beside it.

A change is a handful of netlink messages: one endpoint is one.  IPVS has no transactions, so what the plane believes
follows each message the kernel took, and whatever was refused is read anew by the full sync that comes next.
"""

import errno
import itertools
import logging
from collections.abc import Sequence

from svcplane.base.errors import EnvironmentProblem, KernelError
from svcplane.base.net import Family, join_host_port
from svcplane.kernel.ipset.objects import Size
from svcplane.kernel.ipvs import objects as o
from svcplane.proxy.model import NodeConfig, Outcome, Packet, ProxyState, ServicePortName
from svcplane.proxy.plane import AffinityEntry, LiveRule, Operation, SyncReport
from svcplane.proxy.planes.ipvs import names as n
from svcplane.proxy.planes.ipvs import plan as p
from svcplane.proxy.planes.ipvs import rules
from svcplane.proxy.planes.ipvs.book import Book, Keys
from svcplane.proxy.planes.ipvs.compile import Fragment, compile_port
from svcplane.proxy.planes.ipvs.describe import live_rules
from svcplane.proxy.planes.ipvs.drain import Drains
from svcplane.proxy.planes.ipvs.observe import Kernel, Observed, ground, lay, observe
from svcplane.proxy.planes.ipvs.policy import Options, choose, options
from svcplane.proxy.planes.ipvs.trace import trace
from svcplane.proxy.topology import categorize

log = logging.getLogger(__name__)
SAMPLE = 32  # virtual servers looked at by a cheap check; the next check takes the next ones
DEEP_EVERY = 10  # of so many checks one reads everything but the virtual servers
_GONE = (errno.ESRCH, errno.ENOENT)


class _Known:
    """What the plane wants, and believes of the kernel since its last sync."""

    def __init__(self, state: ProxyState, chosen: Options, book: Book, live: p.Live) -> None:
        self.config, self.node = state.config, state.node
        self.options, self.book, self.live = chosen, book, live
        self.foreign: frozenset[o.ServerKey] = frozenset()
        self.sizes: dict[str, Size] = {}
        self.checks = 0
        self.next_sample = 0


class IpvsPlane:
    """Implements `proxy.plane.Plane`.  Not safe for concurrent calls."""

    mode = "ipvs"

    def __init__(self, config: NodeConfig, kernel: Kernel) -> None:
        self._config, self._kernel = config, kernel
        self._known: _Known | None = None
        self._remembered: p.Live | None = None  # what was ours before a sync failed
        self._missing: set[str] = set()  # schedulers this kernel lacks
        self._drains = Drains()
        self._told: dict[ServicePortName, tuple[str, ...]] = {}

    async def preflight(self) -> None:
        options(self._config.mode_options)
        kernel = self._kernel
        if not await kernel.ipvs.available():
            raise EnvironmentProblem("this kernel has no IPVS (module ip_vs); use another --proxy-mode")
        if not await kernel.ipset.available():
            raise EnvironmentProblem("this kernel has no ipset (module ip_set); use another --proxy-mode")
        await kernel.iptables.choose()
        await kernel.iptables.save()

    async def close(self) -> None:
        for part in (self._kernel.ipvs, self._kernel.ipset, self._kernel.device, self._kernel.intake):
            await part.close()

    # -- sync ---------------------------------------------------------------------------------------------------------

    async def sync(self, state: ProxyState, touched: frozenset[ServicePortName] | None, *, now: float) -> SyncReport:
        known = self._known
        here = (state.config, state.node)
        if touched is None or known is None or here != (known.config, known.node):
            return await self._sync_full(state, now)
        self._known, self._remembered = None, known.live  # until the kernel has taken it
        keys = Keys()
        for name in sorted(touched):
            known.book.update(name, self._fragment(state, name, known.options), keys)
        done = await self._apply(known, keys, now)
        self._known = known
        return self._report(done, known, [], full=False, now=now)

    async def _sync_full(self, state: ProxyState, now: float) -> SyncReport:
        previous = self._known.live if self._known else self._remembered
        self._known = None
        self._missing.clear()
        self._kernel.intake.use(rules.intake_mark(state.config))
        chosen = options(state.config.mode_options)
        book = self._book(state, chosen)
        observed = await observe(self._kernel, state.config, previous, frozenset(book.addresses))
        operations = ground(self._kernel, state.config, chosen, observed)
        await lay(self._kernel, state.config, chosen, observed)
        known = _Known(state, chosen, book, observed.live)
        known.foreign = _foreign(known.book, observed)
        for key in sorted(known.foreign):
            log.error(
                "virtual server %s is somebody else's and stays as it is: service=%s",
                key,
                known.book.servers.owner(key),
            )
        self._remembered = known.live
        done = await self._apply(known, p.everything(known.book, known.live), now)
        known.sizes = dict(await self._kernel.ipset.sizes(_set_names(state.config.family)))
        self._known = known
        return self._report(done, known, operations, full=True, now=now)

    def _report(self, done: p.Plan, known: _Known, before: list[Operation], *, full: bool, now: float) -> SyncReport:
        facts = {"virtual_servers": len(known.live.servers), "draining": len(self._drains)}
        operations = [*before, *done.operations][: p.MAX_OPERATIONS]
        return SyncReport(operations, len(before) + done.count, full, self._drains.wake_at(now), facts)

    def _book(self, state: ProxyState, chosen: Options) -> Book:
        book, keys = Book(), Keys()
        for name in sorted(state.services):
            book.update(name, self._fragment(state, name, chosen), keys)
        return book

    def _fragment(self, state: ProxyState, name: ServicePortName, chosen: Options) -> Fragment | None:
        port = state.services.get(name)
        if port is None:
            self._told.pop(name, None)
            return None
        endpoints = categorize(port, state.endpoints.get(name, ()), state.node)
        choice = choose(port, chosen, state.config.family)
        if choice.problems and self._told.get(name) != choice.problems:
            for problem in choice.problems:
                log.error("annotation passed over: service=%s %s", name, problem)
        self._told[name] = choice.problems
        return compile_port(port, endpoints, choice, state.config, state.node)

    def _rules(self, known: _Known) -> p.Rules:
        chosen = known.options
        return p.Rules(chosen.scheduler, frozenset(self._missing), known.foreign, chosen.exclude_cidrs)

    async def _apply(self, known: _Known, keys: Keys, now: float) -> p.Plan:
        """Bring `keys` to what is wanted, and end drains that are over.  Raises at the end what was refused."""
        total = p.Plan()
        while True:
            plan = p.draft(known.book, known.live, keys, self._rules(known))
            before, problems = len(self._missing), await self._execute(known, plan, now)
            total.operations += plan.operations[: p.MAX_OPERATIONS - len(total.operations)]
            total.count += plan.count
            if len(self._missing) == before:
                break  # else once more, with other schedulers for the Services concerned
        await self._end_drains(known, total, now)
        if problems:
            more = f", and {len(problems) - 1} more" if len(problems) > 1 else ""
            raise KernelError(f"{problems[0].error}{more}")
        return total

    async def _execute(self, known: _Known, plan: p.Plan, now: float) -> list[o.Refusal]:
        kernel, live, family = self._kernel, known.live, known.config.family
        for kind, entries in plan.add_entries.items():
            await kernel.ipset.add(n.set_of(kind, family), entries)
            live.entries[kind].update(entries)
        problems = await self._commit(live, plan.changes)
        if plan.add_addresses:
            await kernel.device.add(plan.add_addresses)
            live.addresses.update(plan.add_addresses)
        if plan.delete_addresses:
            await kernel.device.delete(plan.delete_addresses)
            live.addresses.difference_update(plan.delete_addresses)
        problems += await self._commit(live, plan.farewells)
        for kind, entries in plan.delete_entries.items():
            await kernel.ipset.delete(n.set_of(kind, family), entries)
            live.entries[kind].difference_update(entries)
        self._drains.follow(plan, now)
        self._drains.forget(change.key for change in plan.farewells)
        return problems

    async def _commit(self, live: p.Live, changes: Sequence[o.Change]) -> list[o.Refusal]:
        """Make the changes; those refused for a reason that matters."""
        refused = {refusal.change: refusal for refusal in await self._kernel.ipvs.commit(changes)}
        lacking: set[o.ServerKey] = set()
        problems = []
        for change in changes:
            refusal = refused.get(change)
            deletes = isinstance(change, o.DeleteServer | o.DeleteDestination)
            if refusal is None or (deletes and refusal.error.code in _GONE):
                live.accept(change)
            elif isinstance(change, o.AddServer | o.EditServer) and refusal.error.code == errno.ENOENT:
                if change.server.scheduler == p.LAST_RESORT:
                    problems.append(refusal)
                    continue
                self._missing.add(change.server.scheduler)
                lacking.add(change.key)
                log.error("%s; the last good scheduler is kept, or the default taken", refusal.error)
            elif change.key not in lacking:
                problems.append(refusal)
        return problems

    async def _end_drains(self, known: _Known, total: p.Plan, now: float) -> None:
        """Delete targets whose connections ended or whose time is up."""
        servers = sorted(self._drains.servers())
        found = {key: await self._kernel.ipvs.destinations(key) for key in servers}
        over = self._drains.done(found, now)
        changes = [o.DeleteDestination(key, target) for key, target in over]
        for refusal in await self._kernel.ipvs.commit(changes):
            if refusal.error.code not in _GONE:
                raise refusal.error
        for (key, target), why in over.items():
            if key in known.live.servers:
                known.live.servers[key][1].pop(target, None)
            total.note("delete", f"target {target[0]} port {target[1]} of {key}", why)
        self._drains.end(over)

    # -- looking ------------------------------------------------------------------------------------------------------

    async def intact(self) -> bool:
        known = self._known
        if known is None:
            return False
        kernel, live, family = self._kernel, known.live, known.config.family
        sizes = await kernel.ipset.sizes(_set_names(family))
        for kind in n.Kind:
            name = n.set_name(kind, family)
            expected = Size(len(live.entries[kind]), known.sizes[name].references if name in known.sizes else 0)
            if sizes.get(name) != expected:
                return False
        deep = known.checks % DEEP_EVERY == 0
        known.checks += 1
        if deep:
            if await kernel.device.read() != frozenset(live.addresses) or not await kernel.intake.read():
                return False
            if rules.diff(rules.tables(known.config), await kernel.iptables.save()):
                return False
        return await self._sample_is_intact(known)

    async def _sample_is_intact(self, known: _Known) -> bool:
        """Some virtual servers with their targets, the next ones each time."""
        servers = known.live.servers
        at = known.next_sample if known.next_sample < len(servers) else 0
        keys = list(itertools.islice(servers, at, at + SAMPLE))
        known.next_sample = at + SAMPLE
        found = await self._kernel.ipvs.find(keys)
        for key in keys:
            server, weights = servers[key]
            if found.get(key) != server:
                return False
            targets = await self._kernel.ipvs.destinations(key)
            if {target: destination.weight for target, destination in targets.items()} != weights:
                return False
        return True

    async def _observed(self, config: NodeConfig, claimed: frozenset[str] = frozenset()) -> Observed:
        return await observe(self._kernel, config, self._known.live if self._known else self._remembered, claimed)

    async def plan(self, state: ProxyState) -> Sequence[Operation]:
        chosen = options(state.config.mode_options)
        book = self._book(state, chosen)
        observed = await self._observed(state.config, frozenset(book.addresses))
        known = _Known(state, chosen, book, observed.live)
        known.foreign = _foreign(known.book, observed)
        drafted = p.draft(known.book, known.live, p.everything(known.book, known.live), self._rules(known))
        return [*ground(self._kernel, state.config, chosen, observed), *drafted.operations]

    async def trace(self, state: ProxyState, packet: Packet) -> tuple[frozenset[Outcome], Sequence[str]]:
        return trace(await self._observed(state.config), state, packet)

    async def rules(self, state: ProxyState) -> Sequence[LiveRule]:
        book = self._book(state, options(state.config.mode_options))
        observed = await self._observed(state.config, frozenset(book.addresses))
        return list(live_rules(observed, book, state.config.family))

    async def affinity(self, state: ProxyState) -> Sequence[AffinityEntry]:
        known = self._known
        book = known.book if known else self._book(state, options(state.config.mode_options))
        found = []
        for connection in await self._kernel.ipvs.connections():
            key = o.ServerKey(connection.protocol, *connection.server)
            owner = book.servers.owner(key) if connection.is_template else None
            if owner is not None:
                target = join_host_port(*connection.target)
                found.append(AffinityEntry(owner, connection.client, target, float(connection.expires_s)))
        return found

    async def forget_affinity(self, entry: AffinityEntry) -> None:
        raise KernelError(
            f"IPVS cannot forget one client of {entry.service}: it forgets all of an endpoint when that goes, "
            "or a client when its time is up"
        )

    # -- the end ------------------------------------------------------------------------------------------------------

    async def cleanup(self) -> None:
        """The device comes first and goes last, so that a host without it has nothing of this mode."""
        kernel, config = self._kernel, self._config
        if await kernel.device.read() is None:
            await kernel.device.remove()  # which tells who may not
            return
        observed = await self._observed(config)
        for text in rules.removal(observed.tables):
            await kernel.iptables.restore(text)
        await kernel.iptables.tidy()
        await kernel.intake.remove()
        await kernel.device.delete(observed.live.addresses)
        refusals = await kernel.ipvs.commit([o.DeleteServer(key) for key in sorted(observed.live.servers)])
        for kind in n.Kind:
            await kernel.ipset.destroy(n.set_name(kind, config.family))
        other = Family.IPV6 if config.family is Family.IPV4 else Family.IPV4
        if not await kernel.ipset.sizes(_set_names(other)):
            await kernel.device.remove()
        self._known, self._remembered, self._drains = None, None, Drains()
        for refusal in refusals:
            if refusal.error.code not in _GONE:
                raise refusal.error


def _foreign(book: Book, observed: Observed) -> frozenset[o.ServerKey]:
    """Wanted virtual servers that somebody else has."""
    return frozenset(key for key in observed.servers if key not in observed.live.servers and key in book.servers)


def _set_names(family: Family) -> list[str]:
    return [n.set_name(kind, family) for kind in n.Kind]
