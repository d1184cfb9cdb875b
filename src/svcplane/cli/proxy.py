"""`svcplane proxy`: the service proxy.  Flags as kube-proxy's."""

import asyncio
import contextlib
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable
from typing import Any

import click

from svcplane.base.errors import ConfigError
from svcplane.base.net import Family, canonical_cidr, family_of
from svcplane.cli.main import configure_logging
from svcplane.proxy.model import DetectLocal, NodeConfig
from svcplane.proxy.planes import PLANES

log = logging.getLogger(__name__)


def _address(text: str, flag: str, port: int) -> tuple[str, int] | None:
    """`host`, `host:port` or an empty text for none."""
    if not text:
        return None
    host, separator, number = text.rpartition(":")
    if not separator or "]" in number or (":" in host and not host.startswith("[")):
        host, number = text, str(port)
    if not number.isdigit() or int(number) > 65535:
        raise ConfigError(f"{flag} {text}: must be ADDRESS or ADDRESS:PORT")
    return (host.strip("[]"), int(number)) if int(number) else None


def _cidrs(text: str, flag: str) -> tuple[str, ...]:
    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        cidr = canonical_cidr(part)
        if cidr is None:
            raise ConfigError(f"{flag} {part}: must be a CIDR such as 10.244.0.0/16")
        found.append(cidr)
    return tuple(found)


# kube-proxy's flags that have no meaning here: taken, so that its command lines serve, and told about once
MEANINGLESS = (
    "bind-address",
    "bind-address-hard-fail",
    "config-sync-period",
    "conntrack-max-per-core",
    "conntrack-min",
    "conntrack-tcp-be-liberal",
    "conntrack-tcp-timeout-close-wait",
    "conntrack-tcp-timeout-established",
    "conntrack-udp-timeout",
    "conntrack-udp-timeout-stream",
    "feature-gates",
    "iptables-localhost-nodeports",
    "iptables-min-sync-period",
    "iptables-sync-period",
    "ipvs-exclude-cidrs",
    "ipvs-min-sync-period",
    "ipvs-scheduler",
    "ipvs-strict-arp",
    "ipvs-sync-period",
    "ipvs-tcp-timeout",
    "ipvs-tcpfin-timeout",
    "ipvs-udp-timeout",
    "kube-api-burst",
    "kube-api-content-type",
    "kube-api-qps",
    "log-flush-frequency",
    "logging-format",
    "oom-score-adj",
    "pod-cidr",
    "profiling",
    "proxy-port-range",
    "show-hidden-metrics-for-version",
    "vmodule",
)
BOOLEAN = frozenset({"bind-address-hard-fail", "conntrack-tcp-be-liberal", "iptables-localhost-nodeports"})
BOOLEAN |= {"ipvs-strict-arp", "profiling"}


def _meaningless(command: Callable[..., Any]) -> Callable[..., Any]:
    for flag in MEANINGLESS:
        # a boolean flag may stand alone; any may carry `=value`
        lone = {"is_flag": False, "flag_value": "true"} if flag in BOOLEAN else {}
        command = click.option(f"--{flag}", default=None, hidden=True, **lone)(command)  # type: ignore[arg-type]
    return command


def _warn_meaningless(flags: dict[str, Any]) -> None:
    for flag in MEANINGLESS:
        if flags.get(flag.replace("-", "_")) is not None:
            log.warning("--%s has no meaning here and is passed over", flag)


@click.command(short_help="Run the service proxy (a drop-in kube-proxy).")
@click.option("--kubeconfig", envvar="KUBECONFIG", default="", help="Without one: the Pod's service account.")
@click.option("--master", default="", help="The API server's address, instead of the kubeconfig's.")
@click.option("--proxy-mode", default="nftables", show_default=True, help=f"One of: {', '.join(PLANES)}.")
@click.option("--hostname-override", default="", help="This node's name.  [default: the host's name]")
@click.option("--cluster-cidr", default="", help="Where Pods have their addresses; one CIDR a family.")
@click.option("--detect-local-mode", default="ClusterCIDR", show_default=True)
@click.option("--pod-bridge-interface", default="", help="For --detect-local-mode BridgeInterface.")
@click.option("--pod-interface-name-prefix", default="", help="For --detect-local-mode InterfaceNamePrefix.")
@click.option("--nodeport-addresses", default="", help="CIDRs, or `primary`, where node ports answer.")
@click.option("--masquerade-all", is_flag=True, help="Masquerade all traffic to ClusterIPs.")
@click.option(
    "--iptables-masquerade-bit", "--masquerade-bit", default=14, show_default=True, type=click.IntRange(0, 31)
)
@click.option("--healthz-bind-address", default="0.0.0.0:10256", show_default=True)
@click.option("--metrics-bind-address", default="127.0.0.1:10249", show_default=True)
@click.option("--cleanup", is_flag=True, help="Remove everything of this proxy from the kernel and end.")
@click.option("-v", "--v", "verbosity", default=2, show_default=True, type=int, help="Log verbosity.")
@_meaningless
def proxy(**flags: Any) -> None:
    """Program this node so that Services' addresses lead to their Pods."""
    configure_logging(flags["verbosity"])
    _warn_meaningless(flags)
    if flags["proxy_mode"] not in PLANES:
        raise ConfigError(f"--proxy-mode {flags['proxy_mode']}: must be one of {', '.join(PLANES)}")
    import uvloop

    uvloop.run(_cleanup() if flags["cleanup"] else _run(flags))


