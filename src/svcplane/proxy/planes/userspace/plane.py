"""The userspace plane: listen, tell the workers, capture.  I/O only; what it decides is in the modules beside it.

A change is done in an order in which no client meets a closed door: first the relay listens and knows the endpoints,
then packets are captured, then what is not needed any more is closed.  The ports the relay listens on are in the
captured elements themselves: a restart reads them there and listens on the same ones.
"""

import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from svcplane.base.net import join_host_port
from svcplane.kernel.nft import objects as o
from svcplane.proxy.model import NodeConfig, Outcome, Packet, ProxyState, ServicePortName
from svcplane.proxy.plane import AffinityEntry, LiveRule, Operation, Relayed, RelayedConnection, SyncReport
from svcplane.proxy.planes.userspace import names as n
from svcplane.proxy.planes.userspace import plan as p
from svcplane.proxy.planes.userspace import wire
from svcplane.proxy.planes.userspace.balance import Address
from svcplane.proxy.planes.userspace.book import ABSENT, Book
from svcplane.proxy.planes.userspace.compile import Fragment, Place, compile_port
from svcplane.proxy.planes.userspace.describe import live_rules
from svcplane.proxy.planes.userspace.layout import CONFIGURED_SETS, Layout, sets
from svcplane.proxy.planes.userspace.ports import Elements, nodeport_ips, recovered_port, relay_address
from svcplane.proxy.planes.userspace.relaying import Relaying
from svcplane.proxy.planes.userspace.trace import trace
from svcplane.proxy.topology import categorize

log = logging.getLogger(__name__)
TRIES = 5
PART = 2000  # elements of one step, where all at once is too much


@dataclass(slots=True)
class _Known:
    """What the plane believes of the kernel since its last successful transaction."""

    config: NodeConfig
    local_addresses: tuple[str, ...]
    address: str  # where the relay listens
    generation: int = 0
    book: Book = field(default_factory=Book)
    live: p.Live = field(default_factory=dict)
    fragments: dict[ServicePortName, Fragment] = field(default_factory=dict)


