"""`svcplane controllers`: Endpoints, EndpointSlices and namespaces, against any Kubernetes API."""

import asyncio
import contextlib
import signal
from typing import TYPE_CHECKING, Any

import click

from svcplane.base.durations import parse_duration
from svcplane.base.errors import ConfigError
from svcplane.base.memory import expect_growth, settle
from svcplane.base.net import host_port
from svcplane.cli.main import configure_logging

if TYPE_CHECKING:
    from svcplane.controllers.election import ElectionConfig


class Duration(click.ParamType[float]):
    """A Go duration, as seconds."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, float):
            return value
        try:
            return parse_duration(value)
        except ValueError as error:
            self.fail(str(error), param, ctx)


@click.command(short_help="Run the Endpoints and EndpointSlice controllers.")
@click.option("--kubeconfig", envvar="KUBECONFIG", default="", help="Without one: the Pod's service account.")
@click.option("--master", default="", help="The API server's URL, or several by commas, instead of the kubeconfig's.")
@click.option("--controllers", "names", default="*", show_default=True, help="Which, with commas; * for all.")
@click.option("--leader-elect", type=bool, default=True, show_default=True, help="Work only while holding a Lease.")
@click.option("--leader-elect-lease-duration", default="15s", show_default=True, type=Duration())
@click.option("--leader-elect-renew-deadline", default="10s", show_default=True, type=Duration())
@click.option("--leader-elect-retry-period", default="2s", show_default=True, type=Duration())
@click.option("--leader-elect-resource-lock", default="leases", type=click.Choice(["leases"]), help="Leases only.")
@click.option("--leader-elect-resource-name", default="svcplane-controllers", show_default=True)
@click.option("--leader-elect-resource-namespace", default="kube-system", show_default=True)
@click.option(
    "--metrics-bind-address",
    "metrics",
    default="",
    help="Serve /metrics and /healthz there, IP:PORT.  [default: nowhere]",
)
@click.option("-v", "--v", "verbosity", default=2, show_default=True, type=int, help="Log verbosity.")
def controllers(kubeconfig: str, master: str, names: str, metrics: str, verbosity: int, **flags: Any) -> None:
    """Record the ready Pods of each Service.

    Several may run: one leads, another takes over when it ends or is cut off.  On a cluster that has
    kube-controller-manager, first switch off its controllers of the same names: both would manage the same objects.
    """
    from svcplane.controllers.election import ElectionConfig
    from svcplane.controllers.run import NAMES

    configure_logging(verbosity)
    chosen = NAMES if names == "*" else tuple(part.strip() for part in names.split(",") if part.strip())
    for name in chosen:
        if name not in NAMES:
            raise ConfigError(f"--controllers: {name!r} is none of {', '.join(NAMES)}")
    pages = host_port(metrics)
    if metrics and pages is None:
        raise ConfigError(f"--metrics-bind-address {metrics}: must be IP:PORT, such as 127.0.0.1:10257")
    election = None
    if flags["leader_elect"]:
        election = ElectionConfig(
            flags["leader_elect_resource_name"],
            flags["leader_elect_resource_namespace"],
            lease_duration_s=flags["leader_elect_lease_duration"],
            renew_deadline_s=flags["leader_elect_renew_deadline"],
            retry_period_s=flags["leader_elect_retry_period"],
        )
    import uvloop

    uvloop.run(_run(kubeconfig, master, chosen, election, pages))


async def _run(
    kubeconfig: str,
    master: str,
    names: tuple[str, ...],
    election: "ElectionConfig | None",
    pages: tuple[str, int] | None,
) -> None:
    from svcplane.client import metrics
    from svcplane.client.http import HttpTransport
    from svcplane.client.kubeconfig import component_access
    from svcplane.controllers.election import Election
    from svcplane.controllers.pages import served
    from svcplane.controllers.run import run_controllers

    access = component_access(kubeconfig, master)
    transport = HttpTransport(access, called=metrics.called)

    async def work() -> None:
        expect_growth()
        await run_controllers(transport, names, listed=settle)

    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(transport.close)
        if pages is not None:
            await stack.enter_async_context(served(*pages))
        leading = Election(transport, election).run(work) if election is not None else work()
        task = asyncio.ensure_future(leading)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        with contextlib.suppress(asyncio.CancelledError):
            await task
