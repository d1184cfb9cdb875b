"""EndpointSlices: the plan.  Cases of k8s.io/endpointslice reconciler_test.go, by what they say."""

import msgspec
import pytest

from controlled import NAMED, node, nodes, pod, pods, service, stored
from svcplane.api.core import Pod, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.controllers.slices.placed import Placed
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


def noted(slice_: EndpointSlice) -> EndpointSlice:
    """As somebody annotated it: a slice that is used again as a new one loses that, one that is edited does not."""
    return msgspec.structs.replace(
        slice_, metadata=msgspec.structs.replace(slice_.metadata, annotations={"note": "mine"})
    )


def test_a_pod_with_another_address_is_another_endpoint() -> None:
    before = [noted(slice_) for slice_ in slices_of(service(), 50, 1)]
    made = plan(service(), [*pods(50), pod(50, ip="10.9.0.1")], nodes(), before, "")
    assert [tree["metadata"]["name"] for tree in made.updates] == ["web-0"]
    assert made.deletes == ["web-1"]
    alone = plan(service(), [pod(0, ip="10.9.0.1")], nodes(), [noted(one) for one in slices_of(service(), 1)], "")
    assert [(tree["metadata"]["name"], tree["metadata"].get("annotations")) for tree in alone.updates] == [
        ("web-0", None)
    ]


def test_a_pod_that_is_made_anew_under_its_name_and_address_keeps_its_place() -> None:
    before = [noted(slice_) for slice_ in slices_of(service(), 2)]
    again = pod(0, metadata={"uid": "new"}, ready=False)
    (tree,) = plan(service(), [again, pod(1)], nodes(), before, "").updates
    assert [endpoint["targetRef"]["uid"] for endpoint in tree["endpoints"]] == ["new", "u1"]
    assert tree["metadata"]["annotations"] == {"note": "mine"}


def test_a_slice_that_lost_all_its_endpoints_is_not_filled_again_where_others_have_room() -> None:
    before = slices_of(service(), 50, 1)
    made = plan(service(), [*pods(50), pod(60)], nodes(), before, "")
    assert ([tree["metadata"]["name"] for tree in made.updates], made.deletes) == (["web-0"], ["web-1"])


HEADLESS = "service.kubernetes.io/headless"


@pytest.mark.parametrize("count", [0, 2])
@pytest.mark.parametrize(("cluster_ip", "label"), [("10.96.0.7", {HEADLESS: ""}), ("None", {})])
def test_labels_that_the_controller_adds_are_no_reason_to_write(
    count: int, cluster_ip: str, label: dict[str, str]
) -> None:
    """Nor are labels of those names that the Service has."""
    own = {HEADLESS: "x", "kubernetes.io/service-name": "bad", "endpointslice.kubernetes.io/managed-by": "me"}
    one = service(clusterIP=cluster_ip, metadata={"labels": {"a": "b"} | own})
    (slice_,) = stored(plan(one, pods(count), nodes(), [], ""), [])
    assert slice_.metadata.labels.get(HEADLESS) == ("" if cluster_ip == "None" else None)
    labels = {key: value for key, value in slice_.metadata.labels.items() if key != HEADLESS} | label
    edited = msgspec.structs.replace(slice_, metadata=msgspec.structs.replace(slice_.metadata, labels=labels))
    assert writes(plan(one, pods(count), nodes(), [edited], "")) == (0, 0, 0)


def test_the_empty_slice_is_made_anew_where_its_labels_are_wrong() -> None:
    (empty,) = stored(plan(service(), [], nodes(), [], ""), [])
    made = plan(service(metadata={"labels": {"a": "b"}}), [], nodes(), [noted(empty)], "2026-01-01T00:00:00Z")
    (tree,) = made.updates
    assert tree["metadata"]["name"] == empty.metadata.name
    assert tree["metadata"]["labels"]["a"] == "b"
    assert list(tree["metadata"]["annotations"]) == ["endpoints.kubernetes.io/last-change-trigger-time"]


def test_new_endpoints_beyond_a_slice_fill_the_fullest_one_that_has_room() -> None:
    before = slices_of(service(), 62, 61)
    made = plan(service(), pods(250), nodes(), before, "")
    assert writes(made) == (1, 1, 0)
    assert sizes(stored(made, before)) == [100, 89, 61]


def test_ports_that_change_repack_what_is_mostly_empty() -> None:
    before = slices_of(service(), *[30] * 10)
    assert writes(plan(service(), pods(300), nodes(), before, "")) == (0, 0, 0)
    moved = service(ports=[{"port": 80, "targetPort": 81}])
    assert writes(plan(moved, pods(300), nodes(), before, "")) == (0, 3, 7)


def test_slices_of_another_family_are_replaced() -> None:
    before = [msgspec.structs.replace(slice_, address_type="FQDN") for slice_ in slices_of(service(), 80, 50)]
    assert writes(plan(service(), pods(130), nodes(), before, "")) == (2, 0, 2)


