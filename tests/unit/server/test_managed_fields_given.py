"""A write that sets metadata.managedFields itself."""

from typing import Any

import pytest

from svcplane.testing.server import Caller, in_process_server

SERVICES = "/api/v1/namespaces/default/services"


async def managers(call: Caller) -> list[tuple[str, str]]:
    _, found = await call.call("GET", f"{SERVICES}/web")
    return [(entry["manager"], entry["operation"]) for entry in found["metadata"].get("managedFields", [])]


async def test_entries_are_replaced_kept_and_reset_by_an_update() -> None:
    async with in_process_server() as server:
        call = Caller(server.handle)
        spec = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
        _, made = await call.call("POST", f"{SERVICES}?fieldManager=one", spec)
        assert await managers(call) == [("one", "Update")]
        made["metadata"]["managedFields"][0] |= {"manager": "two", "operation": "Apply"}
        await call.call("PUT", f"{SERVICES}/web?fieldManager=one", made)
        assert await managers(call) == [("two", "Apply")]
        del made["metadata"]["managedFields"], made["metadata"]["resourceVersion"]
        await call.call("PUT", f"{SERVICES}/web?fieldManager=one", made)
        assert await managers(call) == [("two", "Apply")]
        made["metadata"]["managedFields"] = [{}]
        await call.call("PUT", f"{SERVICES}/web?fieldManager=one", made)
        assert await managers(call) == []
        made["metadata"]["labels"] = {"a": "b"}
        await call.call("PUT", f"{SERVICES}/web?fieldManager=one", made)
        assert await managers(call) == []  # nobody is noted until the next apply
        apply = {"Content-Type": "application/apply-patch+yaml"}
        head = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "labels": {"a": "c"}}}
        _, refused = await call.call("PATCH", f"{SERVICES}/web?fieldManager=m", head, apply)
        why = 'conflict with "before-first-apply" using v1: .metadata.labels.a'
        assert refused["message"] == f"Apply failed with 1 conflict: {why}"
        await call.call("PATCH", f"{SERVICES}/web?fieldManager=m&force=true", head, apply)
        assert await managers(call) == [("m", "Apply"), ("before-first-apply", "Update")]


async def test_old_updates_become_one() -> None:
    async with in_process_server() as server:
        call = Caller(server.handle)
        spec = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
        await call.call("POST", f"{SERVICES}?fieldManager=m00", spec)
        merge = {"Content-Type": "application/merge-patch+json"}
        for number in range(1, 13):
            labels = {"metadata": {"labels": {f"l{number}": "1"}}}
            await call.call("PATCH", f"{SERVICES}/web?fieldManager=m{number:02}", labels, merge)
        _, found = await call.call("GET", f"{SERVICES}/web")
        owned = {entry["manager"]: entry["fieldsV1"] for entry in found["metadata"]["managedFields"]}
        assert list(owned) == ["ancient-changes", *(f"m{number:02}" for number in range(4, 13))]
        assert set(owned["ancient-changes"]) == {"f:metadata", "f:spec"}
        assert set(owned["ancient-changes"]["f:metadata"]["f:labels"]) == {".", "f:l1", "f:l2", "f:l3"}


@pytest.mark.parametrize(
    "change",
    [
        {"operation": "Create"},
        {"apiVersion": ""},
        {"fieldsType": "FieldsV2"},
        {"fieldsV1": {"spec": {}}},
        {"fieldsV1": {"f:spec": 1}},
    ],
)
async def test_entries_that_are_none_are_not_taken_over(change: dict[str, Any]) -> None:
    async with in_process_server() as server:
        call = Caller(server.handle)
        spec = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
        _, made = await call.call("POST", f"{SERVICES}?fieldManager=one", spec)
        made["metadata"]["managedFields"][0] |= {"manager": "two", **change}
        assert (await call.call("PUT", f"{SERVICES}/web?fieldManager=one", made))[0] == 200
        assert await managers(call) == [("one", "Update")]


async def test_entries_without_a_time_stay_so(admin: Caller) -> None:
    entry = {"manager": "two", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1"}
    meta = {"name": "web", "managedFields": [{**entry, "fieldsV1": {"f:metadata": {"f:labels": {"f:a": {}}}}}]}
    await admin.call("POST", SERVICES, {"metadata": meta, "spec": {"ports": [{"port": 80}]}})
    _, found = await admin.call("GET", f"{SERVICES}/web")
    assert ["time" in one for one in found["metadata"]["managedFields"]] == [False, True]
    assert (await admin.call("PUT", f"{SERVICES}/web", found))[0] == 200
