"""The ipvs plane over an in-memory kernel: what one change costs, whose things it leaves alone, how endpoints leave."""

import logging
from dataclasses import replace

import msgspec
import pytest
from tests.fakeipvs import FakeKernel

from svcplane.base.errors import ConfigError, KernelError
from svcplane.base.net import Family
from svcplane.kernel.ipvs import objects as o
from svcplane.proxy.model import Endpoint, NodeConfig, NodeState, Protocol, ProxyState, ServicePort, ServicePortName
from svcplane.proxy.plane import AffinityEntry
from svcplane.proxy.planes.ipvs.names import Kind, set_name

CONFIG = NodeConfig("node1", Family.IPV4)
NAME = ServicePortName("default", "web", "p", Protocol.TCP)
KEY = o.ServerKey("tcp", "10.96.0.10", 80)
ONE, TWO = ("10.244.1.11", 8080), ("10.244.2.11", 8080)


def state(*ips: str, config: NodeConfig = CONFIG, name: ServicePortName = NAME, **fields: object) -> ProxyState:
    port = replace(ServicePort(name, "10.96.0.10", 80), **fields)  # type: ignore[arg-type]
    node = NodeState("node1", "", ("127.0.0.1", "172.30.0.11"))
    endpoints = tuple(Endpoint(ip, 8080, is_local=ip.startswith("10.244.1.")) for ip in ips)
    return ProxyState(config, node, {name: port}, {name: endpoints} if endpoints else {})


def with_options(**flags: str) -> NodeConfig:
    return replace(CONFIG, mode_options=tuple(sorted((f"ipvs-{flag}", text) for flag, text in flags.items())))


def annotated(**values: str) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((f"svcplane.dev/ipvs-{name.replace('_', '-')}", text) for name, text in values.items()))


async def test_one_endpoint_is_one_message_and_no_rules_are_written() -> None:
    kernel = FakeKernel()
    plane = kernel.plane(CONFIG)
    await plane.sync(state("10.244.2.12"), None, now=0.0)
    before, restores = len(kernel.ipvs.log), len(kernel.iptables.restores)
    report = await plane.sync(state("10.244.2.11", "10.244.2.12"), frozenset({NAME}), now=1.0)
    assert kernel.ipvs.log[before:] == [o.AddDestination(KEY, TWO, 1)]
    assert (report.operation_count, report.full, len(kernel.iptables.restores)) == (1, False, restores)


async def test_an_endpoint_leaves_when_its_last_connection_ended() -> None:
    kernel = FakeKernel()
    plane = kernel.plane(CONFIG)
    await plane.sync(state(ONE[0], TWO[0]), None, now=0.0)
    kernel.ipvs.targets[KEY][TWO] = o.Destination(1, active=1, inactive=2)
    report = await plane.sync(state(ONE[0]), frozenset({NAME}), now=10.0)
    assert kernel.ipvs.targets[KEY][TWO] == o.Destination(0, 1, 2)
    assert report.wake_at == 15.0
    report = await plane.sync(state(ONE[0]), frozenset(), now=15.0)
    assert (report.wake_at, TWO in kernel.ipvs.targets[KEY]) == (20.0, True)
    kernel.ipvs.targets[KEY][TWO] = o.Destination(0)
    report = await plane.sync(state(ONE[0]), frozenset(), now=20.0)
    assert (report.wake_at, set(kernel.ipvs.targets[KEY])) == (None, {ONE})
    assert [operation.reason for operation in report.operations] == ["its last connection ended"]


async def test_an_endpoint_leaves_when_its_time_is_up() -> None:
    kernel = FakeKernel()
    config = with_options(**{"drain-timeout": "12s"})
    plane = kernel.plane(config)
    await plane.sync(state(ONE[0], TWO[0], config=config), None, now=0.0)
    kernel.ipvs.targets[KEY][TWO] = o.Destination(1, active=3)
    reports = [await plane.sync(state(ONE[0], config=config), frozenset({NAME}), now=now) for now in (0.0, 5.0, 10.0)]
    assert [report.wake_at for report in reports] == [5.0, 10.0, 12.0]
    report = await plane.sync(state(ONE[0], config=config), frozenset(), now=12.0)
    assert set(kernel.ipvs.targets[KEY]) == {ONE}
    assert report.operations[0].reason == "its time is up, with 3 connections left"


