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


def test_slices_of_headless_services_count_nowhere(tracker: Tracker) -> None:
    tracker.service_changed(None, service())
    plain, marked = slice_(endpoint("10.244.1.11")), slice_(endpoint("10.244.1.11"))
    marked.metadata.labels["service.kubernetes.io/headless"] = ""
    assert not tracker.slice_changed(None, marked)
    assert tracker.slice_changed(marked, plain) == {NAME}
    assert tracker.slice_changed(plain, marked) == {NAME}
    assert not tracker.state.endpoints.get(NAME)


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
    assert not tracker.node_changed(None)  # the node is still where it is
    assert tracker.state.node.zone == "a"
    node.metadata.labels.clear()
    assert tracker.node_changed(node) == {NAME}


def ports(*named: tuple[str, str, int]) -> list[dict[str, Any]]:
    return [{"name": name, "protocol": protocol, "port": number} for name, protocol, number in named]


def placed(name: str, numbered: list[dict[str, Any]], *endpoints: dict[str, Any], **more: Any) -> EndpointSlice:
    wire = {
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": "web"}},
        "addressType": "IPv4",
        "ports": numbered,
        "endpoints": list(endpoints),
        **more,
    }
    return msgspec.convert(wire, EndpointSlice)


TARGET = ports(("p", "TCP", 8080))
UNREADY = {"ready": False, "serving": False}
ENDS = {"ready": False, "serving": True, "terminating": True}


@pytest.mark.parametrize(
    ("slices", "expected"),
    [
        ([placed("a", TARGET, endpoint("10.0.0.1")), placed("b", TARGET, endpoint("10.0.0.2"))], "1:8080 2:8080"),
        ([placed("b", TARGET, endpoint("10.0.0.2")), placed("a", TARGET, endpoint("10.0.0.1"))], "1:8080 2:8080"),
        ([placed("a", TARGET, endpoint("10.0.0.1")), placed("b", TARGET, endpoint("10.0.0.1"))], "1:8080"),
        # a named target port may have another number in another Pod, and in one and the same
        (
            [placed("a", TARGET, endpoint("10.0.0.1")), placed("b", ports(("p", "TCP", 80)), endpoint("10.0.0.1"))],
            "1:80 1:8080",
        ),
        ([placed("a", ports(("p", "TCP", 80), ("q", "TCP", 81)), endpoint("10.0.0.1"))], "1:80"),
        ([placed("a", ports(("p", "UDP", 80)), endpoint("10.0.0.1"))], ""),
        ([placed("a", ports(("p", "TCP", 0)), endpoint("10.0.0.1"))], ""),
        ([placed("a", [{"name": "p", "protocol": "TCP"}], endpoint("10.0.0.1"))], ""),  # no number: all ports
        ([placed("a", [], endpoint("10.0.0.1"))], ""),
        ([placed("a", TARGET, {"addresses": ["10.0.0.1", "10.0.0.2"], "conditions": {}})], "1:8080"),
        ([placed("a", TARGET, endpoint("fd00::1"))], ""),
        ([placed("a", TARGET, endpoint("fd00::1"), addressType="IPv6")], ""),
        ([placed("a", TARGET, endpoint("example.org"), addressType="FQDN")], ""),
        ([placed("a", TARGET, endpoint("010.000.00.001"))], "1:8080"),
        ([placed("a", TARGET, endpoint("10.0.0.1", **UNREADY), endpoint("10.0.0.2"))], "1:8080! 2:8080"),
        # the running one of two at one address, whichever slice has it and comes first
        ([placed("a", TARGET, endpoint("10.0.0.1", **ENDS)), placed("b", TARGET, endpoint("10.0.0.1"))], "1:8080"),
        ([placed("a", TARGET, endpoint("10.0.0.1")), placed("b", TARGET, endpoint("10.0.0.1", **ENDS))], "1:8080"),
        ([placed("a", TARGET, endpoint("10.0.0.1", **ENDS), endpoint("10.0.0.1"))], "1:8080"),
    ],
)
def test_endpoints_of_several_slices(tracker: Tracker, slices: list[EndpointSlice], expected: str) -> None:
    tracker.service_changed(None, service())
    for one in slices:
        tracker.slice_changed(None, one)
    found = tracker.state.endpoints.get(NAME, ())
    assert " ".join(f"{e.ip[-1]}:{e.port}" + "!" * (not e.ready) for e in found) == expected


