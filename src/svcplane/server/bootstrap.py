"""What every cluster begins with: the system namespaces, the default ServiceCIDR, the Service `kubernetes`."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec

from svcplane.api import codec
from svcplane.api.http import IN_PROCESS_USER, Request, Response
from svcplane.api.resources import ENDPOINT_SLICES, ENDPOINTS, NAMESPACES, SERVICE_CIDRS, SERVICES, Resource
from svcplane.base.errors import StoreError

SYSTEM_NAMESPACES = ("default", "kube-system", "kube-public", "kube-node-lease")
Handle = Callable[[Request], Awaitable[Response]]


class Bootstrap:
    """Creates what is missing; safe to run at each start and by several servers at once."""

    def __init__(self, handle: Handle) -> None:
        self._handle = handle

    async def _call(
        self, method: str, path: str, body: dict[str, Any] | None = None, media: str = "application/json"
    ) -> Response:
        headers = {"content-type": media, "user-agent": "kube-apiserver/svcplane"}
        data = b"" if body is None else codec.encode(body)
        response = await self._handle(Request(method, path, (), headers, data, IN_PROCESS_USER))
        if response.status >= 400 and response.status not in (404, 409, 422):
            raise StoreError(f"bootstrap: {method} {path} failed: {response.body.decode(errors='replace')}")
        return response

    async def _ensure(self, resource: Resource, namespace: str, body: dict[str, Any]) -> None:
        """Create what is absent; leave alone what is there."""
        name = body["metadata"]["name"]
        if (await self._call("GET", resource.path(namespace, name))).status == 404:
            head = {"apiVersion": resource.api_version, "kind": resource.kind}
            await self._call("POST", resource.path(namespace), {**head, **body})

    async def run(self, cidrs: list[str], service_ip: str, port: int) -> None:
        """Once at the start."""
        await self._namespaces()
        await self._ensure(SERVICE_CIDRS, "", {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}})
        ready = {"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready"}
        await self._call(
            "PATCH",
            SERVICE_CIDRS.path("", "kubernetes", "status"),
            {"status": {"conditions": [{**ready, "lastTransitionTime": "1970-01-01T00:00:00Z"}]}},
            "application/merge-patch+json",
        )
        await self._kubernetes_service(service_ip, port)

    async def keep(self, service_ip: str, addresses: Sequence[str], port: int) -> None:
        """Again and again: what somebody has deleted comes back, and `addresses` back the Service `kubernetes`."""
        await self._namespaces()
        await self._kubernetes_service(service_ip, port)
        await self._publish(addresses, port)

    async def _namespaces(self) -> None:
        for name in SYSTEM_NAMESPACES:
            await self._ensure(NAMESPACES, "", {"metadata": {"name": name}})

    async def _kubernetes_service(self, service_ip: str, port: int) -> None:
        labels = {"component": "apiserver", "provider": "kubernetes"}
        ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]
        spec = {"clusterIP": service_ip, "ports": ports, "type": "ClusterIP"}
        meta = {"name": "kubernetes", "labels": labels}
        await self._ensure(SERVICES, "default", {"metadata": meta, "spec": spec})

    async def _publish(self, addresses: Sequence[str], port: int) -> None:
        """`addresses` are all of one family."""
        target = [{"name": "https", "port": port, "protocol": "TCP"}]
        subsets = [{"addresses": [{"ip": address} for address in addresses], "ports": target}]
        skip = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        await self._replace(ENDPOINTS, {"metadata": {"name": "kubernetes", "labels": skip}, "subsets": subsets})
        slice_ = {
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv6" if ":" in addresses[0] else "IPv4",
            "endpoints": [{"addresses": [address], "conditions": {"ready": True}} for address in addresses],
            "ports": target,
        }
        await self._replace(ENDPOINT_SLICES, slice_)

    async def _replace(self, resource: Resource, body: dict[str, Any]) -> None:
        path = resource.path("default", "kubernetes")
        found = await self._call("GET", path)
        if found.status == 200 and holds(msgspec.json.decode(found.body), body):
            return
        whole = {"apiVersion": resource.api_version, "kind": resource.kind, **body}
        if (await self._call("PUT", path, whole)).status in (404, 422):
            await self._call("POST", resource.path("default"), whole)


def holds(found: Any, wanted: Any) -> bool:
    """Whether all that is wanted is there; defaults and labels may have come to it."""
    if isinstance(wanted, dict):
        return isinstance(found, dict) and all(key in found and holds(found[key], wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return (
            isinstance(found, list)
            and len(found) == len(wanted)
            and all(holds(one, other) for one, other in zip(found, wanted, strict=True))
        )
    return bool(found == wanted)
