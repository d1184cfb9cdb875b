"""EndpointSlices: the plan.  Cases of k8s.io/endpointslice reconciler_test.go, by what they say."""

import msgspec
import pytest

from controlled import NAMED, node, nodes, pod, pods, service, stored
from svcplane.api.core import Service
from svcplane.api.discovery import EndpointSlice
from svcplane.controllers.slices.plan import Plan, plan


def sizes(slices: list[EndpointSlice]) -> list[int]:
    return sorted((len(slice_.endpoints or []) for slice_ in slices), reverse=True)


def writes(made: Plan) -> tuple[int, int, int]:
    return len(made.creates), len(made.updates), len(made.deletes)


def slices_of(one: Service, *counts: int) -> list[EndpointSlice]:
    """Slices as they were filled one after the other: of so many of the Pods 0, 1, …"""
    found: list[EndpointSlice] = []
    for index, count in enumerate(counts):
        (slice_,) = stored(plan(one, pods(count, sum(counts[:index])), nodes(), [], ""), [])
        meta = msgspec.structs.replace(slice_.metadata, name=f"web-{index}")
        found.append(msgspec.structs.replace(slice_, metadata=meta))
    return found


def test_nothing_selected_is_one_empty_slice_and_stays_so() -> None:
    made = plan(service(), [], nodes(), [], "")
    assert writes(made) == (1, 0, 0)
    assert made.creates[0]["ports"] is None
    assert writes(plan(service(), [], nodes(), stored(made, []), "")) == (0, 0, 0)


def test_the_empty_slice_becomes_the_first_one_and_the_last_one_the_empty_one() -> None:
    empty = stored(plan(service(), [], nodes(), [], ""), [])
    made = plan(service(), pods(3), nodes(), empty, "")
    assert writes(made) == (0, 1, 0)
    assert writes(plan(service(), [], nodes(), stored(made, empty), "")) == (0, 1, 0)


def test_a_slice_that_is_used_again_is_as_a_new_one() -> None:
    (empty,) = stored(plan(service(), [], nodes(), [], ""), [])
    meta = msgspec.structs.replace(empty.metadata, annotations={"note": "mine"})
    (tree,) = plan(service(), pods(1), nodes(), [msgspec.structs.replace(empty, metadata=meta)], "").updates
    assert tree["metadata"]["name"] == empty.metadata.name
    assert "annotations" not in tree["metadata"]


@pytest.mark.parametrize(("count", "expected"), [(1, [1]), (100, [100]), (101, [100, 1]), (250, [100, 100, 50])])
def test_a_hundred_to_a_slice(count: int, expected: list[int]) -> None:
    made = plan(service(), pods(count), nodes(), [], "")
    assert sizes(stored(made, [])) == expected


def test_what_is_right_is_not_written() -> None:
    before = slices_of(service(), 100, 20)
    assert writes(plan(service(), pods(120), nodes(), before, "2026-01-01T00:00:00Z")) == (0, 0, 0)


def test_new_endpoints_fill_the_one_slice_that_they_all_fit_in() -> None:
    before = slices_of(service(), 62, 61)
    made = plan(service(), pods(123 + 38), nodes(), before, "")
    assert writes(made) == (0, 1, 0)
    assert sizes(stored(made, before)) == [100, 61]


def test_new_endpoints_that_fit_in_no_single_slice_get_their_own() -> None:
    """Two updates would do without a slice more; one create writes less."""
    before = slices_of(service(), 62, 61)
    made = plan(service(), pods(123 + 77), nodes(), before, "")
    assert writes(made) == (1, 0, 0)


def test_slices_that_change_anyway_are_filled_first() -> None:
    before = slices_of(service(), 80, 90)
    made = plan(service(), [pod(0, ready=False), *pods(169 + 5, 1)], nodes(), before, "")
    assert writes(made) == (0, 1, 0)
    assert sizes(stored(made, before)) == [90, 85]


def test_removed_endpoints_change_their_own_slice_only() -> None:
    before = slices_of(service(), 100, 1)
    made = plan(service(), pods(99), nodes(), before, "")
    assert writes(made) == (0, 1, 1)
    assert sizes(stored(made, before)) == [99]


