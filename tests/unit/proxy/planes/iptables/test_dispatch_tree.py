"""The dispatch tree: what it is follows from its rules alone, and a packet meets few of them."""

from hypothesis import given, settings
from hypothesis import strategies as st

from svcplane.base.net import Family
from svcplane.proxy.planes.iptables.layout import TREES, shape
from svcplane.proxy.planes.iptables.tree import LEAF, Tree

KEYS = st.integers(0, 40).map(lambda n: (10 << 24) + (96 << 16) + n * 37) | st.integers(0, 2**32 - 1)


def tree() -> Tree:
    return Tree(shape(TREES["services"], Family.IPV4))


def applied(chains: dict[str, tuple[str, ...]], changes: dict[str, tuple[str, ...] | None]) -> None:
    for name, rules in changes.items():
        if rules is None:
            del chains[name]
        else:
            chains[name] = rules


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(st.tuples(KEYS, st.booleans()), max_size=40), max_size=5))
def test_small_steps_and_one_large_step_give_the_same_chains(steps: list[list[tuple[int, bool]]]) -> None:
    grown, present = tree(), dict[int, None]()
    chains: dict[str, tuple[str, ...]] = {}
    for step in steps:
        for key, add in step:
            if add and key not in present:
                grown.add(key, f"rule {key}")
                present[key] = None
            elif not add and key in present:
                grown.remove(key, f"rule {key}")
                del present[key]
        applied(chains, grown.flush())
    fresh = tree()
    for key in sorted(present):
        fresh.add(key, f"rule {key}")
    expected = {name: rules for name, rules in fresh.flush().items() if rules is not None}
    grown.flush()
    chains.setdefault("KUBE-SERVICES", ())
    assert chains == expected == dict(grown.chains())


def test_a_rule_wanted_twice_stays_until_nobody_wants_it() -> None:
    kept = tree()
    kept.add(1, "a")
    kept.add(1, "a")
    kept.remove(1, "a")
    assert kept.flush() == {"KUBE-SERVICES": ("a",)}
    kept.remove(1, "a")
    assert kept.flush() == {"KUBE-SERVICES": ()}


def test_five_thousand_services_are_a_few_dozen_rules_away_from_any_packet() -> None:
    grown = tree()
    first = (10 << 24) + (96 << 16)
    for number in range(5000):
        grown.add(first + number, f"rule {first + number}")
    grown.flush()
    chains = dict(grown.chains())
    longest = max(map(len, chains.values()))
    assert longest <= LEAF
    grown.add(first + 5000, "one more")
    assert len(grown.flush()) <= 3
