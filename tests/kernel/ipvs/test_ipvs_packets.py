"""The ipvs plane on the real kernel, with real connections: what comes and goes, what it leaves alone, old pains."""

import asyncio
import json
import multiprocessing
import socket
import struct
import subprocess
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.kernel.ipvs.world import World, node_with_pods, thread_in

from svcplane.base.net import Family
from svcplane.kernel.addresses import local_addresses
from svcplane.kernel.ipvs import objects as o
from svcplane.kernel.ipvs.run import IpvsSocket
from svcplane.kernel.netlink.run import NetlinkSocket, Request
from svcplane.proxy.model import (
    DetectLocal,
    Endpoint,
    NodeConfig,
    NodeState,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
)
from svcplane.proxy.plane import Plane, SyncReport
from svcplane.proxy.planes.ipvs.make import make

pytestmark = [pytest.mark.root, pytest.mark.tools("linux.uml", "modprobe", "ipset", "conntrack")]
CONFIG = NodeConfig("n", Family.IPV4, DetectLocal.CLUSTER_CIDR, ("10.244.0.0/16",), iptables_variant="legacy")
CONFIG6 = replace(CONFIG, family=Family.IPV6, local_cidrs=("fd00:10:244::/56",))
NODE = NodeState("n", "", ("127.0.0.1", "10.9.0.1", "10.244.1.1"))
NODE6 = NodeState("n", "", ("::1", "fd09::1", "fd00:10:244::1"))


class Setting:
    """A world, a plane of its node, and one Service that changes."""

    def __init__(self, world: World, config: NodeConfig = CONFIG) -> None:
        self.world, self.config = world, config
        self.six = config.family is Family.IPV6
        self.vip = World.VIP6 if self.six else World.VIP
        self.plane: Plane = make(config)
        self.report = SyncReport((), 0, full=True)

    def state(self, *pods: str, protocol: Protocol = Protocol.TCP, **fields: object) -> ProxyState:
        name = ServicePortName("default", "web", "", protocol)
        port = replace(ServicePort(name, self.vip, self.world.port), **fields)  # type: ignore[arg-type]
        endpoints = tuple(Endpoint(World.pod_ip(pod, six=self.six), 8080, is_local=True) for pod in pods)
        return ProxyState(self.config, NODE6 if self.six else NODE, {name: port}, {name: endpoints})

    async def sync(self, *pods: str, full: bool = False, **fields: object) -> SyncReport:
        state = self.state(*pods, **fields)  # type: ignore[arg-type]
        touched = None if full else frozenset(state.services)
        self.report = await self.plane.sync(state, touched, now=time.monotonic())
        return self.report

    @property
    def key(self) -> o.ServerKey:
        return o.ServerKey("tcp", self.vip, self.world.port)


@pytest.fixture(scope="module")
def node() -> Iterator[World]:
    with node_with_pods() as made:
        yield made


@pytest.fixture
def world(node: World) -> World:
    node.port += 1
    return node