def test_emptied_slices_are_used_for_new_ones_of_other_ports() -> None:
    before = slices_of(service(), 100, 100)
    moved = service(ports=[{"port": 80, "targetPort": 9090}])
    made = plan(moved, pods(150), nodes(), before, "")
    assert writes(made) == (0, 2, 0)
    assert {port.port for slice_ in stored(made, before) for port in slice_.ports or ()} == {9090}


def test_changed_labels_are_written_to_each_slice_and_make_room_there() -> None:
    before = slices_of(service(), 99, 99)
    labelled = service(metadata={"labels": {"tier": "front"}})
    made = plan(labelled, pods(200), nodes(), before, "")
    assert writes(made) == (0, 2, 0)
    assert sizes(stored(made, before)) == [100, 100]
    assert all(slice_.metadata.labels["tier"] == "front" for slice_ in stored(made, before))


def test_slices_of_an_earlier_service_of_the_name_are_left_to_go() -> None:
    before = slices_of(service(metadata={"uid": "earlier"}), 3)
    made = plan(service(), pods(3), nodes(), before, "")
    assert writes(made) == (1, 0, 1)
    assert made.creates[0]["metadata"]["ownerReferences"][0]["uid"] == "service-uid"


def test_a_service_that_is_being_deleted_gets_updates_but_nothing_new() -> None:
    before = slices_of(service(), 100)
    going = service(metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    made = plan(going, [pod(0, ready=False), *pods(150, 1)], nodes(), before, "")
    assert writes(made) == (0, 1, 0)


def test_pods_on_nodes_unknown_are_left_out_for_now_unless_not_ready_ones_are_published() -> None:
    both = [pod(0), pod(1, node="unheard-of"), pod(2, node="")]
    made = plan(service(), both, nodes(), [], "")
    assert made.retry
    assert [e["targetRef"]["name"] for e in made.creates[0]["endpoints"]] == ["p0"]
    made = plan(service(publishNotReadyAddresses=True), both, nodes(), [], "")
    assert not made.retry
    assert len(made.creates[0]["endpoints"]) == 3


def test_pods_without_the_named_port_have_a_slice_without_ports() -> None:
    listening = [{"name": "c", "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}]}]
    sidecar = [{**listening[0], "restartPolicy": "Always"}]
    all_ = [
        pod(0, spec={"containers": listening}),
        pod(1, spec={"initContainers": sidecar}),
        pod(2, spec={"initContainers": listening}),
    ]
    made = plan(service(ports=NAMED), all_, nodes(), [], "")
    ports = {tuple(p["port"] for p in tree["ports"] or ()): len(tree["endpoints"]) for tree in made.creates}
    assert ports == {(8080,): 2, (): 1}


def test_each_family_has_its_slices_and_canonical_addresses() -> None:
    both = service(ipFamilies=["IPv6", "IPv4"])
    made = plan(both, [pod(0, ip="10.1.0.1,fd00:0::01"), pod(1)], nodes(), [], "")
    found = {tree["addressType"]: [e["addresses"][0] for e in tree["endpoints"]] for tree in made.creates}
    assert found == {"IPv6": ["fd00::1"], "IPv4": ["10.1.0.1", "10.1.0.2"]}
    before = stored(made, [])
    single = plan(service(), [pod(0, ip="10.1.0.1,fd00::1"), pod(1)], nodes(), before, "")
    assert writes(single) == (0, 0, 1)


def test_headless_without_ports_has_its_pods() -> None:
    headless = service(clusterIP="None", ports=[])
    before = stored(plan(headless, pods(2), nodes(), [], ""), [])
    assert [len(s.endpoints or ()) for s in before] == [2]
    assert "service.kubernetes.io/headless" in before[0].metadata.labels
    assert writes(plan(headless, [], nodes(), before, "")) == (0, 1, 0)


def test_pod_that_moved_to_another_node_and_zone_is_written_once() -> None:
    places = nodes(node("n1", "a"), node("n2", "b"))
    before = stored(plan(service(), pods(2), places, [], ""), [])
    made = plan(service(), [pod(0), pod(1, node="n2")], places, before, "")
    assert writes(made) == (0, 1, 0)
    assert [e.zone for e in stored(made, before)[0].endpoints or ()] == ["a", "b"]
