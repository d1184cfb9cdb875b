"""IPVS in plain values.  Source: include/uapi/linux/ip_vs.h; ipvsadm(8) for what a scheduler promises."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from svcplane.base.errors import KernelError
from svcplane.base.net import Family, family_of, join_host_port

SCHEDULERS = ("rr", "wrr", "lc", "wlc", "lblc", "lblcr", "sh", "dh", "sed", "nq", "mh", "fo", "ovf")
PERSISTENT, ONE_PACKET, FALLBACK, BY_PORT = 0x1, 0x4, 0x8, 0x10  # service flags; the last two of `sh` and `mh`
SETTABLE_FLAGS = PERSISTENT | ONE_PACKET | FALLBACK | BY_PORT | 0x20
MAX_WEIGHT = 65535
Target = tuple[str, int]  # address and port of a destination


@dataclass(frozen=True, slots=True, order=True)
class ServerKey:
    """What clients use.  `protocol` is tcp, udp or sctp; the address is canonical."""

    protocol: str
    address: str
    port: int

    @property
    def family(self) -> Family:
        return family_of(self.address)

    def __str__(self) -> str:
        return f"{self.protocol} {join_host_port(self.address, self.port)}"


@dataclass(frozen=True, slots=True)
class Server:
    """How a virtual server chooses.

    `timeout_s`: persistence of a client, 0 for none; its clients are told apart by the first `prefix` bits of their
    address (None: all bits).  `flags`: FALLBACK and BY_PORT.
    """

    scheduler: str = "rr"
    timeout_s: int = 0
    prefix: int | None = None
    flags: int = 0


@dataclass(frozen=True, slots=True)
class Destination:
    """One target of a virtual server, always by masquerading (NAT).  Counts are the kernel's, of this moment."""

    weight: int = 1
    active: int = 0
    inactive: int = 0


@dataclass(frozen=True, slots=True)
class Timeouts:
    """Seconds an idle connection is kept, by state; 0 in a change leaves the value."""

    tcp: int = 0
    tcp_fin: int = 0
    udp: int = 0


@dataclass(frozen=True, slots=True)
class AddServer:
    key: ServerKey
    server: Server


@dataclass(frozen=True, slots=True)
class EditServer:
    key: ServerKey
    server: Server


@dataclass(frozen=True, slots=True)
class DeleteServer:
    """With all destinations; its connections end."""

    key: ServerKey


@dataclass(frozen=True, slots=True)
class AddDestination:
    key: ServerKey
    target: Target
    weight: int = 1


@dataclass(frozen=True, slots=True)
class EditDestination:
    key: ServerKey
    target: Target
    weight: int


@dataclass(frozen=True, slots=True)
class DeleteDestination:
    key: ServerKey
    target: Target


Change = AddServer | EditServer | DeleteServer | AddDestination | EditDestination | DeleteDestination


class IpvsError(KernelError):
    """The kernel refused; `code` is the error number."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True, slots=True)
class Refusal:
    """A change the kernel did not take: ENOENT for a scheduler it does not have, EEXIST, ESRCH and others."""

    change: Change
    error: IpvsError


@dataclass(frozen=True, slots=True)
class Connection:
    """One line of the connection table.  A template (persistence of a client) has no client port."""

    protocol: str
    client: str
    client_port: int
    server: Target
    target: Target
    state: str
    expires_s: int

    @property
    def is_template(self) -> bool:
        return self.client_port == 0


class Ipvs(Protocol):
    """One network namespace's IPVS."""

    async def available(self) -> bool:
        """Whether this kernel has IPVS; loads the module where it can."""

    async def servers(self) -> Mapping[ServerKey, Server]:
        """All virtual servers by address; those by firewall mark are not ours to know."""

    async def find(self, keys: Sequence[ServerKey]) -> Mapping[ServerKey, Server]:
        """Those of `keys` that exist."""

    async def destinations(self, key: ServerKey) -> Mapping[Target, Destination]:
        """Empty for a virtual server that does not exist."""

    async def commit(self, changes: Sequence[Change]) -> Sequence[Refusal]:
        """Make each change, in order; one that is refused does not hold up the others."""

    async def timeouts(self) -> Timeouts: ...

    async def set_timeouts(self, timeouts: Timeouts) -> None: ...

    async def connections(self) -> Sequence[Connection]:
        """The connection table, as long as it is."""

    async def close(self) -> None: ...
