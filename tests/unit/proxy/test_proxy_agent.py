"""The agent against planes that only remember: what is synced when, switches of mode, drains, health, metrics."""

import asyncio
import dataclasses
import json
import time
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from svcplane.base.errors import EnvironmentProblem, KernelError
from svcplane.base.net import Family
from svcplane.kernel.addresses import Local
from svcplane.proxy import agent as agent_module
from svcplane.proxy import family as family_module
from svcplane.proxy.agent import Agent
from svcplane.proxy.model import NodeConfig, Outcome, Packet, ProxyState, ServicePortName
from svcplane.proxy.plane import AffinityEntry, Operation, SyncReport
from svcplane.proxy.settings import Settings
from svcplane.proxy.snapshot import decode
from svcplane.proxy.sources.directory import DirectorySource

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: 10.96.0.10, ports: [{port: PORT}]}
"""
NODE = """
apiVersion: v1
kind: Node
metadata: {name: n1}
spec: {taints: TAINTS}
status: {addresses: [{type: InternalIP, address: 192.0.2.1}]}
"""


class Kernel:
    """What the planes of all modes and families hold, and what was asked of them in order."""

    def __init__(self) -> None:
        self.rules: dict[tuple[str, Family], list[str]] = {}
        self.log: list[str] = []
        self.failing: set[str] = set()
        self.lacking: set[tuple[str, Family]] = set()
        self.flawed: set[str] = set()
        self.wake_in: float | None = None
        self.configs: list[NodeConfig] = []
        self.held: asyncio.Event | None = None  # a sync ends when it is set
        self.writing = False
        self.looks = 0  # at the host's addresses, which is what each check begins with

    def make(self, mode: str, config: NodeConfig) -> "RememberingPlane":
        return RememberingPlane(self, mode, config.family)


class RememberingPlane:
    def __init__(self, kernel: Kernel, mode: str, family: Family) -> None:
        self.mode, self._kernel, self._family = mode, kernel, family

    async def preflight(self) -> None:
        if (self.mode, self._family) in self._kernel.lacking:
            raise EnvironmentProblem(f"no {self.mode} on this host")

    async def sync(self, state: ProxyState, touched: frozenset[ServicePortName] | None, *, now: float) -> SyncReport:
        kernel = self._kernel
        kernel.log.append(f"{self.mode} sync {self._family.value} {'full' if touched is None else len(touched)}")
        if self.mode in kernel.failing:
            raise KernelError("refused")
        kernel.configs.append(state.config)
        if kernel.held is not None:
            kernel.writing, kernel.looks = True, 0
            await kernel.held.wait()
            kernel.writing = False
        kernel.rules[self.mode, self._family] = [f"{port.cluster_ip}:{port.port}" for port in state.services.values()]
        wake_at, kernel.wake_in = (now + kernel.wake_in if kernel.wake_in else None), None
        return SyncReport((), 1, touched is None, wake_at, {"rules_nat": 7, "chains": 2})

    async def intact(self) -> bool:
        assert not self._kernel.writing, "asked while rules are half written"
        return (self.mode, self._family) in self._kernel.rules

    async def plan(self, state: ProxyState) -> Sequence[Operation]:
        return [Operation("add", "chain x", "missing")] if self.mode in self._kernel.flawed else []

    async def trace(self, state: ProxyState, packet: Packet) -> tuple[frozenset[Outcome], Sequence[str]]:
        raise NotImplementedError

    async def affinity(self, state: ProxyState) -> Sequence[AffinityEntry]:
        return ()

    async def forget_affinity(self, entry: AffinityEntry) -> None:
        raise NotImplementedError

    async def cleanup(self) -> None:
        self._kernel.log.append(f"{self.mode} cleanup {self._family.value}")
        self._kernel.rules.pop((self.mode, self._family), None)

    async def close(self) -> None:
        pass


class Running:
    """An agent at work on a directory."""

    def __init__(self, directory: Path, kernel: Kernel, settings: Settings) -> None:
        self.directory, self.kernel = directory, kernel
        self.agent = Agent(settings, DirectorySource(directory, settings.node_name), kernel.make)
        self.task = asyncio.create_task(self.agent.run())

    def write(self, port: int) -> None:
        (self.directory / "web.yaml").write_text(SERVICE.replace("PORT", str(port)))

    def write_node(self, taints: str) -> None:
        (self.directory / "node.yaml").write_text(NODE.replace("TAINTS", taints))

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not done():
                if self.task.done():
                    self.task.result()
                await asyncio.sleep(0.005)

    def has(self, mode: str, port: int) -> bool:
        return self.kernel.rules.get((mode, Family.IPV4)) == [f"10.96.0.10:{port}"]

    def metric(self, name: str, **labels: str) -> float | None:
        return self.agent.metrics.registry.get_sample_value(name, labels)


SETTINGS = Settings("n1", "one", healthz=None, metrics=None)


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()

    async def addresses() -> Local:
        made.looks += 1
        return Local({Family.IPV4: ("127.0.0.1", "192.0.2.9"), Family.IPV6: ("::1",)})

    monkeypatch.setattr(agent_module, "CHECK_EVERY_S", 0.02)
    monkeypatch.setattr(agent_module, "local", addresses)
    monkeypatch.setattr(agent_module, "PLANES", {"one": "", "two": ""})
    return made


@pytest.fixture
async def running(tmp_path: Path, kernel: Kernel) -> AsyncIterator[Running]:
    (tmp_path / "web.yaml").write_text(SERVICE.replace("PORT", "80"))
    (tmp_path / "node.yaml").write_text(NODE.replace("TAINTS", "[]"))
    running = Running(tmp_path, kernel, SETTINGS)
    await running.until(lambda: running.has("one", 80))
    yield running
    running.task.cancel()
    await asyncio.gather(running.task, return_exceptions=True)


async def test_a_start_is_full_and_removes_other_modes_only_afterwards(running: Running) -> None:
    await running.until(lambda: "two cleanup 6" in running.kernel.log)
    assert running.kernel.log == ["one sync 4 full", "one sync 6 full", "two cleanup 4", "two cleanup 6"]


async def test_a_change_is_synced_by_name_in_its_family(running: Running) -> None:
    await running.until(lambda: "two cleanup 6" in running.kernel.log)
    running.write(81)
    await running.until(lambda: running.has("one", 81))
    assert running.kernel.log[4:] == ["one sync 4 1"]
    assert running.metric("kubeproxy_sync_proxy_rules_service_changes_total") == 2
    assert running.metric("kubeproxy_sync_proxy_rules_service_changes_pending") == 0
    assert running.metric("kubeproxy_sync_partial_proxy_rules_duration_seconds_count", ip_family="IPv4") == 1
    assert running.metric("kubeproxy_sync_full_proxy_rules_duration_seconds_count", ip_family="IPv6") == 1
    assert running.metric("kubeproxy_sync_proxy_rules_iptables_total", table="nat", ip_family="IPv4") == 7
    assert running.metric("svcplane_plane_objects", object="chains", ip_family="IPv4") == 2


async def test_a_switch_programs_then_removes(running: Running) -> None:
    await running.until(lambda: "two cleanup 6" in running.kernel.log)
    running.agent.reconfigure(dataclasses.replace(SETTINGS, mode="two"))
    await running.until(lambda: running.agent.mode == "two")
    expected = ["two sync 4 full", "two sync 6 full", "one cleanup 4", "one cleanup 6"]
    assert running.kernel.log[4:8] == expected
    running.write(81)
    await running.until(lambda: running.has("two", 81))
    assert ("one", Family.IPV4) not in running.kernel.rules


@pytest.mark.parametrize("how", ["refuses", "lacks", "is flawed"])
async def test_a_switch_that_fails_leaves_the_old_mode(
    running: Running, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    kernel = running.kernel
    await running.until(lambda: "two cleanup 6" in kernel.log)
    if how == "refuses":
        kernel.failing.add("two")
    elif how == "lacks":
        kernel.lacking.add(("two", Family.IPV6))
    else:
        kernel.flawed.add("two")
    running.agent.reconfigure(dataclasses.replace(SETTINGS, mode="two"))
    await running.until(lambda: "cannot switch to two, staying with one" in caplog.text)
    running.write(81)
    await running.until(lambda: running.has("one", 81))
    assert running.agent.mode == "one"
    assert not any(line.startswith("one cleanup") for line in kernel.log)
    assert {mode for mode, _ in kernel.rules} == {"one"}


async def test_other_settings_are_taken_on_by_a_full_sync(running: Running) -> None:
    running.agent.reconfigure(dataclasses.replace(SETTINGS, masquerade_all=True))
    await running.until(lambda: running.kernel.configs[-1].masquerade_all)
    assert running.kernel.configs[0].primary_ips == ("192.0.2.1",)


async def test_a_failure_is_counted_and_tried_again_in_full(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(family_module, "FIRST_RETRY_S", 0.01)
    kernel = running.kernel
    await running.until(lambda: "two cleanup 6" in kernel.log)
    kernel.failing.add("one")
    running.write(81)
    await running.until(lambda: kernel.log[4:] == ["one sync 4 1", "one sync 4 full"])
    assert running.agent.health.queued_since.keys() == {"IPv4"}
    assert running.agent.health.family_alive("IPv6", time.monotonic() + 100)
    assert not running.agent.health.is_alive(time.monotonic() + 100)
    kernel.failing.clear()
    await running.until(lambda: running.has("one", 81))
    assert (running.metric("svcplane_sync_failures_total", mode="one", ip_family="IPv4") or 0) >= 2
    await running.until(lambda: not running.agent.health.queued_since)


async def test_a_sync_that_takes_long_is_not_taken_for_somebodys_change(
    running: Running,
) -> None:
    kernel = running.kernel
    kernel.held = asyncio.Event()
    running.write(81)
    await running.until(lambda: kernel.writing and kernel.looks > 0)
    kernel.held.set()
    await running.until(lambda: running.has("one", 81))
    assert not running.metric("svcplane_repairs_total", ip_family="IPv4")


async def test_a_drain_is_woken_for(running: Running) -> None:
    await running.until(lambda: "two cleanup 6" in running.kernel.log)
    running.kernel.wake_in = 0.05
    running.write(81)
    await running.until(lambda: running.kernel.log[4:] == ["one sync 4 1", "one sync 4 0"])


async def test_a_node_about_to_go_takes_no_new_connections(running: Running) -> None:
    health = running.agent.health
    await running.until(lambda: health.is_healthy(time.monotonic()))
    running.write_node("[{key: ToBeDeletedByClusterAutoscaler, effect: NoSchedule}]")
    await running.until(lambda: not health.is_healthy(time.monotonic()))
    assert health.is_alive(time.monotonic())
    running.write_node("[]")
    await running.until(lambda: health.is_healthy(time.monotonic()))
    (running.directory / "node.yaml").unlink()
    await running.until(lambda: not health.is_healthy(time.monotonic()))


async def test_a_family_the_host_cannot_have_is_left_out(tmp_path: Path, kernel: Kernel) -> None:
    (tmp_path / "web.yaml").write_text(SERVICE.replace("PORT", "80"))
    kernel.lacking.add(("one", Family.IPV6))
    running = Running(tmp_path, kernel, SETTINGS)
    try:
        await running.until(lambda: running.has("one", 80))
        await running.until(lambda: running.agent.health.is_alive(time.monotonic()))
        assert "one sync 6 full" not in kernel.log
    finally:
        running.task.cancel()
        await asyncio.gather(running.task, return_exceptions=True)


async def test_a_host_that_can_have_neither_family_is_told(tmp_path: Path, kernel: Kernel) -> None:
    kernel.lacking.update({("one", Family.IPV4), ("one", Family.IPV6)})
    with pytest.raises(EnvironmentProblem, match="no one on this host"):
        await Agent(SETTINGS, DirectorySource(tmp_path, "n1"), kernel.make).run()


async def test_a_host_that_cannot_have_the_family_of_its_node_is_told(tmp_path: Path, kernel: Kernel) -> None:
    (tmp_path / "node.yaml").write_text(NODE.replace("TAINTS", "[]"))
    kernel.lacking.add(("one", Family.IPV4))
    with pytest.raises(EnvironmentProblem, match="no one on this host"):
        await Agent(SETTINGS, DirectorySource(tmp_path, "n1"), kernel.make).run()
    assert not kernel.rules


async def test_service_cidrs_are_followed(running: Running) -> None:
    text = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\n"
    text += "spec: {cidrs: [10.96.0.0/16]}\n"
    (running.directory / "cidr.yaml").write_text(text)
    await running.until(lambda: running.kernel.configs[-1].service_cidrs == ("10.96.0.0/16",))


async def test_a_node_that_is_deleted_leaves_what_was_known_of_it(running: Running) -> None:
    def primary(cidrs: tuple[str, ...]) -> set[tuple[str, ...]]:
        found = (config for config in running.kernel.configs if config.family is Family.IPV4)
        return {config.primary_ips for config in found if config.service_cidrs == cidrs}

    assert primary(()) == {("192.0.2.1",)}
    (running.directory / "node.yaml").unlink()
    await running.until(lambda: not running.agent.health.node_eligible)
    text = "apiVersion: networking.k8s.io/v1\nkind: ServiceCIDR\nmetadata: {name: kubernetes}\n"
    (running.directory / "cidr.yaml").write_text(text + "spec: {cidrs: [10.96.0.0/16]}\n")
    await running.until(lambda: bool(primary(("10.96.0.0/16",))))
    assert primary(("10.96.0.0/16",)) == {("192.0.2.1",)}


async def test_a_look_inside_tells_the_state_now_and_then(running: Running) -> None:
    await running.until(lambda: len(running.agent.history.entries("default/web")) == 1)
    between = time.time()
    running.write(81)
    await running.until(lambda: len(running.agent.history.entries("default/web")) == 2)
    now = decode(running.agent.inspect_pages["/state"]({}))
    then = decode(running.agent.inspect_pages["/state"]({"at": str(between)}))
    assert (now.node, now.mode) == ("n1", "one")
    ports = [[port.port for port in state.services.values()] for state in (*now.states, *then.states)]
    assert ports == [[81], [], [80], []]
    entries = json.loads(running.agent.inspect_pages["/history"]({"service": "default/web"}))
    assert [entry["what"] for entry in entries] == ["full sync", "sync"]
    with pytest.raises(ValueError, match="does not reach back"):
        running.agent.inspect_pages["/state"]({"at": "5"})


async def test_versions_are_programmed_only_when_the_kernel_has_them(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = type(running.agent._source.services)
    await running.until(lambda: running.agent.programmed().mode == "one")
    monkeypatch.setattr(feed, "version", "12")
    assert running.agent.programmed().services == "12"
    running.kernel.failing.add("one")
    running.write(81)
    await running.until(lambda: any(entry.what == "failure" for entry in running.agent.history.entries()))
    monkeypatch.setattr(feed, "version", "13")
    assert running.agent.programmed().services == "12"
    running.kernel.failing.clear()
    await running.until(lambda: running.agent.programmed().services == "13")
    assert running.has("one", 81)
