"""`svcplane lab`: clusters of network namespaces on this machine."""

import asyncio
import contextlib
import os
import re
import signal
import sys
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import click

from svcplane.base.errors import ConfigError

NAME = click.option("--name", default="lab", show_default=True, help="The lab's name.")
NODES = click.option("--nodes", default=2, show_default=True, type=click.IntRange(1, 80))


@click.group(short_help="Build and use clusters of network namespaces on this machine.")
def lab() -> None:
    """A lab: a LAN, a control namespace with the API server, nodes with Pods, and a client outside."""


def _check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9]{0,18}[a-z0-9])?", name):
        raise ConfigError(f"--name {name}: must be 1 to 20 lower-case letters and digits")


def _modes(text: str) -> list[str]:
    from svcplane.proxy.planes import PLANES

    modes = list(PLANES) if text == "all" else [part.strip() for part in text.split(",") if part.strip()]
    for mode in modes:
        if mode not in PLANES:
            raise ConfigError(f"--mode {mode}: must be one of {', '.join(PLANES)}")
    return modes


def _run(work: Coroutine[Any, Any, int]) -> int:
    """Run until done; SIGINT and SIGTERM cancel the work, which then cleans up and ends with 130."""

    async def main() -> int:
        task = asyncio.ensure_future(work)
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, task.cancel)
        try:
            return await task
        except asyncio.CancelledError:
            return 130

    return asyncio.run(main())


@lab.command()
@NAME
@NODES
@click.option("--mode", default="nftables", show_default=True, help="The proxies' mode.")
def up(name: str, nodes: int, mode: str) -> None:
    """Make a lab and leave it running."""
    from svcplane.lab.cluster import Cluster
    from svcplane.lab.topology import Lab

    _check_name(name)
    cluster = Cluster(Lab(name, nodes), _modes(mode)[0])

    async def work() -> int:
        try:
            await cluster.up()
        except BaseException:
            if "exists" not in str(sys.exc_info()[1]):
                await asyncio.shield(cluster.down())
            raise
        _usage(name, str(cluster.kubeconfig))
        return 0

    sys.exit(_run(work()))


def _usage(name: str, kubeconfig: str) -> None:
    click.echo(f"lab {name} runs; its kubeconfig (for use inside) is {kubeconfig}")
    click.echo(f"  svcplane lab exec --name {name} client -- kubectl get nodes,services,pods -o wide")
    click.echo(f"  svcplane lab exec --name {name} client -- kubectl apply -f examples/")
    click.echo(f"  svcplane lab exec --name {name} node1 -- nft list ruleset")
    click.echo(f"  svcplane lab down --name {name}")


@lab.command()
@NAME
def down(name: str) -> None:
    """Remove a lab, whatever state it is in."""
    from svcplane.lab.cluster import find

    _check_name(name)
    asyncio.run(find(name).down())


@lab.command()
@NAME
def status(name: str) -> None:
    """Say what a lab consists of."""
    from svcplane.kernel.links.run import KernelLinks, pids_in
    from svcplane.lab.cluster import find

    _check_name(name)
    cluster = find(name)
    click.echo(f"lab {name}: {cluster.lab.node_count} nodes, proxy mode {cluster.mode or 'unknown'}")
    for space in KernelLinks().namespaces(cluster.lab.prefix):
        click.echo(f"  {space.removeprefix(cluster.lab.prefix):40} {len(pids_in(space))} processes")


@lab.command(name="exec", context_settings={"ignore_unknown_options": True})
@NAME
@click.argument("member")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, member: str, command: tuple[str, ...]) -> None:
    """Run a command in a member (control, client, node1, ...) with KUBECONFIG set."""
    from svcplane.kernel.links.run import command_in
    from svcplane.lab.cluster import find

    _check_name(name)
    cluster = find(name)
    argv = command_in(cluster.namespace(member), command)
    try:
        os.execvpe(argv[0], argv, os.environ | {"KUBECONFIG": str(cluster.kubeconfig)})  # noqa: S606
    except FileNotFoundError as error:
        raise ConfigError(f"the program `{argv[0]}` is missing: install util-linux") from error


@lab.command()
@click.option("--name", default="demo", show_default=True)
@NODES
@click.option("--mode", "modes", default="all", show_default=True, help="Proxy modes, separated by commas.")
@click.option("--keep", is_flag=True, help="Leave the lab running at the end.")
@click.option("--manifests", default="", help="Directory of the demonstration's manifests.  [default: examples/]")
def demo(name: str, nodes: int, modes: str, keep: bool, manifests: str) -> None:
    """Show and check the main job with real packets; the exit status tells whether all held."""
    _check_name(name)
    chosen = _modes(modes)
    directory = Path(manifests) if manifests else _examples()
    sys.exit(_run(_demo(name, nodes, chosen, keep, directory)))


def _examples() -> Path:
    """examples/ of the working directory, else of the source tree."""
    here = Path("examples")
    return here if here.is_dir() else Path(__file__).resolve().parents[3] / "examples"


async def _demo(name: str, nodes: int, modes: list[str], keep: bool, directory: Path) -> int:
    from rich.console import Console

    from svcplane.kernel.links.run import enter, path_of
    from svcplane.lab.cluster import Cluster
    from svcplane.lab.demo import manifests, run
    from svcplane.lab.topology import Lab

    manifests(directory)  # wrong input is told before anything is made
    cluster = Cluster(Lab(name, nodes), modes[0])
    if cluster.exists:
        raise ConfigError(f"lab {name} exists: remove it with `svcplane lab down --name {name}`")
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    good = False
    try:
        await cluster.up()
        enter(path_of(cluster.namespace("client")))
        good = await run(cluster, modes, directory, Console(highlight=False))
    finally:
        with contextlib.suppress(OSError):
            enter(f"/proc/self/fd/{home}")
        os.close(home)
        if not (keep and good):
            await asyncio.shield(cluster.down())
    if keep and good:
        _usage(name, str(cluster.kubeconfig))
    return 0 if good else 1
