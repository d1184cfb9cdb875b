"""What deletions that cannot be are answered."""

from datetime import datetime
from typing import Any

import pytest

from svcplane.testing.server import Caller

WEB = "/api/v1/namespaces/default/services/web"
HEAD = 'DeleteOptions.meta.k8s.io "" is invalid: '


@pytest.mark.parametrize(
    ("query", "body", "status", "message"),
    [
        (
            "",
            {"propagationPolicy": "x"},
            422,
            HEAD + 'propagationPolicy: Unsupported value: "x": supported values: "Foreground", "Background", '
            '"Orphan", "nil"',
        ),
        (
            "",
            {"propagationPolicy": "Orphan", "orphanDependents": True},
            422,
            HEAD
            + 'propagationPolicy: Invalid value: "Orphan": orphanDependents and deletionPropagation cannot be both set',
        ),
        ("", {"dryRun": ["x"]}, 422, HEAD + 'dryRun: Unsupported value: ["x"]: supported values: "All"'),
        ("?gracePeriodSeconds=x", None, 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("", {"kind": "Foo"}, 500, 'no kind "Foo" is registered for version "meta.k8s.io/v1"'),
        (
            "",
            {"preconditions": {"uid": "u"}},
            409,
            'Operation cannot be fulfilled on Service "web": the UID in the precondition (u) does not match the UID in '
            "record (<uid>). The object might have been deleted and then recreated",
        ),
    ],
)
async def test_deletions_refused(admin: Caller, query: str, body: Any, status: int, message: str) -> None:
    service = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    _, made = await admin.call("POST", "/api/v1/namespaces/default/services", service)
    answer = await admin.call("DELETE", WEB + query, body)
    assert (answer[0], answer[1]["message"]) == (status, message.replace("<uid>", made["metadata"]["uid"]))
    assert (await admin.call("GET", WEB))[0] == 200


async def test_dependents_are_orphaned_by_query(admin: Caller) -> None:
    service = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    await admin.call("POST", "/api/v1/namespaces/default/services", service)
    _, body = await admin.call("DELETE", f"{WEB}?orphanDependents=true&dryRun=All")
    assert body["metadata"]["finalizers"] == ["orphan"]
    assert body["metadata"]["deletionGracePeriodSeconds"] == 0


async def test_namespaces_end_without_a_grace_period(admin: Caller) -> None:
    await admin.call("POST", "/api/v1/namespaces", {"metadata": {"name": "n"}})
    _, refused = await admin.call("DELETE", "/api/v1/namespaces/n", {"preconditions": {"uid": "u"}})
    assert 'namespaces "n": Precondition failed: UID in precondition: u, UID in object meta: ' in refused["message"]
    status, body = await admin.call("DELETE", "/api/v1/namespaces/n?dryRun=All")
    assert (status, body["status"]["phase"]) == (200, "Terminating")
    assert "deletionTimestamp" in body["metadata"]
    assert "deletionGracePeriodSeconds" not in body["metadata"]


async def test_an_update_of_another_object_of_the_name_is_a_conflict(admin: Caller) -> None:
    service = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    _, made = await admin.call("POST", "/api/v1/namespaces/default/services", service)
    made["metadata"]["uid"] = "other"
    status, body = await admin.call("PUT", WEB, made)
    assert status == 409
    assert "Precondition failed: UID in precondition: other, UID in object meta: " in body["message"]


async def test_with_a_body_the_query_does_not_count(admin: Caller) -> None:
    service = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    await admin.call("POST", "/api/v1/namespaces/default/services", service)
    assert (await admin.call("DELETE", f"{WEB}?dryRun=All&gracePeriodSeconds=x", {"dryRun": ["All"]}))[0] == 200
    assert (await admin.call("GET", WEB))[0] == 200
    assert (await admin.call("DELETE", f"{WEB}?dryRun=All", {"propagationPolicy": "Background"}))[0] == 200
    assert (await admin.call("GET", WEB))[0] == 404


async def test_options_in_an_unknown_format(admin: Caller) -> None:
    response = await admin.send("DELETE", WEB, {}, {"Content-Type": "application/xml"})
    assert response.status == 415


async def test_a_part_of_a_collection_is_deleted_and_shown_as_a_list(admin: Caller) -> None:
    services = "/api/v1/namespaces/default/services"
    for name in "abc":
        body = {"metadata": {"name": name, "labels": {"n": "x"}}, "spec": {"ports": [{"port": 80}]}}
        await admin.call("POST", services, body)
    _, first = await admin.call("DELETE", f"{services}?limit=1&labelSelector=n%3Dx")
    assert [item["metadata"]["name"] for item in first["items"]] == ["a"]
    assert first["metadata"]["continue"]
    accepted = {"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
    _, second = await admin.call("DELETE", f"{services}?labelSelector=n%3Dx", headers=accepted)
    assert second["kind"] == "Table"
    assert [row["cells"][0] for row in second["rows"]] == ["b", "c"]
    _, left = await admin.call("GET", services)
    assert [item["metadata"]["name"] for item in left["items"]] == ["kubernetes"]


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"gracePeriodSeconds": "x"}, "string into Go struct field DeleteOptions.gracePeriodSeconds of type int64"),
        ({"gracePeriodSeconds": 1.5}, "number 1.5 into Go struct field DeleteOptions.gracePeriodSeconds of type int64"),
        ({"dryRun": "All"}, "string into Go struct field DeleteOptions.dryRun of type []string"),
        ({"dryRun": ["All", 1]}, "number into Go struct field DeleteOptions.dryRun of type string"),
        ({"preconditions": []}, "array into Go struct field DeleteOptions.preconditions of type v1.Preconditions"),
        (
            {"preconditions": {"uid": 5}},
            "number into Go struct field Preconditions.preconditions.uid of type types.UID",
        ),
    ],
)
async def test_options_of_the_wrong_type(admin: Caller, options: dict[str, Any], why: str) -> None:
    status, body = await admin.call("DELETE", WEB, options)
    assert (status, body["message"]) == (500, f"json: cannot unmarshal {why}")


