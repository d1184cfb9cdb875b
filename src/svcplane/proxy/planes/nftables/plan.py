"""From what is staged and what is there to one transaction and the reasons of its operations.  Pure."""

import ipaddress
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from svcplane.base.net import Family, join_host_port
from svcplane.kernel.nft import objects as o
from svcplane.proxy.model import NodeConfig
from svcplane.proxy.plane import Operation
from svcplane.proxy.planes.nftables import names as n
from svcplane.proxy.planes.nftables.book import Data, Place, Stage, Wanted
from svcplane.proxy.planes.nftables.compile import Firewall
from svcplane.proxy.planes.nftables.layout import GUARDS, Layout, firewall_chain, interval_elements, sets

#: Slots for which the chains of common classes exist from the start: adding one later costs a walk over maps.
READY_SLOTS = 16
#: Elements that the packet path writes; never compared.
DYNAMIC_SETS = frozenset({"affinity"})
#: Order in which elements are added where a transaction must be split: what is referred to comes first.
_SET_ORDER = ("endpoints", "endpoint-ids", "endpoints-by-id")


def ready_classes() -> Iterator[tuple[n.Context, n.Class]]:
    for slots in range(1, READY_SLOTS + 1):
        yield n.Context.ADDRESS, n.Class(n.Kind.CLUSTER_IP, 0, slots)
        yield n.Context.NODEPORT, n.Class(n.Kind.MASQUERADE, 0, slots)


@dataclass(slots=True)
class Skeleton:
    """The constant part as wanted: sets, chains in an order in which references are known, rules."""

    sets: dict[str, o.Set]
    chains: dict[str, o.Chain] = field(default_factory=dict)
    rules: dict[str, tuple[o.Rule, ...]] = field(default_factory=dict)

    def add(self, chains: Iterable[tuple[o.Chain, list[o.Rule]]]) -> None:
        for chain, rules in chains:
            self.chains[chain.name] = chain
            self.rules[chain.name] = tuple(rules)


def skeleton(config: NodeConfig, classes: Iterable[tuple[n.Context, n.Class]], *, guarded: bool) -> Skeleton:
    """`guarded`: whether some load balancer has source ranges."""
    layout = Layout(config)
    wanted = Skeleton(sets(config.family))
    wanted.add(layout.regular_chains())
    for context, class_ in classes:
        wanted.add(layout.class_chains(context, class_))
    wanted.add(layout.base_chains())
    if guarded:
        wanted.add(layout.guard_chains())
    return wanted


def class_elements(classes: Iterable[tuple[n.Context, n.Class]]) -> dict[Place, Wanted]:
    """Elements that lead from a class to its chain."""
    return {
        (n.CHAIN_MAP[context], class_.packed): Wanted(
            o.Verdict(o.Code.GOTO, class_.chain(context)), "", "a class of frontends is in use"
        )
        for context, class_ in classes
    }


def nodeport_ips(config: NodeConfig, local_addresses: Iterable[str]) -> tuple[str, ...]:
    """Addresses on which node ports answer; empty where the rule itself asks for any local address.

    Loopback is not served, even where the operator names it: as kube-proxy in nftables mode.
    """
    if config.nodeport_primary_only:
        return config.primary_ips
    networks = [ipaddress.ip_network(cidr) for cidr in config.nodeport_addresses]
    found = []
    for text in local_addresses:
        address = ipaddress.ip_address(text)
        if not address.is_loopback and any(address.version == net.version and address in net for net in networks):
            found.append(text)
    return tuple(found)


def node_intervals(config: NodeConfig) -> dict[str, tuple[o.Element, ...]]:
    """Elements of the interval sets that the configuration fills."""
    return {
        "local-sources": interval_elements(config.local_cidrs, config.family),
        "service-cidrs": interval_elements(config.service_cidrs, config.family),
    }


@dataclass(slots=True)
class Draft:
    """A transaction in the making.  `phases` may be committed one by one where all at once is too large."""

    structure: list[o.Change] = field(default_factory=list)
    removals: dict[str, list[o.Element]] = field(default_factory=dict)
    additions: dict[str, list[o.Element]] = field(default_factory=dict)
    farewells: list[o.Change] = field(default_factory=list)  # after nothing refers to them
    operations: list[Operation] = field(default_factory=list)
    count: int = 0

    def note(self, verb: str, what: str, reason: str, limit: int = 1000) -> None:
        self.count += 1
        if len(self.operations) < limit:
            self.operations.append(Operation(verb, what, reason))

    def changes(self, specs: Mapping[str, o.Set]) -> tuple[o.Change, ...]:
        """The whole as one transaction."""
        found: list[o.Change] = list(self.structure)
        found += [o.DeleteElements(specs[name], tuple(elements)) for name, elements in self.removals.items()]
        ordered = sorted(self.additions, key=lambda name: _SET_ORDER.index(name) if name in _SET_ORDER else 9)
        found += [o.AddElements(specs[name], tuple(self.additions[name])) for name in ordered]
        return (*found, *self.farewells)


