"""The iptables plane on the real tools of both variants, in a network namespace of the test's own."""

import asyncio
import fcntl
import os
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.proxystates import node_configs, packets, proxy_states

from svcplane.base.errors import KernelError
from svcplane.base.net import Family
from svcplane.kernel.iptables import run as tools_run
from svcplane.kernel.iptables.run import VARIANTS, IptablesTools
from svcplane.kernel.links.run import inside
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
from svcplane.proxy.oracle import IPTABLES, decide
from svcplane.proxy.planes.iptables.plane import IptablesPlane

pytestmark = [pytest.mark.root, pytest.mark.tools("ip", "iptables-nft", "iptables-legacy"), pytest.mark.timeout(120)]
every_variant = pytest.mark.parametrize("variant", VARIANTS)
LAWS = settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture
def namespace() -> Iterator[str]:
    name = f"svcplane-ipt-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=20)
    yield name
    subprocess.run(["ip", "netns", "del", name], check=True, timeout=20)


def plane(config: NodeConfig, variant: str) -> IptablesPlane:
    return IptablesPlane(config, IptablesTools(config.family, variant))


def everything(family: Family) -> ProxyState:
    """A state that needs every kind of rule."""
    v4 = family is Family.IPV4
    config = NodeConfig(
        "node1",
        family,
        DetectLocal.CLUSTER_CIDR,
        ("10.244.0.0/16",) if v4 else ("fd00:10:244::/56",),
        primary_ips=("172.30.0.11",) if v4 else ("fd00:172::11",),
        nodeport_addresses=("172.30.0.0/24",) if v4 else ("fd00:172::/64",),
    )
    services, behind = {}, {}
    for number in range(60):
        name = ServicePortName(
            "default", f"s{number}", 'odd "name"' if number == 1 else "p", list(Protocol)[number % 3]
        )
        services[name] = ServicePort(
            name,
            f"10.96.{number % 3}.{number + 1}" if v4 else f"fd00:96::{number + 16:x}01",
            80,
            node_port=30000 + 7 * number,
            external_ips=((f"198.51.100.{number + 1}" if v4 else f"fd01::{number + 16:x}01"),),
            load_balancer_ips=((f"203.0.113.{number + 1}" if v4 else f"fd02::{number + 16:x}01"),),
            source_ranges=(("172.30.0.0/27", "0.0.0.0/0") if v4 else ("fd00:172::/80", "::/0")) if number % 4 else (),
            affinity_timeout_s=600 if number % 5 == 0 else 0,
            internal_policy_local=number % 7 == 0,
            external_policy_local=number % 3 == 0,
            health_check_node_port=31000 + number if number % 3 == 0 else 0,
        )
        if number % 11:
            ips = [f"10.244.{k}.{number + 1}" if v4 else f"fd00:10:244:{k}::{number + 16:x}01" for k in (1, 2, 3)]
            behind[name] = tuple(Endpoint(ip, 8080, is_local=k == 0) for k, ip in enumerate(ips))
    return ProxyState(config, NodeState("node1"), services, behind)


@every_variant
@pytest.mark.parametrize("family", list(Family), ids=lambda family: family.api_name)
def test_what_is_read_back_is_what_was_written(namespace: str, variant: str, family: Family) -> None:
    state = everything(family)

    async def check() -> None:
        first = plane(state.config, variant)
        report = await first.sync(state, None, now=0.0)
        assert report.operation_count > 100
        assert await first.intact()
        again = plane(state.config, variant)
        assert [(o.object, o.verb) for o in await again.plan(state)] == []
        assert (await again.sync(state, None, now=1.0)).operation_count == 0
        await first.close()
        await again.close()

    with inside(namespace):
        asyncio.run(check())


