"""What the proxy answers about itself and about Services: /healthz, /metrics, health check node ports.

Source: kube-proxy 1.36 pkg/proxy/healthcheck.
"""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from svcplane.base.clock import rfc3339
from svcplane.base.errors import EnvironmentProblem
from svcplane.proxy.model import ProxyState, ServicePortName

TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"
_NOSNIFF = {"X-Content-Type-Options": "nosniff"}


@dataclass(slots=True)
class Health:
    """`timeout_s`: a change that waits longer than this for the kernel makes the proxy unhealthy."""

    timeout_s: float = 60.0
    updated_wall: float = 0.0
    queued_since: float | None = None
    node_eligible: bool = True
    families: tuple[str, ...] = ()

    def queued(self, now: float) -> None:
        if self.queued_since is None:
            self.queued_since = now

    def synced(self, wall: float) -> None:
        self.updated_wall, self.queued_since = wall, None

    def is_alive(self, now: float) -> bool:
        if not self.updated_wall:
            return False
        return self.queued_since is None or now - self.queued_since < self.timeout_s

    def is_healthy(self, now: float) -> bool:
        return self.is_alive(now) and self.node_eligible


class Metrics:
    """With kube-proxy's names."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        buckets = tuple(0.001 * 2**n for n in range(15))
        self.sync = Histogram(
            "kubeproxy_sync_proxy_rules_duration_seconds", "Sync", ("ip_family",), registry=registry, buckets=buckets
        )
        self.full = Histogram(
            "kubeproxy_sync_full_proxy_rules_duration_seconds",
            "Full",
            ("ip_family",),
            registry=registry,
            buckets=buckets,
        )
        self.partial = Histogram(
            "kubeproxy_sync_partial_proxy_rules_duration_seconds",
            "Partial",
            ("ip_family",),
            registry=registry,
            buckets=buckets,
        )
        self.last = Gauge(
            "kubeproxy_sync_proxy_rules_last_timestamp_seconds", "Last", ("ip_family",), registry=registry
        )
        self.queued = Gauge(
            "kubeproxy_sync_proxy_rules_last_queued_timestamp_seconds", "Queued", ("ip_family",), registry=registry
        )
        self.failures = Counter(
            "kubeproxy_sync_proxy_rules_nftables_sync_failures", "Failures", ("ip_family",), registry=registry
        )
        self.endpoints = Counter("kubeproxy_sync_proxy_rules_endpoint_changes", "Endpoints", registry=registry)
        self.services = Counter("kubeproxy_sync_proxy_rules_service_changes", "Services", registry=registry)
        self.flows = Counter(
            "kubeproxy_conntrack_reconciler_deleted_entries", "Stale flows", ("ip_family",), registry=registry
        )

    def render(self) -> bytes:
        return generate_latest(self._registry)


class HealthServer:
    """Listens on host:port addresses; each page is a function."""

    def __init__(self) -> None:
        self._runners: list[web.ServerRunner] = []

    async def listen(
        self, host: str, port: int, answer: Callable[[str], tuple[int, bytes, str, dict[str, str]]]
    ) -> None:
        """`answer(path)` gives status, body, content type and headers.  Raises EnvironmentProblem."""

        async def serve(request: web.BaseRequest) -> web.StreamResponse:
            status, body, kind, headers = answer(request.path)
            return web.Response(status=status, body=body, headers={"Content-Type": kind, **headers})

        runner = web.ServerRunner(web.Server(serve, access_log=None), shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, host or None, port, reuse_address=True).start()
        except OSError as error:
            await runner.cleanup()
            raise EnvironmentProblem(f"cannot listen on {host or '*'}:{port}: {error.strerror or error}") from error
        self._runners.append(runner)

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()
        self._runners = []


def health_page(health: Health, path: str) -> tuple[int, bytes, str, dict[str, str]]:
    """/healthz and /livez."""
    now = time.monotonic()
    if path not in ("/healthz", "/livez"):
        return 404, b"404 page not found\n", "text/plain; charset=utf-8", dict(_NOSNIFF)
    good = health.is_healthy(now) if path == "/healthz" else health.is_alive(now)
    updated = rfc3339(health.updated_wall)
    families = {family: {"lastUpdated": updated, "healthy": health.is_alive(now)} for family in health.families}
    body: dict[str, Any] = {
        "lastUpdated": updated,
        "currentTime": rfc3339(time.time()),
        "healthy": good,
        "status": families,
    }
    if path == "/healthz":
        body["nodeEligible"] = health.node_eligible
    return (200 if good else 503), msgspec.json.encode(body), "application/json", dict(_NOSNIFF)


def local_ready(state: ProxyState, service: tuple[str, str]) -> int:
    """How many ready endpoints of a Service are on this node, each address once."""
    found: set[str] = set()
    for name, endpoints in state.endpoints.items():
        if name.service == service:
            found |= {endpoint.ip for endpoint in endpoints if endpoint.is_local and endpoint.ready}
    return len(found)


def check_page(service: tuple[str, str], count: int, healthy: bool) -> tuple[int, bytes, str, dict[str, str]]:
    """What a health check node port answers to a load balancer."""
    namespace, name = service
    body = {
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    }
    headers = {**_NOSNIFF, "X-Load-Balancing-Endpoint-Weight": str(count)}
    return (200 if count and healthy else 503), msgspec.json.encode(body), "application/json", headers


class CheckPorts:
    """One listener for each Service that has a health check node port."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._open: dict[tuple[str, str], tuple[int, HealthServer]] = {}
        self._states: tuple[ProxyState, ...] = ()

    async def update(self, states: tuple[ProxyState, ...], touched: Mapping[ServicePortName, None] | None) -> list[str]:
        """Open and close listeners; returns what could not be opened.  `touched` None: look at everything."""
        self._states = states
        names = touched if touched is not None else {name: None for state in states for name in state.services}
        gone = [name for name in names if name.service in self._open and all(name not in s.services for s in states)]
        # another port of the same Service may still want the listener
        wanted_ports = self._wanted([name for state in states for name in state.services] if gone else names)
        services = {name.service for name in touched} if touched is not None else set(wanted_ports) | set(self._open)
        problems: list[str] = []
        for service in services:
            wanted = wanted_ports.get(service, 0)
            port, server = self._open.get(service, (0, None))
            if wanted == port:
                continue
            if server is not None:
                await server.close()
                del self._open[service]
            if wanted:
                fresh = HealthServer()
                try:
                    await fresh.listen("", wanted, lambda _path, s=service: self._answer(s))  # type: ignore[misc]
                    self._open[service] = (wanted, fresh)
                except EnvironmentProblem as error:
                    problems.append(f"health check of {'/'.join(service)}: {error}")
        return problems

    def _wanted(self, names: Iterable[ServicePortName]) -> dict[tuple[str, str], int]:
        """The health check node port of each Service among `names` that has one."""
        found: dict[tuple[str, str], int] = {}
        for name in names:
            for state in self._states:
                port = state.services.get(name)
                if port is not None and port.external_policy_local and port.health_check_node_port:
                    found[name.service] = port.health_check_node_port
        return found

    def _answer(self, service: tuple[str, str]) -> tuple[int, bytes, str, dict[str, str]]:
        count = sum(local_ready(state, service) for state in self._states)
        return check_page(service, count, self._health.is_healthy(time.monotonic()))

    async def close(self) -> None:
        for _, server in self._open.values():
            await server.close()
        self._open.clear()
