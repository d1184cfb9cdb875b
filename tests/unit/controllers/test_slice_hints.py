"""Hints of EndpointSlices: `trafficDistribution` and `topology-mode: Auto`."""

from collections import Counter
from typing import Any

import msgspec
import pytest

from controlled import node, nodes, pod, service, stored
from svcplane.api.core import Node, Pod
from svcplane.api.discovery import EndpointSlice
from svcplane.controllers.slices import shares as by_cpu
from svcplane.controllers.slices.plan import Plan, plan

MODE = "service.kubernetes.io/topology-mode"
OLD_MODE = "service.kubernetes.io/topology-aware-hints"


def auto(**annotations: str) -> Any:
    return service(metadata={"annotations": annotations or {MODE: "Auto"}})


def spread(**counts: int) -> list[Pod]:
    """So many Pods on the node of each zone."""
    found: list[Pod] = []
    for zone, count in counts.items():
        found += [pod(len(found) + number, node=zone) for number in range(count)]
    return found


def zones(**cpus: str) -> dict[str, Node]:
    return nodes(*(node(zone, zone, cpu) for zone, cpu in cpus.items()))


def shares(slices: list[EndpointSlice]) -> Counter[str]:
    found: Counter[str] = Counter()
    for slice_ in slices:
        for endpoint in slice_.endpoints or ():
            found.update(zone.name for zone in (endpoint.hints.for_zones if endpoint.hints else ()))
    return found


def first(made: Plan) -> Counter[str]:
    return shares(stored(made, []))


@pytest.mark.parametrize(
    ("counts", "cpus", "expected"),
    [
        ({"a": 4, "b": 4}, {"a": "4", "b": "4"}, {"a": 4, "b": 4}),
        ({"a": 60, "b": 40}, {"a": "4", "b": "4"}, {"a": 50, "b": 50}),
        ({"a": 12, "b": 3}, {"a": "2", "b": "4"}, {"a": 5, "b": 10}),
        ({"a": 6, "b": 4}, {"a": "500m", "b": "0.5"}, {"a": 5, "b": 5}),
        # too many by less than one, too few by less than one: not worth a move
        ({"a": 4, "b": 3, "c": 3}, {"a": "1", "b": "1", "c": "1"}, {"a": 4, "b": 3, "c": 3}),
    ],
)
def test_zones_get_their_part(counts: dict[str, int], cpus: dict[str, str], expected: dict[str, int]) -> None:
    made = plan(auto(), spread(**counts), zones(**cpus), [], "")
    assert (first(made), made.refused["IPv4"]) == (expected, "")


@pytest.mark.parametrize(
    ("pods", "places", "why"),
    [
        (spread(a=4), zones(a="4"), "Insufficient Node information"),
        (spread(a=4, b=4), nodes(node("a", "a"), node("b")), "Insufficient Node information"),
        (spread(a=4, b=4), zones(a="4", b="0"), "Insufficient Node information"),
        (spread(a=1), zones(a="4", b="4"), "Insufficient number of endpoints (1 endpoints, 2 zones)"),
        (spread(a=2, b=1), zones(a="4", b="4"), "Unable to allocate minimum required endpoints"),
        (spread(a=4, b=4, x=1), nodes(*zones(a="4", b="4").values(), node("x", ready=False)), "One or more endpoints"),
    ],
)
def test_where_it_cannot_be_done_there_are_no_hints_and_a_reason(
    pods: list[Pod], places: dict[str, Node], why: str
) -> None:
    made = plan(auto(), pods, places, [], "")
    assert not first(made)
    assert made.refused["IPv4"].startswith(why)


def test_nodes_that_are_not_ready_or_of_the_control_plane_do_not_count() -> None:
    places = zones(a="4", b="4") | nodes(
        node("c", "c", ready=False), node("d", "d", **{"node-role.kubernetes.io/control-plane": ""})
    )
    assert first(plan(auto(), spread(a=4, b=4), places, [], "")) == {"a": 4, "b": 4}


