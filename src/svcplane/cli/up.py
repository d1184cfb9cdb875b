"""`svcplane up`: one host, everything in one process, in the foreground."""

import asyncio
import contextlib
import fcntl
import logging
import signal
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import click

from svcplane.api.http import Request, Response
from svcplane.base.errors import ConfigError, EnvironmentProblem
from svcplane.base.tasks import cancel_and_wait
from svcplane.cli.main import configure_logging
from svcplane.cli.node import node_ips, own_ips, pod_cidrs

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
    from svcplane.proxy.planes import PLANES

    configure_logging(flags["verbosity"])
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
    from svcplane.server.app import ApiServer, ApiServerConfig

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    preflight()
    data: Path = flags["data_dir"]
    name = flags["hostname_override"] or default_name()
    addresses = ips or await own_ips(cidrs)
    server_config = ApiServerConfig(
        data_dir=data,
        bind_address=flags["bind_address"],
        advertise_address=addresses[0] if not addresses[0].startswith("127.") else "",
        secure_port=flags["secure_port"],
        service_cidrs=tuple(part.strip() for part in flags["service_cluster_ip_range"].split(",") if part.strip()),
    )
    node_options = NodeOptions(name, addresses, cidrs, data / "node", port=0, stop_pods=True)
    async with contextlib.AsyncExitStack() as stack:
        try:
            server = await stack.enter_async_context(ApiServer(server_config))
        except OSError as error:
            where = f"{flags['bind_address']}:{flags['secure_port']}"
            text = f"the API server cannot listen on {where}: {error.strerror}; choose another with --secure-port"
            raise EnvironmentProblem(text) from error
        transport = InProcessTransport(server.handle)
        agent = await stack.enter_async_context(running_node(transport, node_options))
        server.handler.pod_logs = _log_source(agent, data / "node")
        work: dict[str, Coroutine[Any, Any, None]] = {
            "controllers": run_controllers(transport),
            "scheduler": Scheduler(transport).run(),
            "proxy": _proxy(flags["proxy_mode"], name, addresses, cidrs, transport),
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


async def _proxy(mode: str, name: str, ips: tuple[str, ...], cidrs: tuple[str, ...], transport: Any) -> None:
    from svcplane.base.net import Family, family_of
    from svcplane.proxy.agent import Agent, AgentConfig
    from svcplane.proxy.bootstrap import cluster_facts
    from svcplane.proxy.model import DetectLocal, NodeConfig
    from svcplane.proxy.planes import make_plane

    facts = await cluster_facts(transport, name)
    planes = {}
    for family in Family:
        local = tuple(cidr for cidr in cidrs if family_of(cidr) is family)
        config = NodeConfig(
            node_name=name,
            family=family,
            detect_local=DetectLocal.CLUSTER_CIDR if local else DetectLocal.NONE,
            local_cidrs=local,
            nodeport_primary_only=True,
            primary_ips=tuple(ip for ip in (*ips, *facts.node_ips) if family_of(ip) is family),
        )
        with_cidrs = facts.with_service_cidrs(config)
        planes[family] = (with_cidrs, make_plane(mode, with_cidrs))
    await Agent(AgentConfig(name, mode, healthz=None, metrics=None), transport, planes).run()


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


def _log_source(agent: Any, state: Path) -> Any:
    """The API server's pods/log, answered by the agent in this process."""
    from svcplane.api.status import bad_request, not_found
    from svcplane.base.clock import SYSTEM_CLOCK
    from svcplane.node import logs
    from svcplane.node.sandbox import log_path, pod_directory

    async def source(namespace: str, name: str, request: Request) -> Response:
        worker = agent.find(namespace, name)
        if worker is None:
            raise not_found("pods", name)
        containers = [c.name for c in [*worker.pod.spec.containers, *worker.pod.spec.init_containers]]
        container = request.param("container") or containers[0]
        if container not in containers:
            raise bad_request(f"container {container} is not valid for pod {name}")
        try:
            options = logs.parse_options(dict(request.query), SYSTEM_CLOCK.wall())
        except ConfigError as error:
            raise bad_request(str(error)) from error
        run = worker.find_run(container, previous=options.previous)
        if run is None:
            what = "previous terminated container" if options.previous else "container"
            raise bad_request(f'{what} "{container}" in pod "{name}" not found')
        path = log_path(pod_directory(state.resolve(), worker.uid), container, run.attempt)

        def ended() -> bool:
            now = worker.find_run(container, previous=False)
            return now is None or now.attempt != run.attempt or not now.running

        stream = logs.read(path, options, SYSTEM_CLOCK, ended)
        return Response(200, headers={"Content-Type": "text/plain"}, stream=stream)

    return source
