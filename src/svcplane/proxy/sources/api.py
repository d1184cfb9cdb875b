"""Services, EndpointSlices, this Node and the ServiceCIDRs of an API server."""

from svcplane.api.core import Node, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.api.meta import ObjectMeta
from svcplane.api.networking import ServiceCIDR
from svcplane.api.resources import ENDPOINT_SLICES, NODES, SERVICE_CIDRS, SERVICES
from svcplane.client.api import ApiClient
from svcplane.client.informer import Informer
from svcplane.client.transport import Transport
from svcplane.proxy.tracker import HEADLESS_LABEL, PROXY_NAME_LABEL, SERVICE_NAME_LABEL, TRIGGER_TIME


def _service(service: Service) -> Service:
    """The tracker has what it needs of the rest."""
    return Service(metadata=_meta(service.metadata))


def _slice(slice_: EndpointSlice) -> EndpointSlice:
    """Where it belongs; the tracker has the endpoints."""
    return EndpointSlice(metadata=_meta(slice_.metadata), address_type=slice_.address_type)


def _meta(meta: ObjectMeta) -> ObjectMeta:
    return ObjectMeta(
        name=meta.name,
        namespace=meta.namespace,
        resource_version=meta.resource_version,
        labels={key: value for key, value in meta.labels.items() if key == SERVICE_NAME_LABEL},
        annotations={key: value for key, value in meta.annotations.items() if key == TRIGGER_TIME},
    )


class ApiSource:
    """Implements `proxy.sources.Source`.  The transport stays the caller's."""

    def __init__(self, transport: Transport, node_name: str) -> None:
        client = ApiClient(transport, "svcplane-proxy")
        labels = f"!{PROXY_NAME_LABEL}"
        self.services: Informer[Service] = Informer(client, SERVICES, Service, labels=labels, keep=_service)
        self.slices: Informer[EndpointSlice] = Informer(
            client, ENDPOINT_SLICES, EndpointSlice, labels=f"!{HEADLESS_LABEL},{labels}", keep=_slice
        )
        self.nodes: Informer[Node] = Informer(client, NODES, Node, fields=f"metadata.name={node_name}")
        self.cidrs: Informer[ServiceCIDR] = Informer(client, SERVICE_CIDRS, ServiceCIDR)

    def start(self) -> None:
        for informer in (self.services, self.slices, self.nodes, self.cidrs):
            informer.start()

    async def close(self) -> None:
        for informer in (self.services, self.slices, self.nodes, self.cidrs):
            await informer.close()