def test_good_hints_of_slices_that_do_not_change_stay() -> None:
    places = zones(a="4", b="4")
    before = stored(plan(auto(), spread(a=120, b=80), places, [], ""), [])
    again = plan(auto(), spread(a=120, b=80), places, before, "")
    assert (again.creates, again.updates, again.deletes) == ([], [], [])
    more = [*spread(a=120, b=80), pod(200, node="b")]
    made = plan(auto(), more, places, before, "")
    assert len(made.creates) + len(made.updates) == 1
    assert shares(stored(made, before)).total() == 201


def test_a_zone_that_comes_gets_its_part() -> None:
    before = stored(plan(auto(), spread(a=100, b=100), zones(a="4", b="4"), [], ""), [])
    made = plan(auto(), spread(a=100, b=100), zones(a="4", b="4", c="4"), before, "")
    found = shares(stored(made, before))
    assert found.total() == 200
    assert found["c"] >= 56  # a third of 200, less the fifth that may be missing


def test_only_ready_endpoints_have_hints() -> None:
    made = plan(auto(), [*spread(a=2, b=2), pod(9, ready=False, node="a")], zones(a="1", b="1"), [], "")
    assert first(made).total() == 4


@pytest.mark.parametrize(
    ("annotations", "asked"),
    [
        ({MODE: "Auto"}, True),
        ({MODE: "auto"}, True),
        ({MODE: "AUTO"}, False),
        ({MODE: "Disabled"}, False),
        ({OLD_MODE: "auto"}, True),
        ({OLD_MODE: "Disabled", MODE: "Auto"}, False),
    ],
)
def test_the_older_annotation_decides_where_both_are_there(annotations: dict[str, str], asked: bool) -> None:
    made = plan(auto(**annotations), spread(a=2, b=2), zones(a="1", b="1"), [], "")
    assert bool(first(made)) == asked


def test_hints_go_with_the_annotation_in_one_write_a_slice() -> None:
    places = zones(a="4", b="4")
    before = stored(plan(auto(), spread(a=100, b=100), places, [], ""), [])
    made = plan(service(), spread(a=100, b=100), places, before, "")
    assert (len(made.creates), len(made.updates), len(made.deletes)) == (0, 2, 0)
    assert not shares(stored(made, before))


@pytest.mark.parametrize(
    ("distribution", "for_zones", "for_nodes"),
    [
        ("PreferClose", ["a"], []),
        ("PreferSameZone", ["a"], []),
        ("PreferSameNode", ["a"], ["n1"]),
    ],
)
def test_traffic_distribution(distribution: str, for_zones: list[str], for_nodes: list[str]) -> None:
    places, pods = nodes(node("n1", "a"), node("n2")), [pod(0), pod(1, node="n2"), pod(2, ready=False)]
    wanted = service(trafficDistribution=distribution)
    slices = stored(plan(wanted, pods, places, [], ""), [])
    near, zoneless, unready = slices[0].endpoints or []
    assert near.hints is not None
    assert [zone.name for zone in near.hints.for_zones] == for_zones
    assert [one.name for one in near.hints.for_nodes] == for_nodes
    assert (zoneless.hints is None) == (not for_nodes)
    assert unready.hints is None


def test_auto_comes_before_traffic_distribution() -> None:
    wanted = service(metadata={"annotations": {MODE: "Auto"}}, trafficDistribution="PreferSameNode")
    made = plan(wanted, spread(a=2, b=2), zones(a="1", b="1"), [], "")
    assert all("forNodes" not in endpoint["hints"] for endpoint in made.creates[0]["endpoints"])
    refused = plan(wanted, spread(a=1), zones(a="1", b="1"), [], "")
    assert all("hints" not in endpoint for endpoint in refused.creates[0]["endpoints"])


# Cases of topologycache's and trafficdist's tests, by what they say.