async def test_an_endpoint_that_comes_back_gets_its_weight_back() -> None:
    kernel = FakeKernel()
    plane = kernel.plane(CONFIG)
    await plane.sync(state(ONE[0]), None, now=0.0)
    kernel.ipvs.targets[KEY][ONE] = o.Destination(1, active=1)
    await plane.sync(state(TWO[0]), frozenset({NAME}), now=1.0)
    report = await plane.sync(state(ONE[0], TWO[0]), frozenset({NAME}), now=2.0)
    assert kernel.ipvs.targets[KEY][ONE] == o.Destination(1, active=1)
    assert report.wake_at is None
    # and a proxy that starts finds a weight of 0 that somebody left
    kernel.ipvs.targets[KEY][ONE] = o.Destination(0)
    await kernel.plane(CONFIG).sync(state(ONE[0], TWO[0]), None, now=3.0)
    assert kernel.ipvs.targets[KEY][ONE] == o.Destination(1)


async def test_a_restarted_proxy_goes_on_draining() -> None:
    kernel = FakeKernel()
    await kernel.plane(CONFIG).sync(state(ONE[0], TWO[0]), None, now=0.0)
    kernel.ipvs.targets[KEY][TWO] = o.Destination(0, active=1)
    plane = kernel.plane(CONFIG)
    report = await plane.sync(state(ONE[0]), None, now=100.0)
    assert (report.operation_count, report.wake_at) == (0, 105.0)
    kernel.ipvs.targets[KEY][TWO] = o.Destination(0)
    await plane.sync(state(ONE[0]), frozenset(), now=105.0)
    assert set(kernel.ipvs.targets[KEY]) == {ONE}


@pytest.mark.parametrize(
    ("protocol", "annotations"),
    [
        (Protocol.UDP, ()),
        (Protocol.TCP, annotated(drain_timeout="0")),
        (Protocol.TCP, annotated(scheduler="dh")),  # which would refuse the clients of a target that drains
    ],
)
async def test_udp_and_who_wants_it_drains_nothing(
    protocol: Protocol, annotations: tuple[tuple[str, str], ...]
) -> None:
    kernel, name = FakeKernel(), msgspec.structs.replace(NAME, protocol=protocol)
    plane, key = kernel.plane(CONFIG), replace(KEY, protocol=protocol.lower())
    await plane.sync(state(ONE[0], TWO[0], name=name, annotations=annotations), None, now=0.0)
    kernel.ipvs.targets[key][TWO] = o.Destination(1, active=1)
    report = await plane.sync(state(ONE[0], name=name, annotations=annotations), frozenset({name}), now=1.0)
    assert (set(kernel.ipvs.targets[key]), report.wake_at) == ({ONE}, None)


async def test_a_service_chooses_for_itself() -> None:
    kernel = FakeKernel()
    config = with_options(scheduler="wlc")
    plane = kernel.plane(config)
    await plane.sync(state(ONE[0], config=config), None, now=0.0)
    assert kernel.ipvs.content == {KEY: o.Server("wlc")}
    chosen = annotated(scheduler="sh", weight="7", persistence_prefix="24,64")
    other = state(ONE[0], config=config, annotations=chosen, affinity_timeout_s=600)
    await plane.sync(other, frozenset({NAME}), now=1.0)
    assert kernel.ipvs.content == {KEY: o.Server("sh", 600, 24, o.FALLBACK)}
    assert kernel.ipvs.targets[KEY] == {ONE: o.Destination(7)}


async def test_mh_spreads_the_connections_of_one_client() -> None:
    kernel = FakeKernel()
    config = with_options(scheduler="mh")
    await kernel.plane(config).sync(state(ONE[0], config=config), None, now=0.0)
    assert kernel.ipvs.content == {KEY: o.Server("mh", flags=o.FALLBACK | o.BY_PORT)}
    fewer = FakeKernel(schedulers=("rr", "sh"))
    plane = fewer.plane(CONFIG)
    await plane.sync(state(ONE[0], annotations=annotated(scheduler="sh")), None, now=0.0)
    await plane.sync(state(ONE[0], annotations=annotated(scheduler="mh")), frozenset({NAME}), now=1.0)
    assert fewer.ipvs.content == {KEY: o.Server("sh", flags=o.FALLBACK)}  # the last good one as it was


