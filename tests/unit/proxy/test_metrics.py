"""kube-proxy's metric names, and what moves them."""

import msgspec

from svcplane.base.net import Family
from svcplane.proxy.metrics import Metrics
from svcplane.proxy.model import Endpoint, NodeConfig, NodeState, Protocol, ProxyState, ServicePort, ServicePortName
from svcplane.proxy.plane import SyncReport
from svcplane.proxy.policy import LocalGaps

#: kube-proxy 1.36, without those that read netfilter's accounting objects: name -> type, labels
KUBE_PROXY = {
    "conntrack_reconciler_deleted_entries_total": ("counter", ("ip_family",)),
    "conntrack_reconciler_sync_duration_seconds": ("histogram", ("ip_family",)),
    "network_programming_duration_seconds": ("histogram", ("ip_family",)),
    "proxy_healthz_total": ("counter", ("code",)),
    "proxy_livez_total": ("counter", ("code",)),
    "sync_full_proxy_rules_duration_seconds": ("histogram", ("ip_family",)),
    "sync_partial_proxy_rules_duration_seconds": ("histogram", ("ip_family",)),
    "sync_proxy_rules_duration_seconds": ("histogram", ("ip_family",)),
    "sync_proxy_rules_endpoint_changes_pending": ("gauge", ()),
    "sync_proxy_rules_endpoint_changes_total": ("counter", ()),
    "sync_proxy_rules_iptables_last": ("gauge", ("table", "ip_family")),
    "sync_proxy_rules_iptables_partial_restore_failures_total": ("counter", ("ip_family",)),
    "sync_proxy_rules_iptables_restore_failures_total": ("counter", ("ip_family",)),
    "sync_proxy_rules_iptables_total": ("gauge", ("table", "ip_family")),
    "sync_proxy_rules_last_queued_timestamp_seconds": ("gauge", ("ip_family",)),
    "sync_proxy_rules_last_timestamp_seconds": ("gauge", ("ip_family",)),
    "sync_proxy_rules_nftables_cleanup_failures_total": ("counter", ("ip_family",)),
    "sync_proxy_rules_nftables_sync_failures_total": ("counter", ("ip_family",)),
    "sync_proxy_rules_no_local_endpoints_total": ("gauge", ("traffic_policy", "ip_family")),
    "sync_proxy_rules_service_changes_pending": ("gauge", ()),
    "sync_proxy_rules_service_changes_total": ("counter", ()),
}


def offered(metrics: Metrics) -> dict[str, tuple[str, tuple[str, ...]]]:
    found = {}
    for collector in vars(metrics).values():
        members = collector.values() if isinstance(collector, dict) else (collector,)
        for metric in members:
            if not hasattr(metric, "_labelnames"):
                continue
            total = "_total" if metric._type == "counter" else ""
            found[metric._name + total] = (metric._type, tuple(metric._labelnames))
    return found


def test_every_name_of_kube_proxy_is_there_with_its_labels() -> None:
    found = offered(Metrics())
    assert {f"kubeproxy_{name}": kind for name, kind in KUBE_PROXY.items()} == {
        name: kind for name, kind in found.items() if name.startswith("kubeproxy_")
    }


def test_pages_name_them_as_prometheus_expects() -> None:
    metrics = Metrics()
    metrics.synced("IPv4", 0.01, SyncReport((), 3, False, None, {"rules_nat": 12, "written_nat": 4, "chains": 5}))
    metrics.failed("IPv6", "nftables", full=True)
    metrics.failed("IPv4", "iptables", full=False)
    metrics.failed("IPv4", "ipvs", full=True)
    page = metrics.render().decode()
    for line in (
        'kubeproxy_sync_proxy_rules_duration_seconds_count{ip_family="IPv4"} 1.0',
        'kubeproxy_sync_partial_proxy_rules_duration_seconds_count{ip_family="IPv4"} 1.0',
        'kubeproxy_sync_proxy_rules_iptables_total{ip_family="IPv4",table="nat"} 12.0',
        'kubeproxy_sync_proxy_rules_iptables_last{ip_family="IPv4",table="nat"} 4.0',
        'kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv6"} 1.0',
        'kubeproxy_sync_proxy_rules_iptables_restore_failures_total{ip_family="IPv4"} 1.0',
        'kubeproxy_sync_proxy_rules_iptables_partial_restore_failures_total{ip_family="IPv4"} 1.0',
        'svcplane_sync_failures_total{ip_family="IPv4",mode="ipvs"} 1.0',
        'svcplane_plane_objects{ip_family="IPv4",object="chains"} 5.0',
        'svcplane_kernel_operations_total{ip_family="IPv4"} 3.0',
    ):
        assert line in page.splitlines()
    assert "_created" not in page


NAMES = tuple(ServicePortName("default", name, "", Protocol.TCP) for name in ("a", "b", "c"))
HERE, AWAY = Endpoint("10.0.0.1", 80, is_local=True), Endpoint("10.0.0.2", 80)
GONE = Endpoint("10.0.0.3", 80, ready=False, serving=False)


def state(a: tuple[Endpoint, ...], b: tuple[Endpoint, ...] = (), c: tuple[Endpoint, ...] = ()) -> ProxyState:
    services = {
        NAMES[0]: ServicePort(NAMES[0], "10.96.0.1", 80, internal_policy_local=True),
        NAMES[1]: ServicePort(NAMES[1], "10.96.0.2", 80, node_port=30000, external_policy_local=True),
        NAMES[2]: ServicePort(NAMES[2], "10.96.0.3", 80),
    }
    return ProxyState(NodeConfig("n", Family.IPV4), NodeState("n"), services, dict(zip(NAMES, (a, b, c), strict=True)))


def test_gaps_of_policy_local_follow_what_is_touched() -> None:
    gaps = LocalGaps()
    gaps.update(state((AWAY,), (AWAY,), (AWAY,)), None)
    assert (gaps.internal, gaps.external) == ({NAMES[0]}, {NAMES[1]})
    gaps.update(state((AWAY, HERE), (HERE, AWAY)), {NAMES[0]})
    assert (gaps.internal, gaps.external) == (set(), {NAMES[1]})
    gaps.update(state((GONE,), ()), None)
    assert (gaps.internal, gaps.external) == (set(), set())
    # neither ready nor about to end: nobody uses it, here or elsewhere
    unready = msgspec.structs.replace(AWAY, ready=False)
    gaps.update(state((unready,), (unready,)), None)
    assert (gaps.internal, gaps.external) == (set(), set())
    gaps.update(state((msgspec.structs.replace(HERE, ready=False), AWAY), (AWAY,)), None)
    assert (gaps.internal, gaps.external) == ({NAMES[0]}, {NAMES[1]})
