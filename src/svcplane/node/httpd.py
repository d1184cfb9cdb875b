"""The agent's HTTPS port, as the kubelet's: container logs and traffic for the API server, health for everybody.

`/containerLogs/NAMESPACE/POD/CONTAINER`, `/pods`, `/traffic` and the proxy's pages want a client certificate of the
cluster's authority whose organisation is system:masters, which the API server has; `/healthz` wants none.
"""

import ssl
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler

from svcplane.base.errors import ConfigError, EnvironmentProblem, SvcplaneError, reason_of
from svcplane.node import logs
from svcplane.node.agent import Agent
from svcplane.node.sandbox import log_path, pod_directory
from svcplane.node.surroundings import Surroundings
from svcplane.node.traffic import Meter
from svcplane.node.worker import Worker

#: What a proxy tells at a path for a query; None where none runs.  Raises SvcplaneError where it does not tell.
ProxyPage = Callable[[str, Mapping[str, str]], Awaitable[bytes | None]]
OPEN_PATHS = ("/healthz", "/readyz", "/livez")
MASTERS = "system:masters"


@dataclass(frozen=True, slots=True)
class AgentTls:
    """The agent's serving certificate and the authority (PEM text) that callers' certificates must be of."""

    cert: Path
    key: Path
    client_ca: str

    def context(self) -> ssl.SSLContext:
        """Raises ConfigError for unusable files."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        for flag, path in (("--tls-cert-file", self.cert), ("--tls-private-key-file", self.key)):
            try:
                path.read_bytes()
            except OSError as error:
                raise ConfigError(f"{flag} {path}: {reason_of(error)}") from error
        try:
            context.load_cert_chain(self.cert, self.key)
        except ssl.SSLError as error:
            files = f"--tls-cert-file {self.cert}, --tls-private-key-file {self.key}"
            raise ConfigError(f"{files}: must be a certificate and its private key, in PEM form ({error})") from error
        try:
            context.load_verify_locations(cadata=self.client_ca)
        except (ValueError, ssl.SSLError) as error:
            raise ConfigError(f"--client-ca-file: no certificate authority: {error}") from error
        context.verify_mode = ssl.CERT_OPTIONAL
        return context


class AgentHttp:
    """Builds the aiohttp application."""

    def __init__(
        self, agent: Agent, around: Surroundings, *, proxy: ProxyPage | None = None, pages: Sequence[str] = ()
    ) -> None:
        """`pages`: the paths that `proxy` is asked for."""
        self._ask_proxy, self._proxy_pages = proxy or _no_proxy, pages
        self._agent, self._around, self._clock = agent, around, around.clock
        self._meter = Meter()

    def application(self) -> web.Application:
        app = web.Application(middlewares=[masters_only])
        for path in OPEN_PATHS:
            app.router.add_get(path, self._healthz)
        app.router.add_get("/pods", self._pods)
        app.router.add_get("/traffic", self._traffic)
        for path in self._proxy_pages:
            app.router.add_get(path, self._proxy)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        return app

    async def _healthz(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    async def _pods(self, _request: web.Request) -> web.StreamResponse:
        items = [msgspec.to_builtins(worker.pod) for worker in self._agent.workers]
        body = msgspec.json.encode({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
        return web.Response(body=body, content_type="application/json")

    async def _traffic(self, _request: web.Request) -> web.StreamResponse:
        try:
            body = msgspec.json.encode(await self._meter.measure())
        except SvcplaneError as error:
            return web.Response(status=503, text=str(error))
        return web.Response(body=body, content_type="application/json")

    async def _proxy(self, request: web.Request) -> web.StreamResponse:
        """A page of the proxy that runs in the agent's network namespace."""
        try:
            body = await self._ask_proxy(request.path, request.query)
        except SvcplaneError as error:
            return web.Response(status=503, text=str(error))
        if body is None:
            return web.Response(status=503, text="no svcplane proxy runs on this node")
        return web.Response(body=body, content_type="application/json")

    async def _logs(self, request: web.Request) -> web.StreamResponse:
        names = request.match_info
        try:
            options = logs.parse_options(request.query, self._clock.wall())
        except ConfigError as error:
            return web.Response(status=400, text=str(error))
        worker = self._agent.find(names["namespace"], names["pod"])
        if worker is None:
            return web.Response(status=404, text=f'pod "{names["pod"]}" not found\n')
        container = names["container"]
        known = [c.name for c in [*worker.pod.spec.containers, *worker.pod.spec.init_containers]]
        if container not in known:
            text = f'container "{container}" not found in pod "{names["pod"]}"\n'
            return web.Response(status=404, text=text)
        run = worker.find_run(container, previous=options.previous)
        if run is None:
            what = "previous terminated container" if options.previous else "container"
            text = f'{what} "{container}" in pod "{names["pod"]}" not found: it has not been started\n'
            return web.Response(status=400, text=text)
        return await self._stream(request, worker, container, run.attempt, options)

    async def _stream(
        self, request: web.Request, worker: Worker, container: str, attempt: int, options: logs.Options
    ) -> web.StreamResponse:
        path = log_path(pod_directory(self._around.state, worker.uid), container, attempt)

        def ended() -> bool:
            now = worker.find_run(container, previous=False)
            return now is None or now.attempt != attempt or not now.running

        response = web.StreamResponse(headers={"Content-Type": "text/plain"})
        await response.prepare(request)
        async for chunk in logs.read(path, options, self._clock, ended):
            await response.write(chunk)
        await response.write_eof()
        return response


async def _no_proxy(path: str, query: Mapping[str, str]) -> bytes | None:
    return None


@web.middleware
async def masters_only(request: web.Request, handler: Handler) -> web.StreamResponse:
    if request.path in OPEN_PATHS:
        return await handler(request)
    connection = request.transport.get_extra_info("ssl_object") if request.transport else None
    certificate = connection.getpeercert() if connection is not None else None
    if not certificate:
        return web.Response(status=401, text="Unauthorized")
    subject = [pair for part in certificate.get("subject", ()) for pair in part]
    if ("organizationName", MASTERS) not in subject:
        return web.Response(status=403, text="Forbidden")
    return await handler(request)


async def serve(app: web.Application, host: str, port: int, tls: AgentTls) -> tuple[web.AppRunner, int]:
    """Listen; returns the runner to clean up and the port (of port 0: the one chosen).

    Raises EnvironmentProblem where the address cannot be had, ConfigError for unusable certificates.
    """
    context = tls.context()
    # a reader that leaves ends its request: following a silent container must not go on for nobody
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1, handler_cancellation=True)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, ssl_context=context)
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise EnvironmentProblem(
            f"the agent cannot listen on {host}:{port}: {reason_of(error)}; choose another --port or --address"
        ) from error
    chosen = runner.addresses[0][1] if runner.addresses else port
    return runner, int(chosen)
