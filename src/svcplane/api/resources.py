"""THE table of resources: kind -> group, version, path, scope, names.

One row serves routing, storage keys, discovery, the client and the command line.  Pure.
"""

from dataclasses import dataclass

STANDARD_VERBS = ("create", "delete", "deletecollection", "get", "list", "patch", "update", "watch")


@dataclass(frozen=True, slots=True)
class Resource:
    """A row.  `group` is empty for core."""

    group: str
    version: str
    kind: str
    plural: str
    singular: str
    namespaced: bool
    short_names: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()
    subresources: tuple[str, ...] = ()
    verbs: tuple[str, ...] = STANDARD_VERBS

    @property
    def api_version(self) -> str:
        return f"{self.group}/{self.version}" if self.group else self.version

    @property
    def list_kind(self) -> str:
        return f"{self.kind}List"

    @property
    def package(self) -> str:
        """What upstream's own types of the group are called: `core`, `discovery`."""
        return self.group.partition(".")[0] or "core"

    @property
    def prefix(self) -> str:
        """URL prefix: `/api/v1`, `/apis/discovery.k8s.io/v1`."""
        return f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"

    def path(self, namespace: str = "", name: str = "", subresource: str = "") -> str:
        """The URL path of a collection, an object or its subresource; no namespace: all namespaces."""
        parts = [self.prefix]
        if self.namespaced and namespace:
            parts += ["namespaces", namespace]
        parts += [part for part in (self.plural, name, subresource) if part]
        return "/".join(parts)

    def key_prefix(self, namespace: str = "") -> str:
        """Storage key prefix, ends in a slash.  `/registry/services/default/`."""
        group = f"{self.group}/" if self.group else ""
        return f"/registry/{group}{self.plural}/" + (f"{namespace}/" if self.namespaced and namespace else "")

    def key(self, namespace: str, name: str) -> str:
        """Storage key of an object."""
        return self.key_prefix(namespace) + name


NAMESPACES = Resource(
    "",
    "v1",
    "Namespace",
    "namespaces",
    "namespace",
    False,
    ("ns",),
    (),
    ("finalize", "status"),
    ("create", "delete", "get", "list", "patch", "update", "watch"),
)
NODES = Resource("", "v1", "Node", "nodes", "node", False, ("no",), (), ("status",))
PODS = Resource("", "v1", "Pod", "pods", "pod", True, ("po",), ("all",), ("binding", "log", "status"))
SERVICES = Resource("", "v1", "Service", "services", "service", True, ("svc",), ("all",), ("status",))
ENDPOINTS = Resource("", "v1", "Endpoints", "endpoints", "endpoints", True, ("ep",))
EVENTS = Resource("", "v1", "Event", "events", "event", True, ("ev",))
ENDPOINT_SLICES = Resource("discovery.k8s.io", "v1", "EndpointSlice", "endpointslices", "endpointslice", True)
LEASES = Resource("coordination.k8s.io", "v1", "Lease", "leases", "lease", True)
IP_ADDRESSES = Resource("networking.k8s.io", "v1", "IPAddress", "ipaddresses", "ipaddress", False, ("ip",))
SERVICE_CIDRS = Resource(
    "networking.k8s.io", "v1", "ServiceCIDR", "servicecidrs", "servicecidr", False, (), (), ("status",)
)

#: What a Pod's subresource `binding` takes.
BINDINGS = Resource("", "v1", "Binding", "bindings", "binding", True, verbs=("create",))

RESOURCES: tuple[Resource, ...] = (
    NAMESPACES,
    NODES,
    PODS,
    SERVICES,
    ENDPOINTS,
    EVENTS,
    ENDPOINT_SLICES,
    LEASES,
    IP_ADDRESSES,
    SERVICE_CIDRS,
)

#: Kinds whose owners and dependents are followed, with the finalizers that hold an owner back for them.
COLLECTED: tuple[Resource, ...] = (SERVICES, PODS, NODES, ENDPOINTS, ENDPOINT_SLICES)
FOREGROUND, ORPHAN = "foregroundDeletion", "orphan"

_ACCESS, _WHO = "authorization.k8s.io", "authentication.k8s.io"
#: Kinds that are answered and not stored.
REVIEWS: tuple[Resource, ...] = tuple(
    Resource(group, "v1", kind, f"{kind.lower()}s", kind.lower(), namespaced, verbs=("create",))
    for group, kind, namespaced in (
        (_WHO, "SelfSubjectReview", False),
        (_WHO, "TokenReview", False),
        (_ACCESS, "LocalSubjectAccessReview", True),
        (_ACCESS, "SelfSubjectAccessReview", False),
        (_ACCESS, "SelfSubjectRulesReview", False),
        (_ACCESS, "SubjectAccessReview", False),
    )
)

BY_KIND: dict[tuple[str, str], Resource] = {(row.api_version, row.kind): row for row in RESOURCES}
BY_PLURAL: dict[tuple[str, str], Resource] = {(row.group, row.plural): row for row in RESOURCES}
