"""A cluster's objects as values, from an API's lists or from manifests and dumps.  Pure."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import msgspec

from svcplane.api.core import Node, Pod, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.api.meta import Object, ObjectReference, Wire
from svcplane.base.errors import ConfigError

Tree = Mapping[str, Any]
T = TypeVar("T", bound=Object)


class Event(Object):
    """A `v1` Event as far as it is read here."""

    involved_object: ObjectReference = msgspec.field(default_factory=ObjectReference)
    reason: str = ""
    message: str = ""
    last_timestamp: str | None = None
    event_time: str | None = None

    @property
    def at(self) -> str:
        return self.last_timestamp or self.event_time or self.metadata.creation_timestamp or ""


class LeaseSpec(Wire):
    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    renew_time: str | None = None


class Lease(Object):
    """A `coordination.k8s.io/v1` Lease."""

    spec: LeaseSpec = msgspec.field(default_factory=LeaseSpec)


@dataclass(frozen=True, slots=True)
class ClusterView:
    """`live`: read from an API, so that what controllers write must be there; else files, which may lack it.

    `now_s`: wall-clock seconds since the epoch, for ages.
    """

    services: tuple[Service, ...] = ()
    pods: tuple[Pod, ...] = ()
    slices: tuple[EndpointSlice, ...] = ()
    nodes: tuple[Node, ...] = ()
    events: tuple[Event, ...] = ()
    leases: tuple[Lease, ...] = ()
    live: bool = True
    now_s: float = 0.0

    def service(self, namespace: str, name: str) -> Service | None:
        for service in self.services:
            if (service.metadata.namespace, service.metadata.name) == (namespace, name):
                return service
        return None

    def node(self, name: str) -> Node | None:
        return next((node for node in self.nodes if node.metadata.name == name), None)


_KINDS: dict[str, tuple[str, type[Object]]] = {
    "Service": ("services", Service),
    "Pod": ("pods", Pod),
    "EndpointSlice": ("slices", EndpointSlice),
    "Node": ("nodes", Node),
    "Event": ("events", Event),
    "Lease": ("leases", Lease),
}


def flat(trees: Iterable[Tree]) -> Iterator[Tree]:
    """Objects, those inside Lists too.  Raises ConfigError for an item that is none."""
    for tree in trees:
        if not isinstance(tree, Mapping):
            raise ConfigError(f"an item of a list is no Kubernetes object: {str(tree)[:80]}")
        if str(tree.get("kind", "")).endswith("List") and isinstance(tree.get("items"), list):
            kind = str(tree["kind"]).removesuffix("List")
            yield from flat(
                {"kind": kind, **item} if kind and isinstance(item, Mapping) else item for item in tree["items"]
            )
        else:
            yield tree


def from_trees(trees: Iterable[Tree], *, live: bool, now_s: float, namespace: str = "default") -> ClusterView:
    """Kinds that do not matter here are passed over; objects without a namespace get `namespace`.

    Raises ConfigError naming an object that is malformed.
    """
    found: dict[str, list[Object]] = {attribute: [] for attribute, _ in _KINDS.values()}
    for tree in flat(trees):
        known = _KINDS.get(str(tree.get("kind", "")))
        if known is None:
            continue
        attribute, kind = known
        item = _convert(tree, kind)
        if attribute != "nodes" and not item.metadata.namespace:
            item.metadata.namespace = namespace
        found[attribute].append(item)
    return ClusterView(**{name: tuple(items) for name, items in found.items()}, live=live, now_s=now_s)  # type: ignore[arg-type]


def _convert(tree: Tree, kind: type[T]) -> T:
    try:
        return msgspec.convert(_without_nulls(tree), kind)
    except msgspec.ValidationError as error:
        meta = tree.get("metadata")
        name = meta.get("name", "?") if isinstance(meta, Mapping) else "?"
        raise ConfigError(f"{tree.get('kind')} {name}: {error}") from error


def _without_nulls(value: Any) -> Any:
    """JSON null means absent to Kubernetes; YAML times are texts to it."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_nulls(item) for item in value]
    return value.strftime("%Y-%m-%dT%H:%M:%SZ") if isinstance(value, datetime) else value


def seconds_of(time: str | None) -> float | None:
    """Seconds since the epoch of an RFC 3339 text, or None."""
    if not time:
        return None
    try:
        return datetime.fromisoformat(time.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return None


def age(time: str | None, now_s: float) -> str:
    """How long ago, as kubectl prints it: 12s, 5m, 3h20m, 4d; empty where it is not known."""
    at = seconds_of(time)
    if at is None:
        return ""
    return duration(max(0.0, now_s - at))


def duration(seconds: float) -> str:
    """Seconds for people: 12s, 5m, 3h20m, 4d."""
    whole = int(seconds)
    if whole < 120:
        return f"{whole}s"
    minutes = whole // 60
    if minutes < 60:
        return f"{minutes}m"
    hours, rest = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    return f"{hours // 24}d"
