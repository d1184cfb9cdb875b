"""Facts about a host and its network namespace.  Pure values."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class HostLink:
    """`kind` as `ip -d link` has it (veth, bridge, vxlan, ...); empty for hardware."""

    name: str
    mtu: int
    kind: str = ""
    up: bool = True
    addresses: tuple[str, ...] = ()  # with prefix lengths


@dataclass(frozen=True, slots=True)
class HostRoute:
    """`destination` is a CIDR, or `default`."""

    destination: str
    interface: str
    via: str = ""


@dataclass(frozen=True, slots=True)
class HostFacts:
    """What could not be read is absent."""

    release: str = ""
    capabilities: frozenset[str] = frozenset()
    tools: Mapping[str, str] = field(default_factory=dict)  # name -> version; absent: missing
    sysctls: Mapping[str, str] = field(default_factory=dict)  # dotted name -> value
    lacking: Mapping[str, str] = field(default_factory=dict)  # kernel feature -> why it cannot be used
    conntrack_count: int = 0
    conntrack_max: int = 0
    conntrack_dropped: int = 0  # insert_failed + drop + early_drop since boot
    recent_limit: int = 0  # clients xt_recent remembers for one endpoint
    recent_used: Mapping[str, int] = field(default_factory=dict)  # list -> clients
    links: tuple[HostLink, ...] = ()
    routes: tuple[HostRoute, ...] = ()
    listening: frozenset[tuple[str, int]] = frozenset()  # (tcp or udp, port)
    clock_synchronized: bool | None = None
    programs: tuple[str, ...] = ()  # names of processes in this network namespace
