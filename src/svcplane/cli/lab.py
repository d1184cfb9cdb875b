"""`svcplane lab`: clusters of network namespaces on this machine."""

import asyncio
import contextlib
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from svcplane.base.errors import ConfigError, EnvironmentProblem, KernelError
from svcplane.cli.labplay import SCENARIO, connect, play, proxy, tell
from svcplane.cli.labs import NAME, begin, check_name, until_done

if TYPE_CHECKING:
    from svcplane.lab.cluster import Cluster

NODES = click.option("--nodes", default=2, show_default=True, type=click.IntRange(1, 80))


@click.group(short_help="Build and use clusters of network namespaces on this machine.")
def lab() -> None:
    """A lab: a LAN, a control namespace with the API server, nodes with Pods, and a client outside.

    Needs no root where the kernel lets users make namespaces: the labs are then inside one that is kept for them.
    """


def _program() -> str:
    """How a person calls this program."""
    return "svcplane" if shutil.which("svcplane") or not Path(sys.argv[0]).is_file() else sys.argv[0]


def _modes(text: str) -> list[str]:
    """The modes named; `all` is every one.  Raises ConfigError."""
    from svcplane.proxy.planes import PLANES

    modes = list(PLANES) if text == "all" else [part.strip() for part in text.split(",") if part.strip()]
    for mode in modes:
        if mode not in PLANES:
            raise ConfigError(f"--mode {mode}: must be one of {', '.join(PLANES)}")
    if not modes:
        raise ConfigError(f"--mode {text}: must be one of {', '.join(PLANES)}")
    return modes


async def _possible(modes: list[str]) -> dict[str, str]:
    """What hinders each mode here; empty where nothing does."""
    from svcplane.base.net import Family
    from svcplane.proxy.model import NodeConfig
    from svcplane.proxy.planes import make_plane

    found = {}
    for mode in modes:
        plane = make_plane(mode, NodeConfig("lab", Family.IPV4))
        try:
            await plane.preflight()
            found[mode] = ""
        except EnvironmentProblem as problem:
            found[mode] = str(problem)
        finally:
            await plane.close()
    return found


@lab.command()
@NAME
@click.option("--nodes", type=click.IntRange(1, 80), help="[default: 2, or what the scenario says]")
@click.option("--mode", default="", help="The proxies' mode.  [default: nftables, or what the scenario says]")
@click.option("--scenario", type=SCENARIO, help="A directory such as examples/broken/NAME: bring it about, too.")
def up(name: str, nodes: int | None, mode: str, scenario: Path | None) -> None:
    """Make a lab and leave it running."""
    from svcplane.base.tasks import to_the_end
    from svcplane.lab.cluster import Cluster
    from svcplane.lab.scenario import read
    from svcplane.lab.topology import Lab

    check_name(name)
    situation = read(scenario) if scenario is not None else None  # wrong input is told before anything is made
    begin(name)
    mode = mode or (situation.mode if situation else "nftables")
    (chosen, *more) = _modes(mode)
    if more:
        raise ConfigError(f"--mode {mode}: a lab has one")
    if problem := asyncio.run(_possible([chosen]))[chosen]:
        raise EnvironmentProblem(problem)
    cluster = Cluster(Lab(name, nodes or (situation.nodes if situation else 2)), chosen)

    async def work() -> int:
        await _make(cluster)
        if situation is not None:
            try:
                await tell(cluster, situation)
            except BaseException:
                await to_the_end(cluster.down())
                raise
        cluster.keep()
        _usage(name, str(cluster.kubeconfig))
        return 0

    sys.exit(until_done(work()))


async def _make(cluster: "Cluster") -> None:
    if cluster.abandoned:
        click.echo(f"removing lab {cluster.lab.name}, which a killed command left behind")
    await cluster.up()


def _usage(name: str, kubeconfig: str, *, filled: bool = False) -> None:
    """How to use a lab; one that is `filled` has the demonstration's objects already."""
    program, named = _program(), f"--name {name} "
    inside = f"{program} lab exec {named}"
    rows = [
        (f"{inside}client -- kubectl get nodes,services,pods -o wide", "what there is"),
        *(
            []
            if filled
            else [(f"{inside}client -- kubectl apply -f examples/", "the demonstration's Services and Pods")]
        ),
        (f"{inside}client -- {program} explain SERVICE", "who is behind a Service, and why it does not work"),
        (f"{inside}node1 -- nft list ruleset", "what the proxy wrote into the kernel of a node"),
        (f"{inside}client -- bash", "a shell in a member: control, client, node1, ..."),
        (f"{program} lab console {named}", "the web console; prints its address"),
        (f"{program} lab down {named}", "removes everything"),
    ]
    width = max(len(command) for command, _ in rows)
    click.echo(f"lab {name} runs; its kubeconfig (for use inside) is {kubeconfig}")
    for command, what in rows:
        click.echo(f"  {command.ljust(width)}  # {what}")


@lab.command()
@NAME
@click.option("--port", default=8001, show_default=True, type=click.IntRange(0, 65535), help="0: any free port.")
def console(name: str, port: int) -> None:
    """Serve a lab's web console to this host's browser until Ctrl-C, and print its address with a token."""
    from svcplane.cli.console import serve
    from svcplane.kernel.links.run import enter, path_of
    from svcplane.lab import rootless
    from svcplane.lab.cluster import find

    check_name(name)
    address = "127.0.0.1"
    try:
        listener = socket.create_server((address, port))  # stays in this network; what asks the lab goes there
    except OSError as error:
        raise EnvironmentProblem(
            f"cannot listen on {address}:{port}: {error.strerror}; choose another --port"
        ) from error
    with listener:
        rootless.enter()
        cluster = find(name)
        enter(path_of(cluster.namespace("control")))
        serve(str(cluster.kubeconfig), listener)


