"""A cluster's objects as values, as the user who asks may read them."""

import asyncio
import time
from typing import Any

from svcplane.api.resources import ENDPOINT_SLICES, EVENTS, LEASES, NODES, PODS, SERVICE_CIDRS, SERVICES, Resource
from svcplane.api.status import StatusError
from svcplane.client.api import ApiClient
from svcplane.client.transport import Transport
from svcplane.dashboard.tracing import Cluster
from svcplane.proxy.programmed import LEASE_NAMESPACE
from svcplane.understand.view import ClusterView, from_trees

Tree = dict[str, Any]


async def read_story(transport: Transport, namespace: str) -> ClusterView:
    """What the story of a Service of this namespace needs.

    Nodes, events and Leases (what proxies programmed) that the user may not read are left out.
    Raises StatusError, TransportError.
    """
    wanted = [(SERVICES, namespace, True), (ENDPOINT_SLICES, namespace, True), (PODS, namespace, True)]
    more = [(NODES, "", False), (EVENTS, namespace, False), (LEASES, LEASE_NAMESPACE, False)]
    groups = await _lists(transport, [*wanted, *more])
    return await _view(groups)


async def read_cluster(transport: Transport) -> Cluster:
    """What the nodes' proxies follow, Pods to know sources by, and Leases that tell the proxies' modes.

    Raises StatusError, TransportError.
    """
    wanted = [(SERVICES, "", True), (ENDPOINT_SLICES, "", True), (NODES, "", True), (PODS, "", False)]
    wanted.append((LEASES, LEASE_NAMESPACE, False))
    *groups, ranges = await _lists(transport, [*wanted, (SERVICE_CIDRS, "", False)])
    cidrs = tuple(cidr for tree in ranges for cidr in tree.get("spec", {}).get("cidrs", []))
    return Cluster(await _view(groups), cidrs)


async def _lists(transport: Transport, wanted: list[tuple[Resource, str, bool]]) -> list[list[Tree]]:
    client = ApiClient(transport, "svcplane-console")
    return list(await asyncio.gather(*(_list(client, *which) for which in wanted)))


async def _view(groups: list[list[Tree]]) -> ClusterView:
    trees = [tree for group in groups for tree in group]
    return await asyncio.to_thread(from_trees, trees, live=True, now_s=time.time())


async def _list(client: ApiClient, resource: Resource, namespace: str, needed: bool) -> list[Tree]:
    try:
        items = (await client.list(resource, namespace)).get("items") or []
    except StatusError as error:
        if needed or error.code not in (403, 404):
            raise
        return []
    return [{**item, "kind": resource.kind, "apiVersion": resource.api_version} for item in items]


async def node_names(transport: Transport) -> list[str]:
    """Raises StatusError, TransportError."""
    return sorted(
        item["metadata"]["name"] for item in await _list(ApiClient(transport, "svcplane-console"), NODES, "", True)
    )