async def test_a_wrong_annotation_is_told_once_and_passed_over(caplog: pytest.LogCaptureFixture) -> None:
    kernel = FakeKernel()
    plane = kernel.plane(CONFIG)
    wrong = state(ONE[0], annotations=annotated(scheduler="best"))
    with caplog.at_level(logging.ERROR):
        await plane.sync(wrong, None, now=0.0)
        await plane.sync(wrong, frozenset({NAME}), now=1.0)
    assert [record.message for record in caplog.records] == [
        "annotation passed over: service=default/web:p svcplane.dev/ipvs-scheduler: best: must be one of "
        "rr, wrr, lc, wlc, lblc, lblcr, sh, dh, sed, nq, mh, fo, ovf"
    ]
    assert kernel.ipvs.content == {KEY: o.Server("rr")}


async def test_a_scheduler_this_kernel_lacks_leaves_the_last_good_one(caplog: pytest.LogCaptureFixture) -> None:
    kernel = FakeKernel(schedulers=("rr", "lc"))
    plane = kernel.plane(CONFIG)
    await plane.sync(state(ONE[0], annotations=annotated(scheduler="lc")), None, now=0.0)
    with caplog.at_level(logging.ERROR):
        await plane.sync(state(ONE[0], TWO[0], annotations=annotated(scheduler="mh")), frozenset({NAME}), now=1.0)
    assert "this kernel has no scheduler mh (module ip_vs_mh)" in caplog.text
    assert kernel.ipvs.content == {KEY: o.Server("lc")}
    assert set(kernel.ipvs.targets[KEY]) == {ONE, TWO}
    # a new Service of that kind gets the proxy's own
    fresh = FakeKernel(schedulers=("rr", "lc"))
    await fresh.plane(CONFIG).sync(state(ONE[0], annotations=annotated(scheduler="mh")), None, now=0.0)
    assert (fresh.ipvs.content, set(fresh.ipvs.targets[KEY])) == ({KEY: o.Server("rr")}, {ONE})


async def test_what_is_not_ours_stays(caplog: pytest.LogCaptureFixture) -> None:
    kernel = FakeKernel()
    theirs = o.ServerKey("tcp", "172.30.0.11", 30080)
    apart = o.ServerKey("tcp", "192.0.2.1", 80)
    for key in (theirs, apart):
        await kernel.ipvs.commit([o.AddServer(key, o.Server("lc")), o.AddDestination(key, ("192.0.2.7", 80))])
    plane = kernel.plane(CONFIG)
    await plane.sync(state(ONE[0], node_port=30080), None, now=0.0)
    assert "tcp 172.30.0.11:30080 is somebody else's and stays as it is: service=default/web:p" in caplog.text
    assert kernel.entries(Kind.EXTERNAL, CONFIG) == set()
    await plane.cleanup()
    assert kernel.ipvs.content == {theirs: o.Server("lc"), apart: o.Server("lc")}
    assert kernel.ipvs.targets[theirs] == {("192.0.2.7", 80): o.Destination(1)}


async def test_nothing_is_taken_away_in_excluded_cidrs() -> None:
    kernel = FakeKernel()
    config = with_options(**{"exclude-cidrs": "10.96.0.0/24"})
    plane = kernel.plane(config)
    await plane.sync(state(ONE[0], config=config, external_ips=("198.51.100.1",)), None, now=0.0)
    await plane.sync(ProxyState(config, state().node), frozenset({NAME}), now=1.0)
    assert (set(kernel.ipvs.content), kernel.device.content) == ({KEY}, {"10.96.0.10"})


async def test_what_somebody_breaks_is_noticed_and_repaired() -> None:
    def drop_server(kernel: FakeKernel) -> None:
        del kernel.ipvs.content[KEY], kernel.ipvs.targets[KEY]

    def set_weight(kernel: FakeKernel) -> None:
        kernel.ipvs.targets[KEY][ONE] = o.Destination(0)

    def flush_set(kernel: FakeKernel) -> None:
        kernel.ipset.content[set_name(Kind.CLUSTER_IP, Family.IPV4)][1].clear()

    def flush_rules(kernel: FakeKernel) -> None:
        kernel.iptables.tables["nat"]["PREROUTING"] = ()

    def take_address(kernel: FakeKernel) -> None:
        assert kernel.device.content is not None
        kernel.device.content.clear()

    for break_it in (drop_server, set_weight, flush_set, flush_rules, take_address):
        kernel = FakeKernel()
        plane = kernel.plane(CONFIG)
        await plane.sync(state(ONE[0]), None, now=0.0)
        break_it(kernel)
        assert not await plane.intact(), break_it
        assert await plane.plan(state(ONE[0])), break_it
        await plane.sync(state(ONE[0]), None, now=1.0)
        assert await plane.intact(), break_it
        assert not await plane.plan(state(ONE[0])), break_it


