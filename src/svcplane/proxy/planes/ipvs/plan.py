"""What is wanted and what is there -> changes in an order that never serves wrongly.  Pure.

First set entries come, then virtual servers and targets, then addresses, so that nobody reaches an address before
its server; what goes takes the opposite way.  A target that goes keeps its connections for a while (`drain`): it is
given weight 0 and is deleted later, unless there is nothing to keep.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from svcplane.base.net import contains
from svcplane.kernel.ipset.objects import Entry
from svcplane.kernel.ipvs import objects as o
from svcplane.proxy.plane import Operation
from svcplane.proxy.planes.ipvs.book import Book, Keys
from svcplane.proxy.planes.ipvs.compile import Wanted
from svcplane.proxy.planes.ipvs.names import DEVICE, SERVER_KINDS, Kind
from svcplane.proxy.planes.ipvs.policy import flags_of

MAX_OPERATIONS = 1000
LAST_RESORT = "rr"
Drained = tuple[o.ServerKey, o.Target]


@dataclass(slots=True)
class Live:
    """What is in the kernel and ours.  `servers`: each with the weights of its targets."""

    servers: dict[o.ServerKey, tuple[o.Server, dict[o.Target, int]]] = field(default_factory=dict)
    entries: dict[Kind, set[Entry]] = field(default_factory=lambda: {kind: set() for kind in Kind})
    addresses: set[str] = field(default_factory=set)

    def accept(self, change: o.Change) -> None:
        """The kernel took it."""
        match change:
            case o.AddServer(key, server):
                self.servers[key] = (server, {})
            case o.EditServer(key, server):
                self.servers[key] = (server, self.servers[key][1])
            case o.DeleteServer(key):
                self.servers.pop(key, None)
            case o.AddDestination(key, target, weight) | o.EditDestination(key, target, weight):
                self.servers[key][1][target] = weight
            case o.DeleteDestination(key, target):
                self.servers[key][1].pop(target, None)


@dataclass(slots=True)
class Plan:
    """Steps in the order they are to be taken.  `drains`: targets that get weight 0, and for how many seconds."""

    add_entries: dict[Kind, list[Entry]] = field(default_factory=dict)
    changes: list[o.Change] = field(default_factory=list)
    add_addresses: list[str] = field(default_factory=list)
    delete_addresses: list[str] = field(default_factory=list)
    farewells: list[o.Change] = field(default_factory=list)
    delete_entries: dict[Kind, list[Entry]] = field(default_factory=dict)
    drains: dict[Drained, float] = field(default_factory=dict)
    revived: list[Drained] = field(default_factory=list)
    operations: list[Operation] = field(default_factory=list)
    count: int = 0

    def note(self, verb: str, what: str, reason: str) -> None:
        self.count += 1
        if len(self.operations) < MAX_OPERATIONS:
            self.operations.append(Operation(verb, what, reason))


@dataclass(frozen=True, slots=True)
class Rules:
    """What a plan must heed besides the book.

    `missing`: schedulers this kernel lacks; `foreign`: virtual servers of somebody else at addresses we want;
    `exclude`: CIDRs in which nothing is taken away.
    """

    default_scheduler: str = LAST_RESORT
    missing: frozenset[str] = frozenset()
    foreign: frozenset[o.ServerKey] = frozenset()
    exclude: tuple[str, ...] = ()

    def excluded(self, ip: str) -> bool:
        return any(contains(cidr, ip) for cidr in self.exclude)


def everything(book: Book, live: Live) -> Keys:
    """All keys that are wanted or there."""
    entries = {(kind, entry) for kind, found in live.entries.items() for entry in found}
    return Keys(
        {*book.servers, *live.servers},
        {*book.entries, *entries},
        {*book.addresses, *live.addresses},
    )


def draft(book: Book, live: Live, keys: Keys, rules: Rules) -> Plan:
    """The changes that bring `keys` to what is wanted."""
    plan = Plan()
    for key in sorted(keys.servers - rules.foreign):
        _server(plan, key, book, live, rules)
    foreign = {(key.address, key.protocol, key.port) for key in rules.foreign}
    for kind, entry in sorted(keys.entries):
        if (entry.ip, entry.protocol, entry.port) in foreign:
            continue
        wanted, there = book.entries.get((kind, entry)) is not None, entry in live.entries[kind]
        if wanted and not there:
            plan.add_entries.setdefault(kind, []).append(entry)
            plan.note("add", f"{kind} {entry}", "a Service wants it")
        elif there and not wanted:
            plan.delete_entries.setdefault(kind, []).append(entry)
            plan.note("delete", f"{kind} {entry}", "nothing wants it")
    for ip in sorted(keys.addresses):
        wanted, there = book.addresses.get(ip) is not None, ip in live.addresses
        if wanted and not there:
            plan.add_addresses.append(ip)
            plan.note("add", f"address {ip} on {DEVICE}", "a Service has it")
        elif there and not wanted and not rules.excluded(ip):
            plan.delete_addresses.append(ip)
            plan.note("delete", f"address {ip} on {DEVICE}", "no Service has it")
    return plan


def _server(plan: Plan, key: o.ServerKey, book: Book, live: Live, rules: Rules) -> None:
    wanted, there = book.servers.get(key), live.servers.get(key)
    if wanted is None:
        if there is not None and not rules.excluded(key.address):
            plan.farewells.append(o.DeleteServer(key))
            plan.note("delete", f"virtual server {key}", "no Service has it")
        return
    owner = f"{book.servers.owner(key)}"
    server = _scheduler(wanted.server, there[0] if there else None, rules)
    if there is None:
        plan.changes.append(o.AddServer(key, server))
        plan.note("add", f"virtual server {key}", owner)
    elif there[0] != server:
        plan.changes.append(o.EditServer(key, server))
        plan.note("replace", f"virtual server {key}", f"{owner} is to be balanced otherwise")
    weights = there[1] if there else {}
    _targets(plan, key, wanted, server, weights)


def _scheduler(server: o.Server, there: o.Server | None, rules: Rules) -> o.Server:
    """Where this kernel lacks the scheduler: the last good one, else the default, else the simplest."""
    if server.scheduler not in rules.missing:
        return server
    candidates = [there.scheduler] if there else []
    name = next(name for name in (*candidates, rules.default_scheduler, LAST_RESORT) if name not in rules.missing)
    return replace(server, scheduler=name, flags=flags_of(name))


def _targets(plan: Plan, key: o.ServerKey, wanted: Wanted, server: o.Server, weights: Mapping[o.Target, int]) -> None:
    for target in sorted(wanted.targets):
        there = weights.get(target)
        what = f"target {target[0]} port {target[1]} of {key}"
        if there is None:
            plan.changes.append(o.AddDestination(key, target, wanted.weight))
            plan.note("add", what, "an endpoint came")
        elif there != wanted.weight:
            plan.changes.append(o.EditDestination(key, target, wanted.weight))
            plan.note("replace", what, f"weight {there} becomes {wanted.weight}")
        plan.revived.append((key, target))
    # `dh` has a fixed place for every target, whatever its weight: one that drains would have its clients refused
    drains = key.protocol != "udp" and wanted.drain_s > 0 and server.scheduler != "dh"
    for target in sorted(weights.keys() - wanted.targets):
        what = f"target {target[0]} port {target[1]} of {key}"
        if not drains:
            plan.changes.append(o.DeleteDestination(key, target))
            plan.note("delete", what, "the endpoint went")
            continue
        plan.drains[key, target] = wanted.drain_s
        if weights[target]:
            plan.changes.append(o.EditDestination(key, target, 0))
            plan.note("replace", what, "the endpoint went: no new connections")


def ours(
    found: Iterable[o.ServerKey], addresses: Iterable[str], entries: Mapping[Kind, set[Entry]], known: Live | None
) -> set[o.ServerKey]:
    """Which virtual servers are ours: those at the device's and the Services' addresses, those our sets name, those we
    remember."""
    on_device = set(addresses)
    named = {(entry.ip, entry.protocol, entry.port) for kind in SERVER_KINDS for entry in entries.get(kind, ())}
    remembered = known.servers if known else {}
    return {
        key
        for key in found
        if key.address in on_device or (key.address, key.protocol, key.port) in named or key in remembered
    }