@every_variant
def test_a_foreign_edit_is_noticed_and_repaired_and_clean_up_leaves_the_rest(namespace: str, variant: str) -> None:
    state = everything(Family.IPV4)
    tool = f"iptables-{variant}"
    foreign = ("-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP")

    async def check() -> None:
        tools = IptablesTools(Family.IPV4, variant)
        subprocess.run([tool, *foreign], check=True, timeout=20)
        before = await tools.save()
        first = IptablesPlane(state.config, tools)
        await first.sync(state, None, now=0.0)
        assert await first.intact()
        for edit in (
            ("-t", "nat", "-F", "KUBE-MARK-MASQ"),
            # of the same size as what it replaces
            ("-t", "nat", "-R", "KUBE-MARK-MASQ", "1", "-j", "MARK", "--set-xmark", "0x8000/0x8000"),
            ("-D", "FORWARD", "-j", "KUBE-FORWARD"),
            ("-t", "nat", "-F"),
        ):
            subprocess.run([tool, *edit], check=True, timeout=20)
            assert not await first.intact()
            await first.sync(state, None, now=1.0)
            assert await first.intact()
            assert list(await first.plan(state)) == []
        subprocess.run([tool, "-A", "OUTPUT", "-d", "192.0.2.2", "-j", "ACCEPT"], check=True, timeout=20)
        if variant == "nft":  # somebody's own rule moves the generation, but is none of our business
            assert await first.intact()
        subprocess.run([tool, "-D", "OUTPUT", "-d", "192.0.2.2", "-j", "ACCEPT"], check=True, timeout=20)
        await first.cleanup()
        after = await tools.save()
        assert {table: chains for table, chains in after.items() if any(chains.values())} == {
            table: chains for table, chains in before.items() if any(chains.values())
        }
        assert not any("-" in chain for chains in after.values() for chain in chains)
        await first.close()

    with inside(namespace):
        asyncio.run(check())


@pytest.mark.parametrize("theirs", ["", "ip filter", "ip nat"])
def test_clean_up_takes_the_tables_that_the_tools_made_for_us(namespace: str, theirs: str) -> None:
    state = everything(Family.IPV4)

    def tables() -> str:
        return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True, timeout=20).stdout

    async def check() -> None:
        if theirs:
            subprocess.run(["nft", "add", "table", *theirs.split()], check=True, timeout=20)
        before = tables()
        first = plane(state.config, "nft")
        await first.sync(state, None, now=0.0)
        await first.close()
        second = plane(state.config, "nft")
        await second.sync(state, None, now=1.0)  # made by the one before
        assert tables() == "table ip nat\ntable ip filter\n" or tables() == "table ip filter\ntable ip nat\n"
        await second.cleanup()
        assert tables() == before
        await second.close()

    async def check_used() -> None:
        first = plane(state.config, "nft")
        await first.sync(state, None, now=0.0)
        subprocess.run(["iptables-nft", "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP"], check=True, timeout=20)
        await first.cleanup()
        assert tables() == "table ip filter\n"  # somebody's by now
        saved = await IptablesTools(Family.IPV4, "nft").save()
        assert {chain: rules for chain, rules in saved["filter"].items() if rules} == {
            "INPUT": ("-s 192.0.2.1/32 -j DROP",)
        }
        assert not any("-" in chain for chain in saved["filter"])
        await first.close()

    with inside(namespace):
        asyncio.run(check())
        if not theirs:
            asyncio.run(check_used())


@every_variant
@LAWS
@given(data=st.data())
def test_the_kernels_rules_answer_as_the_oracle(variant: str, data: st.DataObject) -> None:
    before = data.draw(proxy_states(node_configs()))
    state = data.draw(proxy_states(st.just(before.config)))
    wanted = [data.draw(packets(state)) for _ in range(8)]

    async def check() -> None:
        proxy = plane(state.config, variant)
        await proxy.sync(before, None, now=0.0)
        await proxy.sync(state, frozenset(before.services) | frozenset(state.services), now=1.0)
        for packet in wanted:
            found, way = await proxy.trace(state, packet)
            assert found == decide(state, packet, IPTABLES), (packet, way)
        await proxy.close()

    name = f"svcplane-law-{os.getpid()}"
    subprocess.run(["ip", "netns", "add", name], check=True, timeout=20)
    try:
        with inside(name):
            asyncio.run(check())
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True, timeout=20)


