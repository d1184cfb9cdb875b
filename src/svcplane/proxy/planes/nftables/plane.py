"""The nftables plane: observe, plan, apply.  I/O only; everything it decides is in the modules beside it.

One long-lived netlink socket; a change is a handful of elements in one transaction that carries the
generation it is based on, so that nobody's change in between goes unnoticed.
"""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from svcplane.base.net import join_host_port
from svcplane.kernel.nft import objects as o
from svcplane.proxy.model import NodeConfig, Outcome, Packet, ProxyState, ServicePortName
from svcplane.proxy.plane import AffinityEntry, LiveRule, Operation, SyncReport
from svcplane.proxy.planes.nftables import names as n
from svcplane.proxy.planes.nftables import plan as p
from svcplane.proxy.planes.nftables.book import Book, Data, Stage, recover
from svcplane.proxy.planes.nftables.compile import Fragment, compile_port
from svcplane.proxy.planes.nftables.describe import live_rules
from svcplane.proxy.planes.nftables.layout import sets
from svcplane.proxy.planes.nftables.trace import trace
from svcplane.proxy.topology import categorize

_TRIES = 5


@dataclass(slots=True)
class _Known:
    """What the plane believes of the kernel since its last successful transaction."""

    book: Book
    chains: set[str]
    specs: dict[str, o.Set]
    config: NodeConfig
    local_addresses: tuple[str, ...]
    wanted: p.Skeleton
    generation: int = 0
    intervals: dict[str, tuple[o.Element, ...]] = field(default_factory=dict)


