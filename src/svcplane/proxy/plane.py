"""What the agent asks of a plane: the contract of userspace, iptables, ipvs and nftables.

A plane owns the kernel objects of one mode and one family.  `sync` is one atomic change where the kernel
allows one; an error leaves the kernel as it was or is repaired by the next sync, which the agent retries with
back-off as a full one.  The agent calls one method at a time.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import msgspec

from svcplane.proxy.model import Endpoint, Outcome, Packet, ProxyState, ServicePortName


class Operation(msgspec.Struct, frozen=True):
    """One kernel change and why.  `object` is what a person would look for, e.g. `chain KUBE-SVC-...`."""

    verb: str  # add, replace, delete
    object: str
    reason: str


class SyncReport(msgspec.Struct, frozen=True):
    """`operations` in order (bounded to the first 1,000; `operation_count` is the true number).

    `wake_at`: monotonic second at which sync must be called again for graceful drains, or None.
    """

    operations: Sequence[Operation]
    operation_count: int
    full: bool
    wake_at: float | None = None
    facts: Mapping[str, int] = msgspec.field(default_factory=dict)  # e.g. rules by table, for metrics


class LiveRule(msgspec.Struct, frozen=True):
    """One thing the kernel holds, as a person would look for it: where it is, what it says, what it is for.

    `service`: the service port it is there for; empty for what is there for all.
    """

    place: str
    rule: str
    purpose: str
    service: str = ""


class AffinityEntry(msgspec.Struct, frozen=True):
    """One remembered client."""

    service: ServicePortName
    client: str
    endpoint: str
    expires_in_s: float


class Relayed(msgspec.Struct, frozen=True):
    """What a relay sent to one endpoint of a service port since it began; bytes of what goes on included.

    `aside_s`: how long others are chosen, because dials of this one failed.
    """

    service: ServicePortName
    endpoint: str
    active: int
    connections: int
    to_endpoint: int
    to_client: int
    aside_s: float = 0.0


class RelayedConnection(msgspec.Struct, frozen=True):
    """One connection, or UDP client, of a service port; bytes so far.  `endpoint` is empty while none has answered."""

    service: ServicePortName
    client: str
    endpoint: str
    age_s: float
    idle_s: float
    to_endpoint: int
    to_client: int


class RelayingPlane(Protocol):
    """A plane whose process relays each connection: the kernel's counters do not know the endpoints."""

    def relays(self, name: ServicePortName) -> frozenset[tuple[str, int]]:
        """Where a service port's packets are translated to since the last sync; none where it has no endpoint."""

    async def relayed(self, state: ProxyState) -> Sequence[Relayed]: ...

    async def relayed_connections(self, state: ProxyState) -> Sequence[RelayedConnection]: ...


class Plane(Protocol):
    """See the module's text.  Constructed with NodeConfig and its kernel tools; nothing is touched before `sync`."""

    mode: str

    async def preflight(self) -> None:
        """Raise EnvironmentProblem naming what this host lacks for this mode."""

    async def sync(self, state: ProxyState, touched: frozenset[ServicePortName] | None, *, now: float) -> SyncReport:
        """Bring the kernel to `state`.

        `touched`: the service ports that may differ since the last successful sync; None: read the live
        state (adopt it) and write only the difference.
        """

    async def intact(self) -> bool:
        """Cheap check, at most a few ms at any size, that nobody flushed or edited what is ours since the last sync."""

    async def plan(self, state: ProxyState) -> Sequence[Operation]:
        """What a full sync would do, from the live state; changes nothing."""

    async def trace(self, state: ProxyState, packet: Packet) -> tuple[frozenset[Outcome], Sequence[str]]:
        """The live kernel state's answer for a packet, and the hooks, chains and rules on its way, for people."""

    async def rules(self, state: ProxyState) -> Sequence[LiveRule]:
        """All that is ours in the kernel now, read anew; `state` tells whose it is."""

    async def affinity(self, state: ProxyState) -> Sequence[AffinityEntry]:
        """Remembered clients."""

    async def forget_affinity(self, entry: AffinityEntry) -> None:
        """Forget one."""

    async def cleanup(self) -> None:
        """Remove everything of this mode and family; nothing else.  Safe where nothing is there."""

    async def close(self) -> None:
        """Release sockets and processes; leaves the kernel's rules in place."""


def describe(endpoint: Endpoint) -> dict[str, Any]:
    """An endpoint for JSON output."""
    return {
        "address": str(endpoint),
        "node": endpoint.node_name,
        "ready": endpoint.ready,
        "serving": endpoint.serving,
        "terminating": endpoint.terminating,
        "pod": endpoint.pod,
    }
