"""A completed, valid KubeProxyConfiguration -> Settings, and what in it means nothing here.  Pure."""

from collections.abc import Iterable, Iterator
from typing import Any

from svcplane.base.net import Family, canonical_cidr, family_of, host_port
from svcplane.proxy.config.defaults import complete
from svcplane.proxy.config.load import tree_of
from svcplane.proxy.config.wire import IPVS, Duration, IPTables, KubeProxyConfiguration, NFTables
from svcplane.proxy.model import DetectLocal
from svcplane.proxy.settings import PRIMARY, Settings

#: The one feature gate of kube-proxy's that means something here.
EXTERNAL_IPS_GATE = "AllowServiceExternalIPs"
#: Taken, and without meaning here.
MEANINGLESS = (
    "featureGates",
    "clientConnection.acceptContentTypes",
    "clientConnection.contentType",
    "clientConnection.qps",
    "clientConnection.burst",
    "logging.format",
    "logging.flushFrequency",
    "logging.vmodule",
    "enableProfiling",
    "showHiddenMetricsForVersion",
    "iptables.snatNodeInternalIP",
    "winkernel",
    "configSyncPeriod",
    "portRange",
    "udpIdleTimeout",
    "windowsRunAsService",
)


def settings_of(config: KubeProxyConfiguration, node_name: str) -> Settings:
    """What the agent is told."""
    block, plane = _block(config), _plane(config)
    nodeports = tuple(config.node_port_addresses)
    detect = DetectLocal(config.detect_local_mode)
    interface = {
        DetectLocal.BRIDGE_INTERFACE: config.detect_local.bridge_interface,
        DetectLocal.INTERFACE_NAME_PREFIX: config.detect_local.interface_name_prefix,
    }.get(detect, "")
    return Settings(
        node_name=node_name,
        mode=config.mode,
        detect_local=detect,
        cluster_cidrs=_cidrs(config.cluster_cidr.split(",")),
        local_interface=interface,
        masquerade_all=plane.masquerade_all,
        masquerade_bit=14 if plane.masquerade_bit is None else plane.masquerade_bit,
        nodeport_addresses=nodeports if nodeports == (PRIMARY,) else _cidrs(nodeports),
        localhost_nodeports=config.iptables.localhost_node_ports is not False,
        bind_address=config.bind_address,
        sync_period_s=block.sync_period.seconds,
        min_sync_period_s=block.min_sync_period.seconds,
        healthz=host_port(config.healthz_bind_address),
        metrics=host_port(config.metrics_bind_address),
        mode_options=_mode_options(config),
        external_ips=config.feature_gates.get(EXTERNAL_IPS_GATE, True),
        bind_hard_fail=config.bind_address_hard_fail,
    )


def _mode_options(config: KubeProxyConfiguration) -> tuple[tuple[str, str], ...]:
    if config.mode == "userspace":
        given = {"proxy-port-range": config.port_range, "udp-timeout": _seconds(config.udp_idle_timeout)}
        return tuple((name, text) for name, text in given.items() if text)
    return _ipvs_options(config.ipvs) if config.mode == "ipvs" else ()


def _ipvs_options(block: IPVS) -> tuple[tuple[str, str], ...]:
    """As the plane reads them: by the names of the flags, sorted."""
    found = {
        "ipvs-scheduler": "" if block.scheduler == "rr" else block.scheduler,
        "ipvs-exclude-cidrs": ",".join(block.exclude_cidrs),
        "ipvs-strict-arp": "true" if block.strict_arp else "",
    }
    for name in ("tcp", "tcpfin", "udp"):
        period = {"tcp": block.tcp_timeout, "tcpfin": block.tcp_fin_timeout, "udp": block.udp_timeout}[name]
        found[f"ipvs-{name}-timeout"] = _seconds(period)
    return tuple(sorted((name, text) for name, text in found.items() if text))


def _seconds(period: Duration) -> str:
    """In seconds alone, down to a millisecond; nothing for none."""
    return f"{period.seconds:.3f}".rstrip("0").rstrip(".") + "s" if period.seconds else ""


def _block(config: KubeProxyConfiguration) -> IPTables | NFTables | IPVS:
    """Where this mode's sync periods stand."""
    return config.ipvs if config.mode == "ipvs" else _plane(config)


def _plane(config: KubeProxyConfiguration) -> IPTables | NFTables:
    """Where this mode's masquerading stands: ipvs and userspace share that of iptables."""
    return config.nftables if config.mode == "nftables" else config.iptables


def _cidrs(texts: Any) -> tuple[str, ...]:
    return tuple(cidr for text in texts if (cidr := canonical_cidr(text)))


def doubtful(config: KubeProxyConfiguration) -> list[str]:
    """What is valid and may not be meant, in a sentence each.  Source: kube-proxy's checkBadConfig.

    CIDRs for node ports restrict their own family alone.
    """
    chosen = _families(config.node_port_addresses)
    pods = _families(config.cluster_cidr.split(","))
    return [
        f"nodePortAddresses has no {family.api_name} CIDR: "
        f"node ports answer on every {family.api_name} address of this node"
        for family in Family
        if chosen and family in pods - chosen
    ]


def _families(cidrs: Iterable[str]) -> set[Family]:
    return {family_of(cidr) for cidr in _cidrs(cidrs)}


def passed_over(config: KubeProxyConfiguration) -> list[str]:
    """Fields that were given a value of their own and mean nothing here."""
    given, usual = tree_of(config), tree_of(complete(KubeProxyConfiguration()))
    meaning = {"portRange", "udpIdleTimeout"} if config.mode == "userspace" else set()
    if config.feature_gates.keys() == {EXTERNAL_IPS_GATE}:
        meaning.add("featureGates")
    return [field for field in MEANINGLESS if field not in meaning for _ in _differing(given, usual, field)]


def _differing(given: dict[str, Any], usual: dict[str, Any], field: str) -> Iterator[None]:
    for part in field.split("."):
        given, usual = given.get(part, {}), usual.get(part, {})
    if given != usual:
        yield
