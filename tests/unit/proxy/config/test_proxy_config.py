"""KubeProxyConfiguration: files, flags, defaults, what is refused and what is passed over."""

from dataclasses import replace

import pytest

from svcplane.base.durations import format_duration, parse_duration
from svcplane.base.errors import ConfigError
from svcplane.proxy.config.choice import doubtful, passed_over, settings_of
from svcplane.proxy.config.defaults import complete
from svcplane.proxy.config.flags import FLAGS, configuration, in_flags
from svcplane.proxy.config.load import dump, parse, tree_of
from svcplane.proxy.config.validation import validate
from svcplane.proxy.config.wire import Config, Duration, KubeProxyConfiguration
from svcplane.proxy.model import DetectLocal, Protocol
from svcplane.proxy.planes import check_options
from svcplane.proxy.planes.userspace.policy import idle_s

MODES = ("iptables", "ipvs", "nftables")
HEAD = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"
#: as kubeadm writes it
KUBEADM = (
    HEAD
    + """
bindAddress: 0.0.0.0
bindAddressHardFail: false
clientConnection:
  acceptContentTypes: ""
  burst: 0
  contentType: ""
  kubeconfig: /var/lib/kube-proxy/kubeconfig.conf
  qps: 0
clusterCIDR: 10.244.0.0/16
configSyncPeriod: 0s
conntrack:
  maxPerCore: null
  min: null
  tcpBeLiberal: false
  tcpCloseWaitTimeout: null
  tcpEstablishedTimeout: null
  udpStreamTimeout: 0s
  udpTimeout: 0s
detectLocal: {bridgeInterface: "", interfaceNamePrefix: ""}
detectLocalMode: ""
enableProfiling: false
healthzBindAddress: ""
hostnameOverride: ""
iptables: {localhostNodePorts: null, masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
ipvs: {excludeCIDRs: null, minSyncPeriod: 0s, scheduler: "", strictARP: false, syncPeriod: 0s, tcpFinTimeout: 0s,
  tcpTimeout: 0s, udpTimeout: 0s}
logging: {flushFrequency: 0, options: {json: {infoBufferSize: "0"}, text: {infoBufferSize: "0"}}, verbosity: 0}
metricsBindAddress: ""
mode: ""
nftables: {masqueradeAll: false, masqueradeBit: null, minSyncPeriod: 0s, syncPeriod: 0s}
nodePortAddresses: null
oomScoreAdj: null
portRange: ""
showHiddenMetricsForVersion: ""
winkernel: {enableDSR: false, forwardHealthCheckVip: false, networkName: "", rootHnsEndpointName: "", sourceVip: ""}
"""
)


def faults(text: str) -> list[str]:
    return [f"{field}: {problem}" for field, problem in validate(complete(parse(HEAD + text)), MODES)]


def test_what_kubeadm_writes_is_taken_and_means_the_defaults() -> None:
    config = complete(parse(KUBEADM))
    assert validate(config, MODES) == []
    assert passed_over(config) == []
    settings = settings_of(config, "n1")
    assert settings == settings_of(configuration({"cluster-cidr": "10.244.0.0/16"}), "n1")
    assert settings.mode == "nftables"
    assert settings.cluster_cidrs == ("10.244.0.0/16",)
    assert settings.healthz == ("0.0.0.0", 10256)
    assert settings.metrics == ("127.0.0.1", 10249)
    assert settings.sync_period_s == 30
    assert settings.detect_local is DetectLocal.CLUSTER_CIDR