@pytest.mark.parametrize(
    ("places", "ratios"),
    [
        ([], None),
        ([node("1", "a")], None),
        ([node("1", "a", "1"), node("2", "a", "1")], None),
        ([node("1", "a", "1000m"), node("2", "b", "1000m")], {"a": 0.5, "b": 0.5}),
        ([node("1", "a", "1000m"), node("2", "b", "1000m", ready=False)], None),
        ([node("1", "a", "1"), node("2", "b", "1"), node("3", "b", "1")], {"a": 0.333, "b": 0.667}),
        ([node("1", "a", "1500m"), node("2", "b", "3"), node("3", "c", "500m")], {"a": 0.3, "b": 0.6, "c": 0.1}),
        ([node("1", "a", "1"), node("2", "b", "1"), node("3", cpu="1")], None),
        ([node("1", "a", "1"), node("2", "b", "1"), node("3", cpu="1", ready=False)], {"a": 0.5, "b": 0.5}),
        ([node("1", "a", "1"), node("2", "b", "1"), node("3", "c", "0")], None),
        (
            [
                node("1", "a", "1"),
                node("2", "b", "1"),
                node("3", "c", "1", **{"node-role.kubernetes.io/master": ""}),
                node("4", "b", "8", **{"node-role.kubernetes.io/control-plane": "x"}),
            ],
            {"a": 0.5, "b": 0.5},
        ),
    ],
)
def test_part_of_each_zone(places: list[Node], ratios: dict[str, float] | None) -> None:
    found = by_cpu.cpu_ratios({one.metadata.name: one for one in places})
    rounded = found and {zone: round(part, 3) for zone, part in found.items()}
    assert rounded == ratios


@pytest.mark.parametrize(
    ("desired", "given", "giving", "receiving"),
    [
        ({}, {}, {}, {}),
        ({"a": 1.2, "b": 1.1, "c": 1.0}, {"a": 1, "b": 1, "c": 1}, {}, {}),
        # rather the own zone than a slightly better spread
        ({"a": 5.1, "b": 5.1, "c": 5.8}, {"a": 16}, {"a": 10}, {"b": 5, "c": 5}),
        ({"a": 5.0, "b": 5.6, "c": 5.4}, {"a": 16}, {"a": 11}, {"b": 6, "c": 5}),
        ({"a": 5.0, "b": 5.6, "c": 5.4}, {"b": 8, "c": 8}, {"b": 2, "c": 3}, {"a": 5}),
        ({"a": 5.0, "b": 5.0, "c": 5.0}, {"a": 6, "b": 6, "c": 6}, {}, {}),
        ({"a": 5.0, "b": 5.0, "c": 5.0}, {"a": -40, "b": 20, "c": 20}, {"b": 15, "c": 15}, {"a": 30}),
    ],
)
def test_who_gives_and_who_receives(
    desired: dict[str, float], given: dict[str, int], giving: dict[str, int], receiving: dict[str, int]
) -> None:
    allocations = {zone: by_cpu.Allocation(99, part) for zone, part in desired.items()}
    assert by_cpu._givers_and_receivers(allocations, Counter(given)) == (giving, receiving)


@pytest.mark.parametrize(
    ("hints", "given", "found"),
    [
        ([], {}, {}),
        ([("a", True)], {"a": 1}, {"a": 1}),
        ([("a", True), ("a", False), ("a", None)], {"a": 1}, {"a": 1}),
        ([("a", True), ("b", True), ("b", True)], {"a": 1, "b": 1}, {"a": 1, "b": 2}),
        ([("gone", True)], {}, None),
        ([("", True)], {}, None),
        ([("", False)], {}, {}),
        ([("a", True), ("a", True), ("a", True)], {"a": 1}, None),  # leaves other zones too few
    ],
)
def test_which_hints_can_stay(
    hints: list[tuple[str, bool | None]], given: dict[str, int], found: dict[str, int] | None
) -> None:
    endpoints = [
        {
            "conditions": {} if ready is None else {"ready": ready},
            **({"hints": {"forZones": [{"name": zone}]}} if zone else {}),
        }
        for zone, ready in hints
    ]
    allocations = {zone: by_cpu.Allocation(3, 3.0) for zone in ("a", "b", "c")}
    assert by_cpu._valid_hints({"endpoints": endpoints}, Counter(given), allocations) == found


