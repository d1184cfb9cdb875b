"""What the proxy answers about itself and about Services: /healthz, /livez, health check node ports.

Source: kube-proxy 1.36 pkg/proxy/healthcheck.
"""

import ipaddress
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from aiohttp import web

from svcplane.base.clock import rfc3339
from svcplane.base.errors import EnvironmentProblem, reason_of
from svcplane.base.net import Family, contains
from svcplane.proxy.model import ProxyState, ServicePortName

TO_BE_DELETED = "ToBeDeletedByClusterAutoscaler"
Page = tuple[int, bytes, str, dict[str, str]]  # status, body, content type, headers
_NOSNIFF = {"X-Content-Type-Options": "nosniff"}


@dataclass(slots=True)
class Health:
    """`timeout_s`: a change that waits longer than this for the kernel makes the proxy unhealthy.

    By family: when the oldest change that waits came (monotonic), and when the last sync ended (wall).
    """

    timeout_s: float = 60.0
    families: tuple[str, ...] = ()
    queued_since: dict[str, float] = field(default_factory=dict)
    updated_wall: dict[str, float] = field(default_factory=dict)
    node_eligible: bool = True

    def queued(self, family: str, now: float) -> None:
        self.queued_since.setdefault(family, now)

    def synced(self, family: str, wall: float) -> None:
        """Everything that waited has been written."""
        self.updated_wall[family] = wall
        self.queued_since.pop(family, None)

    def family_alive(self, family: str, now: float) -> bool:
        since = self.queued_since.get(family)
        return family in self.updated_wall and (since is None or now - since < self.timeout_s)

    def is_alive(self, now: float) -> bool:
        """All families are written, and nothing waits too long."""
        return all(self.family_alive(family, now) for family in self.families)

    def is_stuck(self, now: float) -> bool:
        """A change waits too long.  Who has not begun is not: the API may be away, and a restart would not help."""
        begun = (family for family in self.families if family in self.updated_wall)
        return not all(self.family_alive(family, now) for family in begun)

    def is_healthy(self, now: float) -> bool:
        """As load balancers should see it: a node about to go takes no new connections (KEP-3836)."""
        return self.is_alive(now) and self.node_eligible


class HealthServer:
    """Listens on host:port addresses; each page is a function.

    An unspecified host, `0.0.0.0` as well as `::`, is every address of both families, as Go has it.
    """

    def __init__(self) -> None:
        self._runners: list[web.ServerRunner] = []

    async def listen(self, host: str, port: int, answer: Callable[[str], Page]) -> None:
        """`answer(path)` gives the page.  Raises EnvironmentProblem."""
        await self._open(host, port, answer, everywhere=not host or ipaddress.ip_address(host).is_unspecified)

    async def listen_on(self, hosts: Iterable[str], port: int, answer: Callable[[str], Page]) -> None:
        """On exactly these addresses, all or none; `::` is that of IPv6 alone, "" everywhere.

        Raises EnvironmentProblem.
        """
        try:
            for host in hosts:
                await self._open(host, port, answer, everywhere=not host)
        except EnvironmentProblem:
            await self.close()
            raise

    async def _open(self, host: str, port: int, answer: Callable[[str], Page], *, everywhere: bool) -> None:
        async def serve(request: web.BaseRequest) -> web.StreamResponse:
            status, body, kind, headers = answer(request.path)
            return web.Response(status=status, body=body, headers={"Content-Type": kind, **headers})

        runner = web.ServerRunner(web.Server(serve, access_log=None), shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, None if everywhere else host, port, reuse_address=True).start()
        except OSError as error:
            await runner.cleanup()
            raise EnvironmentProblem(f"cannot listen on {host or '*'}:{port}: {reason_of(error)}") from error
        self._runners.append(runner)

    async def close(self) -> None:
        for runner in self._runners:
            await runner.cleanup()
        self._runners = []


def health_page(health: Health, path: str) -> Page:
    """/healthz and /livez.  `healthy` in them is the proxy's part: a node about to go is told of beside it."""
    now = time.monotonic()
    if path not in ("/healthz", "/livez"):
        return 404, b"404 page not found\n", "text/plain; charset=utf-8", dict(_NOSNIFF)
    alive = health.is_alive(now) if path == "/healthz" else not health.is_stuck(now)
    good = alive and (health.node_eligible or path == "/livez")
    families = {
        family: {
            "lastUpdated": rfc3339(health.updated_wall.get(family, 0.0)),
            "healthy": health.family_alive(family, now),
        }
        for family in health.families
    }
    wall = time.time()
    # of one that is well, "now": what waits for no change is as good as new
    updated = wall if good else max(health.updated_wall.values(), default=0.0)
    body: dict[str, Any] = {
        "lastUpdated": rfc3339(updated),
        "currentTime": rfc3339(wall),
        "healthy": alive,
        "status": families,
    }
    if path == "/healthz":
        body["nodeEligible"] = health.node_eligible
    return (200 if good else 503), msgspec.json.encode(body), "application/json", dict(_NOSNIFF)


