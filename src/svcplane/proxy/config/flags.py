"""kube-proxy's flags -> KubeProxyConfiguration.  Pure.

One row a flag: its kind and the fields it sets.  A flag without fields is taken and has no meaning here.
Source: cmd/kube-proxy/app/options.go; flags of older versions are taken too.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from svcplane.base.durations import parse_duration
from svcplane.base.errors import ConfigError
from svcplane.proxy.config.defaults import HEALTHZ_PORT, METRICS_PORT, complete, with_port
from svcplane.proxy.config.load import decode
from svcplane.proxy.config.wire import KubeProxyConfiguration

Kind = Literal["text", "int", "float", "bool", "duration", "list", "gates"]


@dataclass(frozen=True, slots=True)
class Flag:
    """`fields`: dotted paths; `help`: empty for a flag that `--help` does not show."""

    kind: Kind
    fields: tuple[str, ...] = ()
    help: str = ""


FLAGS: dict[str, Flag] = {
    "kubeconfig": Flag("text", ("clientConnection.kubeconfig",), "Without one: the Pod's service account."),
    "proxy-mode": Flag("text", ("mode",), "How: MODES.  [default: nftables]"),
    "cluster-cidr": Flag("text", ("clusterCIDR",), "Where Pods have their addresses; one CIDR a family."),
    "detect-local-mode": Flag("text", ("detectLocalMode",), "How Pods are told from others.  [default: ClusterCIDR]"),
    "pod-bridge-interface": Flag("text", ("detectLocal.bridgeInterface",), "For BridgeInterface."),
    "pod-interface-name-prefix": Flag("text", ("detectLocal.interfaceNamePrefix",), "For InterfaceNamePrefix."),
    "nodeport-addresses": Flag(
        "list",
        ("nodePortAddresses",),
        "CIDRs, or `primary`, where node ports answer.  [default: primary in nftables mode, else everywhere]",
    ),
    "bind-address": Flag("text", ("bindAddress",), "Instead of the node's own primary IP."),
    "bind-address-hard-fail": Flag("bool", ("bindAddressHardFail",), "End where a listener cannot be opened."),
    "masquerade-all": Flag(
        "bool", ("iptables.masqueradeAll", "nftables.masqueradeAll"), "Masquerade all traffic to ClusterIPs."
    ),
    "iptables-masquerade-bit": Flag(
        "int", ("iptables.masqueradeBit", "nftables.masqueradeBit"), "The bit of the mark."
    ),
    "iptables-localhost-nodeports": Flag(
        "bool", ("iptables.localhostNodePorts",), "Node ports on 127.0.0.1, in iptables mode.  [default: true]"
    ),
    "healthz-bind-address": Flag("text", ("healthzBindAddress",), "Empty: none.  [default: 0.0.0.0:10256]"),
    "metrics-bind-address": Flag("text", ("metricsBindAddress",), "Empty: none.  [default: 127.0.0.1:10249]"),
    "oom-score-adj": Flag("int", ("oomScoreAdj",), "[default: -999]"),
    "conntrack-max-per-core": Flag("int", ("conntrack.maxPerCore",), "0: leave the limit.  [default: 32768]"),
    "conntrack-min": Flag("int", ("conntrack.min",), "The limit at least.  [default: 131072]"),
    "conntrack-tcp-timeout-established": Flag(
        "duration", ("conntrack.tcpEstablishedTimeout",), "0: leave it.  [default: 24h]"
    ),
    "conntrack-tcp-timeout-close-wait": Flag(
        "duration", ("conntrack.tcpCloseWaitTimeout",), "0: leave it.  [default: 1h]"
    ),
    "conntrack-tcp-be-liberal": Flag("bool", ("conntrack.tcpBeLiberal",), "Pass TCP packets out of the window."),
    "conntrack-udp-timeout": Flag("duration", ("conntrack.udpTimeout",), "0: leave it."),
    "conntrack-udp-timeout-stream": Flag("duration", ("conntrack.udpStreamTimeout",), "0: leave it."),
    "iptables-sync-period": Flag("duration", ("iptables.syncPeriod", "nftables.syncPeriod")),
    "iptables-min-sync-period": Flag("duration", ("iptables.minSyncPeriod", "nftables.minSyncPeriod")),
    "ipvs-sync-period": Flag("duration", ("ipvs.syncPeriod",)),
    "ipvs-min-sync-period": Flag("duration", ("ipvs.minSyncPeriod",)),
    "ipvs-scheduler": Flag("text", ("ipvs.scheduler",), "[default: rr]"),
    "ipvs-exclude-cidrs": Flag("list", ("ipvs.excludeCIDRs",)),
    "ipvs-strict-arp": Flag("bool", ("ipvs.strictARP",)),
    "ipvs-tcp-timeout": Flag("duration", ("ipvs.tcpTimeout",)),
    "ipvs-tcpfin-timeout": Flag("duration", ("ipvs.tcpFinTimeout",)),
    "ipvs-udp-timeout": Flag("duration", ("ipvs.udpTimeout",)),
    "feature-gates": Flag("gates", ("featureGates",)),
    "kube-api-content-type": Flag("text", ("clientConnection.contentType",)),
    "kube-api-burst": Flag("int", ("clientConnection.burst",)),
    "kube-api-qps": Flag("float", ("clientConnection.qps",)),
    "profiling": Flag("bool", ("enableProfiling",)),
    "show-hidden-metrics-for-version": Flag("text", ("showHiddenMetricsForVersion",)),
    "config-sync-period": Flag("duration", ("configSyncPeriod",)),
    "boot-id-file": Flag("text"),
    "healthz-port": Flag("int"),
    "machine-id-file": Flag("text"),
    "metrics-port": Flag("int"),
    "log-flush-frequency": Flag("duration"),
    "log-json-info-buffer-size": Flag("text"),
    "log-json-split-stream": Flag("bool"),
    "log-text-info-buffer-size": Flag("text"),
    "log-text-split-stream": Flag("bool"),
    "logging-format": Flag("text"),
    "vmodule": Flag("text"),
    "pod-cidr": Flag("text"),
    "proxy-port-range": Flag(
        "text", ("portRange",), "Ports the relay may listen on, BEGIN-END.  [userspace; default: any]"
    ),
    "udp-timeout": Flag(
        "duration", ("udpIdleTimeout",), "How long an idle UDP session is kept.  [userspace; default: 2m]"
    ),
}
#: Kinds that may be given several times, each adding to what was given before.
REPEATED: frozenset[Kind] = frozenset({"list", "gates"})
#: Flags of another name in later versions.
DEPRECATED = {"healthz-port": "healthz-bind-address", "metrics-port": "metrics-bind-address"}
#: Zero in a file stands for the default; as a flag it is what was asked for.
POSITIVE = frozenset({"iptables-sync-period", "ipvs-sync-period", "config-sync-period", "udp-timeout"})


def configuration(given: Mapping[str, str]) -> KubeProxyConfiguration:
    """The completed configuration of a command line; `given` has what was given, by flag, as text.

    Raises ConfigError naming the flag.
    """
    tree: dict[str, Any] = {}
    for name, text in given.items():
        value = _value(name, text)
        for field in FLAGS[name].fields:
            *place, last = field.split(".")
            inner = tree
            for part in place:
                inner = inner.setdefault(part, {})
            inner[last] = value
    try:
        config = complete(decode(tree))
    except ConfigError as error:
        raise ConfigError(in_flags(str(error), given)) from error
    for name in POSITIVE & given.keys():
        if not parse_duration(given[name].removeprefix("-")):
            raise ConfigError(f"--{name} {given[name]}: must be greater than 0")
    _listeners(config, given)
    return config


def _listeners(config: KubeProxyConfiguration, given: Mapping[str, str]) -> None:
    """An empty address means none, and the old flags for ports count where an address has none."""
    usual = complete(KubeProxyConfiguration())  # whatever --bind-address is, which counts for those of a file alone
    for flag, attribute, port in (
        ("healthz", "healthz_bind_address", HEALTHZ_PORT),
        ("metrics", "metrics_bind_address", METRICS_PORT),
    ):
        setattr(config, attribute, getattr(config if f"{flag}-bind-address" in given else usual, attribute))
        address = given.get(f"{flag}-bind-address")
        old = given.get(f"{flag}-port")
        number = int(_value(f"{flag}-port", old)) if old is not None else port
        if address == "" or number == 0:
            setattr(config, attribute, "")
        elif address is not None:
            setattr(config, attribute, with_port(address, number))
        elif old is not None:
            setattr(config, attribute, with_port(getattr(config, attribute).rpartition(":")[0], number))


def _value(name: str, text: str) -> Any:
    kind = FLAGS[name].kind
    try:
        match kind:
            case "int":
                return int(text)
            case "float":
                return float(text)
            case "bool":
                return _bool(text)
            case "list":
                return [part.strip() for part in text.split(",") if part.strip()]
            case "gates":
                pairs = (part.partition("=") for part in text.split(",") if part.strip())
                return {gate.strip(): _bool(value) for gate, _, value in pairs}
            case _:
                return text
    except ValueError as error:
        wanted = {"int": "a whole number", "float": "a number", "bool": "true or false"}.get(
            kind, "GATE=true|false,..."
        )
        raise ConfigError(f"--{name} {text}: must be {wanted}") from error


def _bool(text: str) -> bool:
    if text.lower() in ("1", "t", "true"):
        return True
    if text.lower() in ("0", "f", "false"):
        return False
    raise ValueError(text)


def in_flags(message: str, given: Mapping[str, str]) -> str:
    """A message that names a field, naming the flag that set it instead."""
    for name in given:
        for field in FLAGS[name].fields:
            if message.startswith(f"{field}: "):
                return f"--{name} {message.removeprefix(f'{field}: ')}"
    return message
