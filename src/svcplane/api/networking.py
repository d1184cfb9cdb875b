"""`networking.k8s.io/v1` objects (ServiceCIDR, IPAddress) as consumers see them; see `api.meta`."""

import msgspec

from svcplane.api.meta import Object, Wire


class ParentReference(Wire):
    group: str = ""
    resource: str = ""
    namespace: str = ""
    name: str = ""


class IPAddressSpec(Wire):
    parent_ref: ParentReference | None = None


class IPAddress(Object):
    spec: IPAddressSpec = msgspec.field(default_factory=IPAddressSpec)


class ServiceCIDRSpec(Wire):
    cidrs: list[str] = []


class Condition(Wire):
    type: str = ""
    status: str = ""
    reason: str = ""
    message: str = ""


class ServiceCIDRStatus(Wire):
    conditions: list[Condition] = []


class ServiceCIDR(Object):
    spec: ServiceCIDRSpec = msgspec.field(default_factory=ServiceCIDRSpec)
    status: ServiceCIDRStatus = msgspec.field(default_factory=ServiceCIDRStatus)
