"""Who am I, may I, acting as somebody else, and putting Pods on nodes."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from svcplane.api.http import User
from svcplane.testing.server import Caller, in_process_server

ACCESS = "/apis/authorization.k8s.io/v1"
WHO = "/apis/authentication.k8s.io/v1"
ROLES = """
rules:
- users: [reader]
  role: read-only
  namespaces: [default]
- users: [helper]
  verbs: [impersonate]
  resources: [users]
"""
READER = User("reader", frozenset({"system:authenticated"}), "7")
HELPER = User("helper", frozenset({"system:authenticated"}))


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[Any]:
    roles, tokens = tmp_path / "roles.yaml", tmp_path / "tokens.csv"
    roles.write_text(ROLES)
    tokens.write_text('secret,reader,7,"devs"\n')
    async with in_process_server(role_file=roles, token_auth_file=tokens) as started:
        yield started


def asking(verb: str, resource: str, namespace: str = "default") -> dict[str, Any]:
    return {"spec": {"resourceAttributes": {"verb": verb, "resource": resource, "namespace": namespace}}}


@pytest.mark.parametrize(
    ("verb", "resource", "namespace", "allowed"),
    [("get", "pods", "default", True), ("create", "pods", "default", False), ("get", "pods", "other", False)],
)
async def test_may_i(server: Any, verb: str, resource: str, namespace: str, allowed: bool) -> None:
    reader = Caller(server.handle, READER)
    status, found = await reader.call("POST", f"{ACCESS}/selfsubjectaccessreviews", asking(verb, resource, namespace))
    assert (status, found["status"]) == (201, {"allowed": allowed})


async def test_may_somebody_else_is_only_for_who_may_ask(server: Any) -> None:
    body = asking("list", "services")
    body["spec"]["user"] = "reader"
    admin, reader = Caller(server.handle), Caller(server.handle, READER)
    assert (await admin.call("POST", f"{ACCESS}/subjectaccessreviews", body))[1]["status"]["allowed"] is True
    assert (await reader.call("POST", f"{ACCESS}/subjectaccessreviews", body))[0] == 403
    local = f"{ACCESS}/namespaces/default/localsubjectaccessreviews"
    assert (await admin.call("POST", local, body))[1]["status"]["allowed"] is True
    body["spec"]["resourceAttributes"]["namespace"] = "other"
    assert (await admin.call("POST", local, body))[0] == 422


async def test_a_review_must_ask_one_thing_of_somebody(server: Any) -> None:
    status, found = await Caller(server.handle).call("POST", f"{ACCESS}/subjectaccessreviews", {"spec": {}})
    assert status == 422
    assert {cause["field"] for cause in found["details"]["causes"]} == {"spec.user", "spec.resourceAttributes"}
    both = asking("get", "pods")
    both["spec"]["nonResourceAttributes"] = {"path": "/metrics", "verb": "get"}
    assert (await Caller(server.handle).call("POST", f"{ACCESS}/selfsubjectaccessreviews", both))[0] == 422


async def test_what_may_i_lists_my_rules_only(server: Any) -> None:
    path = f"{ACCESS}/selfsubjectrulesreviews"
    _, found = await Caller(server.handle, READER).call("POST", path, {"spec": {"namespace": "default"}})
    assert {"verbs": ["get", "list", "watch"], "apiGroups": ["*"], "resources": ["*"]} in found["status"][
        "resourceRules"
    ]
    _, found = await Caller(server.handle, READER).call("POST", path, {"spec": {"namespace": "other"}})
    assert all(rule["verbs"] == ["create"] for rule in found["status"]["resourceRules"])


async def test_who_am_i_and_whose_token_is_this(server: Any) -> None:
    _, found = await Caller(server.handle, READER).call("POST", f"{WHO}/selfsubjectreviews", {})
    assert found["status"]["userInfo"] == {"username": "reader", "uid": "7", "groups": ["system:authenticated"]}
    path = f"{WHO}/tokenreviews"
    _, found = await Caller(server.handle).call("POST", path, {"spec": {"token": "secret"}})
    assert found["status"]["authenticated"] is True
    assert found["status"]["user"]["groups"] == ["devs", "system:authenticated"]
    _, found = await Caller(server.handle).call("POST", path, {"spec": {"token": "wrong"}})
    assert "authenticated" not in found["status"]
    assert (await Caller(server.handle).call("POST", path, {"spec": {}}))[0] == 400
    assert (await Caller(server.handle).call("GET", path))[0] == 405


async def test_acting_as_somebody_else_takes_that_right_and_gives_no_more(server: Any) -> None:
    path = f"{WHO}/selfsubjectreviews"
    as_reader = {"Impersonate-User": "reader"}
    status, found = await Caller(server.handle, HELPER).call("POST", path, {}, as_reader)
    assert (status, found["status"]["userInfo"]["username"]) == (201, "reader")
    namespaces = "/api/v1/namespaces"
    assert (await Caller(server.handle).call("POST", namespaces, {"metadata": {"name": "x"}}, as_reader))[0] == 403
    assert (await Caller(server.handle, READER).call("POST", path, {}, {"Impersonate-User": "admin"}))[0] == 403
    masters = {"Impersonate-User": "reader", "Impersonate-Group": "system:masters"}
    assert (await Caller(server.handle, HELPER).call("POST", path, {}, masters))[0] == 403
    assert (await Caller(server.handle).call("POST", path, {}, {"Impersonate-Group": "g"}))[0] == 400


async def test_a_pod_is_bound_once(server: Any) -> None:
    admin, pods = Caller(server.handle), "/api/v1/namespaces/default/pods"
    pod = {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    assert (await admin.call("POST", pods, pod))[0] == 201
    target = {"metadata": {"name": "p"}, "target": {"kind": "Node", "name": "n1"}}
    status, told = await admin.call("POST", f"{pods}/p/binding", target)
    assert (status, told["status"]) == (201, "Success")
    _, found = await admin.call("GET", f"{pods}/p")
    assert found["spec"]["nodeName"] == "n1"
    assert any(c["type"] == "PodScheduled" and c["status"] == "True" for c in found["status"]["conditions"])
    status, told = await admin.call("POST", f"{pods}/p/binding", target)
    assert (status, "already assigned to node" in told["message"]) == (409, True)
    assert (await admin.call("POST", f"{pods}/none/binding", {**target, "metadata": {"name": "none"}}))[0] == 404
