"""Which kernel parameters the proxy wants.  Pure.

Source: cmd/kube-proxy/app/server_linux.go setupConntrack, pkg/proxy/iptables NewProxier.
"""

from collections.abc import Iterator

from svcplane.base.net import contains
from svcplane.kernel.sysctl import Parameter
from svcplane.proxy.config.wire import Conntrack, Duration, KubeProxyConfiguration

MAX_CONNTRACK = 1024 * 1024
_NETFILTER = "proc/sys/net/netfilter/nf_conntrack_"
_HASH_SIZE = "sys/module/nf_conntrack/parameters/hashsize"
_BRIDGE = "proc/sys/net/bridge/bridge-nf-call-"


def wanted(config: KubeProxyConfiguration, cpus: int) -> list[Parameter]:
    """For a completed configuration."""
    return [*_conntrack(config.conntrack, cpus), *_localhost(config)]


def _conntrack(conntrack: Conntrack, cpus: int) -> Iterator[Parameter]:
    limit = conntrack_limit(conntrack, cpus)
    if limit:
        remedy = "set it on the host, or pass --conntrack-max-per-core=0"
        yield Parameter(f"{_NETFILTER}max", limit, True, remedy)
        yield Parameter(_HASH_SIZE, limit // 4, True, remedy)
    if conntrack.tcp_be_liberal:
        yield Parameter(f"{_NETFILTER}tcp_be_liberal", 1)
    for name, flag, timeout in (
        ("tcp_timeout_established", "tcp-timeout-established", conntrack.tcp_established_timeout),
        ("tcp_timeout_close_wait", "tcp-timeout-close-wait", conntrack.tcp_close_wait_timeout),
        ("udp_timeout", "udp-timeout", conntrack.udp_timeout),
        ("udp_timeout_stream", "udp-timeout-stream", conntrack.udp_stream_timeout),
    ):
        if seconds := _seconds(timeout):
            yield Parameter(_NETFILTER + name, seconds, False, f"set it on the host, or pass --conntrack-{flag}=0")


def conntrack_limit(conntrack: Conntrack, cpus: int) -> int:
    """How many tracked connections there must be room for; 0: leave the limit."""
    if not conntrack.max_per_core:
        return 0
    scaled = conntrack.max_per_core * cpus
    return MAX_CONNTRACK if scaled > MAX_CONNTRACK else max(scaled, conntrack.min or 0)


def _seconds(timeout: Duration | None) -> int:
    return int(timeout.seconds) if timeout is not None else 0


def _localhost(config: KubeProxyConfiguration) -> Iterator[Parameter]:
    """Node ports on 127.0.0.1 need packets to and from it routed, which iptables mode alone offers."""
    chosen = config.node_port_addresses
    on_loopback = not chosen or any("/" in cidr and contains(cidr, "127.0.0.1") for cidr in chosen)
    if config.mode == "iptables" and config.iptables.localhost_node_ports is not False and on_loopback:
        remedy = "set it on the host, or pass --iptables-localhost-nodeports=false"
        yield Parameter("proc/sys/net/ipv4/conf/all/route_localnet", 1, False, remedy)


def expected(config: KubeProxyConfiguration) -> list[Parameter]:
    """What is not the proxy's to set, but had better be so: told of where it is not."""
    if config.mode not in ("iptables", "ipvs"):
        return []
    why = "traffic between Pods on one bridge passes Services by"
    return [Parameter(f"{_BRIDGE}{tables}", 1, False, why) for tables in ("iptables", "ip6tables")]