class NftablesPlane:
    """Implements `proxy.plane.Plane`.  Not safe for concurrent calls."""

    mode = "nftables"

    def __init__(self, config: NodeConfig, nft: o.Nft) -> None:
        self._nft = nft
        self._table = n.table_name(config.family)
        self._config = config
        self._known: _Known | None = None
        self._owners: dict[int, ServicePortName] = {}  # of pools, as `affinity` found them
        self._departures = time.time_ns()  # none that an earlier process counted, however fast it did

    async def preflight(self) -> None:
        await self._nft.generation()

    async def close(self) -> None:
        await self._nft.close()

    # -- sync ------------------------------------------------------------------------------------------------

    async def sync(self, state: ProxyState, touched: frozenset[ServicePortName] | None, *, now: float) -> SyncReport:
        known = self._known
        if touched is not None and known is not None and known.config == state.config:
            try:
                return await self._sync_touched(known, state, touched)
            except o.GenerationChanged:
                pass  # somebody changed nf_tables meanwhile: read what is there, and write the difference to that
        return await self._sync_full(state)

    async def _sync_touched(self, known: _Known, state: ProxyState, touched: frozenset[ServicePortName]) -> SyncReport:
        self._known = None  # until the kernel has taken it
        stage = Stage()
        for name in sorted(touched):
            known.book.update(name, _fragment(state, name), stage)
        self._departures = known.book.departures  # also where the kernel takes it, and we do not hear of it
        draft = p.Draft()
        _stage_node(stage, state, known)
        p.draft_classes(draft, state.config, stage.classes, known.chains)
        for place, wanted in p.class_elements(stage.classes).items():
            stage.wanted[place] = wanted
        p.draft_firewalls(draft, state.config, stage, known.chains)
        p.draft_guards(draft, state.config, known.wanted, known.chains, guarded=bool(known.book.firewalls))
        outcome = p.draft_elements(draft, stage, known.book.live, state.config.family)
        changes = draft.changes(known.specs)
        if changes:
            known.generation = await self._commit_over_others(changes, known.generation)
        for (set_name, key), data in outcome.items():
            if data is KeyError:
                del known.book.live[set_name][key]
            else:
                known.book.live.setdefault(set_name, {})[key] = data  # type: ignore[assignment]
        self._known = known
        return SyncReport(draft.operations, draft.count, False, None, _facts(known))

    async def _commit_over_others(self, changes: tuple[o.Change, ...], generation: int) -> int:
        """Commit, whatever others do to tables of theirs.  Raises GenerationChanged where ours may be concerned."""
        for _ in range(_TRIES):
            try:
                return await self._nft.commit(self._table, changes, generation)
            except o.GenerationChanged:
                present = await self._nft.generation()
                if not await self._nft.unchanged(self._table, generation, present):
                    raise
                generation = present
        return await self._nft.commit(self._table, changes, generation)

    async def _sync_full(self, state: ProxyState) -> SyncReport:
        anew = False
        for attempt in range(_TRIES):
            generation = await self._nft.generation()
            observed = await self._nft.read(self._table)
            draft, known = _draft_full(state, observed, departures=self._departures, anew=anew)
            self._departures = known.book.departures
            try:
                known.generation = await self._commit_full(draft, known, generation)
            except o.GenerationChanged:
                if attempt + 1 == _TRIES:
                    raise
                continue
            except o.NftError as error:
                # somebody edited the table in a way that does not fit together with what is to be mended
                if anew or observed is None or not error.is_at_odds or attempt + 1 == _TRIES:
                    raise
                anew = True
                continue
            self._known, self._config = known, state.config
            await self._nft.listen()
            return SyncReport(draft.operations, draft.count, True, None, _facts(known))
        raise AssertionError("unreachable")

    async def _commit_full(self, draft: p.Draft, known: _Known, generation: int) -> int:
        changes = draft.changes(known.specs)
        if not changes:
            return generation
        try:
            return await self._nft.commit(self._table, changes, generation)
        except o.NftError as error:
            if not error.is_too_large:
                raise
        # the socket may not be as large as the transaction: in steps, what is referred to first
        for step in changes:
            for part in _parts(step):
                generation = await self._nft.commit(self._table, (part,), generation)
        return generation

    # -- looking ------------------------------------------------------------------------------------------------

    async def intact(self) -> bool:
        known = self._known
        if known is None:
            return False
        generation = await self._nft.generation()
        if generation == known.generation:
            return True
        if await self._nft.unchanged(self._table, known.generation, generation):
            known.generation = generation
            return True
        observed = await self._nft.read(self._table)
        if observed is None or not _as_left(observed, known):
            return False
        known.generation = generation
        return True

    async def plan(self, state: ProxyState) -> Sequence[Operation]:
        observed = await self._nft.read(self._table)
        draft, _ = _draft_full(state, observed, _classes_there(observed))
        return draft.operations

    async def trace(self, state: ProxyState, packet: Packet) -> tuple[frozenset[Outcome], Sequence[str]]:
        content = await self._nft.read(self._table)
        return trace(content or o.TableContent(), state, packet)

    async def rules(self, state: ProxyState) -> Sequence[LiveRule]:
        content = await self._nft.read(self._table)
        if content is None:
            return ()
        pools = self._known.book.pool_owner if self._known else _owners(state, content)
        return list(live_rules(content, await self._nft.listed(self._table), pools, self._table.family))

    async def affinity(self, state: ProxyState) -> Sequence[AffinityEntry]:
        content = await self._nft.read(self._table)
        if content is None:
            return ()
        owners = self._owners = self._known.book.pool_owner if self._known else _owners(state, content)
        endpoints = content.elements.get("endpoints-by-id", {})
        found = []
        for key, element in content.elements.get("affinity", {}).items():
            number = n.unword(key[-4:])
            owner = owners.get(number)
            target = None
            if isinstance(element.data, bytes):
                pools = (n.word(number | local) for local in (0, 1))
                target = next((there for pool in pools if (there := endpoints.get(pool + element.data))), None)
            if owner is None or target is None or not isinstance(target.data, bytes):
                continue
            client, (ip, port) = key[:-4], n.read_endpoint(target.data)
            endpoint = join_host_port(ip, port)
            left = element.expires_ms / 1000
            found.append(AffinityEntry(owner, p.pretty("cluster-ips", client, self._table.family), endpoint, left))
        return found

    async def forget_affinity(self, entry: AffinityEntry) -> None:
        known = self._known
        spec = sets(self._table.family)["affinity"]
        content = await self._nft.read_elements(self._table, spec)
        owners = known.book.pool_owner if known else self._owners
        client = n.packed_ip(entry.client)
        doomed = [
            o.Element(key, element.data)
            for key, element in content.items()
            if key[:-4] == client and (not owners or owners.get(n.unword(key[-4:])) == entry.service)
        ]
        if doomed:
            generation = await self._nft.commit(self._table, (o.DeleteElements(spec, tuple(doomed)),))
            if known is not None and generation == known.generation + 1:
                known.generation = generation  # else somebody else changed something too, which is to be looked at

    async def cleanup(self) -> None:
        if self._table in await self._nft.tables():
            await self._nft.commit(self._table, (o.DeleteTable(),))
        self._known = None


