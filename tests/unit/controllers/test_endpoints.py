"""Endpoints: which addresses stand where.  Cases of endpoints_controller_test.go, by what they say."""

from typing import Any

import pytest

from controlled import pod, pods, service
from svcplane.api.core import Pod, Service
from svcplane.controllers.endpoints.addresses import Addresses
from svcplane.controllers.endpoints.plan import MAX_ADDRESSES, desired
from svcplane.controllers.view import TriggerTimes

Tree = dict[str, Any]
TWO = [
    {"name": "a", "port": 80, "targetPort": 8080, "protocol": "TCP"},
    {"name": "b", "port": 81, "targetPort": "extra", "protocol": "TCP"},
]


def of(one: Service, selected: list[Pod]) -> Addresses:
    addresses = Addresses(one)
    for each in selected:
        addresses.put(each.key, each)
    return addresses


def made(one: Service, selected: list[Pod], current: Tree | None = None) -> Tree | None:
    return desired(of(one, selected), current, "")


def with_extra(number: int, port: int = 9090) -> Pod:
    ports = [{"name": "extra", "containerPort": port, "protocol": "TCP"}]
    return pod(number, spec={"containers": [{"name": "c", "ports": ports}]})


def places(subsets: list[Tree]) -> dict[tuple[int, ...], list[str]]:
    return {
        tuple(port["port"] for port in subset.get("ports", [])): [address["ip"] for address in subset["addresses"]]
        for subset in subsets
    }


def test_a_port_that_some_pods_lack_has_a_subset_of_those_that_have_it() -> None:
    found, _ = of(service(ports=TWO), [with_extra(0), pod(1)]).subsets(MAX_ADDRESSES)
    assert places(found) == {(8080,): ["10.1.0.1", "10.1.0.2"], (9090,): ["10.1.0.1"]}


def test_ports_of_the_same_pods_share_a_subset() -> None:
    found, _ = of(service(ports=TWO), [with_extra(0), with_extra(1)]).subsets(MAX_ADDRESSES)
    assert places(found) == {(8080, 9090): ["10.1.0.1", "10.1.0.2"]}


def test_a_named_port_with_another_number_on_each_pod() -> None:
    found, _ = of(service(ports=TWO), [with_extra(0, 9090), with_extra(1, 9091)]).subsets(MAX_ADDRESSES)
    assert places(found) == {
        (8080,): ["10.1.0.1", "10.1.0.2"],
        (9090,): ["10.1.0.1"],
        (9091,): ["10.1.0.2"],
    }


def test_a_pod_that_leaves_takes_its_port_along() -> None:
    addresses = of(service(ports=TWO), [with_extra(0), pod(1)])
    addresses.put("default/p0", None)
    assert places(addresses.subsets(MAX_ADDRESSES)[0]) == {(8080,): ["10.1.0.2"]}


@pytest.mark.parametrize(
    ("ready", "unready", "expected"),
    [
        ([500, 500, 500], [0, 0, 0], [334, 334, 332]),
        ([600, 600], [10, 10], [500, 500]),
        ([400, 400], [300, 300], [500, 500]),
        ([900, 0], [0, 300], [900, 100]),
    ],
)
def test_beyond_a_thousand_each_subset_gives_up_in_proportion(
    ready: list[int], unready: list[int], expected: list[int]
) -> None:
    """Rounded up, so that the last one has what is left."""
    selected: list[Pod] = []
    for index, (some, others) in enumerate(zip(ready, unready, strict=True)):
        for count, is_ready in ((some, True), (others, False)):
            ports = [{"name": "web", "containerPort": 8000 + index, "protocol": "TCP"}]
            containers = {"containers": [{"name": "c", "ports": ports}]}
            selected += [pod(len(selected) + n, ready=is_ready, spec=containers) for n in range(count)]
    named = service(ports=[{"port": 80, "targetPort": "web", "protocol": "TCP"}])
    subsets, truncated = of(named, selected).subsets(MAX_ADDRESSES)
    found = [len(s.get("addresses", [])) + len(s.get("notReadyAddresses", [])) for s in subsets]
    assert (found, truncated) == (expected, True)