def told(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@pytest.mark.parametrize("config", [CONFIG, CONFIG6], ids=["IPv4", "IPv6"])
async def test_a_service_comes_is_adopted_and_leaves_nothing(world: World, config: NodeConfig) -> None:
    setting = Setting(world, config)
    await setting.plane.preflight()
    await setting.sync("p1", "p2", full=True, node_port=30080)
    assert {world.connect(vip=setting.vip).pod for _ in range(4)} == {"p1", "p2"}
    state = setting.state("p1", "p2", node_port=30080)
    assert await setting.plane.plan(state) == []
    assert await setting.plane.intact()
    again = make(config)
    report = await again.sync(state, None, now=time.monotonic())
    assert (report.operation_count, report.operations) == (0, [])
    # the service's addresses are not the node's
    assert setting.vip not in (await local_addresses())[config.family]
    await again.cleanup()
    saved = told("iptables-save" if config is CONFIG else "ip6tables-save")
    assert "SVCPLANE" not in saved
    assert told("ipset", "list", "-n") == ""
    assert not [link for link in json.loads(told("ip", "-json", "link")) if link["ifname"] == "kube-ipvs0"]
    assert await IpvsSocket().servers() == {}
    await again.cleanup()


async def test_one_family_leaves_the_device_to_the_other(world: World) -> None:
    four, six = Setting(world), Setting(world, CONFIG6)
    for each in (four, six):
        await each.sync("p1", full=True)
    await four.plane.cleanup()
    assert world.connect(vip=World.VIP6).pod == "p1"
    assert await six.plane.intact()
    await six.plane.cleanup()
    assert "kube-ipvs0" not in told("ip", "link")


async def test_an_open_connection_outlives_its_endpoints_removal_and_new_ones_go_elsewhere(world: World) -> None:
    setting = Setting(world)
    await setting.sync("p1", full=True)
    held = world.connect()
    assert (held.pod, held.echoes()) == ("p1", True)
    await setting.sync("p2")
    assert setting.report.wake_at is not None
    assert set(world.pods_of(3)) == {"p2"}
    assert held.echoes()
    # it comes back: its weight too
    await setting.sync("p1", "p2")
    assert set(world.pods_of(4)) == {"p1", "p2"}
    assert setting.report.wake_at is None
    await setting.plane.cleanup()


async def test_a_drain_ends_at_its_deadline(world: World) -> None:
    setting = Setting(world, replace(CONFIG, mode_options=(("ipvs-drain-timeout", "2s"),)))
    await setting.sync("p1", full=True)
    held = world.connect()
    await setting.sync("p2")
    targets = {(World.pod_ip(pod), 8080) for pod in ("p1", "p2")}
    assert set(await IpvsSocket().destinations(setting.key)) == targets
    while setting.report.wake_at is not None:
        await asyncio.sleep(max(0.0, setting.report.wake_at - time.monotonic()))
        await setting.sync("p2")
    assert set(await IpvsSocket().destinations(setting.key)) == {(World.pod_ip("p2"), 8080)}
    assert not held.echoes()
    await setting.plane.cleanup()


async def test_a_udp_flow_moves_at_once(world: World) -> None:
    setting = Setting(world)
    await setting.sync("p1", full=True, protocol=Protocol.UDP)
    flow = world.datagrams()
    assert world.ask(flow) == "p1"
    report = await setting.sync("p2", protocol=Protocol.UDP)
    assert report.wake_at is None
    # the first datagram may go with the old entry
    assert "p2" in [world.ask(flow), world.ask(flow)]
    await setting.plane.cleanup()


async def test_a_client_port_used_again_does_not_wait_for_an_endpoint_that_drains(world: World) -> None:
    setting = Setting(world)
    await setting.sync("p1", full=True)
    first = world.connect(sport=40001)
    assert first.pod == "p1"
    first.socket.close()
    await setting.sync("p2")
    again = world.connect(sport=40001)
    assert again.pod == "p2"
    # TCP_INFO: tcpi_total_retrans; IPVS before 5.9 lost the first packet of such a connection
    assert struct.unpack_from("=I", again.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104), 100)[0] == 0
    await setting.plane.cleanup()


async def test_affinity_lets_go_of_an_endpoint_that_drains(world: World) -> None:
    setting = Setting(world)
    await setting.sync("p1", "p2", full=True, affinity_timeout_s=600)
    (pod,) = set(world.pods_of(3))
    other = "p2" if pod == "p1" else "p1"
    state = setting.state("p1", "p2", affinity_timeout_s=600)
    (entry,) = await setting.plane.affinity(state)
    assert (entry.client, entry.endpoint) == ("10.9.0.2", f"{World.pod_ip(pod)}:8080")
    restarted = make(CONFIG)
    assert not (await restarted.sync(state, None, now=0.0)).operation_count
    assert [(each.client, each.endpoint) for each in await restarted.affinity(state)] == [
        (entry.client, entry.endpoint)
    ]
    assert world.pods_of(2) == [pod, pod]
    await setting.sync(other, affinity_timeout_s=600)
    assert world.pods_of(2) == [other, other]
    await setting.plane.cleanup()


async def test_ports_that_are_none_are_refused_and_echo_requests_answered(world: World) -> None:
    setting = Setting(world)
    await setting.sync("p1", full=True)
    world.port += 1
    with pytest.raises(ConnectionRefusedError):
        world.connect()
    world.port -= 1
    assert world.pings(World.VIP)
    await setting.plane.cleanup()


async def test_no_address_of_a_service_becomes_a_source(world: World) -> None:
    setting, six = Setting(world), Setting(world, CONFIG6)
    for each in (setting, six):
        await each.sync("p1", full=True)
    for ip in ("10.9.0.2", "10.244.1.11", "fd09::2"):
        (route,) = json.loads(told("ip", "-json", "route", "get", ip))
        assert route["prefsrc"] not in (World.VIP, World.VIP6)
    listed = json.loads(told("ip", "-json", "address", "show", "dev", "kube-ipvs0"))[0]["addr_info"]
    found = {entry["local"]: (entry["scope"], entry.get("preferred_life_time")) for entry in listed}
    assert found[World.VIP][0] == "host"
    assert found[World.VIP6] == ("global", 0)
    for each in (setting, six):
        await each.plane.cleanup()


