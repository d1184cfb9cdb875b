"""What becomes of what an owner owns."""

from typing import Any

import pytest

from svcplane.testing.server import Caller
from svcplane.testing.waiting import until

SERVICES = "/api/v1/namespaces/default/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"


async def owned(cluster: Caller, *, block: bool = True) -> dict[str, Any]:
    """A Service without a selector, and a slice that somebody made for it."""
    body = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    _, service = await cluster.call("POST", SERVICES, body)
    owner = {"apiVersion": "v1", "kind": "Service", "name": "web", "uid": service["metadata"]["uid"]}
    meta = {"name": "mine", "ownerReferences": [{**owner, "blockOwnerDeletion": block}]}
    slice_ = {"metadata": meta, "addressType": "IPv4", "endpoints": [], "ports": []}
    assert (await cluster.call("POST", SLICES, slice_))[0] == 201
    return dict(service)


async def gone(cluster: Caller, path: str) -> None:
    async def absent() -> bool:
        return (await cluster.call("GET", path))[0] == 404

    await until(absent)


@pytest.mark.parametrize("policy", ["Background", "Foreground", None])
async def test_what_is_owned_goes_with_its_owner(cluster: Caller, policy: str | None) -> None:
    await owned(cluster)
    query = f"?propagationPolicy={policy}" if policy else ""
    assert (await cluster.call("DELETE", f"{SERVICES}/web{query}"))[0] == 200
    await gone(cluster, f"{SERVICES}/web")
    await gone(cluster, f"{SLICES}/mine")


async def test_foreground_waits_for_what_blocks_the_owner(cluster: Caller) -> None:
    await owned(cluster)
    merge = {"Content-Type": "application/merge-patch+json"}
    held = {"metadata": {"finalizers": ["example.com/hold"]}}
    await cluster.call("PATCH", f"{SLICES}/mine", held, merge)
    _, deleted = await cluster.call("DELETE", f"{SERVICES}/web?propagationPolicy=Foreground")
    assert deleted["metadata"]["finalizers"] == ["foregroundDeletion"]

    async def slice_is_going() -> bool:
        return "deletionTimestamp" in (await cluster.call("GET", f"{SLICES}/mine"))[1]["metadata"]

    await until(slice_is_going)
    assert (await cluster.call("GET", f"{SERVICES}/web"))[0] == 200
    await cluster.call("PATCH", f"{SLICES}/mine", {"metadata": {"finalizers": None}}, merge)
    await gone(cluster, f"{SERVICES}/web")


async def test_orphans_stay_without_their_reference(cluster: Caller) -> None:
    await owned(cluster)
    body = {"kind": "DeleteOptions", "apiVersion": "v1", "propagationPolicy": "Orphan"}
    await cluster.call("DELETE", f"{SERVICES}/web", body)
    await gone(cluster, f"{SERVICES}/web")
    _, slice_ = await cluster.call("GET", f"{SLICES}/mine")
    assert "ownerReferences" not in slice_["metadata"]


async def test_with_another_owner_it_stays(cluster: Caller) -> None:
    await owned(cluster)
    _, slice_ = await cluster.call("GET", f"{SLICES}/mine")
    other = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d", "uid": "somebody"}
    slice_["metadata"]["ownerReferences"].append(other)
    assert (await cluster.call("PUT", f"{SLICES}/mine", slice_))[0] == 200
    await cluster.call("DELETE", f"{SERVICES}/web")

    async def only_the_other() -> bool:
        _, found = await cluster.call("GET", f"{SLICES}/mine")
        return [owner["uid"] for owner in found["metadata"].get("ownerReferences", [])] == ["somebody"]

    await until(only_the_other)
