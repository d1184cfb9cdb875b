"""What every cluster begins with: the system namespaces, the default ServiceCIDR, the Service `kubernetes`."""

from collections.abc import Awaitable, Callable
from typing import Any

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

    async def _send(self, method: str, path: str, body: dict[str, Any], media: str = "application/json") -> int:
        headers = {"content-type": media, "user-agent": "kube-apiserver/svcplane"}
        response = await self._handle(Request(method, path, (), headers, codec.encode(body), IN_PROCESS_USER))
        if response.status >= 400 and response.status not in (404, 409, 422):
            raise StoreError(f"bootstrap: {method} {path} failed: {response.body.decode(errors='replace')}")
        return response.status

    async def _ensure(self, resource: Resource, namespace: str, body: dict[str, Any]) -> None:
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        await self._send("POST", resource.path(namespace), {**head, **body})

    async def run(self, cidrs: list[str], service_ip: str, advertise: str, port: int) -> None:
        for name in SYSTEM_NAMESPACES:
            await self._ensure(NAMESPACES, "", {"metadata": {"name": name}})
        await self._ensure(SERVICE_CIDRS, "", {"metadata": {"name": "kubernetes"}, "spec": {"cidrs": cidrs}})
        ready = {"type": "Ready", "status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready"}
        await self._send(
            "PATCH",
            SERVICE_CIDRS.path("", "kubernetes", "status"),
            {"status": {"conditions": [{**ready, "lastTransitionTime": "1970-01-01T00:00:00Z"}]}},
            "application/merge-patch+json",
        )
        await self._kubernetes_service(service_ip, advertise, port)

    async def _kubernetes_service(self, service_ip: str, advertise: str, port: int) -> None:
        labels = {"component": "apiserver", "provider": "kubernetes"}
        ports = [{"name": "https", "port": 443, "protocol": "TCP", "targetPort": port}]
        spec = {"clusterIP": service_ip, "ports": ports, "type": "ClusterIP"}
        meta = {"name": "kubernetes", "labels": labels}
        await self._ensure(SERVICES, "default", {"metadata": meta, "spec": spec})
        target = [{"name": "https", "port": port, "protocol": "TCP"}]
        subsets = [{"addresses": [{"ip": advertise}], "ports": target}]
        skip = {"endpointslice.kubernetes.io/skip-mirror": "true"}
        await self._replace(ENDPOINTS, {"metadata": {"name": "kubernetes", "labels": skip}, "subsets": subsets})
        slice_ = {
            "metadata": {"name": "kubernetes", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv6" if ":" in advertise else "IPv4",
            "endpoints": [{"addresses": [advertise], "conditions": {"ready": True}}],
            "ports": target,
        }
        await self._replace(ENDPOINT_SLICES, slice_)

    async def _replace(self, resource: Resource, body: dict[str, Any]) -> None:
        head = {"apiVersion": resource.api_version, "kind": resource.kind}
        path = resource.path("default", "kubernetes")
        if await self._send("PUT", path, {**head, **body}) in (404, 422):
            await self._send("POST", resource.path("default"), {**head, **body})