def test_annotation_comes_and_goes_with_the_limit() -> None:
    over = made(service(), pods(1001))
    assert over is not None
    assert over["metadata"]["annotations"] == {"endpoints.kubernetes.io/over-capacity": "truncated"}
    assert made(service(), pods(1001), over) is None
    under = made(service(), pods(999), over)
    assert under is not None
    assert "annotations" not in under["metadata"]


def test_labels_that_we_add_are_no_reason_to_write() -> None:
    """An older controller did not add all of them."""
    current = made(service(metadata={"labels": {"a": "b"}}), pods(1))
    assert current is not None
    current["metadata"]["labels"] = {"a": "b"}
    assert made(service(metadata={"labels": {"a": "b"}}), pods(1), current) is None
    assert made(service(metadata={"labels": {"a": "c"}}), pods(1), current) is not None


def test_terminating_pods_are_there_only_where_not_ready_ones_are_published() -> None:
    going = pod(0, metadata={"deletionTimestamp": "2026-01-01T00:00:00Z"})
    assert of(service(), [going]).subsets(MAX_ADDRESSES)[0] == []
    found, _ = of(service(publishNotReadyAddresses=True), [going]).subsets(MAX_ADDRESSES)
    assert places(found) == {(8080,): ["10.1.0.1"]}


def test_first_family_of_the_service_is_taken() -> None:
    found, _ = of(service(ipFamilies=["IPv6", "IPv4"]), [pod(0, ip="10.1.0.1,fd00::1"), pod(1)]).subsets(MAX_ADDRESSES)
    assert places(found) == {(8080,): ["fd00::1"]}


# Cases of endpoints_controller_test.go and trigger_time_tracker_test.go, by what they say.


@pytest.mark.parametrize(
    ("status", "publish", "there"),
    [
        ({"phase": "Succeeded"}, False, False),
        ({"phase": "Failed"}, True, False),
        ({"podIPs": [], "podIP": ""}, True, False),
        ({"phase": "Pending"}, False, True),
    ],
)
def test_which_pods_are_there(status: Tree, publish: bool, there: bool) -> None:
    found, _ = of(service(publishNotReadyAddresses=publish), [pod(0, status=status)]).subsets(MAX_ADDRESSES)
    assert bool(found) == there


@pytest.mark.parametrize("publish", [False, True])
def test_pods_that_are_not_ready_stand_apart_unless_they_are_published(publish: bool) -> None:
    selected = [pod(0), pod(1, ready=False), pod(2, status={"conditions": []})]
    (found,) = of(service(publishNotReadyAddresses=publish), selected).subsets(MAX_ADDRESSES)[0]
    ready = [address["ip"] for address in found["addresses"]]
    unready = [address["ip"] for address in found.get("notReadyAddresses", [])]
    everyone = ["10.1.0.1", "10.1.0.2", "10.1.0.3"]
    assert (ready, unready) == ((everyone, []) if publish else (everyone[:1], everyone[1:]))


def test_a_port_that_is_ready_on_one_pod_and_not_on_another_has_both_states() -> None:
    found, _ = of(service(ports=TWO), [with_extra(0), pod(1, ready=False)]).subsets(MAX_ADDRESSES)
    states = {
        tuple(port["port"] for port in subset["ports"]): (
            [address["ip"] for address in subset.get("addresses", [])],
            [address["ip"] for address in subset.get("notReadyAddresses", [])],
        )
        for subset in found
    }
    assert states == {(8080,): (["10.1.0.1"], ["10.1.0.2"]), (9090,): (["10.1.0.1"], [])}


def test_headless_without_ports_has_addresses_alone_and_others_without_ports_none() -> None:
    selected = [pod(0), pod(1, ready=False)]
    (found,) = of(service(clusterIP="None", ports=[]), selected).subsets(MAX_ADDRESSES)[0]
    assert sorted(found) == ["addresses", "notReadyAddresses"]
    assert of(service(ports=[]), selected).subsets(MAX_ADDRESSES)[0] == []