@pytest.mark.parametrize(
    ("limit", "expected"), [(50, [50] * 5), (80, [80, 80, 80, 10]), (150, [150, 100]), (500, [250])]
)
def test_the_limit_of_a_slice_can_be_another(limit: int, expected: list[int]) -> None:
    assert sizes(stored(plan(service(), pods(250), nodes(), [], "", max_per_slice=limit), [])) == expected


@pytest.mark.parametrize(
    ("publish", "known", "written", "retry"),
    [
        (False, 1, (0, 1, 0), True),
        (True, 1, (0, 0, 0), False),
        (True, 0, (0, 0, 0), False),
        (False, 0, (0, 1, 0), True),  # what is left is the empty slice
    ],
)
def test_endpoints_on_nodes_that_are_gone(
    publish: bool, known: int, written: tuple[int, int, int], retry: bool
) -> None:
    one = service(publishNotReadyAddresses=publish)
    selected = [pod(0, node="n0"), pod(1, node="n1")]
    before = stored(plan(one, selected, nodes(node("n0"), node("n1")), [], ""), [])
    made = plan(one, selected, nodes(node("n0")) if known else {}, before, "")
    assert (writes(made), made.retry) == (written, retry)


@pytest.mark.parametrize("publish", [False, True])
@pytest.mark.parametrize("ready", [False, True])
@pytest.mark.parametrize("going", [False, True])
def test_conditions(publish: bool, ready: bool, going: bool) -> None:
    stamp = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if going else {}
    made = plan(service(publishNotReadyAddresses=publish), [pod(0, ready=ready, metadata=stamp)], nodes(), [], "")
    (endpoint,) = made.creates[0]["endpoints"]
    wanted = {"ready": publish or (ready and not going), "serving": ready, "terminating": going}
    assert endpoint["conditions"] == wanted


@pytest.mark.parametrize(
    ("status", "there"),
    [
        ({"phase": "Succeeded"}, False),
        ({"phase": "Failed"}, False),
        ({"phase": "Pending"}, True),
        ({"podIPs": [], "podIP": ""}, False),
        ({"conditions": []}, True),
    ],
)
def test_which_pods_are_endpoints(status: dict[str, object], there: bool) -> None:
    for publish in (False, True):
        made = plan(service(publishNotReadyAddresses=publish), [pod(0, status=status)], nodes(), [], "")
        assert bool(made.creates[0]["endpoints"]) == there


@pytest.mark.parametrize(
    ("spec", "namespace", "hostname"),
    [
        ({"hostname": "h", "subdomain": "web"}, "default", "h"),
        ({"hostname": "h", "subdomain": "other"}, "default", None),
        ({"hostname": "h"}, "default", None),
        ({"subdomain": "web"}, "default", None),
        ({"hostname": "h", "subdomain": "web"}, "elsewhere", None),
    ],
)
def test_hostname_is_of_pods_that_name_the_service(spec: dict[str, str], namespace: str, hostname: str | None) -> None:
    (tree,) = plan(service(), [pod(0, spec=spec, metadata={"namespace": namespace})], nodes(), [], "").creates
    assert tree["endpoints"][0].get("hostname") == hostname


def test_protocol_and_app_protocol_of_ports_and_ports_of_one_number() -> None:
    containers = [{"name": "c", "ports": [{"name": "web", "containerPort": 8080, "protocol": "UDP"}]}]
    ports = [
        {"name": "a", "port": 80, "targetPort": "web", "protocol": "TCP"},  # the Pod's is UDP
        {"name": "b", "port": 80, "targetPort": "web", "protocol": "UDP", "appProtocol": "example.com/x"},
        {"name": "c", "port": 81, "targetPort": 9000, "protocol": "TCP"},
        {"name": "d", "port": 82, "targetPort": 9000, "protocol": "SCTP"},
    ]
    (tree,) = plan(service(ports=ports), [pod(0, spec={"containers": containers})], nodes(), [], "").creates
    found = [(p["name"], p["port"], p["protocol"], p.get("appProtocol")) for p in tree["ports"]]
    assert found == [("b", 8080, "UDP", "example.com/x"), ("c", 9000, "TCP", None), ("d", 9000, "SCTP", None)]


@pytest.mark.parametrize(
    ("changed", "in_place"),
    [
        (pod(1, ready=False), True),
        (pod(1, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"}), True),
        (pod(1, ip="10.9.0.1"), False),
        (pod(1, spec={"hostname": "h", "subdomain": "web"}), False),
        (pod(1, metadata={"uid": "new"}), False),
        (pod(1, status={"phase": "Failed"}), False),
        (pod(1, node="unheard-of"), False),
        (pod(9), False),
    ],
)
def test_the_short_way_is_for_endpoints_that_stay_the_same(changed: Pod, in_place: bool) -> None:
    """It comes to what the whole plan would come to, or leaves it to that."""
    one = service()
    before = {slice_.metadata.name: slice_ for slice_ in slices_of(one, 2)}
    edited = Placed(one, before).edit([changed], nodes(), before, "")
    assert (edited is not None) == in_place
    if edited is not None:
        assert edited == plan(one, [pod(0), changed], nodes(), list(before.values()), "").updates