class UserspacePlane:
    """Implements `proxy.plane.Plane`.  Not safe for concurrent calls."""

    mode = "userspace"

    def __init__(self, config: NodeConfig, nft: o.Nft, relaying: Relaying) -> None:
        self._nft, self._relaying = nft, relaying
        self._family = config.family
        self._table = n.table_name(config.family)
        self._known: _Known | None = None

    async def preflight(self) -> None:
        await self._nft.generation()

    async def close(self) -> None:
        self._relaying.leave(self._family)
        await self._nft.close()

    # -- sync ----------------------------------------------------------------------------------------------------------

    async def sync(self, state: ProxyState, touched: frozenset[ServicePortName] | None, *, now: float) -> SyncReport:
        known, self._known = self._known, None  # until kernel and workers have taken it
        if touched is not None and known is not None and self._as_before(known, state):
            try:
                return await self._sync_touched(known, state, touched)
            except o.GenerationChanged:
                pass  # somebody changed nf_tables meanwhile: read what is there, and write the difference to that
        return await self._sync_full(state)

    def _as_before(self, known: _Known, state: ProxyState) -> bool:
        return (
            known.config == state.config
            and known.local_addresses == state.node.local_addresses
            and self._relaying.intact
        )

    async def _sync_touched(self, known: _Known, state: ProxyState, touched: frozenset[ServicePortName]) -> SyncReport:
        fragments = {name: fragment(state, name) for name in sorted(touched)}
        relays = await self._listen(known.address, fragments, {})
        draft = p.Draft(self._family)
        places: dict[Place, None] = {}
        for name, new in fragments.items():
            old = known.fragments.pop(name, None)
            if new is not None:
                known.fragments[name] = new
            self._draft_firewall(draft, known.config, old, new)
            wanted = new.wanted(relays[name]) if new is not None else {}
            places.update(dict.fromkeys(sorted(known.book.put(name, wanted))))
        self._draft_elements(draft, known, places)
        changes = draft.changes()
        if changes:
            known.generation = await self._commit_over_others(changes, known.generation)
        await self._relaying.drop(self._family, fragments)
        self._known = known
        return SyncReport(draft.operations, draft.count, False, None, self._facts(known))

    async def _commit_over_others(self, changes: tuple[o.Change, ...], generation: int) -> int:
        """Commit, whatever others do to tables of theirs.  Raises GenerationChanged where ours may be concerned."""
        for _ in range(TRIES):
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
        for attempt in range(TRIES):
            generation = await self._nft.generation()
            observed = await self._nft.read(self._table)
            address = relay_address(state)
            fragments: dict[ServicePortName, Fragment | None] = {
                name: fragment(state, name) for name in sorted(state.services)
            }
            relays = await self._listen(address, fragments, observed.elements if observed else {})
            draft, known = draft_full(state, observed, address, fragments, relays, anew=anew)
            try:
                known.generation = await self._commit(draft, generation)
            except o.GenerationChanged:
                if attempt + 1 == TRIES:
                    raise
                continue
            except o.NftError as error:
                # somebody edited the table in a way that does not fit together with what is to be mended
                if anew or observed is None or not error.is_at_odds or attempt + 1 == TRIES:
                    raise
                anew = True
                continue
            await self._relaying.keep_only(self._family, fragments)
            self._known = known
            await self._nft.listen()
            return SyncReport(draft.operations, draft.count, True, None, self._facts(known))
        raise AssertionError("unreachable")

    async def _listen(
        self,
        address: str,
        fragments: dict[ServicePortName, Fragment | None],
        elements: Elements,
    ) -> dict[ServicePortName, dict[bool, Address]]:
        for new in fragments.values():
            for problem in new.problems if new is not None else ():
                log.warning("%s", problem)
        hints = {
            (new.serve.key, local): recovered_port(new, local, elements)
            for new in fragments.values()
            if new is not None and new.serve is not None and elements
            for local in new.pools
        }
        return await self._relaying.serve(self._family, address, fragments, hints)

    async def _commit(self, draft: p.Draft, generation: int) -> int:
        changes = draft.changes()
        if not changes:
            return generation
        try:
            return await self._nft.commit(self._table, changes, generation)
        except o.NftError as error:
            if not error.is_too_large:
                raise
        # the socket may not be as large as the transaction: in steps
        for change in changes:
            for part in _parts(change):
                generation = await self._nft.commit(self._table, (part,), generation)
        return generation

    @staticmethod
    def _draft_firewall(draft: p.Draft, config: NodeConfig, old: Fragment | None, new: Fragment | None) -> None:
        before, after = old.firewall if old else None, new.firewall if new else None
        if before == after:
            return
        if after is not None:
            p.draft_firewall(draft, config, after, there=before is not None)
        elif before is not None:
            p.draft_no_firewall(draft, before.chain, before.allowed_set)

    @staticmethod
    def _draft_elements(draft: p.Draft, known: _Known, places: dict[Place, None]) -> None:
        for place in places:
            wanted, there = known.book.holds(place), known.live.get(place, ABSENT)
            if wanted == there:
                continue
            owner = known.book.owner(place)
            why = f"service port {owner} changed" if owner else "nothing needs it"
            draft.change(place, there, wanted, str(owner or ""), why)
            if wanted is ABSENT:
                del known.live[place]
            else:
                known.live[place] = wanted  # type: ignore[assignment]

    def relays(self, name: ServicePortName) -> frozenset[Address]:
        """See RelayingPlane."""
        known = self._known
        found = known.fragments.get(name) if known is not None else None
        if known is None or found is None:
            return frozenset()
        targets = (known.live.get(capture.place) for capture in found.captures)
        return frozenset(n.read_target(data) for data in targets if isinstance(data, bytes))

    def _facts(self, known: _Known) -> dict[str, int]:
        return {"elements": len(known.live), "services": len(known.fragments)}

    # -- looking -------------------------------------------------------------------------------------------------------

    async def intact(self) -> bool:
        known = self._known
        if known is None or not self._relaying.intact:
            return False
        await self._relaying.take_late()
        generation = await self._nft.generation()
        if generation == known.generation or await self._nft.unchanged(self._table, known.generation, generation):
            known.generation = generation
            return True
        observed = await self._nft.read(self._table)
        if observed is None or not _as_left(observed, known):
            return False
        known.generation = generation
        return True

    async def plan(self, state: ProxyState) -> Sequence[Operation]:
        observed = await self._nft.read(self._table)
        address = relay_address(state)
        fragments: dict[ServicePortName, Fragment | None] = {
            name: fragment(state, name) for name in sorted(state.services)
        }
        elements = observed.elements if observed else {}
        relays = self._relaying.foresee(self._family, address, fragments, elements)
        return draft_full(state, observed, address, fragments, relays)[0].operations

    async def trace(self, state: ProxyState, packet: Packet) -> tuple[frozenset[Outcome], Sequence[str]]:
        content = await self._nft.read(self._table)
        return trace(content or o.TableContent(), state, packet)

    async def rules(self, state: ProxyState) -> Sequence[LiveRule]:
        content = await self._nft.read(self._table)
        if content is None:
            return ()
        owners = {
            capture.place: str(name)
            for name in state.services
            if (found := fragment(state, name)) is not None
            for capture in found.captures
        }
        return list(live_rules(content, await self._nft.listed(self._table), owners, self._family))

    async def affinity(self, state: ProxyState) -> Sequence[AffinityEntry]:
        names = {n.service_key(self._family, name): name for name in state.services}
        found = await self._relaying.ask("affinity")
        return [
            AffinityEntry(names[row.key], row.client, join_host_port(*row.address), row.left_s)
            for answer in found
            for row in answer.affinity
            if row.key in names
        ]

    async def forget_affinity(self, entry: AffinityEntry) -> None:
        await self._relaying.tell(wire.Forget(n.service_key(self._family, entry.service), entry.client))

    async def relayed(self, state: ProxyState) -> Sequence[Relayed]:
        """What went to each endpoint.  A connection that still runs counts with its bytes so far."""
        names = {n.service_key(self._family, name): name for name in state.services}
        totals: dict[tuple[str, str], list[int]] = {}
        aside: dict[tuple[str, str], float] = {}
        for row in await self.endpoint_counts():
            total = totals.setdefault((row.key, row.endpoint), [0, 0, 0, 0])
            for index, value in enumerate((row.active, row.connections, row.to_endpoint, row.to_client)):
                total[index] += value
            aside[row.key, row.endpoint] = max(row.aside_s, aside.get((row.key, row.endpoint), 0.0))
        live = Counter[tuple[str, str]](), Counter[tuple[str, str]]()
        for one in await self.connections():
            live[0][one.key, one.endpoint] += one.to_endpoint
            live[1][one.key, one.endpoint] += one.to_client
        return [
            Relayed(
                names[key],
                endpoint,
                active,
                count,
                sent + live[0][key, endpoint],
                got + live[1][key, endpoint],
                round(aside[key, endpoint], 1),
            )
            for (key, endpoint), (active, count, sent, got) in totals.items()
            if key in names
        ]

    async def relayed_connections(self, state: ProxyState) -> Sequence[RelayedConnection]:
        names = {n.service_key(self._family, name): name for name in state.services}
        return [
            RelayedConnection(
                names[one.key],
                one.client,
                one.endpoint,
                round(one.age_s, 1),
                round(one.idle_s, 1),
                one.to_endpoint,
                one.to_client,
            )
            for one in await self.connections()
            if one.key in names
        ]

    async def connections(self) -> Sequence[wire.Connection]:
        """What is relayed at this moment, of both families."""
        return [row for answer in await self._relaying.ask("connections") for row in answer.connections]

    async def endpoint_counts(self) -> Sequence[wire.EndpointCount]:
        """What each worker sent to each endpoint, of both families."""
        return [row for answer in await self._relaying.ask("endpoints") for row in answer.endpoints]

    async def cleanup(self) -> None:
        if self._table in await self._nft.tables():
            await self._nft.commit(self._table, (o.DeleteTable(),))
        self._known = None
        await self._relaying.dissolve(self._family)