async def test_strict_arp_and_the_other_parameters(world: World) -> None:
    arp = Path("/proc/sys/net/ipv4/conf/all/arp_ignore")
    setting = Setting(world)
    await setting.sync("p1", full=True)
    assert arp.read_text() == "0\n"
    assert world.answers_arp(World.VIP)
    strict = Setting(world, replace(CONFIG, mode_options=(("ipvs-strict-arp", "true"), ("ipvs-udp-timeout", "33s"))))
    await strict.sync("p1", full=True)
    assert (arp.read_text(), Path("/proc/sys/net/ipv4/vs/conntrack").read_text()) == ("1\n", "1\n")
    assert (await IpvsSocket().timeouts()).udp == 33
    assert not world.answers_arp(World.VIP)
    assert world.answers_arp("10.9.0.1")
    await strict.plane.cleanup()
    arp.write_text("0")


async def test_a_foreign_virtual_server_goes_on(world: World) -> None:
    ipvs, key = IpvsSocket(), o.ServerKey("tcp", "10.9.0.1", 30099)
    target = (World.pod_ip("p3"), 8080)
    assert not await ipvs.commit([o.AddServer(key, o.Server("lc")), o.AddDestination(key, target)])
    setting = Setting(world)
    await setting.sync("p1", full=True, node_port=30099)
    assert await ipvs.destinations(key) == {target: o.Destination(1)}
    world.port, port = 30099, world.port
    assert world.connect(vip="10.9.0.1").pod == "p3"
    world.port = port
    await setting.plane.cleanup()
    assert await ipvs.servers() == {key: o.Server("lc")}
    await ipvs.commit([o.DeleteServer(key)])


async def test_nothing_is_taken_away_in_excluded_cidrs(world: World) -> None:
    setting = Setting(world, replace(CONFIG, mode_options=(("ipvs-exclude-cidrs", "10.96.0.0/24"),)))
    await setting.sync("p1", full=True)
    empty = replace(setting.state("p1"), services={}, endpoints={})
    await setting.plane.sync(empty, None, now=0.0)
    assert set(await IpvsSocket().servers()) == {setting.key}
    assert world.connect().pod == "p1"
    plane = make(CONFIG)
    await plane.sync(replace(empty, config=CONFIG), None, now=0.0)
    assert await IpvsSocket().servers() == {}
    await plane.cleanup()


async def test_a_flushed_ipvs_is_noticed_and_repaired(world: World) -> None:
    setting = Setting(world)
    await setting.sync("p1", full=True)
    assert await setting.plane.intact()
    await IpvsSocket().commit([o.DeleteServer(setting.key)])
    assert not await setting.plane.intact()
    await setting.sync("p1", full=True)
    assert world.connect().pod == "p1"
    told("iptables", "-t", "nat", "-F")
    assert not await setting.plane.intact()
    await setting.sync("p1", full=True)
    assert await setting.plane.intact()
    await setting.plane.cleanup()


async def test_every_scheduler_is_chosen_by_flag_and_by_annotation(world: World) -> None:
    for scheduler in o.SCHEDULERS:
        by_flag = Setting(world, replace(CONFIG, mode_options=(("ipvs-scheduler", scheduler),)))
        await by_flag.sync("p1", "p2", full=True)
        assert (await IpvsSocket().servers())[by_flag.key].scheduler == scheduler
        assert world.connect().pod in ("p1", "p2")
        await by_flag.sync("p1", "p2", annotations=(("svcplane.dev/ipvs-scheduler", "lc"),))
        assert (await IpvsSocket().servers())[by_flag.key].scheduler == "lc"
    by_annotation = Setting(world)
    for scheduler in o.SCHEDULERS:
        await by_annotation.sync("p1", "p2", full=True, annotations=(("svcplane.dev/ipvs-scheduler", scheduler),))
        assert (await IpvsSocket().servers())[by_annotation.key].scheduler == scheduler
        assert world.connect().pod in ("p1", "p2")
    await by_annotation.plane.cleanup()