@pytest.mark.parametrize(
    ("options", "media", "why"),
    [
        (b"{x", "json", "couldn't get version/kind; json parse error: invalid character 'x' looking for beginning of "),
        (b"[]", "json", "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of "),
        (b"a: b: c", "yaml", "yaml: mapping values are not allowed in this context"),
        (b"dryRun: All", "yaml", "json: cannot unmarshal string into Go struct field DeleteOptions.dryRun of type "),
    ],
)
async def test_options_that_are_none(admin: Caller, options: bytes, media: str, why: str) -> None:
    status, body = await admin.call("DELETE", WEB, options, {"Content-Type": f"application/{media}"})
    assert status == 500
    assert body["message"].startswith(why)


async def test_options_whose_kind_is_no_text(admin: Caller) -> None:
    status, body = await admin.call("DELETE", WEB, {"kind": 1.5, "dryRun": "All"})
    why = "json: cannot unmarshal number into Go struct field .kind of type string"
    assert (status, body["message"]) == (500, f"couldn't get version/kind; json parse error: {why}")


async def test_null_is_no_option(admin: Caller) -> None:
    status, body = await admin.call("DELETE", WEB, {"kind": None, "apiVersion": None, "dryRun": None})
    assert (status, body["reason"]) == (404, "NotFound")


async def test_options_in_yaml(admin: Caller) -> None:
    await admin.call("POST", WEB.removesuffix("/web"), {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 1}]}})
    media = {"Content-Type": "application/yaml"}
    status, body = await admin.call("DELETE", WEB, b"preconditions: {uid: x}", media)
    assert (status, body["reason"]) == (409, "Conflict")


async def test_a_shorter_grace_period_counts_from_the_first_request(admin: Caller) -> None:
    pod = {"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}}
    await admin.call("POST", "/api/v1/namespaces/default/pods", pod)
    path, seen = "/api/v1/namespaces/default/pods/p", []
    for period in (600, 900, 300, 0):
        _, body = await admin.call("DELETE", f"{path}?gracePeriodSeconds={period}")
        meta = body["metadata"]
        ends = datetime.fromisoformat(meta["deletionTimestamp"])
        seen.append((meta["deletionGracePeriodSeconds"], ends, meta["generation"]))
    first = seen[0][1]
    assert [(period, (first - ends).total_seconds(), generation) for period, ends, generation in seen] == [
        (600, 0, 2),
        (600, 0, 2),
        (300, 300, 2),
        (0, 600, 2),
    ]