def test_an_endpoint_that_moves_between_slices_stays(tracker: Tracker) -> None:
    tracker.service_changed(None, service())
    first = placed("a", TARGET, endpoint("10.0.0.1"))
    tracker.slice_changed(None, first)
    assert not tracker.slice_changed(None, placed("b", TARGET, endpoint("10.0.0.1")))
    assert not tracker.slice_changed(first, None)
    assert [str(e) for e in tracker.state.endpoints[NAME]] == ["10.0.0.1:8080"]


def test_an_endpoint_without_a_node_or_of_another_is_not_here(tracker: Tracker) -> None:
    tracker.service_changed(None, service())
    nowhere = {"addresses": ["10.0.0.1"], "conditions": {}}
    elsewhere, here = {**nowhere, "addresses": ["10.0.0.2"], "nodeName": "node2"}, endpoint("10.0.0.3")
    tracker.slice_changed(None, placed("a", TARGET, nowhere, elsewhere, here))
    assert [e.is_local for e in tracker.state.endpoints[NAME]] == [False, False, True]


LB = {"type": "LoadBalancer", "externalTrafficPolicy": "Local", "healthCheckNodePort": 345}
DUAL = {"clusterIPs": ["10.96.0.10", "fd00:10:96::10"]}


@pytest.mark.parametrize(
    ("family", "spec", "expected"),
    [
        (Family.IPV4, {}, "10.96.0.10"),
        (Family.IPV6, {}, ""),
        (Family.IPV4, DUAL, "10.96.0.10"),
        (Family.IPV6, DUAL, "fd00:10:96::10"),
        (Family.IPV4, {"clusterIP": "fd00:10:96::10", "clusterIPs": ["fd00:10:96::10"]}, ""),
        (
            Family.IPV6,
            {"clusterIP": "fd00:10:96::10", "clusterIPs": ["fd00:10:96::10", "10.96.0.10"]},
            "fd00:10:96::10",
        ),
    ],
)
def test_a_service_is_of_the_families_of_its_addresses(family: Family, spec: dict[str, Any], expected: str) -> None:
    tracker = Tracker(NodeConfig("node1", family))
    tracker.service_changed(None, service(**spec))
    assert [port.cluster_ip for port in tracker.state.services.values()] == [expected] * bool(expected)


def test_a_dual_stack_service_with_slices_of_one_family_has_endpoints_in_that_alone() -> None:
    four, six = (Tracker(NodeConfig("node1", family)) for family in (Family.IPV4, Family.IPV6))
    for tracker in (four, six):
        tracker.service_changed(None, service(**DUAL))
        tracker.slice_changed(None, slice_(endpoint("10.244.1.11")))
    assert NAME in four.state.endpoints
    assert NAME in six.state.services
    assert NAME not in six.state.endpoints


