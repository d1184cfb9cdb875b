"""What the table holds and what changes when service ports change.  Pure values in, staged elements out.

The book knows for each set which element is there (`live`), gives pools their numbers and endpoints their
slots, settles who owns a key that two Services claim (the first by name), and counts what several share.
`update` costs in proportion to the fragment that changed, never to what exists.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from svcplane.kernel.nft.objects import Code, Element, Verdict
from svcplane.proxy.model import ServicePortName
from svcplane.proxy.planes.nftables import names as n
from svcplane.proxy.planes.nftables.compile import Firewall, Fragment, Frontend, Pool

Data = bytes | Verdict | None
Place = tuple[str, bytes]  # set name, key
EndpointKey = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Wanted:
    """An element to be there; None in a stage means to be gone."""

    data: Data
    comment: str
    reason: str


@dataclass(slots=True)
class PoolState:
    """`slots[i]` is the endpoint that a random choice of i goes to; `identities`: what affinity remembers them by."""

    number: int
    slots: list[EndpointKey]
    identities: Mapping[EndpointKey, int] = field(default_factory=dict)


@dataclass(slots=True)
class Stage:
    """Changes collected for one transaction.  `absent` holds the reason of a removal."""

    wanted: dict[Place, Wanted] = field(default_factory=dict)
    absent: dict[Place, str] = field(default_factory=dict)
    classes: dict[tuple[n.Context, n.Class], None] = field(default_factory=dict)
    firewalls: dict[str, Firewall | None] = field(default_factory=dict)  # by chain
    firewall_sets: dict[str, str] = field(default_factory=dict)

    def put(self, place: Place, data: Data, comment: str, reason: str) -> None:
        self.absent.pop(place, None)
        self.wanted[place] = Wanted(data, comment, reason)

    def drop(self, place: Place, reason: str) -> None:
        self.wanted.pop(place, None)
        self.absent[place] = reason


def assign_slots(old: Sequence[EndpointKey], wanted: Iterable[EndpointKey]) -> list[EndpointKey]:
    """Slots for the wanted endpoints that move as few as possible from where they were."""
    missing = dict.fromkeys(wanted)
    slots: list[EndpointKey | None] = [None] * len(missing)
    for index in range(min(len(old), len(slots))):
        if old[index] in missing:
            slots[index] = old[index]
            del missing[old[index]]
    rest = iter(missing)
    return [slot if slot is not None else next(rest) for slot in slots]


class Book:
    """See the module's text.  `recovered_pools`: pool numbers by frontend (nodeport?, short cut?, key) of an
    earlier run; `recovered_slots`: endpoints by slot of those numbers; `recovered_identities`: what affinity remembers
    their endpoints by.

    A service port has an even number, which its pool for policy Cluster has too; the one for Local has the next."""

    def __init__(
        self,
        recovered_pools: Mapping[tuple[bool, bool, bytes], int] | None = None,
        recovered_slots: Mapping[int, list[EndpointKey]] | None = None,
        recovered_identities: Mapping[int, Mapping[EndpointKey, int]] | None = None,
        departures: int = 0,
    ) -> None:
        self.live: dict[str, dict[bytes, Data]] = {}
        self.fragments: dict[ServicePortName, Fragment] = {}
        self.pools: dict[tuple[ServicePortName, bool], PoolState] = {}
        self.pool_owner: dict[int, ServicePortName] = {}
        self.firewalls: set[str] = set()  # chains of source ranges
        self._numbers: dict[ServicePortName, int] = {}
        self._identities: dict[ServicePortName, dict[EndpointKey, int]] = {}
        self.departures = departures  # of endpoints so far; never a number that an earlier book had
        self.known_classes: set[tuple[n.Context, n.Class]] = set()
        self._owners: dict[tuple[bool, bytes], ServicePortName | tuple[ServicePortName, ...]] = {}
        self._shared: dict[Place, int] = {}
        self._recovered_pools = dict(recovered_pools or {})
        self._recovered_slots = dict(recovered_slots or {})
        self._recovered_identities = dict(recovered_identities or {})
        self._next_number = n.owner_of(max(self._recovered_pools.values(), default=0)) + 2

    def forget_recovered(self) -> None:
        """After the first sync numbers of an earlier run have been taken over or are free."""
        self._recovered_pools.clear()
        self._recovered_slots.clear()
        self._recovered_identities.clear()

    # -- one service port --------------------------------------------------------------------------------------

    def update(self, name: ServicePortName, fragment: Fragment | None, stage: Stage) -> None:
        """Replace a service port's fragment (None: it is gone) and stage what follows."""
        old = self.fragments.get(name)
        if old == fragment:
            return
        reason = _reason(name, old, fragment)
        old_fronts = {(front.nodeport, front.key): front for front in old.frontends} if old else {}
        new_fronts = {(front.nodeport, front.key): front for front in fragment.frontends} if fragment else {}
        before = {place for claim, front in old_fronts.items() if self._owns(name, claim) for place in _places(front)}
        contested = [claim for claim in old_fronts if claim not in new_fronts and self._release(name, claim)]
        for claim in new_fronts:
            if claim not in old_fronts:
                self._claim(name, claim, stage, reason)
        if fragment is None:
            self.fragments.pop(name, None)
        else:
            self.fragments[name] = fragment
        self._update_pools(name, old, fragment, stage, reason)
        for place in before:
            stage.drop(place, reason)
        for claim, front in new_fronts.items():
            if self._owns(name, claim):
                self._stage_frontend(name, front, stage, reason)
        for claim in contested:
            self._stage_heir(claim, stage, reason)
        self._update_shared(old, fragment, stage, reason)
        self._update_firewall(old, fragment, stage)

    # -- who owns a key ------------------------------------------------------------------------------------------

    def _owns(self, name: ServicePortName, claim: tuple[bool, bytes]) -> bool:
        owner = self._owners.get(claim)
        return owner[0] == name if isinstance(owner, tuple) else owner == name

    def _claim(self, name: ServicePortName, claim: tuple[bool, bytes], stage: Stage, reason: str) -> None:
        owner = self._owners.get(claim)
        if owner is None:
            self._owners[claim] = name
            return
        claimants = owner if isinstance(owner, tuple) else (owner,)
        if name < claimants[0]:
            for front in self.fragments[claimants[0]].frontends:
                if (front.nodeport, front.key) == claim:
                    for place in _places(front):
                        stage.drop(place, reason)
        self._owners[claim] = tuple(sorted({*claimants, name}))

    def _release(self, name: ServicePortName, claim: tuple[bool, bytes]) -> bool:
        """Whether somebody else inherits the key."""
        owner = self._owners.get(claim)
        if not isinstance(owner, tuple):
            self._owners.pop(claim, None)
            return False
        inherits = owner[0] == name
        rest = tuple(other for other in owner if other != name)
        self._owners[claim] = rest if len(rest) > 1 else rest[0]
        return inherits

    def _stage_heir(self, claim: tuple[bool, bytes], stage: Stage, reason: str) -> None:
        owner = self._owners[claim]
        heir = owner[0] if isinstance(owner, tuple) else owner
        for front in self.fragments[heir].frontends:
            if (front.nodeport, front.key) == claim:
                self._stage_frontend(heir, front, stage, reason)

    # -- elements ----------------------------------------------------------------------------------------------

    def _stage_frontend(self, name: ServicePortName, front: Frontend, stage: Stage, reason: str) -> None:
        comment = self.fragments[name].comment
        main = n.Context.NODEPORT if front.nodeport else n.Context.ADDRESS
        if front.class_ is not None:
            self._need_class(main, front.class_, stage)
            stage.put((n.CLASS_MAP[main], front.key), front.class_.packed, comment, reason)
        if front.pool is not None:
            stage.put((n.POOL_MAP[main], front.key), self._pool_word(name, front.pool), "", reason)
        if front.short_cut is not None:
            class_ = front.short_cut.class_(n.Kind.PLAIN)
            self._need_class(main.short, class_, stage)
            stage.put((n.CLASS_MAP[main.short], front.key), class_.packed, comment, reason)
            stage.put((n.POOL_MAP[main.short], front.key), self._pool_word(name, front.short_cut), "", reason)
        if front.refusal:
            stage.put((_refusal_set(front), front.key), None, comment, reason)
        if front.firewall_chain:
            stage.put(("firewall-ips", front.key), Verdict(Code.GOTO, front.firewall_chain), comment, reason)

    def _need_class(self, context: n.Context, class_: n.Class, stage: Stage) -> None:
        if (context, class_) not in self.known_classes:
            self.known_classes.add((context, class_))
            stage.classes[context, class_] = None

    def _pool_word(self, name: ServicePortName, pool: Pool) -> bytes:
        return n.word(self.pools[name, pool.local].number)

    def _update_pools(
        self, name: ServicePortName, old: Fragment | None, new: Fragment | None, stage: Stage, reason: str
    ) -> None:
        old_pools = {pool.local: pool for pool in old.pools} if old else {}
        new_pools = {pool.local: pool for pool in new.pools} if new else {}
        if new is not None and new_pools:
            self._identify(name, self._number(name, new), new)
        for local in (False, True):
            before, after = old_pools.get(local), new_pools.get(local)
            if before == after:
                continue
            state = self.pools.get((name, local))
            if after is None:
                if state is not None:
                    self._drop_pool(name, local, state, stage, reason)
                continue
            if state is None:
                number = self._numbers[name] | local
                state = self.pools[name, local] = PoolState(number, list(self._recovered_slots.get(number, ())))
            self._fill_pool(name, state, after, stage, reason, fresh=before is None)
        if not new_pools and name in self._numbers:
            self._forget(name)

    def _drop_pool(self, name: ServicePortName, local: bool, state: PoolState, stage: Stage, reason: str) -> None:
        for place in pool_elements(state):
            stage.drop(place, reason)
        del self.pools[name, local]

    def _number(self, name: ServicePortName, fragment: Fragment) -> int:
        if name not in self._numbers:
            number = self._recovered_number(fragment)
            if number is None:
                number = self._next_number
                self._next_number += 2
            self._numbers[name] = number
            self.pool_owner[number] = self.pool_owner[number + 1] = name
        return self._numbers[name]

    def _recovered_number(self, fragment: Fragment) -> int | None:
        for front in fragment.frontends:
            for short, pool in ((False, front.pool), (True, front.short_cut)):
                number = self._recovered_pools.get((front.nodeport, short, front.key)) if pool is not None else None
                if number is None or pool is None or n.owner_of(number) in self.pool_owner:
                    continue
                if n.owner_of(number) | pool.local == number:  # else of a version that numbered them otherwise
                    return n.owner_of(number)
        return None

    def _forget(self, name: ServicePortName) -> None:
        number = self._numbers.pop(name)
        del self.pool_owner[number], self.pool_owner[number + 1]
        if self._identities.pop(name, None):
            self.departures += 1

    def _identify(self, name: ServicePortName, number: int, fragment: Fragment) -> None:
        """What affinity remembers endpoints by: the same in both pools, and another number for one that comes back."""
        known = self._identities.get(name)
        if known is None:
            recovered = (self._recovered_identities.get(number | local, {}) for local in (False, True))
            known = {key: identity for found in recovered for key, identity in found.items()}
        sticky = [pool for pool in fragment.pools if pool.affinity_timeout_s]
        wanted = {key: None for pool in sticky for key in pool.endpoints}
        found = {key: known[key] for key in wanted if key in known}
        if len(found) < len(known):
            self.departures += 1
        taken = set(found.values())
        if len(taken) < len(found):  # only in a table that somebody edited
            found, taken = {}, set()
        for key in sorted(wanted.keys() - found.keys()):
            found[key] = n.endpoint_id(*key, self.departures, taken)
            taken.add(found[key])
        if found:
            self._identities[name] = found
        else:
            self._identities.pop(name, None)

    def _fill_pool(
        self, name: ServicePortName, state: PoolState, pool: Pool, stage: Stage, reason: str, *, fresh: bool
    ) -> None:
        before = {} if fresh else pool_elements(state)
        state.slots = assign_slots(state.slots, pool.endpoints)
        state.identities = self._identities[name] if pool.affinity_timeout_s else {}
        after = pool_elements(state)
        for place in before:
            if place not in after:
                stage.drop(place, reason)
        for place, data in after.items():
            if before.get(place) != data:
                stage.put(place, data, "", reason)

    def _update_shared(self, old: Fragment | None, new: Fragment | None, stage: Stage, reason: str) -> None:
        before, after = _shared_places(old), _shared_places(new)
        for place in after:
            if place not in before:
                self._shared[place] = self._shared.get(place, 0) + 1
                if self._shared[place] == 1:
                    stage.put(place, None, "", reason)
        for place in before:
            if place not in after:
                self._shared[place] -= 1
                if not self._shared[place]:
                    del self._shared[place]
                    stage.drop(place, reason)

    def _update_firewall(self, old: Fragment | None, new: Fragment | None, stage: Stage) -> None:
        before, after = old.firewall if old else None, new.firewall if new else None
        if before == after:
            return
        for firewall in (before, after):
            if firewall is not None:
                stage.firewalls[firewall.chain] = after
                (self.firewalls.discard if after is None else self.firewalls.add)(firewall.chain)
                stage.firewall_sets[firewall.chain] = firewall.allowed_set