def _fragment(state: ProxyState, name: ServicePortName) -> Fragment | None:
    port = state.services.get(name)
    if port is None:
        return None
    return compile_port(port, categorize(port, state.endpoints.get(name, ()), state.node), state.config)


def _stage_node(stage: Stage, state: ProxyState, known: _Known) -> None:
    """Addresses of this node that came or went."""
    if known.local_addresses == state.node.local_addresses:
        return
    wanted = {n.packed_ip(ip) for ip in p.nodeport_ips(state.config, state.node.local_addresses)}
    for key in wanted:
        stage.put(("nodeport-ips", key), None, "", "an address of this node came")
    for key in known.book.live.get("nodeport-ips", {}):
        if key not in wanted:
            stage.drop(("nodeport-ips", key), "an address of this node went")
    known.local_addresses = state.node.local_addresses


def _classes_there(observed: o.TableContent | None) -> list[tuple[n.Context, n.Class]]:
    """Classes whose chains are there.  Those that lost their last frontend stay until the next full sync."""
    found = []
    for context, name in n.CHAIN_MAP.items():
        for key in observed.elements.get(name, {}) if observed else ():
            class_ = n.Class.unpacked(key)
            if class_.chain(context) in (observed.chains if observed else ()):
                found.append((context, class_))
    return found


def _draft_full(
    state: ProxyState,
    observed: o.TableContent | None,
    kept: Iterable[tuple[n.Context, n.Class]] = (),
    departures: int = 0,
    *,
    anew: bool = False,
) -> tuple[p.Draft, _Known]:
    """The transaction from what is there to `state`, whatever is there.  `kept`: classes that stay, used or not;
    `departures`: see Book; `anew`: make the table anew, even if it looks as if it could be mended."""
    config = state.config
    book = Book(*recover(observed.elements if observed else {}), departures)
    stage = Stage()
    for name in sorted(state.services):
        book.update(name, _fragment(state, name), stage)
    book.forget_recovered()
    classes = dict.fromkeys((*p.ready_classes(), *stage.classes, *kept))
    book.known_classes.update(classes)
    stage.wanted |= p.class_elements(classes)
    for ip in p.nodeport_ips(config, state.node.local_addresses):
        stage.put(("nodeport-ips", n.packed_ip(ip)), None, "", "node ports answer here")
    wanted = p.skeleton(config, classes, guarded=bool(book.firewalls))
    draft = p.Draft()
    if observed is not None and (anew or not p.same_structure(observed, wanted)):
        draft.structure.append(o.DeleteTable())
        draft.note("delete", f"table {n.TABLE}", "it, its sets or its base chains are not as they should be")
        observed = None
    p.draft_skeleton(draft, wanted, observed)
    chains = set(wanted.chains)
    _draft_full_firewalls(draft, config, stage, chains, observed)
    live = _draft_full_elements(draft, stage, wanted, observed)
    p.draft_elements(draft, stage, live, config.family)
    intervals = p.node_intervals(config)
    for set_name, elements in intervals.items():
        there = observed.elements.get(set_name, {}) if observed else {}
        p.replace_interval(draft, wanted.sets[set_name], elements, there)
    if observed is not None:
        p.draft_stale_chains(draft, chains, observed)
        _draft_stale_sets(draft, wanted, stage, observed)
    book.live = {name: {} for name in wanted.sets}
    for (set_name, key), element in stage.wanted.items():
        book.live[set_name][key] = element.data
    known = _Known(book, chains, wanted.sets, config, state.node.local_addresses, wanted, 0, intervals)
    return draft, known


