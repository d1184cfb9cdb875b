"""What writes of Nodes, and of other kinds without namespaces, are answered."""

from typing import Any

import pytest

from svcplane.api.strategies.node import BAD_FEATURE
from svcplane.testing.server import Caller

NODES = "/api/v1/nodes"
CIDRS = "/apis/networking.k8s.io/v1/servicecidrs"
ADDRESSES = "/apis/networking.k8s.io/v1/ipaddresses"
PARENT = {"resource": "services", "namespace": "default", "name": "x"}
MERGE = {"Content-Type": "application/merge-patch+json"}


def node(**fields: Any) -> dict[str, Any]:
    return {"metadata": {"name": "n"}, **fields}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            node(spec={"podCIDRs": ["x", "10.0.0.0/24"]}),
            [
                (
                    "spec.podCIDRs[0]",
                    'Invalid value: "x": must be a valid CIDR value, (e.g. 10.9.8.0/24 or 2001:db8::/64)',
                ),
                (
                    "spec.podCIDRs",
                    "Internal error: invalid PodCIDRs. failed to check with dual stack with error:invalid CIDR[0]: "
                    "<nil> (invalid CIDR address: x)",
                ),
                (
                    "spec.podCIDRs",
                    'Invalid value: ["x","10.0.0.0/24"]: may specify no more than one CIDR for each IP family',
                ),
            ],
        ),
        (
            node(status={"allocatable": {"example.com/card": "1.5", "kubernetes.io/x": "1.5"}}),
            [("status.allocatable.example.com/card", 'Invalid value: "1500m": must be an integer')],
        ),
        (
            node(status={"nodeInfo": {"swap": {"capacity": 0}}, "declaredFeatures": ["B/c", "A", "A", "b"]}),
            [
                ("metadata.nodeSwapStatus.capacity", "Invalid value: 0: must be greater than zero"),
                ("status.declaredFeatures[1]", 'Invalid value: "A": list must be sorted alphabetically'),
                ("status.declaredFeatures[2]", 'Duplicate value: "A"'),
                ("status.declaredFeatures[3]", f'Invalid value: "b": invalid feature name "b": {BAD_FEATURE}'),
            ],
        ),
    ],
)
async def test_refused(admin: Caller, body: dict[str, Any], expected: list[tuple[str, str]]) -> None:
    status, answer = await admin.call("POST", NODES, body)
    assert status == 422
    assert [(cause["field"], cause["message"]) for cause in answer["details"]["causes"]] == expected


async def test_causes_of_updates_are_in_order(admin: Caller) -> None:
    await admin.call("POST", NODES, node(spec={"providerID": "a"}))
    change = {"spec": {"providerID": "b", "externalID": "c", "taints": [{"key": "t", "effect": ""}]}}
    _, answer = await admin.call("PATCH", f"{NODES}/n", change, MERGE)
    found = [cause["field"] for cause in answer["details"]["causes"]]
    assert found == ["metadata.taints[0].effect", "spec.providerID", "metadata.taints[0].effect", "spec.externalID"]


async def test_kubelets_are_not_configured_by_nodes(admin: Caller) -> None:
    source = {"configMap": {"name": "a", "namespace": "b", "kubeletConfigKey": "c"}}
    response = await admin.send("POST", NODES, node(spec={"configSource": source}, status={"config": {"error": "x"}}))
    assert (response.status, response.warnings) == (201, ())
    _, body = await admin.call("PATCH", f"{NODES}/n", {"spec": {"configSource": source}}, MERGE)
    assert "configSource" not in body["spec"]
    _, body = await admin.call("PATCH", f"{NODES}/n/status", {"status": {"config": {"error": "x"}}}, MERGE)
    assert "config" not in body["status"]


async def test_a_namespace_is_let_go(admin: Caller) -> None:
    body = {"metadata": {"name": "c", "namespace": "default"}, "spec": {"cidrs": ["10.1.0.0/24"]}}
    status, created = await admin.call("POST", CIDRS, body)
    assert (status, created["metadata"].get("namespace")) == (201, None)
    created["metadata"]["namespace"] = "default"
    status, put = await admin.call("PUT", f"{CIDRS}/c", created)
    assert (status, put["metadata"].get("namespace")) == (200, None)


async def test_names_of_addresses_are_not_made(admin: Caller) -> None:
    body = {"metadata": {"generateName": "10.96.7.7"}, "spec": {"parentRef": PARENT}}
    status, made = await admin.call("POST", ADDRESSES, body)
    assert (status, made["metadata"]["name"]) == (201, "10.96.7.7")
    assert (await admin.call("POST", ADDRESSES, body))[0] == 409
    _, answer = await admin.call("POST", ADDRESSES, {**body, "metadata": {"generateName": "10.96."}})
    assert answer["details"]["name"] == "10.96."


async def test_a_changed_address_is_looked_at_as_a_new_one(admin: Caller) -> None:
    await admin.call("POST", ADDRESSES, {"metadata": {"name": "10.96.7.7"}, "spec": {"parentRef": PARENT}})
    change = {"spec": {"parentRef": None}, "metadata": {"labels": {"a": "b c"}}}
    _, answer = await admin.call("PATCH", f"{ADDRESSES}/10.96.7.7", change, MERGE)
    found = [(cause["field"], cause["message"].partition(":")[0]) for cause in answer["details"]["causes"]]
    assert found == [("metadata.labels", "Invalid value")] * 3 + [
        ("spec.parentRef", "Required value"),
        ("spec.parentRef", "Invalid value"),
    ]


async def test_ranges_take_a_status_and_a_status_takes_no_metadata(admin: Caller) -> None:
    condition = {"type": "Ready", "status": "False", "reason": "r", "message": "m", "lastTransitionTime": None}
    body = {"metadata": {"name": "c"}, "spec": {"cidrs": ["10.1.0.0/24"]}, "status": {"conditions": [condition]}}
    _, made = await admin.call("POST", CIDRS, body)
    assert made["status"] == {"conditions": [condition]}
    change = {"metadata": {"labels": {"a": "b"}}, "status": {"conditions": None}}
    _, changed = await admin.call("PATCH", f"{CIDRS}/c/status", change, MERGE)
    assert ("labels" in changed["metadata"], changed["status"]) == (False, {})
