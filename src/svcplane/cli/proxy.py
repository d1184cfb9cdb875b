"""`svcplane proxy`: the service proxy.  Flags and configuration file as kube-proxy's."""

import asyncio
import contextlib
import logging
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import click

from svcplane import __version__
from svcplane.base.errors import ConfigError, EnvironmentProblem, KernelError, SvcplaneError
from svcplane.base.memory import expect_growth, settle
from svcplane.base.net import Family
from svcplane.base.tasks import cancel_and_wait
from svcplane.cli.main import configure_logging
from svcplane.kernel import sysctl
from svcplane.kernel.modules import load_module
from svcplane.proxy.config.choice import doubtful, passed_over, settings_of
from svcplane.proxy.config.defaults import complete
from svcplane.proxy.config.flags import DEPRECATED, FLAGS, REPEATED, configuration, in_flags
from svcplane.proxy.config.load import dump, parse, tree_of
from svcplane.proxy.config.validation import validate
from svcplane.proxy.config.wire import KubeProxyConfiguration
from svcplane.proxy.model import EndTcp, NodeConfig
from svcplane.proxy.parameters import Parameters
from svcplane.proxy.planes import PLANES, check_options, parameters_ahead
from svcplane.proxy.settings import Settings
from svcplane.proxy.sources import Source

log = logging.getLogger(__name__)
LOOK_ANYWAY_S, SETTLE_S = 10.0, 0.05
#: Fields that count at the start alone.
AT_START = (
    "hostname_override",
    "client_connection",
    "healthz_bind_address",
    "metrics_bind_address",
    "logging",
    "oom_score_adj",
)


def _kube_proxy_flags(command: Callable[..., Any]) -> Callable[..., Any]:
    for name, flag in reversed(FLAGS.items()):
        # a boolean flag may stand alone; any may carry `=value`
        lone: dict[str, Any] = {"is_flag": False, "flag_value": "true"} if flag.kind == "bool" else {}
        if flag.kind in REPEATED:
            lone["multiple"] = True
        names = [f"--{name}", "--masquerade-bit"] if name == "iptables-masquerade-bit" else [f"--{name}"]
        text = flag.help.replace("MODES", ", ".join(PLANES))
        metavar = None if flag.kind == "text" else flag.kind.upper()
        default = () if flag.kind in REPEATED else None
        option = click.option(*names, _key(name), default=default, hidden=not text, help=text, metavar=metavar, **lone)
        command = option(command)
    return command


def _key(flag: str) -> str:
    return flag.replace("-", "_")


class _Level(click.ParamType[int]):
    """A number, which may follow the `=` of `-v=2` as kube-proxy's users write it."""

    name = "integer"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        try:
            return int(str(value).removeprefix("="))
        except ValueError:
            self.fail(f"{value!r} is not a valid integer.", param, ctx)