def pool_elements(state: PoolState) -> dict[Place, bytes]:
    """The elements of a pool's endpoints."""
    number = n.word(state.number)
    elements: dict[Place, bytes] = {}
    for index, (ip, port) in enumerate(state.slots):
        data = n.endpoint_data(ip, port)
        elements["endpoints", number + n.word(index)] = data
        if state.identities:
            identity = n.word(state.identities[ip, port])
            elements["endpoint-ids", number + n.word(index)] = identity
            elements["endpoints-by-id", number + identity] = data
    return elements


def _refusal_set(front: Frontend) -> str:
    return f"{front.refusal}-{'nodeports' if front.nodeport else 'ips'}"


def _places(front: Frontend) -> list[Place]:
    """Where a frontend may have elements."""
    main = n.Context.NODEPORT if front.nodeport else n.Context.ADDRESS
    places: list[Place] = []
    if front.class_ is not None:
        places.append((n.CLASS_MAP[main], front.key))
    if front.pool is not None:
        places.append((n.POOL_MAP[main], front.key))
    if front.short_cut is not None:
        places += [(n.CLASS_MAP[main.short], front.key), (n.POOL_MAP[main.short], front.key)]
    if front.refusal:
        places.append((_refusal_set(front), front.key))
    if front.firewall_chain:
        places.append(("firewall-ips", front.key))
    return places


