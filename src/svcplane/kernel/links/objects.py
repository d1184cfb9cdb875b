"""Typed network objects and the operations on them.  Pure values.

Addresses and destinations are canonical (`base.net`); a host address is written with its length
(`10.0.0.1/32`).  Names of links are at most 15 characters (IFNAMSIZ - 1).
"""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from svcplane.base.net import Family, family_of

LINK_NAME_MAX = 15
DEFAULT = "default"


@dataclass(frozen=True, slots=True)
class Veth:
    """One end here, `peer` in the namespace `peer_namespace`.  `mark` becomes the alias and says whose it is."""

    name: str
    peer: str
    peer_namespace: str
    mark: str
    master: str = ""
    mac: str = ""
    peer_mac: str = ""


@dataclass(frozen=True, slots=True)
class Bridge:
    """A bridge without spanning tree."""

    name: str
    mark: str


Link = Veth | Bridge


@dataclass(frozen=True, slots=True, order=True)
class Address:
    device: str
    cidr: str


@dataclass(frozen=True, slots=True, order=True)
class Route:
    """`destination` is a canonical CIDR or `default`; `via` a next hop, reached on `device`."""

    destination: str
    device: str
    via: str = ""
    source: str = ""
    family: Family = Family.IPV4

    @staticmethod
    def to(destination: str, device: str, via: str = "", source: str = "") -> "Route":
        """A route whose family follows from its addresses."""
        told = destination if destination != DEFAULT else via
        return Route(destination, device, via, source, family_of(told))


@dataclass(frozen=True, slots=True)
class NetworkSpace:
    """What one namespace should hold.  Links named in `up` (made elsewhere, like a veth's far end) are set up."""

    name: str
    links: tuple[Link, ...] = ()
    up: tuple[str, ...] = ()
    addresses: tuple[Address, ...] = ()
    routes: tuple[Route, ...] = ()
    sysctls: Mapping[str, str] = field(default_factory=dict)  # below /proc/sys/net, e.g. ipv4/ip_forward


@dataclass(frozen=True, slots=True)
class LinkState:
    name: str
    up: bool = False
    alias: str = ""
    master: str = ""


@dataclass(frozen=True, slots=True)
class Observed:
    """What one existing namespace holds.  `sysctls`: those asked for."""

    links: Mapping[str, LinkState] = field(default_factory=dict)
    addresses: frozenset[Address] = frozenset()
    routes: frozenset[Route] = frozenset()
    sysctls: Mapping[str, str] = field(default_factory=dict)


# -- operations ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class AddNamespace:
    namespace: str


@dataclass(frozen=True, slots=True)
class DeleteNamespace:
    namespace: str


@dataclass(frozen=True, slots=True)
class AddLink:
    namespace: str
    link: Link


@dataclass(frozen=True, slots=True)
class DeleteLink:
    namespace: str
    name: str


@dataclass(frozen=True, slots=True)
class SetUp:
    namespace: str
    device: str


@dataclass(frozen=True, slots=True)
class AddAddress:
    namespace: str
    address: Address


@dataclass(frozen=True, slots=True)
class ReplaceRoute:
    namespace: str
    route: Route


@dataclass(frozen=True, slots=True)
class SetSysctl:
    namespace: str
    key: str
    value: str


Operation = AddNamespace | DeleteNamespace | AddLink | DeleteLink | SetUp | AddAddress | ReplaceRoute | SetSysctl


class Links(Protocol):
    """The contract of the fake and of the real kernel.  Calls block for milliseconds: use a thread from a loop."""

    def namespaces(self, prefix: str) -> Sequence[str]:
        """Names of existing namespaces that begin with `prefix`, sorted."""

    def observe(self, namespace: str, sysctls: Iterable[str] = ()) -> Observed | None:
        """What a namespace holds; None if there is none of that name.  Sysctls that do not exist are left out."""

    def apply(self, operations: Sequence[Operation]) -> None:
        """Do them in order.  Raises KernelError at the first that fails; those before it stay done.

        A sysctl that this kernel lacks is passed over.
        """


def link_name(prefix: str, identity: str) -> str:
    """A link name made of `prefix` and a hash of `identity`, as long as the kernel allows."""
    return prefix + hashlib.sha256(identity.encode()).hexdigest()[: LINK_NAME_MAX - len(prefix)]
