"""The Strategy of each kind: one table."""

from svcplane.api import resources as r
from svcplane.api.resources import Resource
from svcplane.api.strategies.endpoints import EndpointSliceStrategy, EndpointsStrategy
from svcplane.api.strategies.networking import IPAddressStrategy, ServiceCIDRStrategy
from svcplane.api.strategies.node import NodeStrategy
from svcplane.api.strategies.pod import PodStrategy
from svcplane.api.strategies.service import ServiceStrategy
from svcplane.api.strategies.simple import EventStrategy, LeaseStrategy, NamespaceStrategy
from svcplane.api.strategy import Strategy

STRATEGIES: dict[Resource, Strategy] = {
    r.NAMESPACES: NamespaceStrategy(r.NAMESPACES),
    r.NODES: NodeStrategy(r.NODES),
    r.PODS: PodStrategy(r.PODS),
    r.SERVICES: ServiceStrategy(r.SERVICES),
    r.ENDPOINTS: EndpointsStrategy(r.ENDPOINTS),
    r.EVENTS: EventStrategy(r.EVENTS),
    r.ENDPOINT_SLICES: EndpointSliceStrategy(r.ENDPOINT_SLICES),
    r.LEASES: LeaseStrategy(r.LEASES),
    r.IP_ADDRESSES: IPAddressStrategy(r.IP_ADDRESSES),
    r.SERVICE_CIDRS: ServiceCIDRStrategy(r.SERVICE_CIDRS),
}
