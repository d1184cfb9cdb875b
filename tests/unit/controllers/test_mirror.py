"""Endpoints that people write, as slices: the plan, then with a server."""

from typing import Any

import msgspec
import pytest

from svcplane.api.core import Endpoints
from svcplane.api.discovery import EndpointSlice
from svcplane.controllers.mirror.plan import is_mirrored, plan, repacked
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


Packed = dict[tuple[int, ...], list[tuple[str, str, bool]]]  # ports -> address, uid, ready


def given(text: str) -> dict[str, Any]:
    """`1,5/u1|6 : 111,222`: addresses 1.2.3.1 and, of uid u1, 1.2.3.5 ready, 1.2.3.6 not ready, at two ports."""

    def addresses(part: str) -> list[dict[str, Any]]:
        found = []
        for word in filter(None, part.strip().split(",")):
            last, _, uid = word.partition("/")
            found.append({"ip": f"1.2.3.{last}", **({"targetRef": {"uid": uid}} if uid else {})})
        return found

    left, _, ports = text.partition(":")
    ready, _, unready = left.partition("|")
    return {
        "addresses": addresses(ready),
        "notReadyAddresses": addresses(unready),
        "ports": [{"port": int(port), "protocol": "TCP"} for port in filter(None, ports.strip().split(","))],
    }


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ([":"], {}),
        ([":111"], {}),
        (["4:"], {(): "4"}),
        (["|4:"], {(): "|4"}),
        (["4:111"], {(111,): "4"}),
        (["|4:111"], {(111,): "|4"}),
        (["4/u1:111"], {(111,): "4/u1"}),
        (["8,4:111"], {(111,): "4,8"}),
        (["4|8:111"], {(111,): "4|8"}),
        (["4|4:111"], {(111,): "|4"}),
        (["4:111,222"], {(111, 222): "4"}),
        (["4,4:111"], {(111,): "4"}),
        (["4:111,111"], {(111,): "4"}),
        (["4:111", "4:111"], {(111,): "4"}),
        (["4:111", "|4:111"], {(111,): "|4"}),
        (["|4:111", "4:111"], {(111,): "|4"}),
        (["4:111", "4:222"], {(111, 222): "4"}),
        (["4/u1:111", "4/u1:222"], {(111, 222): "4/u1"}),
        (["4/u1:111", "|4/u1:222"], {(111,): "4/u1", (222,): "|4/u1"}),
        (["4:111", "8:111"], {(111,): "4,8"}),
        (["4/u1:111", "4/u2:111"], {(111,): "4/u1,4/u2"}),
        (["4:111", "4/u2:111"], {(111,): "4,4/u2"}),
        (["8:111", "8/u1:111", "4/u1:111", "4:111"], {(111,): "4,4/u1,8,8/u1"}),
        (["8:111", "|8/u1:111", "|4/u1:111", "|4:111"], {(111,): "8|4,4/u1,8/u1"}),
        (["4:111", "8:222"], {(111,): "4", (222,): "8"}),
        (["4:111", "5:222", "6:111", "5:333"], {(111,): "4,6", (222, 333): "5"}),
        (["4:111", "|5:222", "6:111", "|5:333"], {(111,): "4,6", (222, 333): "|5"}),
    ],
)
def test_subsets_are_packed_anew(texts: list[str], expected: dict[tuple[int, ...], str]) -> None:
    """Cases of pkg/api/v1/endpoints util_test.go."""

    def read(text: str) -> list[tuple[str, str, bool]]:
        subset_ = given(text)
        sides = (("addresses", True), ("notReadyAddresses", False))
        return [(a["ip"], a.get("targetRef", {}).get("uid", ""), ready) for side, ready in sides for a in subset_[side]]

    found: Packed = {}
    for ports, states in repacked(endpoints(*map(given, texts)).subsets):
        if states:
            numbers = tuple(sorted(port[2] for port in ports))
            found[numbers] = [(a.ip, a.target_ref.uid if a.target_ref else "", ready) for a, ready in states]
    assert found == {ports: read(text) for ports, text in expected.items()}


def test_first_of_two_references_of_one_address_stays() -> None:
    both = [{"ip": "1.2.3.4", "targetRef": {"name": name}} for name in ("foo", "bar")]
    for one in (
        {"addresses": both, "ports": PORTS},
        {"addresses": both[:1], "notReadyAddresses": both[1:], "ports": PORTS},
    ):
        ((_, states),) = repacked(endpoints(one).subsets)
        assert [address.target_ref and address.target_ref.name for address, _ in states] == ["foo"]


@pytest.mark.parametrize(
    ("create", "delete", "updates", "creates", "deletes"),
    [
        ([], [], 0, 0, []),
        (["10.0.0.1"], ["10.0.0.9"], 1, 0, []),
        (["10.0.0.1", "10.0.0.2"], ["10.0.0.9"], 1, 1, []),
        (["10.0.0.1"], ["10.0.0.8", "10.0.0.9"], 1, 0, ["old-1"]),
        (["10.0.0.1", "fd00::1"], ["10.0.0.9", "fd00::9"], 2, 0, []),
        (["10.0.0.1"], ["fd00::9"], 0, 1, ["old-0"]),
    ],
)
def test_slices_are_used_again_within_their_family(
    create: list[str], delete: list[str], updates: int, creates: int, deletes: list[str]
) -> None:
    """Cases of reconciler_helpers_test.go; each address at a port of its own."""

    def at(ip: str, number: int) -> dict[str, Any]:
        return subset(ip, ports=[{"port": number, "protocol": "TCP"}])

    old = [
        made(plan(endpoints(at(ip, 9000 + index)), []).creates[0], f"old-{index}") for index, ip in enumerate(delete)
    ]
    found = plan(endpoints(*(at(ip, 80 + index) for index, ip in enumerate(create))), old)
    assert (len(found.updates), len(found.creates), found.deletes) == (updates, creates, deletes)


@pytest.mark.parametrize(
    ("wanted", "writes"),
    [
        (endpoints(), (0, 0, 1)),
        (endpoints({"ports": PORTS}), (0, 0, 1)),
        (endpoints(subset("10.0.0.1"), labels={"a": "b"}), (0, 1, 0)),
        (endpoints(subset("10.0.0.1"), annotations={"a": "b"}), (0, 1, 0)),
        (
            endpoints(subset("10.0.0.1"), annotations={"endpoints.kubernetes.io/last-change-trigger-time": "x"}),
            (0, 0, 0),
        ),
        (endpoints(subset(unready=("10.0.0.1",))), (0, 1, 0)),
        (endpoints(subset("10.0.0.1"), subset("10.0.0.2", ports=[{"port": 81, "protocol": "TCP"}])), (1, 0, 0)),
        (
            endpoints(
                subset("10.0.0.1"),
                subset("10.0.0.2", ports=[{"port": 81, "protocol": "TCP"}]),
                deletionTimestamp="2026-01-01T00:00:00Z",
            ),
            (0, 0, 0),
        ),
    ],
)
def test_what_is_written_for_a_change(wanted: Endpoints, writes: tuple[int, int, int]) -> None:
    (tree,) = plan(endpoints(subset("10.0.0.1")), []).creates
    found = plan(wanted, [made(tree, "db-1")])
    assert (len(found.creates), len(found.updates), len(found.deletes)) == writes