@pytest.mark.parametrize(
    ("family", "external", "balancers", "ranges"),
    [
        (Family.IPV4, ("198.51.100.1",), ("203.0.113.1", "203.0.113.2"), ("192.168.0.0/24", "203.0.113.0/25")),
        (Family.IPV6, ("fd00:51::1",), ("fd00:51::2",), ("fd00:99::/64",)),
    ],
)
def test_addresses_and_ranges_are_those_of_the_family(
    family: Family, external: tuple[str, ...], balancers: tuple[str, ...], ranges: tuple[str, ...]
) -> None:
    """White space around a range is allowed; a load balancer with `ipMode: Proxy`, or known by name, has no address."""
    ingress: list[dict[str, str]] = [
        {"ip": "203.0.113.1"},
        {"ip": "203.0.113.2", "ipMode": "VIP"},
        {"ip": "203.0.113.3", "ipMode": "Proxy"},
        {"hostname": "lb.example.org"},
        {"ip": "fd00:51::2", "ipMode": "VIP"},
        {"ip": "fd00:51::3", "ipMode": "Proxy"},
    ]
    spec = {
        "externalIPs": ["198.51.100.1", "fd00:51::1"],
        "loadBalancerSourceRanges": ["192.168.0.0/24", " 203.0.113.0/25", "fd00:99::/64 "],
    }
    changed = service(**LB, **DUAL, **spec)
    changed.status = msgspec.convert({"loadBalancer": {"ingress": ingress}}, type(changed.status))
    tracker = Tracker(NodeConfig("node1", family))
    tracker.service_changed(None, changed)
    port = tracker.state.services[NAME]
    assert (port.external_ips, port.load_balancer_ips, port.source_ranges) == (external, balancers, ranges)


def test_external_addresses_are_served_where_the_operator_lets_them(tracker: Tracker) -> None:
    """The feature gate AllowServiceExternalIPs, which may be switched while the proxy runs."""
    outward = service(externalIPs=["198.51.100.1"])
    refused = Tracker(NodeConfig("node1", Family.IPV4, external_ips=False))
    for one in (tracker, refused):
        assert one.service_changed(None, outward) == {NAME}
    assert tracker.state.services[NAME].external_ips == ("198.51.100.1",)
    assert not refused.state.services[NAME].externally_reachable
    refused.config_changed(NodeConfig("node1", Family.IPV4))
    assert refused.state.services == tracker.state.services
    tracker.config_changed(NodeConfig("node1", Family.IPV4, external_ips=False))
    assert not tracker.state.services[NAME].external_ips
    assert tracker.service_changed(outward, None) == {NAME}
    tracker.config_changed(NodeConfig("node1", Family.IPV4))
    assert not tracker.state.services


def test_a_service_that_turns_from_headless_to_one_with_an_address_has_its_endpoints(tracker: Tracker) -> None:
    headless = service(clusterIP="None")
    tracker.service_changed(None, headless)
    tracker.slice_changed(None, slice_(endpoint("10.244.1.11")))
    assert not tracker.state.endpoints
    assert tracker.service_changed(headless, service()) == {NAME}
    assert NAME in tracker.state.endpoints
    assert tracker.service_changed(service(), headless) == {NAME}
    assert not tracker.state.services
    assert not tracker.state.endpoints


def test_ports_of_one_service_come_go_and_change_each_for_itself(tracker: Tracker) -> None:
    names = [
        ServicePortName("default", "web", name, Protocol(p)) for name, p in (("u", "UDP"), ("t", "TCP"), ("s", "SCTP"))
    ]
    three = ports(("u", "UDP", 53), ("t", "TCP", 53), ("s", "SCTP", 53))
    affinity = {"sessionAffinity": "ClientIP"}
    assert tracker.service_changed(None, service(ports=three, **affinity)) == set(names)
    assert {port.affinity_timeout_s for port in tracker.state.services.values()} == {10800}
    fewer = [three[0], {**three[1], "port": 54}]
    assert tracker.service_changed(service(ports=three, **affinity), service(ports=fewer, **affinity)) == set(names[1:])
    assert set(tracker.state.services) == set(names[:2])
    assert not tracker.service_changed(service(ports=fewer, **affinity), service(ports=fewer, **affinity))


def test_a_health_check_port_is_that_of_a_load_balancer_with_policy_local(tracker: Tracker) -> None:
    plain, balanced = service(), service(**LB)
    tracker.service_changed(None, plain)
    assert not tracker.state.services[NAME].health_check_node_port
    tracker.service_changed(plain, balanced)
    assert tracker.state.services[NAME].health_check_node_port == 345
    tracker.service_changed(balanced, plain)
    assert not tracker.state.services[NAME].health_check_node_port