async def test_a_set_of_another_kind_is_made_anew() -> None:
    kernel = FakeKernel()
    await kernel.plane(CONFIG).sync(state(ONE[0]), None, now=0.0)
    name = set_name(Kind.CLUSTER_IP, Family.IPV4)
    kernel.ipset.content[name] = (replace(kernel.ipset.content[name][0], max_entries=65536), set())
    plane = kernel.plane(CONFIG)
    await plane.sync(state(ONE[0]), None, now=1.0)
    assert kernel.ipset.content[name][0].max_entries > 1_000_000
    assert kernel.entries(Kind.CLUSTER_IP, CONFIG) == {"tcp 10.96.0.10:80"}
    assert not await plane.plan(state(ONE[0]))


async def test_of_two_services_with_one_address_the_first_has_it_until_it_goes() -> None:
    kernel = FakeKernel()
    plane = kernel.plane(CONFIG)
    second = ServicePortName("default", "zweb", "p", Protocol.TCP)
    one, two = state(ONE[0], external_ips=("198.51.100.1",)), state(TWO[0], name=second, external_ips=("198.51.100.1",))
    port = replace(two.services[second], cluster_ip="10.96.0.11")
    both = replace(one, services={**one.services, second: port}, endpoints={**one.endpoints, **two.endpoints})
    await plane.sync(both, None, now=0.0)
    shared = o.ServerKey("tcp", "198.51.100.1", 80)
    assert set(kernel.ipvs.targets[shared]) == {ONE}
    alone = replace(both, services={second: port}, endpoints=two.endpoints)
    await plane.sync(alone, frozenset({NAME}), now=1.0)
    await plane.sync(alone, frozenset(), now=1e9)
    assert set(kernel.ipvs.targets[shared]) == {TWO}
    assert kernel.device.content == {"10.96.0.11", "198.51.100.1"}


async def test_an_address_of_the_node_is_not_put_on_the_device() -> None:
    kernel = FakeKernel()
    plane = kernel.plane(CONFIG)
    await plane.sync(state(ONE[0], external_ips=("172.30.0.11",)), None, now=0.0)
    assert kernel.device.content == {"10.96.0.10"}
    assert kernel.entries(Kind.ADDRESSES, CONFIG) == {"10.96.0.10"}
    assert o.ServerKey("tcp", "172.30.0.11", 80) in kernel.ipvs.content


async def test_remembered_clients_are_the_templates() -> None:
    kernel = FakeKernel()
    plane = kernel.plane(CONFIG)
    await plane.sync(state(ONE[0], affinity_timeout_s=600), None, now=0.0)
    for port in (0, 40000):
        kernel.ipvs.table.append(o.Connection("tcp", "172.30.0.100", port, (KEY.address, KEY.port), ONE, "NONE", 99))
    (entry,) = await plane.affinity(state(ONE[0]))
    assert entry == AffinityEntry(NAME, "172.30.0.100", "10.244.1.11:8080", 99.0)
    with pytest.raises(KernelError, match="IPVS cannot forget one client of default/web:p"):
        await plane.forget_affinity(entry)


@pytest.mark.parametrize(
    ("flag", "text", "said"),
    [
        ("scheduler", "best", "--ipvs-scheduler best: must be one of rr, wrr"),
        ("exclude-cidrs", "10.0.0.0", "--ipvs-exclude-cidrs 10.0.0.0: must be a CIDR"),
        ("tcp-timeout", "soon", "--ipvs-tcp-timeout soon: must be a duration"),
    ],
)
async def test_a_wrong_flag_is_told(flag: str, text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        await FakeKernel().plane(with_options(**{flag: text})).preflight()


async def test_another_bit_for_marks_is_followed() -> None:
    kernel = FakeKernel()
    plane = kernel.plane(CONFIG)
    await plane.sync(state("10.244.2.11"), None, now=0.0)
    assert kernel.intake.there == {1 << 13}
    await plane.sync(state("10.244.2.11", config=replace(CONFIG, masquerade_bit=13)), None, now=1.0)
    assert kernel.intake.there == {1 << 12}
    assert await plane.intact()