@pytest.mark.parametrize("protocol", ["TCP", "UDP", "SCTP"])
def test_ports_of_one_number_differ_by_name_and_protocol(protocol: str) -> None:
    ports = [
        {"name": "a", "port": 80, "targetPort": 8080, "protocol": protocol, "appProtocol": "http"},
        {"name": "b", "port": 81, "targetPort": 8080, "protocol": protocol},
    ]
    (found,) = of(service(ports=ports), [pod(0)]).subsets(MAX_ADDRESSES)[0]
    named = {port["name"]: port for port in found["ports"]}
    assert named == {
        "a": {"name": "a", "port": 8080, "protocol": protocol, "appProtocol": "http"},
        "b": {"name": "b", "port": 8080, "protocol": protocol},
    }


def test_an_address_names_its_pod_node_and_hostname() -> None:
    known = pod(0, spec={"hostname": "h", "subdomain": "web"}, metadata={"resourceVersion": "9"})
    (found,) = of(service(), [known]).subsets(MAX_ADDRESSES)[0]
    assert found["addresses"] == [
        {
            "ip": "10.1.0.1",
            "hostname": "h",
            "nodeName": "n1",
            "targetRef": {"kind": "Pod", "namespace": "default", "name": "p0", "uid": "u0"},
        }
    ]


def test_pods_of_one_address_are_told_apart() -> None:
    """As those of a host's network are."""
    (found,) = of(service(), [pod(0, ip="192.0.2.1"), pod(1, ip="192.0.2.1")]).subsets(MAX_ADDRESSES)[0]
    assert [address["targetRef"]["name"] for address in found["addresses"]] == ["p0", "p1"]


@pytest.mark.parametrize(
    ("cluster_ip", "own", "expected"),
    [
        ("10.96.0.7", {}, {}),
        ("None", {}, {"service.kubernetes.io/headless": ""}),
        ("None", {"service.kubernetes.io/headless": "x"}, {"service.kubernetes.io/headless": ""}),
        ("10.96.0.7", {"service.kubernetes.io/headless": "x", "a": "b"}, {"a": "b"}),
    ],
)
def test_labels_are_those_of_the_service_and_the_controllers(cluster_ip: str, own: Tree, expected: Tree) -> None:
    tree = made(service(clusterIP=cluster_ip, metadata={"labels": own}), [pod(0)])
    assert tree is not None
    manager = {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}
    assert tree["metadata"]["labels"] == expected | manager


def test_what_is_written_keeps_peoples_annotations_and_tells_the_new_time() -> None:
    name = "endpoints.kubernetes.io/last-change-trigger-time"
    current = made(service(), [pod(0)])
    assert current is not None
    current["metadata"]["annotations"] = {name: "old", "note": "mine"}
    assert desired(of(service(), [pod(0)]), current, "new") is None
    for time, expected in (("new", {name: "new", "note": "mine"}), ("", {"note": "mine"})):
        tree = desired(of(service(), [pod(1)]), current, time)
        assert tree is not None
        assert tree["metadata"]["annotations"] == expected


def at(second: int) -> str:
    return f"2019-01-01T00:00:0{second}Z" if second >= 0 else ""


@pytest.mark.parametrize(
    ("created", "steps"),
    [
        (2, [({}, 2)]),
        (3, [({1: 0, 2: 1, 3: 5}, 3)]),  # the Pods were there before, their Service was not
        (0, [({}, 0), ({1: 2, 2: 1}, 1)]),
        (0, [({1: 1, 2: 2, 3: 3}, 0), ({1: 5, 2: 4, 3: 3}, 4)]),
        (0, [({1: 1, 2: 2, 3: 3}, 0), ({1: 1, 2: 2, 3: 3}, -1)]),
        (0, [({1: 1, 2: 2}, 0), ({1: 1}, -1), ({1: 1, 2: 4}, 4)]),
    ],
)
def test_since_when_a_change_exists(created: int, steps: list[tuple[dict[int, int], int]]) -> None:
    times, one = TriggerTimes(), service(metadata={"creationTimestamp": at(created)})
    for changed, expected in steps:
        selected = [
            pod(n, status={"conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": at(second)}]})
            for n, second in changed.items()
        ]
        assert times.compute(one, selected) == at(expected)


def test_a_service_that_was_made_again_is_a_new_one() -> None:
    times = TriggerTimes()
    assert times.compute(service(metadata={"creationTimestamp": at(0)}), [pod(0)]) == at(0)
    times.forget("default/web")
    assert times.compute(service(metadata={"creationTimestamp": at(3)}), [pod(0)]) == at(3)
