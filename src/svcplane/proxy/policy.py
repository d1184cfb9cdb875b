"""Service ports whose traffic policy is Local and whose endpoints are all elsewhere, kept current.  Pure.

Their traffic is dropped on this node, which people want to see.  Source: kube-proxy 1.36
sync_proxy_rules_no_local_endpoints_total.
"""

from collections.abc import Iterable

from svcplane.proxy.model import Endpoint, ProxyState, ServicePortName
from svcplane.proxy.topology import usable


class LocalGaps:
    """An update costs what was touched."""

    def __init__(self) -> None:
        self.internal: set[ServicePortName] = set()
        self.external: set[ServicePortName] = set()

    def update(self, state: ProxyState, touched: Iterable[ServicePortName] | None) -> None:
        """`touched` None: look at everything anew."""
        if touched is None:
            self.internal.clear()
            self.external.clear()
            touched = state.services
        for name in touched:
            port = state.services.get(name)
            internal = port is not None and port.internal_policy_local
            external = port is not None and port.external_policy_local and port.externally_reachable
            gap = (internal or external) and _are_elsewhere(state.endpoints.get(name, ()))
            _put(self.internal, name, gap and internal)
            _put(self.external, name, gap and external)


def _are_elsewhere(endpoints: tuple[Endpoint, ...]) -> bool:
    return bool(usable(endpoints)) and not usable(endpoint for endpoint in endpoints if endpoint.is_local)


def _put(names: set[ServicePortName], name: ServicePortName, wanted: bool) -> None:
    if wanted:
        names.add(name)
    else:
        names.discard(name)
