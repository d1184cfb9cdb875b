"""A namespace that is being deleted is emptied, says what it waits for, and goes."""

from typing import Any

from svcplane.controllers.namespaces import conditions
from svcplane.testing.server import Caller
from svcplane.testing.waiting import until

TEAM = "/api/v1/namespaces/team"
MERGE = {"Content-Type": "application/merge-patch+json"}
Tree = dict[str, Any]


def by_type(found: list[Tree]) -> dict[str, tuple[str, str, str]]:
    return {one["type"]: (one["status"], one["reason"], one["message"]) for one in found}


def test_conditions_keep_since_when_they_are_so() -> None:
    first = conditions([], {"pods.": 2, "leases.coordination.k8s.io": 1}, {"example.org/x": 1}, "t1")
    assert {one["lastTransitionTime"] for one in first} == {"t1"}
    told = by_type(first)
    assert told["NamespaceContentRemaining"] == (
        "True",
        "SomeResourcesRemain",
        "Some resources are remaining: leases.coordination.k8s.io has 1 resource instances, "
        "pods. has 2 resource instances",
    )
    assert told["NamespaceFinalizersRemaining"][2].endswith("remaining: example.org/x in 1 resource instances")
    second = conditions([{"type": "Mine", "status": "True"}, *first], {"pods.": 1}, {}, "t2")
    times = {one["type"]: one.get("lastTransitionTime") for one in second}
    assert times["NamespaceContentRemaining"] == "t1"
    assert times["NamespaceFinalizersRemaining"] == "t2"
    assert times["Mine"] is None
    assert conditions(second, {"pods.": 1}, {}, "t3") == second


async def made(api: Caller, path: str, body: Tree) -> None:
    assert (await api.call("POST", path, body))[0] == 201


async def test_what_holds_a_namespace_is_told_and_then_it_goes(cluster: Caller) -> None:
    await made(cluster, "/api/v1/namespaces", {"metadata": {"name": "team"}})
    spec = {"ports": [{"port": 80}]}
    await made(cluster, f"{TEAM}/services", {"metadata": {"name": "web"}, "spec": spec})
    held = {"metadata": {"name": "held", "finalizers": ["example.org/x"]}, "spec": spec}
    await made(cluster, f"{TEAM}/services", held)
    await made(cluster, "/apis/coordination.k8s.io/v1/namespaces/team/leases", {"metadata": {"name": "l"}, "spec": {}})
    assert (await cluster.call("DELETE", TEAM))[1]["status"]["phase"] == "Terminating"

    async def told() -> bool:
        _, found = await cluster.call("GET", TEAM)
        text = "Some resources are remaining: services. has 1 resource instances"
        return ("True", "SomeResourcesRemain", text) in by_type(found["status"].get("conditions", [])).values()

    await until(told)
    await cluster.call("PATCH", f"{TEAM}/services/held", {"metadata": {"finalizers": None}}, MERGE)

    async def gone() -> bool:
        return (await cluster.call("GET", TEAM))[0] == 404

    await until(gone)


async def test_pods_end_before_what_they_use_is_taken_away(cluster: Caller) -> None:
    await made(cluster, "/api/v1/namespaces", {"metadata": {"name": "team"}})
    await made(cluster, f"{TEAM}/services", {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})
    containers = [{"name": "c", "image": "i"}]
    pod = {"metadata": {"name": "p", "finalizers": ["example.org/x"]}, "spec": {"containers": containers}}
    await made(cluster, f"{TEAM}/pods", pod)
    await cluster.call("DELETE", TEAM)

    async def told() -> bool:
        _, found = await cluster.call("GET", TEAM)
        return "pods. has 1 resource" in str(found["status"].get("conditions"))

    await until(told)
    assert (await cluster.call("GET", f"{TEAM}/services/web"))[0] == 200
    await cluster.call("PATCH", f"{TEAM}/pods/p", {"metadata": {"finalizers": None}}, MERGE)

    async def gone() -> bool:
        return (await cluster.call("GET", TEAM))[0] == 404

    await until(gone)
