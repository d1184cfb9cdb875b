"""The agent's HTTP port, as the kubelet's: container logs for the API server, health for everybody.

`/containerLogs/NAMESPACE/POD/CONTAINER` and `/pods` want the token the API server was given (`Authorization:
Bearer`); `/healthz` does not.
"""

import hmac

import msgspec
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from svcplane.base.errors import ConfigError
from svcplane.node import logs
from svcplane.node.agent import Agent
from svcplane.node.sandbox import log_path, pod_directory
from svcplane.node.worker import Surroundings, Worker

OPEN_PATHS = ("/healthz", "/readyz", "/livez")


class AgentHttp:
    """Builds the aiohttp application.  `token` empty: everybody may read (loopback and lab use)."""

    def __init__(self, agent: Agent, around: Surroundings, token: str) -> None:
        self._agent, self._around, self._clock, self._token = agent, around, around.clock, token

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard()])
        for path in OPEN_PATHS:
            app.router.add_get(path, self._healthz)
        app.router.add_get("/pods", self._pods)
        app.router.add_get("/containerLogs/{namespace}/{pod}/{container}", self._logs)
        return app

    def _guard(self) -> Middleware:
        @web.middleware
        async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
            if self._token and request.path not in OPEN_PATHS:
                given = request.headers.get("Authorization", "").removeprefix("Bearer ")
                if not hmac.compare_digest(given.encode(), self._token.encode()):
                    return web.Response(status=401, text="Unauthorized")
            return await handler(request)

        return check

    async def _healthz(self, _request: web.Request) -> web.StreamResponse:
        return web.Response(text="ok")

    async def _pods(self, _request: web.Request) -> web.StreamResponse:
        items = [msgspec.to_builtins(worker.pod) for worker in self._agent.workers]
        body = msgspec.json.encode({"kind": "PodList", "apiVersion": "v1", "metadata": {}, "items": items})
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


async def serve(app: web.Application, host: str, port: int) -> tuple[web.AppRunner, int]:
    """Listen; returns the runner to clean up and the port (of port 0: the one chosen).  Raises ConfigError if busy."""
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port)
        await site.start()
    except OSError as error:
        await runner.cleanup()
        raise ConfigError(
            f"the agent cannot listen on {host}:{port}: {error.strerror}; choose another with --port"
        ) from error
    chosen = runner.addresses[0][1] if runner.addresses else port
    return runner, int(chosen)
