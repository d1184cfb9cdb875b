"""A Pod's place in the network: a namespace, joined to the node by a routed point-to-point veth.  Pure.

    node namespace                        Pod namespace
    svcXXXXXXXXXXXX                       eth0
      address GATEWAY/32  ------------      address POD/32
      route POD/32                          route GATEWAY/32, default via GATEWAY

There is no bridge: two Pods of a node reach each other through the node's routing, where a proxy sees them.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from svcplane.base.net import Family, family_of
from svcplane.kernel.links.objects import (
    DEFAULT,
    Address,
    NetworkSpace,
    Observed,
    Operation,
    Route,
    Veth,
    link_name,
)
from svcplane.kernel.links.plan import plan
from svcplane.node.addresses import gateway

LINK_PREFIX = "svc"
MARK = "svcplane pod "
DEVICE = "eth0"


@dataclass(frozen=True, slots=True)
class PodNetwork:
    """What is made for one Pod.  `cidrs` are the node's Pod CIDRs, `ips` the Pod's addresses, in the same order."""

    namespace: str
    link: str
    mark: str
    ips: tuple[str, ...]
    cidrs: tuple[str, ...]

    def spaces(self) -> tuple[NetworkSpace, NetworkSpace]:
        """The node's side (the agent's own namespace) and the Pod's."""
        pairs = [(ip, gateway(cidr)) for ip, cidr in zip(self.ips, self.cidrs, strict=True)]
        node = NetworkSpace(
            "",
            links=(Veth(self.link, DEVICE, self.namespace, self.mark),),
            addresses=tuple(Address(self.link, _host(gate)) for _, gate in pairs),
            routes=tuple(Route.to(_host(ip), self.link) for ip, _ in pairs),
        )
        pod = NetworkSpace(
            self.namespace,
            up=(DEVICE,),
            addresses=tuple(Address(DEVICE, _host(ip)) for ip, _ in pairs),
            routes=tuple(
                route
                for _, gate in pairs
                for route in (Route.to(_host(gate), DEVICE), Route.to(DEFAULT, DEVICE, via=gate))
            ),
        )
        return node, pod

    def creation(self) -> Sequence[Operation]:
        return plan(self.spaces(), {"": Observed(), self.namespace: None})


def _host(ip: str) -> str:
    return f"{ip}/{32 if family_of(ip) is Family.IPV4 else 128}"


def pod_network(
    prefix: str, uid: str, namespace: str, name: str, ips: Sequence[str], cidrs: Sequence[str]
) -> PodNetwork:
    """Names for a Pod: its namespace is `PREFIX NAME-UID8`, so that a person finds it."""
    readable = re.sub(r"[^a-z0-9-]", "-", name)[:80]
    mark = f"{MARK}{namespace}/{name} {uid}"[:200]
    return PodNetwork(f"{prefix}{readable}-{uid[:8]}", link_name(LINK_PREFIX, uid), mark, tuple(ips), tuple(cidrs))


def node_sysctls(cidrs: Sequence[str]) -> dict[str, str]:
    """What a node that routes for Pods needs."""
    families = {family_of(cidr) for cidr in cidrs}
    wanted = {"ipv4/ip_forward": "1"} if Family.IPV4 in families else {}
    return wanted | ({"ipv6/conf/all/forwarding": "1"} if Family.IPV6 in families else {})