@lab.command()
@NAME
def down(name: str) -> None:
    """Remove a lab, whatever state it is in."""
    from svcplane.lab.cluster import find

    begin(name)
    find(name)
    sys.exit(until_done(_remove(name)))


async def _remove(name: str) -> int:
    from svcplane.base.tasks import to_the_end
    from svcplane.lab.cluster import find

    await to_the_end(find(name).down())
    return 0


@lab.command()
@NAME
def status(name: str) -> None:
    """Say what a lab consists of."""
    from svcplane.kernel.links.run import KernelLinks, pids_in
    from svcplane.lab.cluster import find

    begin(name)
    cluster = find(name)
    click.echo(f"lab {name}: {cluster.lab.node_count} nodes, proxy mode {cluster.mode or 'unknown'}")
    for space in KernelLinks().namespaces(cluster.lab.prefix):
        click.echo(f"  {space.removeprefix(cluster.lab.prefix):40} {len(pids_in(space))} processes")


@lab.command(name="exec", context_settings={"ignore_unknown_options": True})
@NAME
@click.argument("member")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(name: str, member: str, command: tuple[str, ...]) -> None:
    """Run a command in a member (control, client, node1, pod/NAME, ...) with KUBECONFIG set."""
    from svcplane.kernel.links.run import command_in
    from svcplane.lab.cluster import find

    begin(name)
    cluster = find(name)
    argv = command_in(cluster.namespace(member), command)
    try:
        os.execvpe(argv[0], argv, os.environ | {"KUBECONFIG": str(cluster.kubeconfig)})  # noqa: S606
    except FileNotFoundError as error:
        raise ConfigError(f"the program `{argv[0]}` is missing: install util-linux") from error


lab.add_command(play)
lab.add_command(connect)
lab.add_command(proxy)


@lab.command()
@click.option("--name", default="demo", show_default=True)
@NODES
@click.option("--mode", "modes", default="all", show_default=True, help="Proxy modes, separated by commas.")
@click.option("--keep", is_flag=True, help="Leave the lab running at the end; one in user-mode Linux cannot stay.")
@click.option("--manifests", default="", help="Directory of the demonstration's manifests.  [default: examples/]")
def demo(name: str, nodes: int, modes: str, keep: bool, manifests: str) -> None:
    """Show and check the main job with real packets; the exit status tells whether all held.

    A mode that this host's kernel lacks is shown in user-mode Linux where that is installed.
    """
    from svcplane.kernel import uml
    from svcplane.lab import elsewhere
    from svcplane.lab.cluster import Cluster, LabExists, find
    from svcplane.lab.manifests import manifests as read
    from svcplane.lab.topology import Lab

    begin(name)
    if (cluster := Cluster(Lab(name, nodes), "")).exists and not cluster.abandoned:
        raise LabExists(name)  # told before another kernel is started
    directory = Path(manifests) if manifests else _examples()
    read(directory)  # wrong input is told before anything is made
    hindrances = asyncio.run(_possible(_modes(modes)))
    here, there, said = elsewhere.split(hindrances, kernel=uml.available(), asked=modes != "all", keep=keep)
    for line in said:
        click.echo(line)
    with contextlib.ExitStack() as stack:
        # begun first, and told last: the two use different processors
        kernel = stack.enter_context(elsewhere.booted(name, nodes, there, directory)) if there else None
        status = until_done(_demo(name, nodes, here, keep, directory)) if here else 0
        kept = keep and bool(here) and status == 0
        if kernel is not None and status == 0:
            status = until_done(elsewhere.told(kernel, click.echo))
    if kept and status == 0:
        _usage(name, str(find(name).kubeconfig), filled=True)
    elif kept:  # interrupted, or what was shown last did not hold
        until_done(_remove(name))
    sys.exit(status)


def _examples() -> Path:
    """examples/ of the working directory, else of the source tree."""
    here = Path("examples")
    return here if here.is_dir() else Path(__file__).resolve().parents[3] / "examples"


async def _demo(name: str, nodes: int, modes: list[str], keep: bool, directory: Path) -> int:
    from rich.console import Console

    from svcplane.base.tasks import to_the_end
    from svcplane.kernel.links.run import enter, path_of
    from svcplane.lab.cluster import Cluster
    from svcplane.lab.demo import run
    from svcplane.lab.topology import Lab

    cluster = Cluster(Lab(name, nodes), modes[0])
    click.echo(
        f"building a lab of network namespaces on this machine: control (API server, controllers), {nodes} nodes "
        "(proxy, node agent, Pods), and a client; the machine's own network is left alone"
    )
    await _make(cluster)
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    good = False
    try:
        enter(path_of(cluster.namespace("client")))
        good = await run(cluster, modes, directory, Console(highlight=False, soft_wrap=True))
    finally:
        with contextlib.suppress(OSError):
            enter(f"/proc/self/fd/{home}")
        os.close(home)
        if not (keep and good):
            await to_the_end(cluster.down())
    if keep and good:
        cluster.keep()
    elif cluster.exists:
        raise KernelError(f"lab {name} was not removed whole: try `{_program()} lab down --name {name}`")
    else:
        click.echo("the lab is gone: its namespaces, rules, processes and files")
    return 0 if good else 1
