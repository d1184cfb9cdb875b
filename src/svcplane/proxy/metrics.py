"""What the proxy counts, under kube-proxy's names.  Source: kube-proxy 1.36 pkg/proxy/metrics."""

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from svcplane.base.metrics import page
from svcplane.client import metrics as client
from svcplane.proxy.plane import SyncReport

_FAMILY = ("ip_family",)
_DOUBLING = tuple(0.001 * 2**n for n in range(15))
#: 0.25 s to 5 minutes, as the cluster's service level objective is judged
_PROGRAMMING = (0.25, 0.5, *range(1, 60), *range(60, 120, 5), *range(120, 301, 30))
#: Counters of failed syncs, by mode.
FAILURES = {
    "nftables": "sync_proxy_rules_nftables_sync_failures",
    "iptables": "sync_proxy_rules_iptables_restore_failures",
}


class Metrics:
    """One registry.  Counters' names get `_total` on the wire."""

    def __init__(self) -> None:
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.sync = self._histogram("sync_proxy_rules_duration_seconds", "A sync of any kind")
        self.full = self._histogram("sync_full_proxy_rules_duration_seconds", "A sync of everything")
        self.partial = self._histogram("sync_partial_proxy_rules_duration_seconds", "A sync of what changed")
        self.programming = self._histogram(
            "network_programming_duration_seconds", "From a change of a Service or Pod to the rules", _PROGRAMMING
        )
        self.last = self._gauge("sync_proxy_rules_last_timestamp_seconds", "When the last sync ended well")
        self.queued = self._gauge("sync_proxy_rules_last_queued_timestamp_seconds", "When a sync was last asked for")
        self.endpoints = self._counter("sync_proxy_rules_endpoint_changes", "EndpointSlice changes seen", ())
        self.services = self._counter("sync_proxy_rules_service_changes", "Service changes seen", ())
        self.endpoints_pending = self._gauge(
            "sync_proxy_rules_endpoint_changes_pending", "EndpointSlice changes not yet in the kernel", ()
        )
        self.services_pending = self._gauge(
            "sync_proxy_rules_service_changes_pending", "Service changes not yet in the kernel", ()
        )
        self.rules = self._gauge("sync_proxy_rules_iptables_total", "Rules that are ours", ("table", *_FAMILY))
        self.rules_written = self._gauge("sync_proxy_rules_iptables_last", "Rules last written", ("table", *_FAMILY))
        self.partial_failures = self._counter(
            "sync_proxy_rules_iptables_partial_restore_failures", "Failed syncs of what changed", _FAMILY
        )
        self.failures = {name: self._counter(name, "Failed syncs", _FAMILY) for name in FAILURES.values()}
        self.cleanup_failures = self._counter(
            "sync_proxy_rules_nftables_cleanup_failures", "Failed removals of what is needed no more", _FAMILY
        )
        self.other_failures = Counter(
            "svcplane_sync_failures", "Failed syncs, in any mode", ("mode", *_FAMILY), registry=self.registry
        )
        self.no_local = self._gauge(
            "sync_proxy_rules_no_local_endpoints_total",
            "Service ports whose traffic policy is Local and whose endpoints are all elsewhere",
            ("traffic_policy", *_FAMILY),
        )
        self.flows = self._counter("conntrack_reconciler_deleted_entries", "Stale flows deleted", _FAMILY)
        self.flows_seconds = self._histogram("conntrack_reconciler_sync_duration_seconds", "A look for stale flows")
        self.healthz = self._counter("proxy_healthz", "Answers of /healthz", ("code",))
        self.livez = self._counter("proxy_livez", "Answers of /livez", ("code",))
        self.facts = Gauge(
            "svcplane_plane_objects", "What the plane keeps in the kernel", ("object", *_FAMILY), registry=self.registry
        )
        self.operations = Counter(
            "svcplane_kernel_operations", "Kernel changes written", _FAMILY, registry=self.registry
        )
        self.repairs = Counter(
            "svcplane_repairs",
            "Times somebody else's change of our rules was repaired",
            _FAMILY,
            registry=self.registry,
        )

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...] = _DOUBLING) -> Histogram:
        return Histogram(f"kubeproxy_{name}", text, _FAMILY, registry=self.registry, buckets=buckets)

    def _gauge(self, name: str, text: str, labels: tuple[str, ...] = _FAMILY) -> Gauge:
        return Gauge(f"kubeproxy_{name}", text, labels, registry=self.registry)

    def _counter(self, name: str, text: str, labels: tuple[str, ...]) -> Counter:
        return Counter(f"kubeproxy_{name}", text, labels, registry=self.registry)

    def synced(self, family: str, seconds: float, report: SyncReport) -> None:
        """A sync ended well."""
        self.sync.labels(family).observe(seconds)
        (self.full if report.full else self.partial).labels(family).observe(seconds)
        self.last.labels(family).set_to_current_time()
        self.operations.labels(family).inc(report.operation_count)
        for name, count in report.facts.items():
            kind, _, table = name.partition("_")
            if kind == "rules" and table:
                self.rules.labels(table, family).set(count)
            elif kind == "written" and table:
                self.rules_written.labels(table, family).set(count)
            else:
                self.facts.labels(name, family).set(count)

    def failed(self, family: str, mode: str, *, full: bool) -> None:
        """A sync failed."""
        self.other_failures.labels(mode, family).inc()
        if mode in FAILURES:
            self.failures[FAILURES[mode]].labels(family).inc()
        if mode == "iptables" and not full:
            self.partial_failures.labels(family).inc()

    def render(self) -> bytes:
        """With calls to the API and this process's own."""
        return page(self.registry, client.REGISTRY)