def draft_elements(
    draft: Draft, stage: Stage, live: Mapping[str, Mapping[bytes, Data]], family: Family
) -> dict[Place, Data | type[KeyError]]:
    """Put the staged elements that differ from `live` into the draft; returns what `live` becomes by place,
    KeyError standing for an element that goes."""
    outcome: dict[Place, Data | type[KeyError]] = {}
    for place, reason in stage.absent.items():
        name, key = place
        if key in live.get(name, ()):
            draft.removals.setdefault(name, []).append(_removal(key, live[name][key]))
            outcome[place] = KeyError
            if draft.count < 1000:
                draft.note("delete", f"element of {name}: {pretty(name, key, family)}", reason)
            else:
                draft.count += 1
    for place, wanted in stage.wanted.items():
        name, key = place
        present = live.get(name)
        if present is not None and key in present:
            if present[key] == wanted.data:
                continue
            draft.removals.setdefault(name, []).append(_removal(key, present[key]))
            verb = "replace"
        else:
            verb = "add"
        draft.additions.setdefault(name, []).append(o.Element(key, wanted.data, wanted.comment))
        outcome[place] = wanted.data
        if draft.count < 1000:
            draft.note(verb, f"element of {name}: {pretty(name, key, family)}", wanted.reason)
        else:
            draft.count += 1
    return outcome


def _removal(key: bytes, data: Data) -> o.Element:
    return o.Element(key, data)


def draft_classes(
    draft: Draft, config: NodeConfig, classes: Iterable[tuple[n.Context, n.Class]], known: set[str]
) -> None:
    """Chains of new classes; `known` are the chains that exist and is extended."""
    layout = Layout(config)
    for context, class_ in classes:
        for chain, rules in layout.class_chains(context, class_):
            if chain.name in known:
                continue
            known.add(chain.name)
            draft.structure.append(o.AddChain(chain))
            draft.structure += [o.AddRule(chain.name, rule) for rule in rules]
            draft.note("add", f"chain {chain.name}", "a class of frontends is used for the first time")


def draft_firewalls(draft: Draft, config: NodeConfig, stage: Stage, known: set[str]) -> None:
    """Chains and sets of source ranges: made new where they change, since they are few and small."""
    layout = Layout(config)
    for name, firewall in stage.firewalls.items():
        set_name = stage.firewall_sets[name]
        spec = o.Set(set_name, (n.ADDRESS_TYPE[config.family],), interval=True)
        if firewall is None:
            if name in known:
                known.discard(name)
                draft.farewells += [o.FlushChain(name), o.DeleteChain(name), o.DeleteSet(set_name)]
                draft.note("delete", f"chain {name}", "no source ranges any more")
            continue
        chain, rules = firewall_chain(layout, name, set_name)
        if name in known:
            draft.structure += [o.FlushChain(name), o.DeleteSet(set_name)]
        else:
            draft.structure.append(o.AddChain(chain))
        known.add(name)
        draft.structure.append(o.AddSet(spec))
        draft.structure.append(o.AddElements(spec, interval_elements(firewall.allowed, config.family)))
        draft.structure += [o.AddRule(name, rule) for rule in rules]
        draft.note("replace", f"chain {name}", "source ranges of a load balancer")


def draft_guards(draft: Draft, config: NodeConfig, wanted: Skeleton, known: set[str], *, guarded: bool) -> None:
    """The base chains before the translation come with the first load balancer that has source ranges, and go with
    the last.  `wanted` and `known`, the chains that exist, follow."""
    if guarded == (GUARDS[0].name in known):
        return
    for chain, rules in Layout(config).guard_chains():
        if guarded:
            known.add(chain.name)
            wanted.add([(chain, rules)])
            draft.structure += [o.AddChain(chain), *(o.AddRule(chain.name, rule) for rule in rules)]
            draft.note("add", f"chain {chain.name}", "a load balancer has source ranges")
        else:
            known.discard(chain.name)
            del wanted.chains[chain.name], wanted.rules[chain.name]
            draft.farewells += [o.FlushChain(chain.name), o.DeleteChain(chain.name)]
            draft.note("delete", f"chain {chain.name}", "no load balancer has source ranges any more")


