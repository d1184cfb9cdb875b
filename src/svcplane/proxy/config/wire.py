"""kubeproxy.config.k8s.io/v1alpha1 KubeProxyConfiguration, every field.  Pure.

A field of zero value is as good as absent, as Go has it.  Source: k8s.io/kube-proxy/config/v1alpha1,
k8s.io/component-base/config/v1alpha1, k8s.io/component-base/logs/api/v1.
"""

from typing import Any

import msgspec

from svcplane.base.durations import format_duration, parse_duration

API_VERSION, KIND = "kubeproxy.config.k8s.io/v1alpha1", "KubeProxyConfiguration"


class Duration:
    """metav1.Duration: `30s` on the wire."""

    __slots__ = ("seconds",)

    def __init__(self, seconds: float = 0.0) -> None:
        self.seconds = seconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Duration) and other.seconds == self.seconds

    def __hash__(self) -> int:
        return hash(self.seconds)

    def __str__(self) -> str:
        return format_duration(self.seconds)


def decode_hook(kind: type, value: Any) -> Any:
    """For msgspec.  Raises ValueError."""
    if kind is Duration and isinstance(value, str):
        negative = value.startswith("-")
        seconds = parse_duration(value.removeprefix("-"))
        return Duration(-seconds if negative else seconds)
    raise ValueError(f"must be a duration such as 30s, is {value!r}")


def encode_hook(value: Any) -> Any:
    """For msgspec."""
    if isinstance(value, Duration):
        return str(value)
    raise NotImplementedError(type(value))


class Config(msgspec.Struct, rename="camel", kw_only=True, forbid_unknown_fields=True):
    """Base of the structs."""


class ClientConnection(Config):
    kubeconfig: str = ""
    accept_content_types: str = ""
    content_type: str = ""
    qps: float = 0.0
    burst: int = 0


class Logging(Config):
    """Only `verbosity` and `vmodule` are looked at."""

    format: str = ""
    flush_frequency: Any = 0
    verbosity: int = 0
    vmodule: list[dict[str, Any]] = []
    options: dict[str, Any] = {}


class IPTables(Config):
    masquerade_bit: int | None = None
    masquerade_all: bool = False
    localhost_node_ports: bool | None = None
    snat_node_internal_ip: bool | None = msgspec.field(name="snatNodeInternalIP", default=None)
    sync_period: Duration = msgspec.field(default_factory=Duration)
    min_sync_period: Duration = msgspec.field(default_factory=Duration)


class NFTables(Config):
    masquerade_bit: int | None = None
    masquerade_all: bool = False
    sync_period: Duration = msgspec.field(default_factory=Duration)
    min_sync_period: Duration = msgspec.field(default_factory=Duration)


class IPVS(Config):
    sync_period: Duration = msgspec.field(default_factory=Duration)
    min_sync_period: Duration = msgspec.field(default_factory=Duration)
    scheduler: str = ""
    exclude_cidrs: list[str] = msgspec.field(name="excludeCIDRs", default_factory=list)
    strict_arp: bool = msgspec.field(name="strictARP", default=False)
    tcp_timeout: Duration = msgspec.field(default_factory=Duration)
    tcp_fin_timeout: Duration = msgspec.field(default_factory=Duration)
    udp_timeout: Duration = msgspec.field(default_factory=Duration)


class Conntrack(Config):
    max_per_core: int | None = None
    min: int | None = None
    tcp_established_timeout: Duration | None = None
    tcp_close_wait_timeout: Duration | None = None
    tcp_be_liberal: bool = False
    udp_timeout: Duration = msgspec.field(default_factory=Duration)
    udp_stream_timeout: Duration = msgspec.field(default_factory=Duration)


class DetectLocal(Config):
    bridge_interface: str = ""
    interface_name_prefix: str = ""


class Winkernel(Config):
    network_name: str = ""
    source_vip: str = ""
    enable_dsr: bool = msgspec.field(name="enableDSR", default=False)
    root_hns_endpoint_name: str = ""
    forward_health_check_vip: bool = False


class KubeProxyConfiguration(Config):
    """Hostname, listeners, mode, what counts as local, conntrack."""

    api_version: str = API_VERSION
    kind: str = KIND
    feature_gates: dict[str, bool] = {}
    client_connection: ClientConnection = msgspec.field(default_factory=ClientConnection)
    logging: Logging = msgspec.field(default_factory=Logging)
    hostname_override: str = ""
    bind_address: str = ""
    healthz_bind_address: str = ""
    metrics_bind_address: str = ""
    bind_address_hard_fail: bool = False
    enable_profiling: bool = False
    show_hidden_metrics_for_version: str = ""
    mode: str = ""
    iptables: IPTables = msgspec.field(default_factory=IPTables)
    ipvs: IPVS = msgspec.field(default_factory=IPVS)
    nftables: NFTables = msgspec.field(default_factory=NFTables)
    winkernel: Winkernel = msgspec.field(default_factory=Winkernel)
    detect_local_mode: str = ""
    detect_local: DetectLocal = msgspec.field(default_factory=DetectLocal)
    cluster_cidr: str = msgspec.field(name="clusterCIDR", default="")
    node_port_addresses: list[str] = []
    oom_score_adj: int | None = None
    conntrack: Conntrack = msgspec.field(default_factory=Conntrack)
    config_sync_period: Duration = msgspec.field(default_factory=Duration)
    port_range: str = ""
    #: of userspace mode, and gone from Kubernetes with it in 1.26; configurations from before have it
    udp_idle_timeout: Duration = msgspec.field(default_factory=Duration)
    windows_run_as_service: bool = False
