"""Endpoints that people write, as slices: the plan, then with a server."""

from typing import Any

import msgspec

from svcplane.api.core import Endpoints
from svcplane.api.discovery import EndpointSlice
from svcplane.controllers.mirror.plan import is_mirrored, plan
from svcplane.testing.server import Caller
from svcplane.testing.waiting import until

ENDPOINTS = "/api/v1/namespaces/default/endpoints"
SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
PORTS = [{"port": 80, "protocol": "TCP"}]


def endpoints(*subsets: dict[str, Any], **meta: Any) -> Endpoints:
    tree = {"metadata": {"name": "db", "namespace": "default", "uid": "u1", **meta}, "subsets": list(subsets)}
    return msgspec.convert(tree, Endpoints)


def subset(*ips: str, ports: list[dict[str, Any]] = PORTS, unready: tuple[str, ...] = ()) -> dict[str, Any]:
    return {
        "addresses": [{"ip": ip} for ip in ips],
        "notReadyAddresses": [{"ip": ip} for ip in unready],
        "ports": ports,
    }


def made(tree: dict[str, Any], name: str) -> EndpointSlice:
    """As the server would have stored it."""
    meta = {key: value for key, value in tree["metadata"].items() if key != "generateName"}
    return msgspec.convert({**tree, "metadata": {**meta, "name": name, "resourceVersion": "7"}}, EndpointSlice)


def test_one_slice_for_each_family_and_set_of_ports() -> None:
    other = [{"port": 443, "protocol": "TCP", "name": "tls"}]
    found = plan(endpoints(subset("10.0.0.1", "fd00::1"), subset("10.0.0.2", ports=other)), [])
    places = {(tree["addressType"], tree["ports"][0]["port"]) for tree in found.creates}
    assert places == {("IPv4", 80), ("IPv6", 80), ("IPv4", 443)}


def test_nothing_is_written_where_the_slices_are_right() -> None:
    wanted = endpoints(subset("10.0.0.1", unready=("10.0.0.2",)), labels={"a": "b"}, annotations={"note": "x"})
    (tree,) = plan(wanted, []).creates
    again = plan(wanted, [made(tree, "db-1")])
    assert (again.creates, again.updates, again.deletes) == ([], [], [])


def test_a_slice_of_other_ports_is_used_again() -> None:
    (tree,) = plan(endpoints(subset("10.0.0.1")), []).creates
    changed = plan(endpoints(subset("10.0.0.1", ports=[{"port": 81, "protocol": "TCP"}])), [made(tree, "db-1")])
    assert [update["metadata"]["name"] for update in changed.updates] == ["db-1"]
    assert (changed.creates, changed.deletes) == ([], [])


def test_second_slice_of_the_same_ports_goes() -> None:
    wanted = endpoints(subset("10.0.0.1"))
    (tree,) = plan(wanted, []).creates
    assert plan(wanted, [made(tree, "db-1"), made(tree, "db-2")]).deletes == ["db-2"]


def test_what_is_beyond_the_limit_or_no_address_is_left_out_and_counted() -> None:
    found = plan(endpoints(subset("10.0.0.1", "(none)", "10.0.0.2", unready=("10.0.0.3",))), [], max_per_subset=2)
    addresses = [endpoint["addresses"][0] for endpoint in found.creates[0]["endpoints"]]
    assert (addresses, found.invalid, found.over) == (["10.0.0.1", "10.0.0.2"], 1, 1)


def test_kubectl_and_trigger_time_annotations_stay_behind() -> None:
    notes = {"kubectl.kubernetes.io/last-applied-configuration": "{}", "mine": "1"}
    (tree,) = plan(endpoints(subset("10.0.0.1"), annotations=notes), []).creates
    assert tree["metadata"]["annotations"] == {"mine": "1"}


def test_who_asks_for_no_mirror_gets_none() -> None:
    assert is_mirrored(endpoints())
    assert not is_mirrored(endpoints(labels={"endpointslice.kubernetes.io/skip-mirror": "true"}))
    assert not is_mirrored(endpoints(annotations={"control-plane.alpha.kubernetes.io/leader": "{}"}))