def same_structure(observed: o.TableContent, wanted: Skeleton) -> bool:
    """Whether sets and base chains are such that the table can be mended instead of being made anew."""
    if observed.dormant or any(observed.sets.get(name) != spec for name, spec in wanted.sets.items()):
        return False
    # the base chains of source ranges may come and go; one of another kind in their place may not
    names = {chain.name for chain in GUARDS}
    observed_base = {chain for chain in observed.chains.values() if chain.hook is not None or chain.name in names}
    wanted_base = {chain for chain in wanted.chains.values() if chain.hook is not None}
    return observed_base ^ wanted_base <= set(GUARDS)


def draft_skeleton(draft: Draft, wanted: Skeleton, observed: o.TableContent | None) -> None:
    """Chains and rules of the constant part that are missing or differ.  `observed` None: make the table."""
    if observed is None:
        draft.structure.append(o.AddTable("Services, programmed by svcplane"))
        draft.structure += [o.AddSet(spec) for spec in wanted.sets.values()]
        draft.note("add", f"table {n.TABLE}", "it is not there")
    present = observed.chains if observed else {}
    missing = [chain for name, chain in wanted.chains.items() if name not in present]
    draft.structure += [o.AddChain(chain) for chain in missing]
    for name, rules in wanted.rules.items():
        found = observed.rules.get(name, ()) if observed else ()
        if found == rules:
            continue
        if found:
            draft.structure.append(o.FlushChain(name))
        draft.structure += [o.AddRule(name, rule) for rule in rules]
        draft.note("replace" if name in present else "add", f"chain {name}", "its rules are not as they should be")


def draft_stale_chains(draft: Draft, wanted: Iterable[str], observed: o.TableContent) -> None:
    """Chains and sets of ours that nothing needs any more."""
    keep = set(wanted)
    stale = [name for name in observed.chains if name not in keep]
    for name in stale:
        draft.farewells.append(o.FlushChain(name))
    for name in stale:
        draft.farewells.append(o.DeleteChain(name))
        draft.note("delete", f"chain {name}", "nothing uses it")


def same_ranges(observed: Mapping[bytes, o.Element], wanted: Iterable[o.Element]) -> bool:
    """Whether an interval set holds just these ranges."""
    there = {key: element.interval_end for key, element in observed.items()}
    return there == {element.key: element.interval_end for element in wanted}


def firewall_is_there(observed: o.TableContent, firewall: Firewall, config: NodeConfig) -> bool:
    """Whether the chain and the ranges of a service port's sources are as they should be."""
    _, rules = firewall_chain(Layout(config), firewall.chain, firewall.allowed_set)
    ranges = interval_elements(firewall.allowed, config.family)
    there = observed.elements.get(firewall.allowed_set, {})
    return observed.rules.get(firewall.chain) == tuple(rules) and same_ranges(there, ranges)


def replace_interval(
    draft: Draft, spec: o.Set, wanted: Sequence[o.Element], observed: Mapping[bytes, o.Element]
) -> None:
    """An interval set's elements, replaced as a whole where they differ."""
    if same_ranges(observed, wanted):
        return
    if observed:
        ordered = sorted(observed.values(), key=lambda element: element.key)
        draft.removals[spec.name] = [o.Element(e.key, None, interval_end=e.interval_end) for e in ordered]
    if wanted:
        draft.additions[spec.name] = list(wanted)
    draft.note("replace", f"elements of {spec.name}", "the configuration says so")


def pretty(name: str, key: bytes, family: Family) -> str:
    """A key as a person would write it."""
    width = 4 if family is Family.IPV4 else 16
    if name in ("endpoints", "endpoint-ids", "endpoints-by-id"):
        return f"pool {n.unword(key[:4])} . {n.unword(key[4:])}"
    if name in n.CHAIN_MAP.values():
        return str(n.unword(key))
    if name in ("cluster-ips", "nodeport-ips", "hairpin-connections", "local-sources", "service-cidrs"):
        return " . ".join(str(ipaddress.ip_address(key[at : at + width])) for at in range(0, len(key), width))
    port = int.from_bytes(key[-4:-2], "big")
    protocol = n.PROTOCOL_NAME.get(key[-8])
    address = str(ipaddress.ip_address(key[:-8])) if len(key) > 8 else ""
    return f"{join_host_port(address, port) if address else port}/{(protocol or '?').lower()}"
