"""What a KubeProxyConfiguration says where it says nothing.  Pure.

Source: pkg/proxy/apis/config/v1alpha1/defaults.go.  Two defaults differ on purpose: the mode is nftables, and a
minSyncPeriod of 0 stays 0, for a sync here costs what changed and need not wait for others.
"""

import ipaddress

from svcplane.proxy.config.wire import Duration, KubeProxyConfiguration

MODE = "nftables"
HEALTHZ_PORT, METRICS_PORT = 10256, 10249
OOM_SCORE_ADJ = -999


def complete(config: KubeProxyConfiguration) -> KubeProxyConfiguration:
    """Fill in, in place; gives the same object."""
    config.bind_address = config.bind_address or "0.0.0.0"
    six = ":" in config.bind_address
    healthz, metrics = ("::", "::1") if six else ("0.0.0.0", "127.0.0.1")
    config.healthz_bind_address = with_port(config.healthz_bind_address or healthz, HEALTHZ_PORT)
    config.metrics_bind_address = with_port(config.metrics_bind_address or metrics, METRICS_PORT)
    if config.oom_score_adj is None:
        config.oom_score_adj = OOM_SCORE_ADJ
    for block in (config.iptables, config.ipvs, config.nftables):
        block.sync_period = _or(block.sync_period, 30)
    config.ipvs.scheduler = config.ipvs.scheduler or "rr"
    for plane in (config.iptables, config.nftables):
        if plane.masquerade_bit is None:
            plane.masquerade_bit = 14
    if config.iptables.localhost_node_ports is None:
        config.iptables.localhost_node_ports = True
    conntrack = config.conntrack
    conntrack.max_per_core = 32 * 1024 if conntrack.max_per_core is None else conntrack.max_per_core
    conntrack.min = 128 * 1024 if conntrack.min is None else conntrack.min
    conntrack.tcp_established_timeout = conntrack.tcp_established_timeout or Duration(24 * 3600)
    conntrack.tcp_close_wait_timeout = conntrack.tcp_close_wait_timeout or Duration(3600)
    config.config_sync_period = _or(config.config_sync_period, 15 * 60)
    config.client_connection.content_type = (
        config.client_connection.content_type or "application/vnd.kubernetes.protobuf"
    )
    config.client_connection.qps = config.client_connection.qps or 5.0
    config.client_connection.burst = config.client_connection.burst or 10
    config.mode = config.mode or MODE
    config.detect_local_mode = config.detect_local_mode or "ClusterCIDR"
    return config


def _or(duration: Duration, seconds: float) -> Duration:
    return duration if duration.seconds else Duration(seconds)


def with_port(address: str, port: int) -> str:
    """`address:port` for a bare IP; anything else as it is."""
    bare = address.removeprefix("[").removesuffix("]")
    try:
        parsed = ipaddress.ip_address(bare)
    except ValueError:
        return address
    if "]" in bare:  # within a zone
        return address
    return f"[{parsed}]:{port}" if parsed.version == 6 else f"{parsed}:{port}"
