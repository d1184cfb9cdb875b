"""`svcplane up`: one host, everything in one process, in the foreground."""

import asyncio
import contextlib
import fcntl
import logging
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from svcplane.base.errors import ConfigError, EnvironmentProblem
from svcplane.base.tasks import cancel_and_wait
from svcplane.cli.console import mount_console
from svcplane.cli.main import configure_logging
from svcplane.cli.node import node_ips, own_ips, pod_cidrs

if TYPE_CHECKING:
    from svcplane.node.httpd import AgentTls
    from svcplane.server.app import ApiServer
    from svcplane.server.metrics import Metrics

log = logging.getLogger("svcplane.up")


@click.command(short_help="Run everything on this host: API server, controllers, proxy, node agent.")
@click.option("--data-dir", default="/var/lib/svcplane", show_default=True, type=click.Path(path_type=Path))
@click.option("--proxy-mode", default="nftables", show_default=True)
@click.option("--bind-address", default="127.0.0.1", show_default=True, help="Where the API server listens.")
@click.option("--secure-port", default=6443, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option("--service-cluster-ip-range", default="10.96.0.0/16", show_default=True)
@click.option("--pod-cidr", default="10.244.0.0/24", show_default=True, help="Addresses of this host's Pods.")
@click.option("--node-ip", default="", help="This host's address.  [default: that of an interface]")
@click.option("--hostname-override", default="", help="The node's name.  [default: the host's name]")
@click.option("-v", "--v", "verbosity", default=2, show_default=True, type=int, help="Log verbosity.")
def up(**flags: Any) -> None:
    """Run a whole cluster of this one host until Ctrl-C, which ends the Pods and removes all rules.

    Started again on the same data directory it goes on where it was: same Services and addresses, same Pods.
    """
    from svcplane.base.descriptors import allow_many
    from svcplane.proxy.planes import PLANES

    configure_logging(flags["verbosity"])
    allow_many()
    logging.getLogger("svcplane.audit").setLevel(logging.WARNING)
    if flags["proxy_mode"] not in PLANES:
        raise ConfigError(f"--proxy-mode {flags['proxy_mode']}: must be one of {', '.join(PLANES)}")
    cidrs, ips = pod_cidrs(flags["pod_cidr"]), node_ips(flags["node_ip"])
    import uvloop

    with _exclusive(flags["data_dir"]):
        uvloop.run(_run(flags, cidrs, ips))


@contextlib.contextmanager
def _exclusive(directory: Path) -> Iterator[None]:
    """One `up` a data directory.  Raises ConfigError."""
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        file = open(directory / "up.lock", "w")  # noqa: SIM115 - closed below
    except OSError as error:
        raise ConfigError(f"--data-dir {directory}: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigError(f"--data-dir {directory}: another svcplane uses it") from error
        yield


async def _run(flags: dict[str, Any], cidrs: tuple[str, ...], ips: tuple[str, ...]) -> None:
    from svcplane.client.transport import InProcessTransport
    from svcplane.controllers.run import run_controllers
    from svcplane.kernel.links.run import preflight
    from svcplane.node.run import NodeOptions, default_name, running_node
    from svcplane.node.scheduler.loop import Scheduler
    from svcplane.proxy.inspect import look_apart
    from svcplane.proxy.looking import PAGES
    from svcplane.server.app import ApiServer, ApiServerConfig

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    preflight()
    data: Path = flags["data_dir"]
    name = flags["hostname_override"] or default_name()
    addresses = ips or await own_ips(cidrs)
    await _can_program(flags["proxy_mode"], name, addresses)
    server_config = ApiServerConfig(
        data_dir=data,
        bind_address=flags["bind_address"],
        advertise_address=addresses[0] if not addresses[0].startswith("127.") else "",
        secure_port=flags["secure_port"],
        service_cidrs=tuple(part.strip() for part in flags["service_cluster_ip_range"].split(",") if part.strip()),
    )
    async with contextlib.AsyncExitStack() as stack:
        server = await stack.enter_async_context(ApiServer(server_config))
        mount_console(server)
        transport = InProcessTransport(server.handle)
        tls = _agent_tls(server, name, addresses)
        options = NodeOptions(
            name, addresses, cidrs, data / "node", port=0, tls=tls, stop_pods=True, proxy=look_apart, proxy_pages=PAGES
        )
        await stack.enter_async_context(running_node(transport, options))
        work: dict[str, Coroutine[Any, Any, None]] = {
            "controllers": run_controllers(transport),
            "scheduler": Scheduler(transport).run(),
            "proxy": _proxy(flags["proxy_mode"], name, addresses, cidrs, transport, server.metrics),
        }
        tasks = {key: asyncio.create_task(job, name=key) for key, job in work.items()}
        waiting = asyncio.create_task(stopped.wait(), name="signal")
        click.echo(f"svcplane is up: export KUBECONFIG={(data / 'kubeconfig').resolve()}")
        try:
            await asyncio.wait((waiting, *tasks.values()), return_when=asyncio.FIRST_COMPLETED)
            for task in tasks.values():
                if task.done():
                    task.result()
        finally:
            log.info("stopping: ending the Pods, removing the rules")
            await cancel_and_wait(waiting, *tasks.values())
            await _remove_rules(flags["proxy_mode"], name)


async def _can_program(mode: str, name: str, addresses: tuple[str, ...]) -> None:
    """Raises EnvironmentProblem where this host lacks what the mode needs or has a proxy, before anything is made."""
    from svcplane.base.net import family_of
    from svcplane.proxy import inspect
    from svcplane.proxy.model import NodeConfig
    from svcplane.proxy.planes import make_plane

    if await inspect.is_taken():
        raise EnvironmentProblem(
            "another svcplane proxy runs on this host, whose rules would be mixed up: stop it first"
        )
    for family in {family_of(address) for address in addresses}:
        plane = make_plane(mode, NodeConfig(name, family))
        try:
            await plane.preflight()
        finally:
            await plane.close()


def _agent_tls(server: "ApiServer", name: str, addresses: tuple[str, ...]) -> "AgentTls":
    """What the node agent serves logs with, issued by the cluster's authority in this process."""
    from svcplane.node.httpd import AgentTls

    authority = server.authority
    assert authority is not None, "the server's certificates are its own"
    return AgentTls(*authority.node(name, [name, *addresses]), authority.ca_path.read_text())


async def _proxy(
    mode: str, name: str, ips: tuple[str, ...], cidrs: tuple[str, ...], transport: Any, metrics: "Metrics"
) -> None:
    from svcplane.client.metrics import REGISTRY
    from svcplane.proxy.agent import Agent
    from svcplane.proxy.report import LeaseReporter
    from svcplane.proxy.settings import PRIMARY, Settings
    from svcplane.proxy.sources.api import ApiSource

    settings = Settings(
        node_name=name,
        mode=mode,
        cluster_cidrs=cidrs,
        nodeport_addresses=(PRIMARY,),
        bind_address=ips[0] if ips else "",
        healthz=None,
        metrics=None,
    )
    agent = Agent(settings, ApiSource(transport, name), reporter=LeaseReporter(transport, name))
    metrics.also(agent.metrics.registry, REGISTRY)  # the API server's page has those of the whole process
    await agent.run()


async def _remove_rules(mode: str, name: str) -> None:
    from svcplane.base.net import Family
    from svcplane.proxy.model import NodeConfig
    from svcplane.proxy.planes import make_plane

    for family in Family:
        plane = make_plane(mode, NodeConfig(name, family))
        try:
            await plane.cleanup()
        finally:
            await plane.close()