def _draft_full_firewalls(
    draft: p.Draft, config: NodeConfig, stage: Stage, chains: set[str], observed: o.TableContent | None
) -> None:
    """Firewall chains are compared with what is there, so that a restart writes nothing."""
    present = observed or o.TableContent()
    fresh = Stage(firewalls={}, firewall_sets=stage.firewall_sets)
    for name, firewall in stage.firewalls.items():
        if firewall is None:
            continue
        chains.add(name)
        if not p.firewall_is_there(present, firewall, config):
            fresh.firewalls[name] = firewall
    p.draft_firewalls(draft, config, fresh, set(present.chains))


def _draft_full_elements(
    draft: p.Draft, stage: Stage, wanted: p.Skeleton, observed: o.TableContent | None
) -> dict[str, dict[bytes, Data]]:
    """What is there by set and key, with removals of what is not wanted staged."""
    live: dict[str, dict[bytes, Data]] = {}
    if observed is None:
        return live
    for name, spec in wanted.sets.items():
        if spec.interval or name in p.DYNAMIC_SETS:
            continue
        live[name] = {key: element.data for key, element in observed.elements.get(name, {}).items()}
        for key in live[name]:
            if (name, key) not in stage.wanted:
                stage.drop((name, key), "nothing needs it")
    return live


def _draft_stale_sets(draft: p.Draft, wanted: p.Skeleton, stage: Stage, observed: o.TableContent) -> None:
    keep = {*wanted.sets, *(stage.firewall_sets[name] for name in stage.firewalls)}
    for name in observed.sets:
        if name not in keep:
            draft.farewells.append(o.DeleteSet(name))
            draft.note("delete", f"set {name}", "nothing uses it")


def _as_left(observed: o.TableContent, known: _Known) -> bool:
    """Whether the table is as the plane left it."""
    if not p.same_structure(observed, known.wanted):
        return False
    if any(observed.rules.get(name) != rules for name, rules in known.wanted.rules.items()):
        return False
    if set(observed.chains) != known.chains:
        return False
    for name, elements in known.intervals.items():
        if not p.same_ranges(observed.elements.get(name, {}), elements):
            return False
    for name, spec in known.specs.items():
        if spec.interval or name in p.DYNAMIC_SETS:
            continue
        found, live = observed.elements.get(name, {}), known.book.live.get(name, {})
        if len(found) != len(live) or any(key not in live or live[key] != e.data for key, e in found.items()):
            return False
    firewalls = [fragment.firewall for fragment in known.book.fragments.values() if fragment.firewall is not None]
    if set(observed.sets) != set(known.specs) | {firewall.allowed_set for firewall in firewalls}:
        return False
    return all(p.firewall_is_there(observed, firewall, known.config) for firewall in firewalls)


def _owners(state: ProxyState, content: o.TableContent) -> dict[int, ServicePortName]:
    """Who owns which pool, by the frontends in the table (for a plane that has not synced itself)."""
    pools, *_ = recover(content.elements)
    found: dict[int, ServicePortName] = {}
    for name in state.services:
        fragment = _fragment(state, name)
        for front in fragment.frontends if fragment else ():
            for short in (False, True):
                number = pools.get((front.nodeport, short, front.key))
                if number is not None:
                    for one in (n.owner_of(number), n.owner_of(number) + 1):
                        found.setdefault(one, name)
    return found


def _facts(known: _Known) -> dict[str, int]:
    facts = {f"elements_{name}": len(elements) for name, elements in known.book.live.items() if elements}
    return facts | {"chains": len(known.chains)}


def _parts(change: o.Change, size: int = 2000) -> Sequence[o.Change]:
    """A large change of elements in smaller ones."""
    match change:
        case o.AddElements(spec, elements) if not spec.interval:
            return [o.AddElements(spec, elements[at : at + size]) for at in range(0, len(elements), size)]
        case o.DeleteElements(spec, elements) if not spec.interval:
            return [o.DeleteElements(spec, elements[at : at + size]) for at in range(0, len(elements), size)]
        case _:
            return [change]