def fragment(state: ProxyState, name: ServicePortName) -> Fragment | None:
    port = state.services.get(name)
    if port is None:
        return None
    endpoints = state.endpoints.get(name, ())
    return compile_port(port, categorize(port, endpoints, state.node), state.config, endpoints)


def draft_full(
    state: ProxyState,
    observed: o.TableContent | None,
    address: str,
    fragments: dict[ServicePortName, Fragment | None],
    relays: dict[ServicePortName, dict[bool, Address]],
    *,
    anew: bool = False,
) -> tuple[p.Draft, _Known]:
    """The transaction from what is there to `state`, whatever is there.  `anew`: make the table anew, even if it looks
    as if it could be mended."""
    config = state.config
    draft, known = p.Draft(config.family), _Known(config, state.node.local_addresses, address)
    if observed is not None and (anew or not p.same_structure(observed, config)):
        draft.structure.append(o.DeleteTable())
        draft.note("delete", f"table {n.TABLE}", "its sets or base chains are not as they should be")
        observed = None
    p.draft_skeleton(draft, config, observed)
    present = observed or o.TableContent()
    for name, new in fragments.items():
        if new is None:
            continue
        known.fragments[name] = new
        known.book.put(name, new.wanted(relays[name]))
        if new.firewall is not None and not p.firewall_is_there(present, new.firewall, config):
            p.draft_firewall(draft, config, new.firewall, there=new.firewall.chain in present.chains)
    _put_node(known)
    for set_name in sets(config.family):
        if set_name not in CONFIGURED_SETS:
            for key, element in present.elements.get(set_name, {}).items():
                known.live[set_name, key] = element.data
    places = dict.fromkeys((*known.live, *known.book.places()))
    UserspacePlane._draft_elements(draft, known, places)
    if observed is not None:
        firewalls = [new.firewall for new in known.fragments.values() if new.firewall is not None]
        p.draft_strangers(draft, config, firewalls, observed)
    return draft, known