def test_what_is_written_is_read_again() -> None:
    config = configuration({"proxy-mode": "ipvs", "conntrack-tcp-timeout-established": "90m", "ipvs-scheduler": "lc"})
    again = parse(dump(config))
    assert again == config
    assert tree_of(again)["conntrack"]["tcpEstablishedTimeout"] == "1h30m0s"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mod: nftables", "unknown field mod"),
        ("iptables: {masqueradeBits: 1}", "unknown field iptables.masqueradeBits"),
        ("iptables: {syncPeriod: 30}", "iptables.syncPeriod: must be a duration such as 30s, is 30"),
        ("iptables: {syncPeriod: 30x}", 'iptables.syncPeriod: "30x" is no duration'),
        ("nodePortAddresses: primary", "nodePortAddresses: expected array, got str"),
        ("mode: a\nmode: b", "line 4: mode is given twice"),
    ],
)
def test_a_field_that_cannot_be_read_is_named(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(HEAD + text)
    assert str(caught.value).startswith(told)


def test_another_kind_is_refused() -> None:
    with pytest.raises(ConfigError, match="apiVersion and kind: must be"):
        parse("apiVersion: v1\nkind: ConfigMap\n")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mode: kernelspace", "mode: kernelspace: must be one of iptables, ipvs, nftables"),
        ("detectLocalMode: Pod", "detectLocalMode: Pod: must be one of ClusterCIDR, NodeCIDR, BridgeInterface"),
        (
            "detectLocalMode: BridgeInterface",
            "detectLocal.bridgeInterface: must not be empty with this detectLocalMode",
        ),
        ("iptables: {masqueradeBit: 32}", "iptables.masqueradeBit: 32: must be within the range [0, 31]"),
        ("mode: nftables\nnftables: {syncPeriod: 1s, minSyncPeriod: 2s}", "nftables.syncPeriod: 1s: must be greater"),
        (
            "mode: iptables\niptables: {minSyncPeriod: -1s}",
            "iptables.minSyncPeriod: -1s: must be greater than or equal to 0",
        ),
        ("oomScoreAdj: 1001", "oomScoreAdj: 1001: must be within the range [-1000, 1000]"),
        ("bindAddress: here", "bindAddress: here: not a valid textual representation of an IP"),
        ("healthzBindAddress: localhost:1", "healthzBindAddress: localhost:1: must be IP:port"),
        ("metricsBindAddress: '[::]:70000'", "metricsBindAddress: [::]:70000: must be IP:port"),
        ("clusterCIDR: 10.0.0.0", "clusterCIDR: 10.0.0.0: must be a valid CIDR block"),
        ("clusterCIDR: '10.0.0.0/8,10.1.0.0/16'", "clusterCIDR: 10.0.0.0/8,10.1.0.0/16: must be either a single CIDR"),
        ("nodePortAddresses: [primary, 10.0.0.0/8]", "nodePortAddresses: primary: can't use both 'primary' and CIDRs"),
        ("nodePortAddresses: [10.0.0.1]", "nodePortAddresses: 10.0.0.1: must be a valid CIDR"),
        ("mode: ipvs\nipvs: {scheduler: best}", "ipvs.scheduler: best: must be one of rr,"),
        ("mode: ipvs\nipvs: {tcpTimeout: -1s}", "ipvs.tcpTimeout: -1s: must be greater than or equal to 0"),
        ("conntrack: {maxPerCore: -1}", "conntrack.maxPerCore: -1: must be greater than or equal to 0"),
        ("conntrack: {udpStreamTimeout: -1s}", "conntrack.udpStreamTimeout: -1s: must be greater than or equal to 0"),
    ],
)
def test_a_value_without_sense_is_named(text: str, told: str) -> None:
    (found,) = faults(text)
    assert found.startswith(told)


@pytest.mark.parametrize(
    "text",
    [
        "mode: nftables\nipvs: {syncPeriod: 1s, minSyncPeriod: 2s, scheduler: best}",
        "mode: iptables\nnftables: {masqueradeBit: 40}",
        "detectLocalMode: NodeCIDR\nclusterCIDR: somewhere",
    ],
)
def test_what_the_mode_does_not_read_is_not_judged(text: str) -> None:
    assert faults(text) == []


def test_listeners_of_a_file_follow_the_family_of_its_bind_address() -> None:
    settings = settings_of(complete(parse(HEAD + "bindAddress: '2001:db8::1'")), "n1")
    assert (settings.healthz, settings.metrics) == (("::", 10256), ("::1", 10249))


@pytest.mark.parametrize("address", ["fe80::1%eth0", "[fe80::1%eth0]", "[fe80::1%eth0]:10249", "[::1]:10249", "::1"])
def test_completing_a_configuration_again_changes_nothing(address: str) -> None:
    once = complete(KubeProxyConfiguration(metrics_bind_address=address))
    settings = settings_of(once, "n1")
    assert settings.metrics == (address.split("]")[0].removeprefix("["), 10249)
    assert settings_of(complete(parse(dump(once))), "n1") == settings


