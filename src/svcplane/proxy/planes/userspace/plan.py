"""From what is wanted and what is there to one transaction and the reasons of its operations.  Pure."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from svcplane.base.net import Family
from svcplane.kernel.nft import objects as o
from svcplane.proxy.model import NodeConfig
from svcplane.proxy.plane import Operation
from svcplane.proxy.planes.userspace import names as n
from svcplane.proxy.planes.userspace.book import ABSENT, Absent
from svcplane.proxy.planes.userspace.compile import Data, Firewall, Place
from svcplane.proxy.planes.userspace.layout import CONFIGURED_SETS, Layout, firewall_chain, ranges, sets

REPORTED = 1000
Live = dict[Place, Data]


@dataclass(slots=True)
class Draft:
    """A transaction in the making."""

    family: Family
    structure: list[o.Change] = field(default_factory=list)
    removals: dict[str, list[o.Element]] = field(default_factory=dict)
    additions: dict[str, list[o.Element]] = field(default_factory=dict)
    farewells: list[o.Change] = field(default_factory=list)  # after nothing refers to them
    operations: list[Operation] = field(default_factory=list)
    count: int = 0

    def note(self, verb: str, what: str, reason: str) -> None:
        self.count += 1
        if len(self.operations) < REPORTED:
            self.operations.append(Operation(verb, what, reason))

    def change(self, place: Place, there: Data | Absent, wanted: Data | Absent, comment: str, reason: str) -> None:
        """Bring one element from what is there to what is wanted."""
        name, key = place
        if not isinstance(there, Absent):
            self.removals.setdefault(name, []).append(o.Element(key, there))
        if not isinstance(wanted, Absent):
            self.additions.setdefault(name, []).append(o.Element(key, wanted, comment))
        verb = "add" if there is ABSENT else "delete" if wanted is ABSENT else "replace"
        self.note(verb, f"element of {name}: {n.pretty(key, self.family)}", reason)

    def changes(self) -> tuple[o.Change, ...]:
        """The whole in an order in which what is referred to is there."""
        specs = sets(self.family)
        found: list[o.Change] = list(self.structure)
        found += [o.DeleteElements(specs[name], tuple(elements)) for name, elements in self.removals.items()]
        found += [o.AddElements(specs[name], tuple(elements)) for name, elements in self.additions.items()]
        return (*found, *self.farewells)


def configured_elements(config: NodeConfig) -> dict[str, dict[bytes, o.Element]]:
    """Elements of the range sets that the configuration fills."""
    cidrs = (config.local_cidrs, config.service_cidrs)
    return {name: ranges(texts, config.family) for name, texts in zip(CONFIGURED_SETS, cidrs, strict=True)}


def same_structure(observed: o.TableContent, config: NodeConfig) -> bool:
    """Whether sets and base chains are such that the table can be mended instead of being made anew."""
    if observed.dormant or any(observed.sets.get(name) != spec for name, spec in sets(config.family).items()):
        return False
    base = {chain for chain, _ in Layout(config).chains() if chain.hook is not None}
    return {chain for chain in observed.chains.values() if chain.hook is not None} == base


def draft_skeleton(draft: Draft, config: NodeConfig, observed: o.TableContent | None) -> None:
    """The constant part, where it is missing or differs.  `observed` None: make the table."""
    if observed is None:
        draft.structure.append(o.AddTable("Services, captured for the relay of svcplane"))
        draft.structure += [o.AddSet(spec) for spec in sets(config.family).values()]
        draft.note("add", f"table {n.TABLE}", "it is not there")
    present = observed or o.TableContent()
    wanted = Layout(config).chains()
    draft.structure += [o.AddChain(chain) for chain, _ in wanted if chain.name not in present.chains]
    for chain, rules in wanted:
        found = present.rules.get(chain.name, ())
        if found == tuple(rules):
            continue
        if found:
            draft.structure.append(o.FlushChain(chain.name))
        draft.structure += [o.AddRule(chain.name, rule) for rule in rules]
        verb = "replace" if chain.name in present.chains else "add"
        draft.note(verb, f"chain {chain.name}", "its rules are not as they should be")
    for name, elements in configured_elements(config).items():
        there = present.elements.get(name, {})
        if same_ranges(there, elements):
            continue
        if there:
            ordered = sorted(there.values(), key=lambda element: element.key)
            draft.removals[name] = [o.Element(e.key, None, interval_end=e.interval_end) for e in ordered]
        if elements:
            draft.additions[name] = list(elements.values())
        draft.note("replace", f"elements of {name}", "the configuration says so")


def same_ranges(observed: Mapping[bytes, o.Element], wanted: Mapping[bytes, o.Element]) -> bool:
    there = {key: element.interval_end for key, element in observed.items()}
    return there == {key: element.interval_end for key, element in wanted.items()}


# -- source ranges ---------------------------------------------------------------------------------------------------


def firewall_is_there(observed: o.TableContent, firewall: Firewall, config: NodeConfig) -> bool:
    _, rule = firewall_chain(config, firewall.chain, firewall.allowed_set)
    there = observed.elements.get(firewall.allowed_set, {})
    return observed.rules.get(firewall.chain) == (rule,) and same_ranges(there, ranges(firewall.allowed, config.family))


def draft_firewall(draft: Draft, config: NodeConfig, firewall: Firewall, *, there: bool) -> None:
    """Make a chain of source ranges, or make it anew: they are few and small."""
    spec = o.Set(firewall.allowed_set, (n.ADDRESS_TYPE[config.family],), interval=True)
    chain, rule = firewall_chain(config, firewall.chain, firewall.allowed_set)
    if there:
        draft.structure += [o.FlushChain(chain.name), o.DeleteSet(spec.name)]
    else:
        draft.structure.append(o.AddChain(chain))
    elements = tuple(ranges(firewall.allowed, config.family).values())
    draft.structure += [o.AddSet(spec), o.AddElements(spec, elements), o.AddRule(chain.name, rule)]
    draft.note("replace" if there else "add", f"chain {chain.name}", "source ranges of a load balancer")


def draft_no_firewall(draft: Draft, chain: str, allowed_set: str) -> None:
    draft.farewells += [o.FlushChain(chain), o.DeleteChain(chain), o.DeleteSet(allowed_set)]
    draft.note("delete", f"chain {chain}", "no source ranges any more")


def draft_strangers(draft: Draft, config: NodeConfig, firewalls: Iterable[Firewall], observed: o.TableContent) -> None:
    """Chains and sets in our table that nothing needs."""
    wanted = {chain.name for chain, _ in Layout(config).chains()} | {firewall.chain for firewall in firewalls}
    stale = [name for name, chain in observed.chains.items() if name not in wanted and chain.hook is None]
    draft.farewells += [o.FlushChain(name) for name in stale]
    draft.farewells += [o.DeleteChain(name) for name in stale]
    keep = {*sets(config.family), *(firewall.allowed_set for firewall in firewalls)}
    sets_gone = [name for name in observed.sets if name not in keep]
    draft.farewells += [o.DeleteSet(name) for name in sets_gone]
    for name in (*stale, *sets_gone):
        draft.note("delete", name, "nothing uses it")