def test_the_variant_is_the_one_the_host_uses(namespace: str) -> None:
    async def choose() -> str:
        return await IptablesTools(Family.IPV4).choose()

    with inside(namespace):
        subprocess.run(["iptables-nft", "-A", "INPUT", "-s", "192.0.2.1", "-j", "DROP"], check=True, timeout=20)
        assert asyncio.run(choose()) == "nft"
        for address in ("192.0.2.2", "192.0.2.3"):
            subprocess.run(["iptables-legacy", "-A", "INPUT", "-s", address, "-j", "DROP"], check=True, timeout=20)
        assert asyncio.run(choose()) == "legacy"
        subprocess.run(["iptables-nft", "-t", "mangle", "-N", "KUBE-KUBELET-CANARY"], check=True, timeout=20)
        assert asyncio.run(choose()) == "nft"


def test_who_holds_the_lock_is_named(namespace: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lock = tmp_path / "xtables.lock"
    monkeypatch.setenv("XTABLES_LOCKFILE", str(lock))
    monkeypatch.setattr(tools_run, "LOCK", lock)
    monkeypatch.setattr(tools_run, "LOCK_WAIT_S", 1)
    name = Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    with lock.open("w") as held, inside(namespace):
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(KernelError, match=rf"held by {name} \(pid {os.getpid()}\)"):
            asyncio.run(IptablesTools(Family.IPV4, "legacy").restore("*nat\nCOMMIT\n"))


@every_variant
def test_remembered_clients_are_told_and_forgotten(namespace: str, variant: str) -> None:
    name = ServicePortName("default", "sticky", "u", Protocol.UDP)
    here = ("10.244.1.2", "10.244.1.3")
    state = ProxyState(
        NodeConfig("node1", Family.IPV4),
        NodeState("node1"),
        {name: ServicePort(name, "10.96.0.1", 80, affinity_timeout_s=600)},
        {name: tuple(Endpoint(ip, 8080) for ip in here)},
    )

    async def check() -> None:
        proxy = plane(state.config, variant)
        await proxy.sync(state, None, now=0.0)
        assert list(await proxy.affinity(state)) == []
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.sendto(b"x", ("10.96.0.1", 80))
        (entry,) = await proxy.affinity(state)
        assert (entry.service, entry.client) == (name, "10.96.0.9")
        assert entry.endpoint in {f"{ip}:8080" for ip in here}
        assert 590 < entry.expires_in_s <= 600.2
        # a change of the endpoints beside it forgets nobody
        third = (*state.endpoints[name], Endpoint("10.244.1.4", 8080))
        await proxy.sync(replace(state, endpoints={name: third}), frozenset({name}), now=1.0)
        assert [kept.endpoint for kept in await proxy.affinity(state)] == [entry.endpoint]
        await proxy.forget_affinity(entry)
        assert list(await proxy.affinity(state)) == []
        await proxy.close()

    with inside(namespace):
        for command in ("link set lo up", *(f"address add {ip}/32 dev lo" for ip in here)):
            subprocess.run(["ip", *command.split()], check=True, timeout=20)
        subprocess.run(["ip", "address", "add", "10.96.0.9/16", "dev", "lo"], check=True, timeout=20)
        subprocess.run(["ip", "route", "add", "10.96.0.1/32", "dev", "lo", "src", "10.96.0.9"], check=True, timeout=20)
        asyncio.run(check())


def test_a_table_that_another_mode_uses_too_goes_with_that(namespace: str) -> None:
    def tables() -> set[str]:
        done = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True, timeout=20)
        return set(done.stdout.split("\n")) - {""}

    async def check() -> None:
        state = everything(Family.IPV4)
        first, other = plane(state.config, "nft"), IptablesTools(Family.IPV4, "nft")
        await other.restore("*mangle\n:SVCPLANE-IPVS-GUARD - [0:0]\nCOMMIT\n", mark=True)
        await first.sync(state, None, now=0.0)
        await other.restore("*nat\n:SVCPLANE-IPVS-SERVICES - [0:0]\nCOMMIT\n", mark=True)
        assert tables() == {"table ip mangle", "table ip nat", "table ip filter"}
        await first.cleanup()
        assert tables() == {"table ip mangle", "table ip nat"}
        await other.restore("*mangle\n-X SVCPLANE-IPVS-GUARD\nCOMMIT\n*nat\n-X SVCPLANE-IPVS-SERVICES\nCOMMIT\n")
        await other.tidy()
        assert tables() == set()
        await first.close()
        await other.close()

    with inside(namespace):
        asyncio.run(check())
