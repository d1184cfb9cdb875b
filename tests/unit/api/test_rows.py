"""The rows that are shown of objects."""

from typing import Any

import pytest

from svcplane.api import resources as r
from svcplane.api.tables import row

NOW = 1_767_225_600.0  # 2026-01-01T00:00:00Z
RAN = {"terminated": {"finishedAt": "2025-12-31T23:59:50Z"}}
SIDECAR = {"initContainers": [{"name": "s", "restartPolicy": "Always"}, {"name": "i"}]}


def shown(resource: r.Resource, obj: dict[str, Any], **meta: Any) -> list[Any]:
    cells: list[Any] = row(resource, {"metadata": {"name": "x", **meta}, **obj}, "None", NOW)["cells"]
    return cells


@pytest.mark.parametrize(
    ("spec", "status", "expected"),
    [
        ({}, {"phase": "Pending", "reason": "Evicted"}, ("0/1", "Evicted", "0")),
        (
            {},
            {"phase": "Pending", "conditions": [{"type": "PodScheduled", "reason": "SchedulingGated"}]},
            ("0/1", "SchedulingGated", "0"),
        ),
        (
            {},
            {"containerStatuses": [{"restartCount": 2, "lastState": RAN, "ready": True, "state": {"running": {}}}]},
            ("1/1", "", "2 (10s ago)"),
        ),
        (
            {},
            {"containerStatuses": [{"state": {"terminated": {"exitCode": 0, "signal": 9}}}]},
            ("0/1", "Signal:9", "0"),
        ),
        (
            {},
            {
                "containerStatuses": [
                    {"state": {"terminated": {"reason": "Completed"}}},
                    {"ready": True, "state": {"running": {}}},
                ]
            },
            ("1/1", "NotReady", "0"),
        ),
        (
            SIDECAR,
            {"initContainerStatuses": [{"name": "s", "started": True, "ready": True}, {"name": "i", "state": {}}]},
            ("1/2", "Init:1/2", "0"),
        ),
        (
            SIDECAR,
            {"initContainerStatuses": [{"name": "s", "state": {"waiting": {"reason": "ErrImagePull"}}}]},
            ("0/2", "Init:ErrImagePull", "0"),
        ),
        (
            SIDECAR,
            {
                "conditions": [{"type": "Initialized", "status": "True"}],
                "initContainerStatuses": [
                    {"name": "s", "started": True, "ready": True, "restartCount": 3},
                    {"name": "i", "restartCount": 4, "state": {"terminated": {"exitCode": 0}}},
                ],
                "containerStatuses": [{"ready": True, "state": {"running": {}}}],
            },
            ("2/2", "", "3"),
        ),
        (
            {"initContainers": [{"name": "i"}]},
            {"initContainerStatuses": [{"name": "i", "restartCount": 1, "state": {"terminated": {"exitCode": 7}}}]},
            ("0/1", "Init:ExitCode:7", "1"),
        ),
    ],
)
def test_pods(spec: Any, status: Any, expected: tuple[str, str, str]) -> None:
    cells = shown(r.PODS, {"spec": {"containers": [{}], **spec}, "status": status})
    assert tuple(cells[1:4]) == expected


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"phase": "Running"}, "Terminating"),
        ({"phase": "Failed"}, "Failed"),
        ({"phase": "Running", "reason": "NodeLost"}, "Unknown"),
    ],
)
def test_pods_that_are_being_deleted(status: Any, expected: str) -> None:
    assert shown(r.PODS, {"status": status}, deletionTimestamp="2026-01-01T00:00:00Z")[2] == expected


def test_pods_that_have_ended_are_marked() -> None:
    pod = {"metadata": {"name": "p"}, "status": {"phase": "Succeeded"}}
    condition = {"type": "Completed", "status": "True", "reason": "Succeeded"}
    assert row(r.PODS, pod, "None", NOW)["conditions"] == [
        {**condition, "message": "The pod has completed successfully."}
    ]
    assert "conditions" not in row(r.PODS, {**pod, "status": {"phase": "Running"}}, "None", NOW)


def test_readiness_gates() -> None:
    spec = {"readinessGates": [{"conditionType": "a.b/c"}, {"conditionType": "a.b/d"}]}
    status = {"conditions": [{"type": "a.b/c", "status": "True"}, {"type": "a.b/d", "status": "False"}]}
    assert shown(r.PODS, {"spec": spec, "status": status})[8] == "1/2"


def test_roles_of_nodes() -> None:
    labels = {"node-role.kubernetes.io/worker": "", "node-role.kubernetes.io/": "x", "kubernetes.io/role": "edge"}
    assert shown(r.NODES, {}, labels=labels)[2] == "edge,worker"


def test_addresses_of_load_balancers_are_sorted() -> None:
    spec = {"type": "LoadBalancer", "externalIPs": ["1.1.1.1"]}
    ingress: list[dict[str, str]] = [{"ip": "9.9.9.9"}, {"hostname": "b.example"}, {"ip": "3.3.3.3"}, {}]
    service = {"spec": spec, "status": {"loadBalancer": {"ingress": ingress}}}
    assert shown(r.SERVICES, service)[3] == "3.3.3.3,9.9.9.9,b.example,1.1.1.1"


def test_selectors_are_sorted_with_their_values() -> None:
    selector = {"app": "web", "app.kubernetes.io/name": "web"}
    assert shown(r.SERVICES, {"spec": {"selector": selector}})[6] == "app.kubernetes.io/name=web,app=web"


def test_endpoints_without_a_ready_address() -> None:
    assert shown(r.ENDPOINTS, {})[1] == "<none>"
    assert shown(r.ENDPOINTS, {"subsets": [{"notReadyAddresses": [{"ip": "10.0.0.1"}]}]})[1] == ""


def test_ports_without_a_number_show_their_name() -> None:
    assert shown(r.ENDPOINT_SLICES, {"ports": [{"name": "a"}, {"name": "b", "port": 80}]})[2] == "a,80"
    assert shown(r.ENDPOINT_SLICES, {"ports": [{"name": ""}]})[2] == "<unset>"


def test_owners_of_addresses() -> None:
    parent = {"group": "Example.com", "resource": "widgets", "name": "w"}
    assert shown(r.IP_ADDRESSES, {"spec": {"parentRef": parent}})[1:] == ["widgets.example.com/w", "<unknown>"]
