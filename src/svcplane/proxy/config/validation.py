"""Whether a completed KubeProxyConfiguration makes sense.  Pure.

Source: pkg/proxy/apis/config/validation/validation.go.
"""

import ipaddress
from collections.abc import Iterable, Iterator

from svcplane.base.net import canonical_cidr, family_of, host_port
from svcplane.kernel.ipvs.objects import SCHEDULERS
from svcplane.proxy.config.wire import IPVS, Duration, IPTables, KubeProxyConfiguration, NFTables
from svcplane.proxy.model import DetectLocal

Fault = tuple[str, str]  # field, what is wrong
LOCAL_MODES = tuple(str(mode) for mode in DetectLocal if mode is not DetectLocal.NONE)


def validate(config: KubeProxyConfiguration, modes: Iterable[str]) -> list[Fault]:
    """Faults in the order of the fields; none where all is well.  What the mode does not read is not judged.

    `modes`: those this proxy has.
    """
    return [*_general(config, tuple(modes)), *_planes(config), *_conntrack(config), *_addresses(config)]


def _general(config: KubeProxyConfiguration, modes: tuple[str, ...]) -> Iterator[Fault]:
    if config.mode not in modes:
        yield "mode", f"{config.mode}: must be one of {', '.join(modes)}"
    if config.detect_local_mode not in LOCAL_MODES:
        yield "detectLocalMode", f"{config.detect_local_mode}: must be one of {', '.join(LOCAL_MODES)}"
    detect = config.detect_local
    if config.detect_local_mode == "BridgeInterface":
        yield from _interface(detect.bridge_interface, "detectLocal.bridgeInterface")
    if config.detect_local_mode == "InterfaceNamePrefix":
        yield from _interface(detect.interface_name_prefix, "detectLocal.interfaceNamePrefix")
    if config.oom_score_adj is not None and not -1000 <= config.oom_score_adj <= 1000:
        yield "oomScoreAdj", f"{config.oom_score_adj}: must be within the range [-1000, 1000]"
    yield from _positive(config.config_sync_period, "configSyncPeriod")
    if config.udp_idle_timeout.seconds < 0:
        yield from _positive(config.udp_idle_timeout, "udpIdleTimeout")
    if config.client_connection.burst < 0:
        yield "clientConnection.burst", f"{config.client_connection.burst}: must be greater than or equal to 0"


def _interface(name: str, field: str) -> Iterator[Fault]:
    if not name:
        yield field, "must not be empty with this detectLocalMode"
    elif len(name) > 15:
        yield field, f"{name}: must be 15 characters at most, as interfaces' names are"


def _planes(config: KubeProxyConfiguration) -> Iterator[Fault]:
    planes: dict[str, IPTables | NFTables] = {"iptables": config.iptables}
    if config.mode == "nftables":
        planes["nftables"] = config.nftables
    for name, plane in planes.items():
        if plane.masquerade_bit is not None and not 0 <= plane.masquerade_bit <= 31:
            yield f"{name}.masqueradeBit", f"{plane.masquerade_bit}: must be within the range [0, 31]"
    name, block = _periods(config)
    yield from _positive(block.sync_period, f"{name}.syncPeriod")
    yield from _not_negative(block.min_sync_period, f"{name}.minSyncPeriod")
    if block.min_sync_period.seconds > block.sync_period.seconds:
        yield f"{name}.syncPeriod", f"{block.sync_period}: must be greater than or equal to {name}.minSyncPeriod"
    if config.mode == "ipvs":
        if config.ipvs.scheduler not in SCHEDULERS:
            yield "ipvs.scheduler", f"{config.ipvs.scheduler}: must be one of {', '.join(SCHEDULERS)}"
        for cidr in config.ipvs.exclude_cidrs:
            if canonical_cidr(cidr) is None:
                yield "ipvs.excludeCIDRs", f"{cidr}: must be a valid CIDR such as 10.0.0.0/24"
        for field in ("tcp_timeout", "tcp_fin_timeout", "udp_timeout"):
            yield from _not_negative(getattr(config.ipvs, field), f"ipvs.{_camel(field)}")


def _periods(config: KubeProxyConfiguration) -> tuple[str, IPTables | IPVS | NFTables]:
    """The block of this mode, which alone is judged, and its name."""
    if config.mode == "ipvs":
        return "ipvs", config.ipvs
    return ("nftables", config.nftables) if config.mode == "nftables" else ("iptables", config.iptables)


def _conntrack(config: KubeProxyConfiguration) -> Iterator[Fault]:
    conntrack = config.conntrack
    for field in ("max_per_core", "min"):
        number = getattr(conntrack, field)
        if number is not None and number < 0:
            yield f"conntrack.{_camel(field)}", f"{number}: must be greater than or equal to 0"
    for field in ("tcp_established_timeout", "tcp_close_wait_timeout", "udp_timeout", "udp_stream_timeout"):
        yield from _not_negative(getattr(conntrack, field), f"conntrack.{_camel(field)}")


def _addresses(config: KubeProxyConfiguration) -> Iterator[Fault]:
    try:
        ipaddress.ip_address(config.bind_address)
    except ValueError:
        yield "bindAddress", f"{config.bind_address}: not a valid textual representation of an IP address"
    for field in ("healthz_bind_address", "metrics_bind_address"):
        text = getattr(config, field)
        if text and host_port(text) is None:
            yield _camel(field), f"{text}: must be IP:port such as 0.0.0.0:10256"
    counts = config.cluster_cidr and config.detect_local_mode == "ClusterCIDR"
    cidrs = [part.strip() for part in config.cluster_cidr.split(",")] if counts else []
    for cidr in cidrs:
        if canonical_cidr(cidr) is None:
            yield "clusterCIDR", f"{cidr}: must be a valid CIDR block such as 10.244.0.0/16 or fd00:10:244::/48"
            return
    if len(cidrs) > 2 or len({family_of(cidr) for cidr in cidrs}) < len(cidrs):
        yield "clusterCIDR", f"{config.cluster_cidr}: must be either a single CIDR or a dual-stack pair of CIDRs"
    chosen = config.node_port_addresses
    for cidr in chosen:
        if cidr == "primary":
            if len(chosen) > 1:
                yield "nodePortAddresses", "primary: can't use both 'primary' and CIDRs"
        elif canonical_cidr(cidr) is None:
            yield "nodePortAddresses", f"{cidr}: must be a valid CIDR such as 192.0.2.0/24, or primary"


def _positive(duration: Duration, field: str) -> Iterator[Fault]:
    if duration.seconds <= 0:
        yield field, f"{duration}: must be greater than 0"


def _not_negative(duration: Duration | None, field: str) -> Iterator[Fault]:
    if duration is not None and duration.seconds < 0:
        yield field, f"{duration}: must be greater than or equal to 0"


def _camel(field: str) -> str:
    head, *rest = field.split("_")
    return head + "".join(part.capitalize() for part in rest)
