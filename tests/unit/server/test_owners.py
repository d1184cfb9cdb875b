"""Owner references that are given twice."""

from typing import Any

from svcplane.server.owners import drop_duplicate_owners
from svcplane.testing.server import Caller

SERVICES = "/api/v1/namespaces/default/services"
AFTER = "; API server dedups owner references in 1.20+, and may reject such requests as early as 1.24; please fix your "
AFTER += "requests; duplicate UID(s) observed: "
SENT = ".metadata.ownerReferences contains duplicate entries" + AFTER
PATCHED = ".metadata.ownerReferences contains duplicate entries after mutating admission happens" + AFTER


def owner(uid: str, **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "name": "a", "uid": uid, **more}


def test_equal_references_are_dropped_and_named() -> None:
    obj = {"metadata": {"ownerReferences": [owner("1"), owner("2"), owner("1"), owner("2"), owner("1")]}}
    assert drop_duplicate_owners(obj, patched=False) == [SENT + "1, 2, 1"]
    assert obj["metadata"]["ownerReferences"] == [owner("1"), owner("2")]


def test_references_that_differ_in_a_field_stay() -> None:
    given = [owner("1"), owner("1", controller=True)]
    obj = {"metadata": {"ownerReferences": list(given)}}
    assert drop_duplicate_owners(obj, patched=False) == []
    assert obj["metadata"]["ownerReferences"] == given


async def test_clients_are_warned(admin: Caller) -> None:
    twice = {"ownerReferences": [owner("1"), owner("1")]}
    service = {"metadata": {"name": "web", **twice}, "spec": {"ports": [{"port": 80}]}}
    answer = await admin.send("POST", SERVICES, service)
    assert (answer.status, list(answer.warnings)) == (201, [SENT + "1"])
    status, kept = await admin.call("GET", f"{SERVICES}/web")
    assert (status, kept["metadata"]["ownerReferences"]) == (200, [owner("1")])
    kept["metadata"] |= twice
    assert list((await admin.send("PUT", f"{SERVICES}/web", kept)).warnings) == [SENT + "1"]
    answer = await admin.send(
        "PATCH", f"{SERVICES}/web", {"metadata": twice}, {"Content-Type": "application/merge-patch+json"}
    )
    assert (answer.status, list(answer.warnings)) == (200, [PATCHED + "1"])
    assert (await admin.call("GET", f"{SERVICES}/web"))[1] == {
        **kept,
        "metadata": {**kept["metadata"], "ownerReferences": [owner("1")]},
    }


async def test_versions_of_owners(admin: Caller) -> None:
    for given in ("a/b/c", "b/"):
        meta = {"name": "a", "ownerReferences": [owner("1", apiVersion=given)]}
        _, answer = await admin.call("POST", SERVICES, {"metadata": meta, "spec": {"ports": [{"port": 1}]}})
        assert [(one["field"], one["message"]) for one in answer["details"]["causes"]] == [
            ("metadata.ownerReferences.apiVersion", f'Invalid value: "{given}": version must not be empty')
        ]


async def test_owners_must_be_told_whole(admin: Caller) -> None:
    meta = {"name": "a", "ownerReferences": [{}]}
    _, answer = await admin.call("POST", SERVICES, {"metadata": meta, "spec": {"ports": [{"port": 1}]}})
    assert [(one["field"], one["message"]) for one in answer["details"]["causes"]] == [
        ("metadata.ownerReferences.apiVersion", 'Invalid value: "": version must not be empty'),
        *(
            (f"metadata.ownerReferences.{key}", 'Invalid value: "": must not be empty')
            for key in ("kind", "name", "uid")
        ),
    ]