def test_what_has_no_meaning_is_passed_over_by_name() -> None:
    text = "featureGates: {X: true}\nclientConnection: {qps: 50}\nwinkernel: {enableDSR: true}\nenableProfiling: true"
    config = complete(parse(HEAD + text))
    assert passed_over(config) == ["featureGates", "clientConnection.qps", "enableProfiling", "winkernel"]


@pytest.mark.parametrize(
    ("node_ports", "cluster_cidr", "families"),
    [
        ("10.0.0.0/8", "10.244.0.0/16,fd00::/48", ["IPv6"]),
        ("fd00::/8", "10.244.0.0/16", ["IPv4"]),
        ("10.0.0.0/8,fd00::/8", "10.244.0.0/16,fd00::/48", []),
        ("10.0.0.0/8", "10.244.0.0/16", []),
        ("primary", "10.244.0.0/16,fd00::/48", []),
        ("", "10.244.0.0/16,fd00::/48", []),
    ],
)
def test_a_family_whose_node_ports_are_not_restricted_is_told(
    node_ports: str, cluster_cidr: str, families: list[str]
) -> None:
    config = configuration({"nodeport-addresses": node_ports, "cluster-cidr": cluster_cidr})
    assert doubtful(config) == [
        f"nodePortAddresses has no {family} CIDR: node ports answer on every {family} address of this node"
        for family in families
    ]


def test_external_addresses_may_be_gated() -> None:
    assert settings_of(configuration({}), "n1").external_ips
    gated = configuration({"feature-gates": "AllowServiceExternalIPs=false"})
    assert not settings_of(gated, "n1").external_ips
    assert not passed_over(gated)
    others = configuration({"feature-gates": "AllowServiceExternalIPs=false,X=true"})
    assert not settings_of(others, "n1").external_ips
    assert passed_over(others) == ["featureGates"]


def test_every_field_can_be_given_by_its_name() -> None:
    # what is read back as it was written was neither renamed nor dropped
    config = complete(KubeProxyConfiguration())
    assert parse(dump(config)) == config
    names = set(tree_of(config)) | {
        key for value in tree_of(config).values() if isinstance(value, dict) for key in value
    }
    assert {"clusterCIDR", "excludeCIDRs", "strictARP", "tcpFinTimeout", "enableDSR", "snatNodeInternalIP"} <= names


