"""`svcplane node`: the node agent alone.  Flags as the kubelet's where it has them."""

import asyncio
import contextlib
import logging
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from svcplane.base.errors import ConfigError
from svcplane.base.net import canonical_cidr, canonical_ip
from svcplane.cli.main import configure_logging

if TYPE_CHECKING:
    from svcplane.node.httpd import AgentTls

log = logging.getLogger("svcplane.node")
FILE = click.Path(path_type=Path)


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def pod_cidrs(text: str, flag: str = "--pod-cidr") -> tuple[str, ...]:
    """One CIDR, or one of each family.  Raises ConfigError."""
    found = []
    for part in _list(text):
        cidr = canonical_cidr(part)
        if cidr is None:
            raise ConfigError(f"{flag} {part}: must be a CIDR such as 10.244.1.0/24")
        found.append(cidr)
    if not found or len(found) > 2 or len({":" in cidr for cidr in found}) != len(found):
        raise ConfigError(f"{flag}: must be one CIDR, or one of each IP family")
    return tuple(found)


def node_ips(text: str) -> tuple[str, ...]:
    found = []
    for part in _list(text):
        ip = canonical_ip(part)
        if ip is None:
            raise ConfigError(f"--node-ip {part}: must be an IP address")
        found.append(ip)
    return tuple(found)


@click.command(short_help="Run the node agent: Pods as processes.")
@click.option("--kubeconfig", envvar="KUBECONFIG", default="", help="Without one: the Pod's service account.")
@click.option("--hostname-override", default="", help="This node's name.  [default: the host's name]")
@click.option("--node-ip", default="", help="This node's address; one a family.  [default: that of an interface]")
@click.option("--pod-cidr", default="10.244.0.0/24", show_default=True, help="Addresses of this node's Pods.")
@click.option("--node-labels", default="", help="key=value,...")
@click.option("--state-dir", default="/run/svcplane/node", show_default=True, type=click.Path(path_type=Path))
@click.option("--address", default="", help="Where logs and health are served.  [default: the node's address]")
@click.option("--port", default=10250, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
@click.option("--tls-cert-file", type=FILE, help="Serve logs with this certificate; `svcplane certificate` makes one.")
@click.option("--tls-private-key-file", type=FILE)
@click.option("--client-ca-file", type=FILE, help="Whose certificates may read logs.  [default: the kubeconfig's CA]")
@click.option("--with-scheduler", is_flag=True, help="Also bind Pods that have no node yet.")
@click.option("--namespace-prefix", default="", hidden=True)
@click.option("--stop-pods", is_flag=True, help="End the Pods' processes when the agent is stopped.")
@click.option("-v", "--v", "verbosity", default=2, show_default=True, type=int, help="Log verbosity.")
def node(**flags: Any) -> None:
    """Run the Pods bound to this node as processes in network namespaces of their own.

    Stopping the agent leaves its Pods running; it adopts them when it returns.
    """
    configure_logging(flags["verbosity"])
    labels = tuple((key, value) for key, _, value in (word.partition("=") for word in _list(flags["node_labels"])))
    import uvloop

    uvloop.run(_run(flags, pod_cidrs(flags["pod_cidr"]), node_ips(flags["node_ip"]), labels))


def _tls(flags: dict[str, Any], cluster_ca: str) -> "AgentTls | None":
    """None without a certificate: the agent then serves nothing.  Raises ConfigError."""
    from svcplane.node.httpd import AgentTls

    cert, key, file = flags["tls_cert_file"], flags["tls_private_key_file"], flags["client_ca_file"]
    if (cert is None) != (key is None):
        raise ConfigError("--tls-cert-file and --tls-private-key-file go together")
    if cert is None:
        return None
    try:
        ca = file.read_text() if file is not None else cluster_ca
    except OSError as error:
        raise ConfigError(f"--client-ca-file {file}: {error.strerror}") from error
    if not ca:
        raise ConfigError("--client-ca-file is needed: the kubeconfig names no certificate-authority")
    return AgentTls(cert, key, ca)


async def own_ips(cidrs: tuple[str, ...]) -> tuple[str, ...]:
    """The first usable address of each of the Pod CIDRs' families; loopback where there is no other.

    One within the Pod CIDRs is the host's end of a Pod's link, which an earlier agent made.
    """
    import ipaddress

    from svcplane.base.net import address, family_of
    from svcplane.kernel.addresses import local_addresses

    found = []
    by_family = await local_addresses()
    for cidr in cidrs:
        family = family_of(cidr)
        outside = [ip for ip in by_family.get(family, ()) if address(ip) not in ipaddress.ip_network(cidr)]
        usable = [ip for ip in outside if not (address(ip).is_loopback or address(ip).is_link_local)]
        found.append(usable[0] if usable else ("127.0.0.1" if family == 4 else "::1"))
    return tuple(found)


async def _run(
    flags: dict[str, Any], cidrs: tuple[str, ...], ips: tuple[str, ...], labels: tuple[tuple[str, str], ...]
) -> None:
    from svcplane.base.tasks import cancel_and_wait
    from svcplane.client.http import HttpTransport
    from svcplane.client.kubeconfig import in_cluster, load
    from svcplane.node.run import NodeOptions, default_name, running_node
    from svcplane.node.scheduler.loop import Scheduler
    from svcplane.proxy.inspect import look_apart
    from svcplane.proxy.looking import PAGES

    stopped = asyncio.Event()
    starting: asyncio.Task[None] | None = None

    def stop() -> None:
        stopped.set()
        if starting is not None:  # it may wait for the API server for ever
            starting.cancel()

    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)
    access = load(flags["kubeconfig"]) if flags["kubeconfig"] else in_cluster()
    options = NodeOptions(
        name=flags["hostname_override"] or default_name(),
        ips=ips or await own_ips(cidrs),
        pod_cidrs=cidrs,
        state=flags["state_dir"],
        namespace_prefix=flags["namespace_prefix"],
        labels=labels,
        address=flags["address"],
        port=flags["port"],
        tls=_tls(flags, access.ca),
        stop_pods=flags["stop_pods"],
        proxy=look_apart,
        proxy_pages=PAGES,
    )
    transport = HttpTransport(access)
    scheduler: asyncio.Task[None] | None = None
    try:
        async with contextlib.AsyncExitStack() as stack:
            running = stack.enter_async_context(running_node(transport, options))
            starting = asyncio.current_task()
            await running
            starting = None
            if options.tls is None:
                log.warning("no --tls-cert-file: the logs of this node's Pods are not served")
            if flags["with_scheduler"]:
                scheduler = asyncio.create_task(Scheduler(transport).run(), name="scheduler")
            await stopped.wait()
            log.info("stopping")
    except asyncio.CancelledError:
        log.info("stopped before the node was up")
    finally:
        await cancel_and_wait(scheduler)
        await transport.close()