async def _cleanup() -> None:
    from svcplane.proxy.planes import make_plane

    for mode in PLANES:
        for family in Family:
            plane = make_plane(mode, NodeConfig("cleanup", family))
            try:
                await plane.cleanup()
            finally:
                await plane.close()


def node_configs(
    flags: dict[str, Any], name: str, node_ips: list[str], pod_cidrs: tuple[str, ...] = ()
) -> dict[Family, NodeConfig]:
    """The configuration of each family.  Raises ConfigError naming the flag."""
    try:
        mode = DetectLocal(flags["detect_local_mode"])
    except ValueError as error:
        allowed = ", ".join(mode for mode in DetectLocal if mode is not DetectLocal.NONE)
        raise ConfigError(f"--detect-local-mode {flags['detect_local_mode']}: must be one of {allowed}") from error
    local = _cidrs(flags["cluster_cidr"], "--cluster-cidr")
    if mode is DetectLocal.NODE_CIDR:
        local = _cidrs(",".join(pod_cidrs), "podCIDRs of the Node")
    primary = flags["nodeport_addresses"].strip() in ("", "primary")
    chosen = () if primary else _cidrs(flags["nodeport_addresses"], "--nodeport-addresses")
    found = {}
    for family in Family:
        addresses = tuple(cidr for cidr in chosen if family_of(cidr) is family)
        everywhere = any(ipaddress.ip_network(cidr).prefixlen == 0 for cidr in addresses)
        cidrs = tuple(cidr for cidr in local if family_of(cidr) is family)
        needs_cidr = mode in (DetectLocal.CLUSTER_CIDR, DetectLocal.NODE_CIDR)
        found[family] = NodeConfig(
            node_name=name,
            family=family,
            detect_local=DetectLocal.NONE if needs_cidr and not cidrs else mode,
            local_cidrs=cidrs,
            local_interface=flags["pod_bridge_interface"] or flags["pod_interface_name_prefix"],
            masquerade_all=flags["masquerade_all"],
            masquerade_bit=flags["iptables_masquerade_bit"],
            nodeport_addresses=() if everywhere else addresses,
            nodeport_primary_only=primary,
            primary_ips=tuple(ip for ip in node_ips if family_of(ip) is family),
        )
    return found


async def _run(flags: dict[str, Any]) -> None:
    from svcplane.client.http import HttpTransport
    from svcplane.client.kubeconfig import in_cluster, load
    from svcplane.proxy.agent import Agent, AgentConfig
    from svcplane.proxy.bootstrap import cluster_facts
    from svcplane.proxy.planes import make_plane

    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    name = flags["hostname_override"] or socket.gethostname().lower()
    access = load(flags["kubeconfig"], master=flags["master"]) if flags["kubeconfig"] else in_cluster()
    config = AgentConfig(
        name,
        flags["proxy_mode"],
        healthz=_address(flags["healthz_bind_address"], "--healthz-bind-address", 10256),
        metrics=_address(flags["metrics_bind_address"], "--metrics-bind-address", 10249),
    )
    node_configs(flags, name, [])  # wrong flags are told before anything is waited for
    transport = HttpTransport(access)
    waiting = asyncio.ensure_future(stopped.wait())
    try:
        facts_task = asyncio.ensure_future(cluster_facts(transport, name))
        await asyncio.wait((facts_task, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not facts_task.done():
            facts_task.cancel()
            return
        facts = facts_task.result()
        configs = node_configs(flags, name, facts.node_ips, facts.pod_cidrs)
        planes = {}
        for family, node_config in configs.items():
            with_cidrs = facts.with_service_cidrs(node_config)
            planes[family] = (with_cidrs, make_plane(flags["proxy_mode"], with_cidrs))
        running = asyncio.ensure_future(Agent(config, transport, planes).run())
        await asyncio.wait((running, waiting), return_when=asyncio.FIRST_COMPLETED)
        if not running.done():
            running.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await running
    finally:
        waiting.cancel()
        await transport.close()