def test_every_flag_leads_to_fields_that_exist() -> None:
    tree = tree_of(complete(KubeProxyConfiguration(udp_idle_timeout=Duration(1))))
    for name, flag in FLAGS.items():
        for field in flag.fields:
            inner = tree
            for part in field.split("."):
                assert part in inner, (name, field)
                inner = inner[part]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ({"iptables-masquerade-bit": "x"}, "--iptables-masquerade-bit x: must be a whole number"),
        ({"masquerade-all": "maybe"}, "--masquerade-all maybe: must be true or false"),
        ({"ipvs-tcp-timeout": "soon"}, '--ipvs-tcp-timeout "soon" is no duration'),
        ({"feature-gates": "A"}, "--feature-gates A: must be GATE=true|false"),
        ({"iptables-sync-period": "0s"}, "--iptables-sync-period 0s: must be greater than 0"),
    ],
)
def test_a_flag_that_cannot_be_read_is_named(flags: dict[str, str], told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        configuration(flags)
    assert str(caught.value).startswith(told)


def test_a_fault_names_the_flag_that_made_it() -> None:
    given = {"cluster-cidr": "10.0.0.0"}
    ((field, problem),) = validate(configuration(given), MODES)
    assert in_flags(f"{field}: {problem}", given).startswith("--cluster-cidr 10.0.0.0: must be a valid CIDR block")


@pytest.mark.parametrize(
    ("flags", "healthz", "metrics"),
    [
        ({}, ("0.0.0.0", 10256), ("127.0.0.1", 10249)),
        ({"healthz-bind-address": "192.0.2.1"}, ("192.0.2.1", 10256), ("127.0.0.1", 10249)),
        ({"healthz-bind-address": "", "metrics-bind-address": "[::]:9"}, None, ("::", 9)),
        ({"healthz-port": "0", "metrics-port": "99"}, None, ("127.0.0.1", 99)),
        ({"healthz-bind-address": "192.0.2.1", "healthz-port": "7"}, ("192.0.2.1", 7), ("127.0.0.1", 10249)),
        ({"bind-address": "2001:db8::1"}, ("0.0.0.0", 10256), ("127.0.0.1", 10249)),
    ],
)
def test_listeners(flags: dict[str, str], healthz: tuple[str, int] | None, metrics: tuple[str, int] | None) -> None:
    config = configuration(flags)
    assert validate(config, MODES) == []
    settings = settings_of(config, "n1")
    assert (settings.healthz, settings.metrics) == (healthz, metrics)


def test_udp_sessions_of_the_relay_end_as_the_removed_mode_was_told() -> None:
    text = "mode: userspace\nudpIdleTimeout: 250ms"
    config = complete(parse(HEAD + text))
    assert settings_of(config, "n1").mode_options == (("udp-timeout", "0.25s"),)
    assert not passed_over(config)
    assert parse(dump(config)) == config
    flags = {"proxy-mode": "userspace", "udp-timeout": "5s", "proxy-port-range": "4000-4100"}
    assert settings_of(configuration(flags), "n1").mode_options == (
        ("proxy-port-range", "4000-4100"),
        ("udp-timeout", "5s"),
    )
    assert "udpIdleTimeout" not in tree_of(complete(parse(HEAD + "udpIdleTimeout: 0s")))  # as kubeadm once wrote it
    assert passed_over(complete(parse(HEAD + "mode: nftables\nudpIdleTimeout: 1s"))) == ["udpIdleTimeout"]
    with pytest.raises(ConfigError, match="--udp-timeout 0s: must be greater than 0"):
        configuration({"udp-timeout": "0s"})
    assert faults("udpIdleTimeout: -1s") == ["udpIdleTimeout: -1s: must be greater than 0"]


def test_each_mode_has_its_own_block() -> None:
    text = "iptables: {masqueradeBit: 3, minSyncPeriod: 3s}\nnftables: {masqueradeBit: 4, masqueradeAll: true}\n"
    text += "ipvs: {minSyncPeriod: 5s, syncPeriod: 50s}\n"
    by_mode = {mode: settings_of(complete(parse(f"{HEAD}{text}mode: {mode}")), "n1") for mode in MODES}
    assert [by_mode[mode].masquerade_bit for mode in MODES] == [3, 3, 4]
    assert [by_mode[mode].masquerade_all for mode in MODES] == [False, False, True]
    assert [by_mode[mode].min_sync_period_s for mode in MODES] == [3, 5, 0]
    assert by_mode["ipvs"].sync_period_s == 50
    assert replace(by_mode["ipvs"], mode="iptables", sync_period_s=30.0, min_sync_period_s=3.0) == by_mode["iptables"]


@pytest.mark.parametrize(("text", "seconds"), [("300h", "1080000s"), ("15m0.25s", "900.25s"), ("10s", "10s")])
def test_long_durations_reach_the_mode_as_they_are(text: str, seconds: str) -> None:
    settings = settings_of(configuration({"proxy-mode": "ipvs", "ipvs-tcp-timeout": text}), "n1")
    assert settings.mode_options == (("ipvs-tcp-timeout", seconds),)
    check_options("ipvs", settings.mode_options)
    settings = settings_of(configuration({"proxy-mode": "userspace", "udp-timeout": text}), "n1")
    assert idle_s(Protocol.UDP, settings.mode_options) == parse_duration(text)


@pytest.mark.parametrize("text", ["0s", "250ms", "1.5s", "1m30s", "24h0m0s", "1h0m0.5s", "15m0s"])
def test_durations_are_printed_as_go_prints_them(text: str) -> None:
    assert format_duration(parse_duration(text)) == text


def test_struct_equality_is_by_value() -> None:
    assert issubclass(KubeProxyConfiguration, Config)
    assert Duration(1) == Duration(1.0) != Duration(2)
