"""What applying would change: fields, endpoints, operations."""

from typing import Any

from svcplane.proxy.plane import Operation
from svcplane.understand.affinity import Sticking, dead_findings
from svcplane.understand.planning import FieldChange, applied, endpoint_plans, new_operations, object_plan
from svcplane.understand.view import from_trees

Tree = dict[str, Any]


def service(**selector: str) -> Tree:
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    meta = {"name": "web", "namespace": "default"}
    return {
        "kind": "Service",
        "metadata": meta,
        "spec": {"clusterIP": "10.96.0.1", "selector": selector, "ports": ports},
    }


def pod(name: str, ip: str, **labels: str) -> Tree:
    status = {"podIP": ip, "phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return {"kind": "Pod", "metadata": {"name": name, "uid": name, "labels": labels}, "status": status}


def test_changes_name_fields_and_leave_the_servers_own_alone() -> None:
    before = {"metadata": {"resourceVersion": "1", "labels": {"a": "1"}}, "spec": {"ports": [{"port": 80}]}}
    after = {"metadata": {"resourceVersion": "2"}, "spec": {"ports": [{"port": 81}]}, "status": {"x": 1}}
    plan = object_plan("Service web", before, after)
    assert plan.verb == "change"
    assert plan.changes == (
        FieldChange("metadata.labels", {"a": "1"}, None),
        FieldChange("spec.ports[0].port", 80, 81),
    )
    assert object_plan("Service web", before, before).verb == "unchanged"
    assert object_plan("Service web", None, before).verb == "create"


def test_another_selector_changes_the_endpoints() -> None:
    pods = [pod("old", "10.244.1.1", app="old"), pod("new", "10.244.1.2", app="new")]
    before = from_trees([*pods, service(app="old")], live=True, now_s=0.0)
    before = applied(before, [service(app="old")])  # with its slices
    after = applied(before, [service(app="new")])
    plan = endpoint_plans(before, after)
    assert [(entry.service, entry.comes, entry.goes) for entry in plan] == [
        ("default/web", ("10.244.1.2:8080 (new)",), ("10.244.1.1:8080 (old)",))
    ]
    assert endpoint_plans(before, applied(before, [service(app="old")])) == ()


def test_a_relabelled_pod_leaves_its_service() -> None:
    one = pod("one", "10.244.1.1", app="web")
    before = applied(from_trees([one, service(app="web")], live=True, now_s=0.0), [service(app="web")])
    after = applied(before, [pod("one", "10.244.1.1", app="other")])
    assert [entry.goes for entry in endpoint_plans(before, after)] == [("10.244.1.1:8080 (one)",)]


def test_operations_of_a_drift_are_not_the_changes() -> None:
    drift, change = Operation("add", "chain a", "missing"), Operation("add", "chain b", "new")
    assert new_operations([drift], [drift, change]) == (change,)


def test_a_client_that_sticks_to_a_dead_pod() -> None:
    one = Sticking("10.0.0.9", "default/web:http", "TCP", "10.244.1.1:8080", "default/web-1", 60.0, "ready")
    found = dead_findings([one], {"10.244.1.1:8080": "timeout"})
    assert "client 10.0.0.9 sticks to pod default/web-1 (10.244.1.1:8080)" in found[0].text
    assert "svcplane affinity evict 10.0.0.9 --service default/web:http" in found[0].remedy
    assert dead_findings([one], {"10.244.1.1:8080": "connected"}) == ()
    assert dead_findings([one], {}) == ()