def _shared_places(fragment: Fragment | None) -> dict[Place, None]:
    if fragment is None:
        return {}
    places: dict[Place, None] = {("cluster-ips", fragment.cluster_ip): None}
    for address in fragment.hairpin:
        places["hairpin-connections", address + address] = None
    return places


def _reason(name: ServicePortName, old: Fragment | None, new: Fragment | None) -> str:
    if old is None:
        return f"{name} is new"
    if new is None:
        return f"{name} is gone"
    return f"{name} changed"


def recover(
    elements: Mapping[str, Mapping[bytes, Element]],
) -> tuple[dict[tuple[bool, bool, bytes], int], dict[int, list[EndpointKey]], dict[int, dict[EndpointKey, int]]]:
    """Pool numbers by frontend, slots and identities by pool number, from the elements of an earlier run."""
    pools: dict[tuple[bool, bool, bytes], int] = {}
    for context in n.Context:
        is_nodeport, is_short = context.is_nodeport, context is context.short
        for key, element in elements.get(n.POOL_MAP[context], {}).items():
            if isinstance(element.data, bytes):
                pools[is_nodeport, is_short, key] = n.unword(element.data)
    by_index: dict[int, dict[int, EndpointKey]] = {}
    for key, element in elements.get("endpoints", {}).items():
        if isinstance(element.data, bytes):
            pool, slot = n.read_slot(key)
            by_index.setdefault(pool, {})[slot] = n.read_endpoint(element.data)
    slots_of = {}
    for number, slots in by_index.items():
        slots_of[number] = [slots[index] for index in sorted(slots)] if max(slots) == len(slots) - 1 else []
    identities: dict[int, dict[EndpointKey, int]] = {}
    for key, element in elements.get("endpoints-by-id", {}).items():
        if isinstance(element.data, bytes):
            pool, identity = n.read_slot(key)
            identities.setdefault(pool, {})[n.read_endpoint(element.data)] = identity
    return pools, slots_of, identities
