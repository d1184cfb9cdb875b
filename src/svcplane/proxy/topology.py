"""Which endpoints of a service port this node may use.  Pure.

Source: kube-proxy 1.36 CategorizeEndpoints; KEP-1669 (terminating endpoints), KEP-2433 (hints), KEP-3015
(PreferSameNode).
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from svcplane.proxy.model import Endpoint, NodeState, ServicePort


@dataclass(frozen=True, slots=True)
class EndpointChoice:
    """`cluster`: for policy Cluster; `local`: for policy Local; each empty where the service port does not use it.

    `has_any`: some endpoint could be used from somewhere, so that a lack of endpoints here is a drop (policy
    Local) and not a reject.
    """

    cluster: tuple[Endpoint, ...]
    local: tuple[Endpoint, ...]
    reachable: tuple[Endpoint, ...]

    @property
    def has_any(self) -> bool:
        return bool(self.reachable)


NOTHING = EndpointChoice((), (), ())


def usable(endpoints: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    """The ready ones; where none is ready, those that terminate but still serve."""
    found = tuple(endpoints)
    ready = tuple(endpoint for endpoint in found if endpoint.ready)
    return ready or tuple(endpoint for endpoint in found if endpoint.serving and endpoint.terminating)


def categorize(port: ServicePort, endpoints: tuple[Endpoint, ...], node: NodeState) -> EndpointChoice:
    """Split a service port's endpoints by what each traffic policy may use on this node."""
    if not endpoints:
        return NOTHING
    cluster: tuple[Endpoint, ...] = ()
    if port.uses_cluster_endpoints:
        ready = tuple(endpoint for endpoint in endpoints if endpoint.ready)
        cluster = by_hints(ready, node) if ready else usable(endpoints)
    if not port.uses_local_endpoints:
        return EndpointChoice(cluster, (), cluster)
    local = usable(endpoint for endpoint in endpoints if endpoint.is_local)
    if cluster:
        reachable = cluster + tuple(endpoint for endpoint in local if endpoint not in cluster)
    elif local:
        reachable = local
    else:
        # only policy Local counts: endpoints elsewhere make it a drop instead of a reject
        reachable = usable(endpoints)
    return EndpointChoice(cluster, local, reachable)


def by_hints(ready: tuple[Endpoint, ...], node: NodeState) -> tuple[Endpoint, ...]:
    """The ready endpoints hinted for this node, else for this zone, else all.

    Hints count only where every ready endpoint has one and at least one names this node (or zone).
    """
    for name, hints in ((node.name, _node_hints), (node.zone, _zone_hints)):
        if name and all(hints(endpoint) for endpoint in ready):
            chosen = tuple(endpoint for endpoint in ready if name in hints(endpoint))
            if chosen:
                return chosen
    return ready


_node_hints: Callable[[Endpoint], tuple[str, ...]] = lambda endpoint: endpoint.node_hints  # noqa: E731
_zone_hints: Callable[[Endpoint], tuple[str, ...]] = lambda endpoint: endpoint.zone_hints  # noqa: E731
