"""Endpoints: which addresses stand where.  Cases of endpoints_controller_test.go, by what they say."""

from typing import Any

import pytest

from controlled import pod, pods, service
from svcplane.api.core import Pod, Service
from svcplane.controllers.endpoints.addresses import Addresses
from svcplane.controllers.endpoints.plan import MAX_ADDRESSES, desired

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