def local_ready(states: Iterable[ProxyState], names: Iterable[ServicePortName]) -> int:
    """How many addresses on this node have a ready endpoint of a Service, `names` being its ports.

    Of the family that has the most: a Pod of a dual-stack Service has an address of each, and counts once.
    """
    ports = tuple(names)
    return max(
        (
            len({e.ip for name in ports for e in state.endpoints.get(name, ()) if e.is_local and e.ready})
            for state in states
        ),
        default=0,
    )


def check_page(service: tuple[str, str], count: int, healthy: bool) -> Page:
    """What a health check node port answers to a load balancer."""
    namespace, name = service
    body = {
        "service": {"namespace": namespace, "name": name},
        "localEndpoints": count,
        "serviceProxyHealthy": healthy,
    }
    headers = {**_NOSNIFF, "X-Load-Balancing-Endpoint-Weight": str(count)}
    return (200 if count and healthy else 503), msgspec.json.encode(body), "application/json", headers


def check_hosts(states: Sequence[ProxyState]) -> tuple[str, ...]:
    """Where health check node ports answer: where node ports do, for whoever restricts these restricts those too."""
    found: list[str] = []
    if not any(state.config.nodeport_primary_only or state.config.nodeport_addresses for state in states):
        return ("",)
    for state in states:
        config, local = state.config, state.node.local_addresses
        if config.nodeport_primary_only:
            mine: Iterable[str] = config.primary_ips[:1]
        elif config.nodeport_addresses:
            mine = (ip for ip in local if any(contains(cidr, ip) for cidr in config.nodeport_addresses))
        else:
            mine = ("0.0.0.0",) if config.family is Family.IPV4 else ("::",)
        found += mine
    return tuple(found)


class CheckPorts:
    """One listener for each Service that has a health check node port, on the addresses of node ports.

    A port that cannot be opened is told of once and tried again at each update; `failed` says whether there is one.
    """

    def __init__(self, health: Health) -> None:
        self._health = health
        self._open: dict[tuple[str, str], tuple[int, tuple[str, ...], HealthServer]] = {}
        self._hosts: tuple[str, ...] = ()
        self._wanted: dict[tuple[str, str], dict[ServicePortName, int]] = {}  # by the ports that want it
        self._failed: set[tuple[str, str]] = set()
        self._states: tuple[ProxyState, ...] = ()

    @property
    def failed(self) -> bool:
        return bool(self._failed)

    async def update(self, states: tuple[ProxyState, ...], touched: Mapping[ServicePortName, None] | None) -> list[str]:
        """Open and close listeners; returns what could not be opened.  `touched` None: look at everything.

        Costs what was touched.
        """
        self._states = states
        names = dict.fromkeys(touched or ())
        if touched is None:
            self._hosts = check_hosts(states)
            names = dict.fromkeys(name for state in states for name in state.services)
            names.update(dict.fromkeys(name for ports in self._wanted.values() for name in ports))
        for name in names:
            self._look(name)
        services = {service for service in (name.service for name in names) if self._concerns(service)}
        problems = [await self._serve(service) for service in services | self._failed]
        return [problem for problem in problems if problem]

    def _concerns(self, service: tuple[str, str]) -> bool:
        return service in self._wanted or service in self._open

    def _look(self, name: ServicePortName) -> None:
        wanted = 0
        for state in self._states:
            port = state.services.get(name)
            if port is not None and port.external_policy_local:
                wanted = wanted or port.health_check_node_port
        if wanted:
            self._wanted.setdefault(name.service, {})[name] = wanted
        elif name.service in self._wanted:
            self._wanted[name.service].pop(name, None)
            if not self._wanted[name.service]:
                del self._wanted[name.service]

    async def _serve(self, service: tuple[str, str]) -> str:
        """Have the listener a Service wants; what went wrong, unless told before."""
        wanted = next(iter(self._wanted.get(service, {}).values()), 0)
        port, hosts, server = self._open.get(service, (0, (), None))
        known = service in self._failed
        self._failed.discard(service)
        if wanted == port and (hosts == self._hosts or not wanted):
            return ""
        if server is not None:
            await server.close()
            del self._open[service]
        if not wanted:
            return ""
        fresh = HealthServer()
        try:
            await fresh.listen_on(self._hosts, wanted, lambda _path: self._answer(service))
        except EnvironmentProblem as error:
            self._failed.add(service)
            return "" if known else f"health check of {'/'.join(service)}: {error}"
        self._open[service] = (wanted, self._hosts, fresh)
        return ""

    def _answer(self, service: tuple[str, str]) -> Page:
        count = local_ready(self._states, self._wanted.get(service, ()))
        return check_page(service, count, not self._health.is_stuck(time.monotonic()))

    async def close(self) -> None:
        for *_, server in self._open.values():
            await server.close()
        self._open.clear()
