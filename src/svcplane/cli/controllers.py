"""`svcplane controllers`: Endpoints, EndpointSlices and namespaces, against any Kubernetes API."""

import asyncio
import contextlib
import signal

import click

from svcplane.base.errors import ConfigError
from svcplane.cli.main import configure_logging


@click.command(short_help="Run the Endpoints and EndpointSlice controllers.")
@click.option("--kubeconfig", envvar="KUBECONFIG", default="", help="Without one: the Pod's service account.")
@click.option("--master", default="", help="The API server's address, instead of the kubeconfig's.")
@click.option("--controllers", "names", default="*", show_default=True, help="endpoints,endpointslice,namespace")
@click.option("-v", "--v", "verbosity", default=2, show_default=True, type=int, help="Log verbosity.")
def controllers(kubeconfig: str, master: str, names: str, verbosity: int) -> None:
    """Record the ready Pods of each Service.

    On a cluster that has kube-controller-manager, first switch off its controllers of the same names: both would
    manage the same objects.
    """
    from svcplane.controllers.run import NAMES

    configure_logging(verbosity)
    chosen = NAMES if names == "*" else tuple(part.strip() for part in names.split(",") if part.strip())
    for name in chosen:
        if name not in NAMES:
            raise ConfigError(f"--controllers: {name!r} is none of {', '.join(NAMES)}")
    import uvloop

    uvloop.run(_run(kubeconfig, master, chosen))


async def _run(kubeconfig: str, master: str, names: tuple[str, ...]) -> None:
    from svcplane.client.http import HttpTransport
    from svcplane.client.kubeconfig import in_cluster, load
    from svcplane.controllers.run import run_controllers

    transport = HttpTransport(load(kubeconfig, master=master) if kubeconfig else in_cluster())
    task = asyncio.ensure_future(run_controllers(transport, names))
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, task.cancel)
    try:
        with contextlib.suppress(asyncio.CancelledError):
            await task
    finally:
        await transport.close()
