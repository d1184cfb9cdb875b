"""The API server's metrics, with kube-apiserver's names.  Source: k8s.io/apiserver/pkg/endpoints/metrics."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, Metric, disable_created_metrics
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from svcplane.api.resources import RESOURCES, Resource
from svcplane.base.errors import StoreError
from svcplane.base.metrics import page
from svcplane.store.contract import Delete, PreconditionFailed, Revision, Store, Transaction

disable_created_metrics()  # type: ignore[no-untyped-call]
_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_VERBS = {"create": "POST", "update": "PUT", "get": "GET", "list": "LIST", "watch": "WATCH", "patch": "PATCH"}
_VERBS |= {"delete": "DELETE", "deletecollection": "DELETECOLLECTION"}


class Asked(NamedTuple):
    """What a request is about: the labels of its metrics."""

    verb: str
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    scope: str = ""


def asked(verb: str, resource: Resource, subresource: str = "", *, name: str = "", namespace: str = "") -> Asked:
    """`verb`: Kubernetes' word; `scope` is that of the path: resource, namespace or cluster."""
    scope = "resource" if name or verb == "create" else "namespace" if namespace else "cluster"
    return Asked(_VERBS.get(verb, verb), resource.group, resource.version, resource.plural, subresource, scope)


class Metrics:
    """One registry a server, so that several may live in one process."""

    def __init__(self) -> None:
        own = self._registry = CollectorRegistry()
        self._others: list[CollectorRegistry] = []
        self.store: Store | None = None  # whose objects are counted when somebody looks
        self._requests = Counter(
            "apiserver_request", "Requests by verb and code", (*Asked._fields, "code"), registry=own
        )
        self._seconds = Histogram(
            "apiserver_request_duration_seconds",
            "Time to answer, watches not counted",
            Asked._fields,
            registry=own,
            buckets=_SECONDS,
        )
        self.watches = Gauge("apiserver_registered_watchers", "Open watches", registry=own)
        self.in_flight = Gauge("apiserver_current_inflight_requests", "Under way", ("request_kind",), registry=own)
        self.refused = Counter("apiserver_dropped_requests", "Refused since the server was too busy", registry=own)
        self._watched: dict[Resource, Tally] = {}
        own.register(_WatchEvents(self._watched))
        self._objects = Gauge("apiserver_storage_objects", "Objects in the store", ("resource",), registry=own)
        self._stored = Histogram(
            "etcd_request_duration_seconds",
            "Until a write was durable in the store, SQLite or etcd",
            ("operation", "type"),
            registry=own,
            buckets=_SECONDS,
        )
        self._store_errors = Counter(
            "etcd_request_errors", "Writes that the store failed", ("operation", "type"), registry=own
        )
        self._revision = Gauge("svcplane_store_revision", "Of the newest write", registry=own)

    def also(self, *registries: CollectorRegistry) -> None:
        """Have what else runs in this process on the page."""
        self._others += registries

    def request(self, about: Asked, code: int, seconds: float) -> None:
        self._requests.labels(*about, str(code)).inc()
        if about.verb != "WATCH":
            self._seconds.labels(*about).observe(seconds)

    def watched(self, resource: Resource) -> "Tally":
        """Where a watch counts what it sends."""
        return self._watched.setdefault(resource, Tally())

    def wrote(self, operation: str, kind: str, seconds: float, *, well: bool) -> None:
        """A write of the store."""
        self._stored.labels(operation, kind).observe(seconds)
        if not well:
            self._store_errors.labels(operation, kind).inc()

    async def render(self) -> bytes:
        if self.store is not None:
            with contextlib.suppress(StoreError):  # what was counted last stays
                await self._look(self.store)
        return page(self._registry, *self._others)

    async def _look(self, store: Store) -> None:
        for resource in RESOURCES:
            found = await store.list(resource.key_prefix(), limit=1)
            self._objects.labels(_qualified(resource.plural, resource.group)).set(len(found.items) + found.remaining)
        self._revision.set(await store.revision())


@dataclass(slots=True)
class Tally:
    """Events sent to the watchers of a resource, and their size.  A plain sum: it is added to 20,000 times a second."""

    events: int = 0
    size: int = 0


class _WatchEvents(Collector):
    """The tallies as counters."""

    def __init__(self, tallies: dict[Resource, Tally]) -> None:
        self._tallies = tallies

    def collect(self) -> Iterator[Metric]:
        names = ("group", "version", "resource")
        events = CounterMetricFamily("apiserver_watch_events", "Sent to watchers", labels=names)
        size = CounterMetricFamily("apiserver_watch_events_bytes", "Of them", labels=names)
        for resource, tally in self._tallies.items():
            labels = (resource.group, resource.version, resource.plural)
            events.add_metric(labels, tally.events)
            size.add_metric(labels, tally.size)
        yield from (events, size)


class MeasuredStore:
    """A store whose writes are timed; all else is the store's own."""

    def __init__(self, store: Store, metrics: Metrics) -> None:
        self._store, self._metrics = store, metrics
        metrics.store = store
        self.revision, self.get, self.list = store.revision, store.get, store.list
        self.watch, self.compact, self.close = store.watch, store.compact, store.close

    async def commit(self, transaction: Transaction) -> Revision:
        began, well = time.monotonic(), False
        try:
            found = await self._store.commit(transaction)
            well = True
            return found
        except PreconditionFailed:
            well = True
            raise
        finally:
            self._metrics.wrote(*_told(transaction), time.monotonic() - began, well=well)


def _told(transaction: Transaction) -> tuple[str, str]:
    """What a transaction does first, and to what."""
    first = transaction.operations[0]
    fresh = any((one.key, one.revision) == (first.key, 0) for one in transaction.preconditions)
    operation = "delete" if isinstance(first, Delete) else "create" if fresh else "update"
    head, _, rest = first.key.removeprefix("/registry/").partition("/")
    return operation, _qualified(rest.partition("/")[0], head) if "." in head else head


def _qualified(plural: str, group: str) -> str:
    return f"{plural}.{group}" if group else plural