async def test_a_scheduler_this_kernel_lacks_leaves_the_last_good_one(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    loads = Path("/proc/sys/kernel/modprobe")
    helper = loads.read_text()
    setting = Setting(world)
    await setting.sync("p1", full=True, annotations=(("svcplane.dev/ipvs-scheduler", "lc"),))
    subprocess.run(["modprobe", "-r", "ip_vs_mh"], check=True)
    loads.write_text("/bin/false")
    try:
        await setting.sync("p1", "p2", annotations=(("svcplane.dev/ipvs-scheduler", "mh"),))
    finally:
        loads.write_text(helper)
    assert "this kernel has no scheduler mh (module ip_vs_mh)" in caplog.text
    assert (await IpvsSocket().servers())[setting.key].scheduler == "lc"
    assert set(world.pods_of(4)) == {"p1", "p2"}
    await setting.plane.cleanup()


async def test_one_endpoint_is_one_netlink_message(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    setting = Setting(world)
    await setting.sync("p1", full=True)
    counted: list[Request] = []
    execute, ask = NetlinkSocket.execute, NetlinkSocket.ask
    monkeypatch.setattr(NetlinkSocket, "execute", lambda self, all_: counted.extend(all_) or execute(self, all_))
    monkeypatch.setattr(NetlinkSocket, "ask", lambda self, one: counted.append(one) or ask(self, one))
    state = setting.state("p1")
    (name,) = state.services
    far = (*state.endpoints[name], Endpoint("10.244.7.7", 8080))
    await setting.plane.sync(replace(state, endpoints={name: far}), frozenset({name}), now=0.0)
    assert len(counted) == 1
    monkeypatch.undo()
    await setting.plane.cleanup()


async def test_a_health_check_reaches_the_proxy_by_the_load_balancers_address(world: World) -> None:
    setting = Setting(world)
    fields = {"load_balancer_ips": ("203.0.113.7",), "external_policy_local": True, "health_check_node_port": 31000}
    await setting.sync("p1", full=True, **fields)
    with socket.create_server(("0.0.0.0", 31000)):
        for address in ("203.0.113.7", "10.9.0.1"):
            with thread_in(world.client):
                asking = socket.create_connection((address, 31000), timeout=5)
            asking.close()
        with thread_in(world.client), pytest.raises(ConnectionRefusedError):
            socket.create_connection((World.VIP, 31000), timeout=5)
    await setting.plane.cleanup()


@pytest.mark.parametrize("config", [CONFIG, CONFIG6], ids=["IPv4", "IPv6"])
async def test_an_external_address_of_another_host_serves_and_stays_that_hosts(
    world: World, config: NodeConfig
) -> None:
    setting = Setting(world, config)
    other, network = ("fd09::2", "fd09::/64") if setting.six else ("10.9.0.3", "10.9.0.0/16")
    await setting.sync("p2", full=True)
    state = setting.state("p2", external_ips=(other,))
    state = replace(state, node=replace(state.node, networks=(network,)))
    await setting.plane.sync(state, None, now=0.0)
    assert await setting.plane.intact()
    assert not (await make(config).sync(state, None, now=0.0)).operation_count
    with thread_in(world.client):
        theirs = socket.create_server((other, 9999), family=socket.AF_INET6 if setting.six else socket.AF_INET)
    with theirs:
        for namespace in (f"{world.node}p1", world.node):
            with thread_in(namespace):
                served = socket.create_connection((other, world.port), timeout=5)
                straight = socket.create_connection((other, 9999), timeout=5)
            with served, straight:
                assert served.recv(100).decode().split()[0] == "p2"
    found = json.loads(told("ip", "-json", "address", "show", "dev", "kube-ipvs0"))[0]["addr_info"]
    assert other not in [entry["local"] for entry in found]
    await setting.plane.cleanup()
    assert "24680" not in told("ip", "-6" if setting.six else "-4", "rule")


def _start(state: ProxyState) -> None:
    with asyncio.Runner(loop_factory=asyncio.new_event_loop) as runner:
        asyncio.events._set_running_loop(None)
        runner.run(make(CONFIG).sync(state, None, now=0.0))


async def test_a_proxy_killed_at_any_time_is_followed_by_one_that_completes_its_work(world: World) -> None:
    setting = Setting(world)
    names = [ServicePortName("default", f"s{number}", "", Protocol.TCP) for number in range(200)]
    services = {name: ServicePort(name, f"10.97.0.{at + 1}", 80) for at, name in enumerate(names)}
    pods = tuple(Endpoint(World.pod_ip(pod), 8080, is_local=True) for pod in ("p1", "p2"))
    state = ProxyState(CONFIG, NODE, services, dict.fromkeys(names, pods))
    for delay_s in (0.05, 0.15, 0.4, 0.8):
        child = multiprocessing.get_context("fork").Process(target=_start, args=(state,))
        child.start()
        await asyncio.sleep(delay_s)  # any moment will do
        child.kill()
        child.join()
    plane = make(CONFIG)
    await plane.sync(state, None, now=0.0)
    assert await plane.plan(state) == []
    targets = {(endpoint.ip, endpoint.port): o.Destination(1) for endpoint in pods}
    ipvs = IpvsSocket()
    assert {key.address for key in await ipvs.servers()} == {port.cluster_ip for port in services.values()}
    assert await ipvs.destinations(o.ServerKey("tcp", "10.97.0.200", 80)) == targets
    await setting.plane.cleanup()
    assert await ipvs.servers() == {}
