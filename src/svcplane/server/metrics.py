"""The API server's metrics, with kube-apiserver's names."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest


class Metrics:
    """One registry a server, so that several may live in one process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ("verb", "resource", "code")
        self._requests = Counter("apiserver_request", "Requests by verb and code", labels, registry=self._registry)
        self._seconds = Histogram(
            "apiserver_request_duration_seconds",
            "Time to answer, watches not counted",
            ("verb", "resource"),
            registry=self._registry,
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self.watches = Gauge("apiserver_registered_watchers", "Open watches", registry=self._registry)

    def request(self, verb: str, resource: str, code: int, seconds: float) -> None:
        self._requests.labels(verb, resource, str(code)).inc()
        if verb != "watch":
            self._seconds.labels(verb, resource).observe(seconds)

    def render(self) -> bytes:
        return generate_latest(self._registry)
