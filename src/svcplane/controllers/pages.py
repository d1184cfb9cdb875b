"""Metrics and health of the controllers' process over HTTP."""

import contextlib
from collections.abc import AsyncIterator

from aiohttp import web

from svcplane.base.errors import EnvironmentProblem
from svcplane.base.metrics import page
from svcplane.base.net import join_host_port
from svcplane.client.metrics import REGISTRY

_METRICS = {"Content-Type": "text/plain; version=0.0.4; charset=utf-8"}


@contextlib.asynccontextmanager
async def served(host: str, port: int) -> AsyncIterator[int]:
    """`/metrics`, `/healthz` while the body runs; the port, of port 0 the one chosen.

    Raises EnvironmentProblem where the address cannot be had.
    """

    async def metrics(_: web.Request) -> web.Response:
        return web.Response(body=page(REGISTRY), headers=_METRICS)

    async def healthz(_: web.Request) -> web.Response:
        return web.Response(text="ok")

    app = web.Application()
    app.router.add_get("/metrics", metrics)
    for path in ("/healthz", "/livez", "/readyz"):
        app.router.add_get(path, healthz)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, host, port).start()
        except OSError as error:
            text = f"--metrics-bind-address: cannot listen on {join_host_port(host, port)}: {error.strerror or error}"
            raise EnvironmentProblem(text) from error
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()