async def test_slices_come_and_go_with_endpoints_and_selector(cluster: Caller) -> None:
    async def mirrored() -> list[dict[str, Any]]:
        _, found = await cluster.call("GET", f"{SLICES}?labelSelector=kubernetes.io/service-name=db")
        label = "endpointslice.kubernetes.io/managed-by"
        manager = "endpointslicemirroring-controller.k8s.io"
        return [item for item in found["items"] if item["metadata"]["labels"].get(label) == manager]

    async def none_left() -> bool:
        return not await mirrored()

    service = {"metadata": {"name": "db"}, "spec": {"ports": [{"port": 80}]}}
    await cluster.call("POST", SERVICES, service)
    bad = {"metadata": {"name": "db"}, "subsets": [subset("10.0.0.1")]}
    assert (await cluster.call("POST", ENDPOINTS, bad))[0] == 201
    (slice_,) = await until(mirrored)
    assert slice_["metadata"]["ownerReferences"][0]["kind"] == "Endpoints"
    merge = {"Content-Type": "application/merge-patch+json"}
    await cluster.call("PATCH", f"{SERVICES}/db", {"spec": {"selector": {"app": "db"}}}, merge)
    await until(none_left)


async def test_a_slice_that_somebody_deletes_comes_back(cluster: Caller) -> None:
    async def slices() -> list[dict[str, Any]]:
        _, found = await cluster.call("GET", f"{SLICES}?labelSelector=kubernetes.io/service-name=db")
        return list(found["items"])

    await cluster.call("POST", SERVICES, {"metadata": {"name": "db"}, "spec": {"ports": [{"port": 80}]}})
    await cluster.call("POST", ENDPOINTS, {"metadata": {"name": "db"}, "subsets": [subset("10.0.0.1")]})
    (first,) = await until(slices)
    await cluster.call("DELETE", f"{SLICES}/{first['metadata']['name']}")

    async def other() -> bool:
        return [item["metadata"]["uid"] for item in await slices()] not in ([], [first["metadata"]["uid"]])

    await until(other)


def test_subsets_that_overlap_are_merged_before_they_are_counted() -> None:
    """Two subsets of the same ports make one slice, and an address that is both ready and not is not ready."""
    wanted = endpoints(subset("10.0.0.1", "10.0.0.2"), subset("10.0.0.3", unready=("10.0.0.2",)))
    (tree,) = plan(wanted, []).creates
    states = {e["addresses"][0]: e["conditions"]["ready"] for e in tree["endpoints"]}
    assert states == {"10.0.0.1": True, "10.0.0.2": False, "10.0.0.3": True}
    assert plan(wanted, [], max_per_subset=2).over == 1


def test_ports_of_the_same_addresses_share_a_slice() -> None:
    other = [{"port": 443, "protocol": "TCP", "name": "tls"}]
    (tree,) = plan(endpoints(subset("10.0.0.1"), subset("10.0.0.1", ports=other)), []).creates
    assert sorted(port["port"] for port in tree["ports"]) == [80, 443]


def test_addresses_are_spelled_canonically() -> None:
    (tree,) = plan(endpoints(subset("fd00:0::01")), []).creates
    assert tree["endpoints"][0]["addresses"] == ["fd00::1"]


def test_a_slice_that_is_used_again_is_as_a_new_one_and_an_edited_one_is_not() -> None:
    (tree,) = plan(endpoints(subset("10.0.0.1")), []).creates
    other = subset("10.0.0.1", ports=[{"port": 81, "protocol": "TCP"}])
    (recycled,) = plan(endpoints(other), [made(tree, "db-1")]).updates
    assert (recycled["metadata"]["name"], recycled["metadata"]["generateName"]) == ("db-1", "db-")
    (edited,) = plan(endpoints(subset("10.0.0.2")), [made(tree, "db-1")]).updates
    assert "generateName" not in edited["metadata"]
