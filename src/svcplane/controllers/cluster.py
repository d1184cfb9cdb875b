"""What the controllers watch, each collection once for all of them."""

from typing import Any

from svcplane.api.core import Endpoints, Namespace, Node, Pod, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.api.networking import IPAddress, ServiceCIDR
from svcplane.api.resources import (
    ENDPOINT_SLICES,
    ENDPOINTS,
    IP_ADDRESSES,
    NAMESPACES,
    NODES,
    PODS,
    SERVICE_CIDRS,
    SERVICES,
    Resource,
)
from svcplane.api.status import StatusError
from svcplane.client.api import ApiClient
from svcplane.client.informer import Informer
from svcplane.client.transport import Transport
from svcplane.controllers.view import SelectorIndex


class Cluster:
    """Informers and the calls all controllers make.  Handlers see an index that knows the change already."""

    def __init__(self, transport: Transport) -> None:
        #: Whether ServiceCIDRs and IPAddresses are followed too; older clusters do not have them.
        self.follow_addresses = False
        #: Whether everything has been listed once.
        self.listed = False
        self.client = ApiClient(transport, "svcplane-controllers")
        self.services: Informer[Service] = Informer(self.client, SERVICES, Service)
        self.pods: Informer[Pod] = Informer(self.client, PODS, Pod)
        self.nodes: Informer[Node] = Informer(self.client, NODES, Node)
        self.slices: Informer[EndpointSlice] = Informer(self.client, ENDPOINT_SLICES, EndpointSlice)
        self.endpoints: Informer[Endpoints] = Informer(self.client, ENDPOINTS, Endpoints)
        self.namespaces: Informer[Namespace] = Informer(self.client, NAMESPACES, Namespace)
        self.service_cidrs: Informer[ServiceCIDR] = Informer(self.client, SERVICE_CIDRS, ServiceCIDR)
        self.ip_addresses: Informer[IPAddress] = Informer(self.client, IP_ADDRESSES, IPAddress)
        self.index = SelectorIndex()
        self.services.on_change(self.index.service_changed)
        self.pods.on_change(self.index.pod_changed)

    @property
    def _informers(self) -> tuple[Informer[Any], ...]:
        everyone = (self.services, self.pods, self.nodes, self.slices, self.endpoints, self.namespaces)
        return (*everyone, self.service_cidrs, self.ip_addresses) if self.follow_addresses else everyone

    async def start(self) -> None:
        """Returns when everything has been listed."""
        for informer in self._informers:
            informer.start()
        for informer in self._informers:
            await informer.synced.wait()
        self.listed = True

    async def close(self) -> None:
        for informer in self._informers:
            await informer.close()

    async def delete(self, resource: Resource, namespace: str, name: str) -> None:
        """One that is gone already is as wanted."""
        try:
            await self.client.delete(resource, namespace, name)
        except StatusError as error:
            if error.code != 404:
                raise