def _switch(name: str, text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """A flag of one task, alone or as `--name=true|false`."""
    return click.option(name, is_flag=False, flag_value="true", default="false", type=bool, metavar="", help=text)


#: kube-proxy takes `_` for `-` in the names of flags.
_UNDERSCORES = {"token_normalize_func": lambda token: token.replace("_", "-")}


@click.command(short_help="Run the service proxy (a drop-in kube-proxy).", context_settings=_UNDERSCORES)
@click.option("--config", "config_file", default="", help="A KubeProxyConfiguration file, which overrules most flags.")
@click.option("--manifests", default="", help="A directory of Services and EndpointSlices, instead of an API server.")
@click.option("--master", default="", help="The API server's URL, or several by commas, instead of the kubeconfig's.")
@click.option("--hostname-override", default="", help="This node's name.  [default: the host's name]")
@_kube_proxy_flags
@click.option(
    "--iptables-variant",
    default="auto",
    show_default=True,
    type=click.Choice(["auto", "nft", "legacy"]),
    help="Which iptables tools; auto: those whose rules the host has.",
)
@click.option(
    "--ipvs-drain-timeout",
    default="15m",
    show_default=True,
    help="How long a removed endpoint may finish its TCP connections, in ipvs mode.",
)
@click.option(
    "--end-tcp-connections",
    default="never",
    show_default=True,
    type=click.Choice([str(when) for when in EndTcp]),
    help="End TCP connections to endpoints that are removed, or serve no more, in nftables and iptables mode.",
)
@click.option("--write-config-to", default="", help="Write the configuration these flags make to a file, and end.")
@_switch("--init-only", "Set kernel parameters, which may need more privileges, and end.")
@_switch("--cleanup", "Remove everything of this proxy, in any mode, and end.")
@click.version_option(__version__, prog_name="svcplane")
@click.option("-v", "--v", "verbosity", default=None, type=_Level(), help="Log verbosity.  [default: 2]")
def proxy(**flags: Any) -> None:
    """Program this node so that Services' addresses lead to their Pods."""
    chosen = Chosen(flags)
    config = chosen.read()
    verbosity = flags["verbosity"] if flags["verbosity"] is not None else config.logging.verbosity or 2
    configure_logging(verbosity)
    if flags["write_config_to"]:
        _write(Path(flags["write_config_to"]), config)
        return
    import uvloop

    if flags["cleanup"]:
        uvloop.run(_cleanup())
        return
    chosen.warn(config)
    if flags["init_only"]:
        _prepare(config, chosen.settings(config))
        return
    uvloop.run(_run(config, chosen, flags))


@dataclass(frozen=True, slots=True)
class Chosen:
    """The command line, and the file it may name."""

    flags: dict[str, Any]

    @property
    def file(self) -> Path | None:
        return Path(self.flags["config_file"]) if self.flags["config_file"] else None

    @property
    def given(self) -> dict[str, str]:
        """kube-proxy's flags that were given."""
        found = {name: self.flags[_key(name)] for name in FLAGS}
        if not found["kubeconfig"] and not self.flags["manifests"] and os.environ.get("KUBECONFIG"):
            found["kubeconfig"] = os.environ["KUBECONFIG"]
        found |= {name: ",".join(found[name]) or None for name in FLAGS if FLAGS[name].kind in REPEATED}
        return {name: text for name, text in found.items() if text is not None}

    def read(self) -> KubeProxyConfiguration:
        """The configuration, complete and valid.  Raises ConfigError naming the flag, or the file and the field."""
        if self.file is None:
            config = configuration(self.given)
        else:
            try:
                config = complete(parse(self.file.read_text()))
            except (OSError, UnicodeDecodeError) as error:
                raise ConfigError(f"--config {self.file}: {getattr(error, 'strerror', None) or error}") from error
            except ConfigError as error:
                raise ConfigError(f"--config {self.file}: {error}") from error
        for field, problem in validate(config, PLANES):
            if self.file is not None:
                raise ConfigError(f"--config {self.file}: {field}: {problem}")
            raise ConfigError(in_flags(f"{field}: {problem}", self.given))
        return config

    def settings(self, config: KubeProxyConfiguration) -> Settings:
        """What the agent is told.  Raises ConfigError, also for what the mode alone can judge."""
        name = self._node_name(config)
        variant = self.flags["iptables_variant"].replace("auto", "")
        settings = settings_of(config, name)
        options = settings.mode_options
        if settings.mode == "ipvs":
            options = tuple(sorted((*options, ("ipvs-drain-timeout", self.flags["ipvs_drain_timeout"]))))
        check_options(settings.mode, options)
        ends = EndTcp(self.flags["end_tcp_connections"])
        return replace(settings, iptables_variant=variant, mode_options=options, end_tcp_connections=ends)

    def _node_name(self, config: KubeProxyConfiguration) -> str:
        """Raises ConfigError."""
        given, written = self.flags["hostname_override"], config.hostname_override
        name = (given or written or socket.gethostname()).strip().lower()
        if not name:
            raise ConfigError(
                "--hostname-override: must not be empty" if given else "hostnameOverride: must not be empty"
            )
        return str(name)

    def warn(self, config: KubeProxyConfiguration) -> None:
        """Tell of what is passed over."""
        for name in self.given:
            if name in DEPRECATED:
                log.warning("--%s is deprecated: use --%s", name, DEPRECATED[name])
            elif self.file is not None and name != "kubeconfig":
                log.warning("--%s is passed over, for --config is given", name)
            elif not FLAGS[name].fields:
                log.warning("--%s has no meaning here and is passed over", name)
        for field in passed_over(config):
            log.warning("%s has no meaning here and is passed over", field)
        for doubt in doubtful(config):
            log.warning("%s", doubt)


def _prepare(config: KubeProxyConfiguration, settings: Settings) -> None:
    """Set all kernel parameters that the proxy needs, those too that its plane would set, with their modules."""
    also, modules = parameters_ahead(settings.mode, settings.mode_options)
    parameters = Parameters(config, also=also)
    missing = parameters.set()
    loaded = [name for name in ("nf_conntrack", *modules) if missing and load_module(name)]
    if loaded:
        missing = parameters.set()
    for parameter in missing:
        log.warning("%s: this kernel does not have it; load its module first", parameter.name)


def _write(path: Path, config: KubeProxyConfiguration) -> None:
    try:
        path.write_text(dump(config))
    except OSError as error:
        raise ConfigError(f"--write-config-to {path}: {error.strerror}") from error


def _protect(config: KubeProxyConfiguration) -> None:
    """Have the kernel spare this process when memory runs out."""
    if config.oom_score_adj is None:
        return
    try:
        sysctl.ensure(sysctl.Parameter("proc/self/oom_score_adj", config.oom_score_adj))
    except KernelError as error:
        log.info("%s", error)


async def _cleanup() -> None:
    """Every mode this host can have, in both families.  Raises where something was not removed, or nothing could be."""
    from svcplane.proxy.planes import make_plane

    lacking: list[EnvironmentProblem] = []
    failed: list[SvcplaneError] = []
    for mode in PLANES:
        for family in Family:
            plane = make_plane(mode, NodeConfig("cleanup", family))
            try:
                await plane.cleanup()
            except EnvironmentProblem as error:
                lacking.append(error)
            except SvcplaneError as error:
                failed.append(error)
            finally:
                await plane.close()
    if failed:
        raise failed[0]
    if len(lacking) == len(PLANES) * len(Family):
        raise lacking[0]


async def _run(config: KubeProxyConfiguration, chosen: Chosen, flags: dict[str, Any]) -> None:
    expect_growth()
    from svcplane.proxy.agent import Agent

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    settings = chosen.settings(config)
    async with _source(settings.node_name, config, flags) as (source, reporter):
        agent = Agent(settings, source, reporter=reporter)
        agent.configz = {"kubeproxy.config.k8s.io": tree_of(config)}
        agent.flags = _shown(flags)
        tasks = [asyncio.create_task(agent.run(), name="agent"), asyncio.create_task(stopped.wait(), name="signal")]
        tasks.append(asyncio.create_task(_follow(chosen, config, agent), name="configuration"))
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            await cancel_and_wait(*(task for task in tasks if not task.done()))


def _shown(flags: dict[str, Any]) -> dict[str, str]:
    """The flags that were given or have a value of their own, as they would be written."""
    found = {}
    for name, value in flags.items():
        text = ",".join(value) if isinstance(value, tuple) else str(value).lower() if value in (True, False) else value
        if text not in (None, ""):
            found["v" if name == "verbosity" else "config" if name == "config_file" else name.replace("_", "-")] = str(
                text
            )
    return found


async def _follow(chosen: Chosen, config: KubeProxyConfiguration, agent: Any) -> None:
    """Set kernel parameters once our rules have loaded what has them; take on edits of the configuration file."""
    await agent.synced.wait()
    settle()
    _protect(config)
    parameters = Parameters(config)
    for parameter in parameters.set():
        log.debug("%s: this kernel does not have it", parameter.name)
    keeping = asyncio.create_task(parameters.keep(), name="parameters")
    try:
        if chosen.file is not None:
            await _follow_file(chosen, chosen.file, config, agent, parameters)
        await keeping
    finally:
        await cancel_and_wait(keeping)


async def _follow_file(
    chosen: Chosen, file: Path, config: KubeProxyConfiguration, agent: Any, parameters: Parameters
) -> None:
    from svcplane.kernel.inotify import DirectoryWatch

    watch, told = DirectoryWatch(), ""
    try:
        while True:
            watch.watch(file.parent)
            if await watch.changed(LOOK_ANYWAY_S):
                while await watch.changed(SETTLE_S):
                    pass
            try:
                fresh = chosen.read()
                settings = chosen.settings(fresh)
            except ConfigError as error:
                if str(error) != told:
                    log.error("%s; the configuration stays as it was", error)
                told = str(error)
                continue
            told = ""
            if fresh != config:
                _take_on(fresh, config, settings, chosen, agent)
                parameters.adopt(fresh)
                config = fresh
    finally:
        watch.close()


def _take_on(
    fresh: KubeProxyConfiguration, config: KubeProxyConfiguration, settings: Settings, chosen: Chosen, agent: Any
) -> None:
    log.info("the configuration changed")
    fixed = [*AT_START, *(["port_range"] if config.mode == "userspace" else [])]  # the relay has its ports
    for field in fixed:
        if getattr(fresh, field) != getattr(config, field):
            written = KubeProxyConfiguration.__struct_encode_fields__[fresh.__struct_fields__.index(field)]
            log.warning("%s: the change needs a restart", written)
    chosen.warn(fresh)
    agent.configz = {"kubeproxy.config.k8s.io": tree_of(fresh)}
    agent.reconfigure(settings)


@contextlib.asynccontextmanager
async def _source(
    node_name: str, config: KubeProxyConfiguration, flags: dict[str, Any]
) -> AsyncIterator[tuple[Source, Any]]:
    """Files, or an API server, which is told what has been programmed."""
    if flags["manifests"]:
        from svcplane.proxy.sources.directory import DirectorySource

        yield DirectorySource(Path(flags["manifests"]), node_name), None
        return
    from svcplane.client.http import HttpTransport
    from svcplane.client.kubeconfig import component_access
    from svcplane.client.metrics import called
    from svcplane.proxy.report import LeaseReporter
    from svcplane.proxy.sources.api import ApiSource

    access = component_access(config.client_connection.kubeconfig, flags["master"])
    transport = HttpTransport(access, called=called)
    try:
        yield ApiSource(transport, node_name), LeaseReporter(transport, node_name)
    finally:
        await transport.close()