def test_zones_within_the_threshold_give_one_another_no_more_than_they_need() -> None:
    """Five, two and three endpoints for parts of 35, 35 and 30 of a hundred."""
    made = plan(auto(), spread(a=5, b=2, c=3), zones(a="3500m", b="3500m", c="3"), [], "")
    assert first(made) == {"a": 4, "b": 3, "c": 3}


@pytest.mark.parametrize("before", ["PreferSameNode", "PreferSameZone", "", None])
@pytest.mark.parametrize("after", ["PreferSameNode", "PreferSameZone", "Unknown", None])
def test_hints_follow_the_distribution(before: str | None, after: str | None) -> None:
    """Stale ones go, missing ones come, right ones are not written again."""

    def hints(wanted: str | None) -> list[Any]:
        made = plan(service(trafficDistribution=wanted), [pod(0)], nodes(node("n1", "a")), [], "")
        return [endpoint.get("hints") for endpoint in made.creates[0]["endpoints"]]

    places = nodes(node("n1", "a"))
    old = stored(plan(service(trafficDistribution=before), [pod(0)], places, [], ""), [])
    made = plan(service(trafficDistribution=after), [pod(0)], places, old, "")
    assert bool(made.updates) == (hints(before) != hints(after))
    assert [e.get("hints") for tree in made.updates for e in tree["endpoints"]] in ([], hints(after))


def test_hint_follows_a_pod_that_is_no_longer_ready_or_whose_node_changed_its_zone() -> None:
    wanted = service(trafficDistribution="PreferSameNode")
    before = stored(plan(wanted, [pod(0), pod(1)], nodes(node("n1", "a")), [], ""), [])
    (tree,) = plan(wanted, [pod(0, ready=False), pod(1)], nodes(node("n1", "b")), before, "").updates
    assert [endpoint.get("hints") for endpoint in tree["endpoints"]] == [
        None,
        {"forZones": [{"name": "b"}], "forNodes": [{"name": "n1"}]},
    ]


@pytest.mark.parametrize(
    ("mode", "before", "expected", "crossing", "updates"),
    [
        ("auto", [{"c": 3}], {"a": 1, "b": 1, "c": 1}, 2, 1),
        ("auto", [{"a": 2, "c": 2}], {}, 0, 0),  # beyond the threshold
        ("Auto", [{"a": 2, "c": 2}, {"a": 2, "b": 3}], {"a": 3, "b": 3, "c": 3}, 1, 2),
        ("disabled", [{"a": 2, "c": 2}, {"a": 2, "b": 3}], {}, 0, 0),
    ],
)
def test_hints_come_to_slices_that_are_there(
    mode: str, before: list[dict[str, int]], expected: dict[str, int], crossing: int, updates: int
) -> None:
    """Three zones of like CPUs; each slice has so many endpoints of each zone."""
    places, pods, slices = zones(a="1", b="1", c="1"), list[Pod](), list[EndpointSlice]()
    for counts in before:
        names = [zone for zone, count in counts.items() for _ in range(count)]
        added = [pod(len(pods) + number, node=zone) for number, zone in enumerate(names)]
        pods += added
        (slice_,) = stored(plan(service(), added, places, [], ""), [])
        meta = msgspec.structs.replace(slice_.metadata, name=f"web-{len(slices)}")
        slices.append(msgspec.structs.replace(slice_, metadata=meta))
    made = plan(auto(**{OLD_MODE: mode}), pods, places, slices, "")
    after = stored(made, slices)
    assert (len(made.creates), len(made.updates), len(made.deletes)) == (0, updates, 0)
    assert shares(after) == expected
    found = [e for one in after for e in one.endpoints or () if e.hints and e.hints.for_zones[0].name != e.zone]
    assert len(found) == crossing
