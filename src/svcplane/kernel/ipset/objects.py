"""ipset in plain values.  Source: include/uapi/linux/netfilter/ipset/ip_set.h; ipset(8)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Protocol

from svcplane.base.errors import KernelError
from svcplane.base.net import Family, join_host_port

IP, IP_PORT, IP_PORT_IP, IP_PORT_NET = "hash:ip", "hash:ip,port", "hash:ip,port,ip", "hash:ip,port,net"


@dataclass(frozen=True, slots=True)
class Set:
    """`max_entries` is a bound, not a size: the hash grows as it fills."""

    name: str
    type: str
    family: Family
    max_entries: int = 1 << 22


@dataclass(frozen=True, slots=True, order=True)
class Entry:
    """Of any of the types above; what a type does not have stays empty.  `other` is an address or a CIDR."""

    ip: str
    protocol: str = ""
    port: int = 0
    other: str = ""

    def __str__(self) -> str:
        if not self.protocol:
            return self.ip
        text = f"{self.protocol} {join_host_port(self.ip, self.port)}"
        return f"{text} from {self.other}" if self.other else text


@dataclass(frozen=True, slots=True)
class Size:
    """How many entries a set has, and how many rules refer to it."""

    entries: int
    references: int


class IpsetError(KernelError):
    """The kernel refused; the text names the set and the reason."""


class Ipset(Protocol):
    """One network namespace's sets."""

    async def available(self) -> bool: ...

    async def read(self, names: Iterable[str]) -> Mapping[str, tuple[Set, frozenset[Entry]]]:
        """Those of `names` that exist, of the four types; others with an empty `type`."""

    async def sizes(self, names: Iterable[str]) -> Mapping[str, Size]:
        """Of those of `names` that exist; the cost does not depend on the entries."""

    async def create(self, set_: Set) -> None:
        """Raises IpsetError where one of that name exists."""

    async def add(self, set_: Set, entries: Iterable[Entry]) -> None:
        """Entries that are there already are no error; a full set is."""

    async def delete(self, set_: Set, entries: Iterable[Entry]) -> None:
        """Entries that are not there are no error."""

    async def destroy(self, name: str) -> None:
        """A set that does not exist is no error; one a rule refers to is."""

    async def close(self) -> None: ...
