"""Hints of EndpointSlices: `trafficDistribution` and `topology-mode: Auto`."""

from collections import Counter
from typing import Any

import pytest

from controlled import node, nodes, pod, service, stored
from svcplane.api.core import Node, Pod
from svcplane.api.discovery import EndpointSlice
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
