"""What the tracker makes of Services and EndpointSlices, and which service ports it says were touched."""

from typing import Any

import msgspec
import pytest

from svcplane.api.core import Node, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.base.net import Family
from svcplane.proxy.model import NodeConfig, Protocol, ServicePortName
from svcplane.proxy.tracker import Tracker

NAME = ServicePortName("default", "web", "p", Protocol.TCP)


def service(labels: dict[str, str] | None = None, **spec: Any) -> Service:
    wire = {
        "metadata": {"name": "web", "namespace": "default", "labels": labels or {}},
        "spec": {
            "type": "ClusterIP",
            "clusterIP": "10.96.0.10",
            "ports": [{"name": "p", "protocol": "TCP", "port": 80}],
            **spec,
        },
    }
    return msgspec.convert(wire, Service)


def endpoint(ip: str, **conditions: bool) -> dict[str, Any]:
    return {"addresses": [ip], "conditions": conditions, "nodeName": "node1"}


def slice_(*endpoints: dict[str, Any], name: str = "web-1", of: str = "web", port: str = "p") -> EndpointSlice:
    wire = {
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": of}},
        "addressType": "IPv4",
        "ports": [{"name": port, "protocol": "TCP", "port": 8080}],
        "endpoints": list(endpoints),
    }
    return msgspec.convert(wire, EndpointSlice)


@pytest.fixture
def tracker() -> Tracker:
    return Tracker(NodeConfig("node1", Family.IPV4))


@pytest.mark.parametrize(
    "skipped",
    [
        service({"service.kubernetes.io/service-proxy-name": "other"}),
        service({"service.kubernetes.io/headless": ""}),
        service(clusterIP="None"),
        service(type="ExternalName", externalName="example.org"),
    ],
)
def test_a_service_that_is_not_ours_is_left_out(tracker: Tracker, skipped: Service) -> None:
    assert not tracker.service_changed(None, skipped)
    assert not tracker.state.services


def test_endpoints_seen_before_their_service_are_kept(tracker: Tracker) -> None:
    assert not tracker.slice_changed(None, slice_(endpoint("10.244.1.11")))
    assert tracker.service_changed(None, service()) == {NAME}
    assert [str(e) for e in tracker.state.endpoints[NAME]] == ["10.244.1.11:8080"]


def test_an_address_with_leading_zeros_becomes_canonical(tracker: Tracker) -> None:
    tracker.service_changed(None, service(externalIPs=["198.051.100.001"]))
    assert tracker.state.services[NAME].external_ips == ("198.51.100.1",)


def test_conditions_that_are_absent_count_as_true(tracker: Tracker) -> None:
    tracker.service_changed(None, service())
    tracker.slice_changed(None, slice_(endpoint("10.244.1.11"), endpoint("10.244.1.12", ready=False)))
    first, second = tracker.state.endpoints[NAME]
    assert first.ready
    assert first.serving
    assert not first.terminating
    assert (second.ready, second.serving) == (False, True)


def test_of_two_endpoints_with_one_address_the_running_one_counts(tracker: Tracker) -> None:
    tracker.service_changed(None, service())
    ending = endpoint("10.244.1.11", ready=False, serving=True, terminating=True)
    tracker.slice_changed(None, slice_(ending, name="web-1"))
    tracker.slice_changed(None, slice_(endpoint("10.244.1.11", ready=True), name="web-2"))
    assert [e.terminating for e in tracker.state.endpoints[NAME]] == [False]


def test_a_slice_with_another_port_name_gives_nothing(tracker: Tracker) -> None:
    tracker.service_changed(None, service())
    assert not tracker.slice_changed(None, slice_(endpoint("10.244.1.11"), port="other"))


def test_a_slice_update_that_changes_nothing_touches_nothing(tracker: Tracker) -> None:
    tracker.service_changed(None, service())
    old = slice_(endpoint("10.244.1.11"))
    tracker.slice_changed(None, old)
    assert not tracker.slice_changed(old, slice_(endpoint("10.244.1.11")))


def test_a_slice_that_moves_to_another_service_leaves_the_first(tracker: Tracker) -> None:
    tracker.service_changed(None, service())
    old = slice_(endpoint("10.244.1.11"))
    tracker.slice_changed(None, old)
    assert tracker.slice_changed(old, slice_(endpoint("10.244.1.11"), of="other")) == {NAME}
    assert NAME not in tracker.state.endpoints


def test_a_deleted_service_is_touched_and_gone(tracker: Tracker) -> None:
    tracker.service_changed(None, service())
    assert tracker.service_changed(service(), None) == {NAME}
    assert not tracker.state.services


def test_a_new_zone_touches_every_service_port(tracker: Tracker) -> None:
    tracker.service_changed(None, service())
    wire = {"metadata": {"name": "node1", "labels": {"topology.kubernetes.io/zone": "a"}}}
    node = msgspec.convert(wire, Node)
    assert tracker.node_changed(node) == {NAME}
    assert not tracker.node_changed(node)
