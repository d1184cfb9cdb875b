"""`discovery.k8s.io/v1` objects as consumers see them; see `api.meta` for the rules."""

import msgspec

from svcplane.api.meta import Object, ObjectReference, Wire

#: Labels of slices: whose endpoints they list, and who writes them.
SERVICE_NAME = "kubernetes.io/service-name"
MANAGED_BY = "endpointslice.kubernetes.io/managed-by"


class EndpointConditions(Wire):
    """None means unknown, which readers take as true for ready and serving, false for terminating."""

    ready: bool | None = None
    serving: bool | None = None
    terminating: bool | None = None


class ForZone(Wire):
    name: str = ""


class ForNode(Wire):
    name: str = ""


class EndpointHints(Wire):
    for_zones: list[ForZone] = []
    for_nodes: list[ForNode] = []


class Endpoint(Wire):
    addresses: list[str] = []
    conditions: EndpointConditions = msgspec.field(default_factory=EndpointConditions)
    hostname: str | None = None
    target_ref: ObjectReference | None = None
    deprecated_topology: dict[str, str] = {}
    node_name: str | None = None
    zone: str | None = None
    hints: EndpointHints | None = None


class EndpointPort(Wire):
    name: str | None = None
    protocol: str | None = None
    port: int | None = None
    app_protocol: str | None = None


class EndpointSlice(Object):
    address_type: str = "IPv4"
    endpoints: list[Endpoint] | None = None
    ports: list[EndpointPort] | None = None