#: Claims the elements that belong to the node and to no service port.
_NODE = ServicePortName("", "", "", next(iter(n.PROTOCOL_NUMBER)))


def _put_node(known: _Known) -> None:
    known.book.put(
        _NODE, {("nodeport-ips", n.packed_ip(ip)): None for ip in nodeport_ips(known.config, known.local_addresses)}
    )


def _as_left(observed: o.TableContent, known: _Known) -> bool:
    """Whether the table is as the plane left it."""
    if not p.same_structure(observed, known.config):
        return False
    chains = Layout(known.config).chains()
    firewalls = [new.firewall for new in known.fragments.values() if new.firewall is not None]
    if {chain.name for chain, _ in chains} | {firewall.chain for firewall in firewalls} != set(observed.chains):
        return False
    if {*sets(known.config.family), *(firewall.allowed_set for firewall in firewalls)} != set(observed.sets):
        return False
    if any(observed.rules.get(chain.name) != tuple(rules) for chain, rules in chains):
        return False
    if not all(p.firewall_is_there(observed, firewall, known.config) for firewall in firewalls):
        return False
    for name, elements in p.configured_elements(known.config).items():
        if not p.same_ranges(observed.elements.get(name, {}), elements):
            return False
    found = {
        (name, key): element.data
        for name in sets(known.config.family)
        if name not in CONFIGURED_SETS
        for key, element in observed.elements.get(name, {}).items()
    }
    return found == known.live


def _parts(change: o.Change) -> list[o.Change]:
    if isinstance(change, o.AddElements | o.DeleteElements):
        kind, elements = type(change), change.elements
        return [kind(change.set, elements[at : at + PART]) for at in range(0, len(elements), PART)]
    return [change]
