"""What a proxy did, when and why, and what it wanted at a moment: a bounded log.  Pure.

Each entry keeps what the service ports it touched were before it, so that the state at a moment is the present one
with the later entries undone, the newest first.
"""

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from svcplane.proxy.model import Endpoint, ProxyState, ServicePort, ServicePortName
from svcplane.proxy.plane import Operation

ENTRIES, OPERATIONS, NAMES = 1000, 50, 50
Value = tuple[ServicePort | None, tuple[Endpoint, ...]]


@dataclass(frozen=True, slots=True)
class Entry:
    """`what`: sync, full sync, failure, or an event such as `repair`.  Names and operations are the first few;
    the counts are true."""

    at_s: float  # wall
    family: str
    mode: str
    what: str
    why: str = ""
    seconds: float = 0.0
    services: tuple[str, ...] = ()
    service_count: int = 0
    operations: tuple[Operation, ...] = ()
    operation_count: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """What a sync is about to program: the service ports' values when it began."""

    full: bool
    values: Mapping[ServicePortName, Value]


def take(state: ProxyState, names: Iterable[ServicePortName] | None) -> Taken:
    """`names` None: everything."""
    chosen = list(state.services) if names is None else list(names)
    values = {name: (state.services.get(name), state.endpoints.get(name, ())) for name in chosen}
    return Taken(names is None, values)


@dataclass(slots=True)
class _Kept:
    entry: Entry
    before: dict[ServicePortName, Value] = field(default_factory=dict)


class History:
    """At most `limit` entries; the oldest go first."""

    def __init__(self, limit: int = ENTRIES) -> None:
        self._kept: deque[_Kept] = deque(maxlen=limit)
        self._programmed: dict[str, dict[ServicePortName, Value]] = {}  # by family

    def note(self, entry: Entry) -> None:
        """Something that changed no desired state."""
        self._keep(_Kept(entry))

    def synced(self, entry: Entry, taken: Taken, operations: Iterable[Operation]) -> None:
        """`entry` without services and operations, which are filled in here."""
        present = self._programmed.setdefault(entry.family, {})
        after = dict(taken.values)
        if taken.full:
            after.update({name: (None, ()) for name in present if name not in after})
        changed = {name: value for name, value in after.items() if present.get(name, (None, ())) != value}
        before = {name: present.get(name, (None, ())) for name in changed}
        for name, value in changed.items():
            if value[0] is None:
                present.pop(name, None)
            else:
                present[name] = value
        names = tuple(sorted({f"{name.namespace}/{name.name}" for name in changed}))
        shown = tuple(operations)[:OPERATIONS]
        whole = replace(entry, services=names[:NAMES], service_count=len(names), operations=shown)
        self._keep(_Kept(whole, before))

    def _keep(self, kept: _Kept) -> None:
        self._kept.append(kept)

    def entries(self, service: str = "", since_s: float = 0.0) -> tuple[Entry, ...]:
        """The oldest first; of one Service (`namespace/name`) those that touched it."""
        return tuple(
            kept.entry for kept in self._kept if kept.entry.at_s >= since_s and (not service or _touches(kept, service))
        )

    def state_at(self, state: ProxyState, at_s: float) -> ProxyState:
        """What was programmed at a moment.  `state`: the present one, for the node's part.

        Raises ValueError for a moment before the log begins.
        """
        if not self._kept or at_s < self._kept[0].entry.at_s:
            since = f"{self._kept[0].entry.at_s:.3f}" if self._kept else "nothing"
            raise ValueError(f"the log does not reach back to {at_s:.3f}: it begins at {since}")
        family = state.config.family.api_name
        values = dict(self._programmed.get(family, {}))
        for kept in reversed(self._kept):
            if kept.entry.at_s <= at_s:
                break
            if kept.entry.family == family:
                values.update(kept.before)
        services = {name: port for name, (port, _) in values.items() if port is not None}
        endpoints = {name: found for name, (port, found) in values.items() if port is not None and found}
        return replace(state, services=services, endpoints=endpoints)


def _touches(kept: _Kept, service: str) -> bool:
    return any(f"{name.namespace}/{name.name}" == service for name in kept.before)
