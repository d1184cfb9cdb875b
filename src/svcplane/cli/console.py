"""`svcplane console`: the web console for any cluster whose kubeconfig you have."""

import asyncio
import logging
import secrets
import signal
import socket
from typing import TYPE_CHECKING

import click

from svcplane.cli.main import configure_logging
from svcplane.cli.reading import KUBECONFIG, access

if TYPE_CHECKING:
    from svcplane.api.http import Request
    from svcplane.client.transport import Transport
    from svcplane.server.app import ApiServer

log = logging.getLogger("svcplane.console")


@click.command(short_help="Serve the web console for a cluster by its kubeconfig.")
@KUBECONFIG
@click.option("--bind-address", default="127.0.0.1", show_default=True)
@click.option("--port", default=8001, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
def console(kubeconfig: str, bind_address: str, port: int) -> None:
    """Serve the console until Ctrl-C, and print its address with a token for this session.

    It only reads, with the kubeconfig's credentials.
    """
    configure_logging(2)
    asyncio.run(_serve(kubeconfig, bind_address, port))


def serve(kubeconfig: str, listener: socket.socket) -> None:
    """As the command, on a socket that listens already."""
    configure_logging(2)
    host, port = listener.getsockname()[:2]
    asyncio.run(_serve(kubeconfig, host, port, listener))


async def _serve(kubeconfig: str, bind_address: str, port: int, listener: socket.socket | None = None) -> None:
    from svcplane.api.http import User
    from svcplane.base.net import join_host_port
    from svcplane.client.http import HttpTransport
    from svcplane.dashboard.gateway import Gateway
    from svcplane.server.http import HttpServer

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    transport = HttpTransport(access(kubeconfig))
    token = secrets.token_urlsafe(24)
    server = HttpServer(Gateway(transport), {token: User("console")}, port_flag="--port")
    try:
        await server.start(bind_address, port, None, listener)
        host = join_host_port(bind_address, server.port)
        click.echo(f"the console is at http://{host}/console#token={token}")
        await stopped.wait()
    finally:
        await server.stop()
        await transport.close()


def mount_console(server: "ApiServer") -> None:
    """Serve the console at /console of an API server."""
    from svcplane.client.transport import InProcessTransport
    from svcplane.dashboard.console import PREFIX, Console

    def transport_of(request: "Request") -> "Transport":
        assert request.user is not None, "the console asks for nobody"
        return InProcessTransport(server.handle, request.user)

    server.mount(PREFIX, Console(transport_of))
