"""The generic flow of writes: names, namespaces, conflicts, dry runs, ownership."""

import asyncio
from typing import Any

from svcplane.testing.server import Caller

SERVICES = "/api/v1/namespaces/default/services"
MERGE = {"Content-Type": "application/merge-patch+json"}


def service(name: str = "web", **meta: Any) -> dict[str, Any]:
    spec = {"ports": [{"port": 80}]}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, **meta}, "spec": spec}


async def test_generated_names_differ_and_keep_their_prefix(admin: Caller) -> None:
    body = service("", generateName="web-")
    names = {(await admin.call("POST", SERVICES, body))[1]["metadata"]["name"] for _ in range(20)}
    assert len(names) == 20
    assert all(name.startswith("web-") and len(name) == 9 for name in names)


async def test_two_writers_of_one_version_cannot_both_win(admin: Caller) -> None:
    _, created = await admin.call("POST", SERVICES, service())
    bodies = [{**created, "metadata": {**created["metadata"], "labels": {"by": who}}} for who in "ab"]
    answers = await asyncio.gather(*[admin.call("PUT", f"{SERVICES}/web", body) for body in bodies])
    assert sorted(status for status, _ in answers) == [200, 409]


async def test_patches_without_a_version_all_land(admin: Caller) -> None:
    await admin.call("POST", SERVICES, service())
    patches = [{"metadata": {"labels": {f"l{n}": "x"}}} for n in range(10)]
    answers = await asyncio.gather(*[admin.call("PATCH", f"{SERVICES}/web", patch, MERGE) for patch in patches])
    assert {status for status, _ in answers} == {200}
    _, found = await admin.call("GET", f"{SERVICES}/web")
    assert len(found["metadata"]["labels"]) == 10


async def test_update_that_changes_nothing_keeps_the_version(admin: Caller) -> None:
    _, created = await admin.call("POST", SERVICES, service())
    _, again = await admin.call("PUT", f"{SERVICES}/web", created)
    assert again["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]


async def test_dry_run_leaves_nothing_behind(admin: Caller) -> None:
    status, shown = await admin.call("POST", f"{SERVICES}?dryRun=All", service())
    assert status == 201
    assert "resourceVersion" not in shown["metadata"]
    assert (await admin.call("GET", f"{SERVICES}/web"))[0] == 404


async def test_allocated_fields_belong_to_nobody(admin: Caller) -> None:
    _, created = await admin.call("POST", SERVICES, service())
    assert created["spec"]["clusterIP"]
    (entry,) = created["metadata"]["managedFields"]
    assert "f:ports" in entry["fieldsV1"]["f:spec"]
    assert not {"f:clusterIP", "f:clusterIPs", "f:ipFamilies"} & set(entry["fieldsV1"]["f:spec"])
    assert "f:status" not in entry["fieldsV1"]


async def test_namespace_labelled_like_a_deletion_takes_objects(admin: Caller) -> None:
    labels = {"deletionTimestamp": "never"}
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "odd", "labels": labels}}
    assert (await admin.call("POST", "/api/v1/namespaces", namespace))[0] == 201
    assert (await admin.call("POST", "/api/v1/namespaces/odd/services", service()))[0] == 201


async def test_namespace_on_its_way_out_takes_no_objects(admin: Caller) -> None:
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "gone"}}
    await admin.call("POST", "/api/v1/namespaces", namespace)
    _, deleted = await admin.call("DELETE", "/api/v1/namespaces/gone")
    assert deleted["status"]["phase"] == "Terminating"
    status, body = await admin.call("POST", "/api/v1/namespaces/gone/services", service())
    assert (status, body["details"]["causes"][0]["reason"]) == (403, "NamespaceTerminating")
    finalize = {**deleted, "spec": {"finalizers": []}}
    await admin.call("PUT", "/api/v1/namespaces/gone/finalize", finalize)
    assert (await admin.call("GET", "/api/v1/namespaces/gone"))[0] == 404


async def test_finalizer_holds_an_object_until_it_is_taken_off(admin: Caller) -> None:
    await admin.call("POST", SERVICES, service(finalizers=["example.com/hold"]))
    _, deleted = await admin.call("DELETE", f"{SERVICES}/web")
    assert deleted["metadata"]["deletionTimestamp"]
    assert (await admin.call("GET", f"{SERVICES}/web"))[0] == 200
    await admin.call("PATCH", f"{SERVICES}/web", {"metadata": {"finalizers": None}}, MERGE)
    assert (await admin.call("GET", f"{SERVICES}/web"))[0] == 404


async def test_pages_show_one_state_while_others_write(admin: Caller) -> None:
    for number in range(5):
        await admin.call("POST", SERVICES, service(f"s{number}"))
    _, page = await admin.call("GET", f"{SERVICES}?limit=2")
    names = [item["metadata"]["name"] for item in page["items"]]
    await admin.call("DELETE", f"{SERVICES}/s4")
    await admin.call("POST", SERVICES, service("s3a"))
    while page["metadata"].get("continue"):
        _, page = await admin.call("GET", f"{SERVICES}?limit=2&continue={page['metadata']['continue']}")
        names += [item["metadata"]["name"] for item in page["items"]]
    assert names == ["kubernetes", "s0", "s1", "s2", "s3", "s4"]


async def test_delete_with_anothers_uid_is_a_conflict(admin: Caller) -> None:
    await admin.call("POST", SERVICES, service())
    status, _ = await admin.call("DELETE", f"{SERVICES}/web", {"preconditions": {"uid": "other"}})
    assert status == 409
    assert (await admin.call("GET", f"{SERVICES}/web"))[0] == 200


async def test_unknown_path_of_an_administrator_is_not_found(admin: Caller) -> None:
    for method, path in (("POST", "/apis/apps/v1/namespaces/default/deployments"), ("GET", "/apis/apps/v1")):
        answer = await admin.send(method, path)
        assert (answer.status, bytes(answer.body)) == (404, b"404 page not found\n")
