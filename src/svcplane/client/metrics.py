"""What a process that runs against an API counts, under the names of client-go and controllers.

One registry a process, as its work queues and transports are all counted together.
Source: k8s.io/component-base/metrics/prometheus/{restclient,workqueue}, client-go/tools/leaderelection.
"""

import time
from collections.abc import Hashable
from urllib.parse import urlsplit

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics

disable_created_metrics()  # type: ignore[no-untyped-call]
REGISTRY = CollectorRegistry()
_SECONDS = (0.005, 0.025, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0, 60.0)
_TENFOLD = tuple(10.0**n for n in range(-8, 2))
_REQUESTS = Counter(
    "rest_client_requests",
    "Calls by result; <error> where nobody answered",
    ("code", "method", "host"),
    registry=REGISTRY,
)
_REQUEST_SECONDS = Histogram(
    "rest_client_request_duration_seconds", "Time to answer", ("verb", "host"), buckets=_SECONDS, registry=REGISTRY
)
_NAME = ("name",)
_DEPTH = Gauge("workqueue_depth", "Keys that wait", _NAME, registry=REGISTRY)
_ADDS = Counter("workqueue_adds", "Keys added", _NAME, registry=REGISTRY)
_RETRIES = Counter("workqueue_retries", "Failed keys, tried again later", _NAME, registry=REGISTRY)
_WAITED = Histogram(
    "workqueue_queue_duration_seconds", "How long a key waited", _NAME, buckets=_TENFOLD, registry=REGISTRY
)
_WORKED = Histogram(
    "workqueue_work_duration_seconds", "How long its work took", _NAME, buckets=_TENFOLD, registry=REGISTRY
)
_UNFINISHED = Gauge(
    "workqueue_unfinished_work_seconds", "Of all keys under way, since each began", _NAME, registry=REGISTRY
)
_LONGEST = Gauge(
    "workqueue_longest_running_processor_seconds", "Of the key longest under way", _NAME, registry=REGISTRY
)
_LEADING = Gauge("leader_election_master_status", "1 where this process leads", _NAME, registry=REGISTRY)


def called(method: str, server: str, code: str, seconds: float) -> None:
    """A call to an API server; `code` is its status, `<error>` where there is none."""
    host = urlsplit(server).netloc
    _REQUESTS.labels(code, method, host).inc()
    _REQUEST_SECONDS.labels(method, host).observe(seconds)


def leads(lease: str, *, now: bool) -> None:
    """Whether this process holds a Lease."""
    _LEADING.labels(lease).set(1 if now else 0)


class QueueMetrics:
    """Of one work queue."""

    def __init__(self, name: str) -> None:
        self._depth, self._adds, self._retries = _DEPTH.labels(name), _ADDS.labels(name), _RETRIES.labels(name)
        self._waited, self._worked = _WAITED.labels(name), _WORKED.labels(name)
        self._added: dict[Hashable, float] = {}
        self._begun: dict[Hashable, float] = {}
        _UNFINISHED.labels(name).set_function(lambda: sum(self._ages()))
        _LONGEST.labels(name).set_function(lambda: max(self._ages(), default=0.0))

    def _ages(self) -> list[float]:
        now = time.monotonic()
        return [now - begun for begun in self._begun.values()]

    def added(self, key: Hashable, depth: int) -> None:
        self._adds.inc()
        self._depth.set(depth)
        self._added.setdefault(key, time.monotonic())

    def begun(self, key: Hashable, depth: int) -> None:
        now = time.monotonic()
        self._depth.set(depth)
        self._waited.observe(now - self._added.pop(key, now))
        self._begun[key] = now

    def ended(self, key: Hashable, *, done: bool) -> None:
        self._worked.observe(time.monotonic() - self._begun.pop(key))
        if not done:
            self._retries.inc()
