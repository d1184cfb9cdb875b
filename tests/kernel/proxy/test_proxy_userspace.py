"""Userspace mode with real packets: Pods that die, proxies and workers that go and come."""

import contextlib
import itertools
import json
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest

from noderig import ENDPOINTS, NODE_IP, VIP, Proxy, Rig, ip

pytestmark = [
    pytest.mark.root,
    pytest.mark.tools("ip", "nft", "conntrack"),
    pytest.mark.xdist_group("proxy"),
    pytest.mark.timeout(120),
]


class Load:
    """Two clients that connect, one time after the other, to ClusterIP and node port; what came of it."""

    def __init__(self, rig: Rig) -> None:
        self._rig, self._stop = rig, threading.Event()
        self.outcomes: Counter[str] = Counter()
        self._gates = [threading.Lock() for _ in range(2)]
        self._threads = [threading.Thread(target=self._run, args=(gate,)) for gate in self._gates]

    def _run(self, gate: threading.Lock) -> None:
        targets = itertools.cycle(((VIP, 80), (NODE_IP, 30080)))
        while not self._stop.is_set():
            with gate:
                try:
                    outcome = self._rig.ask(*next(targets), timeout=8)
                except OSError as error:
                    outcome = f"{type(error).__name__}: {error}"
                self.outcomes[outcome] += 1

    @contextlib.contextmanager
    def between(self) -> Iterator[None]:
        """While no connection is open: what a Pod has accepted is its own."""
        with contextlib.ExitStack() as held:
            for gate in self._gates:
                held.enter_context(gate)
            yield

    def more(self, count: int) -> None:
        """Until so many more connections have been made."""
        until, end = self.outcomes.total() + count, time.monotonic() + 40
        while self.outcomes.total() < until:
            assert time.monotonic() < end, self.outcomes
            time.sleep(0.01)

    @contextlib.contextmanager
    def going(self) -> Iterator[None]:
        for thread in self._threads:
            thread.start()
        try:
            yield
        finally:
            self._stop.set()
            for thread in self._threads:
                thread.join()


def start(rig: Rig) -> Proxy:
    proxy = rig.proxy("--proxy-mode", "userspace")
    proxy.ready()
    return proxy


def relay_ports(rig: Rig) -> set[str]:
    table = rig.on_node("nft", "--numeric", "list", "table", "svcplane-userspace")
    return set(re.findall(rf": {NODE_IP} \. (\d+)", table))


def workers(rig: Rig) -> list[int]:
    """Relay workers in the node's namespace."""
    found = []
    for pid in rig.on_node("ip", "netns", "pids", rig.node).split():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline") as file:
            if "planes.userspace.worker" in file.read():
                found.append(int(pid))
    return found


def is_echoed(link: socket.socket, text: bytes) -> bool:
    link.sendall(text)
    return link.recv(100) == text


def test_pod_that_is_killed_under_load_is_noticed_by_no_client(rig: Rig) -> None:
    rig.write(*ENDPOINTS)
    start(rig)
    load = Load(rig)
    with load.going():
        load.more(30)
        rig.kill(ENDPOINTS[0])  # the proxy is not told
        load.more(60)
    assert set(load.outcomes) == set(ENDPOINTS)


def test_pod_that_falls_silent_is_noticed_by_no_client(rig: Rig) -> None:
    rig.write(*ENDPOINTS)
    start(rig)
    load = Load(rig)
    with load.going():
        load.more(30)
        with load.between():
            ip("-n", rig.pods, "address", "del", f"{ENDPOINTS[1]}/24", "dev", "eth0")
        load.more(60)
    assert set(load.outcomes) == set(ENDPOINTS)


def test_affinity_moves_with_the_death_of_the_pod_alone(rig: Rig) -> None:
    rig.write(*ENDPOINTS, sessionAffinity="ClientIP")
    start(rig)
    (first,) = {rig.ask() for _ in range(5)}
    rig.kill(first)
    (second,) = {rig.ask() for _ in range(5)}
    assert second != first


def test_rolling_restart_refuses_nobody_and_cuts_no_connection(rig: Rig) -> None:
    rig.write(*ENDPOINTS)
    proxy = start(rig)
    before, load = relay_ports(rig), Load(rig)
    assert before
    old = workers(rig)
    with rig.connect() as live, load.going():
        assert live.recv(100)
        for number in (signal.SIGTERM, signal.SIGKILL):
            load.more(20)
            proxy.end(number)
            load.more(20)  # no proxy is there
            proxy = start(rig)
            load.more(20)
            assert is_echoed(live, b"still there")
    assert set(load.outcomes) == set(ENDPOINTS)
    assert relay_ports(rig) == before
    live.close()
    proxy.until(lambda: not set(old) & set(workers(rig)))  # with their last connection
    assert set(old).isdisjoint(workers(rig))


def test_restart_remembers_clients(rig: Rig) -> None:
    rig.write(*ENDPOINTS, sessionAffinity="ClientIP")
    answered = set()
    for _ in range(4):
        proxy = start(rig)
        answered |= {rig.ask() for _ in range(3)}
        proxy.end()
    assert len(answered) == 1


def test_worker_that_is_killed_refuses_nobody(rig: Rig) -> None:
    rig.write(*ENDPOINTS)
    proxy = start(rig)
    rig.ask()
    before = workers(rig)
    with rig.connect() as live:
        live.recv(100)
        rig.on_node("kill", "-9", str(before[0]))
        assert {rig.ask(timeout=10) for _ in range(20)} == set(ENDPOINTS)
    proxy.until(lambda: len(workers(rig)) == len(before))
    assert workers(rig) != before


def test_cleanup_after_the_proxy_leaves_no_worker(rig: Rig) -> None:
    rig.write(*ENDPOINTS)
    start(rig).end()
    assert workers(rig)
    assert rig.ask() in ENDPOINTS
    done = rig.run("--cleanup")
    assert done.returncode == 0, done.stderr
    assert "svcplane-userspace" not in rig.on_node("nft", "list", "tables")
    end = time.monotonic() + 10
    while workers(rig):
        assert time.monotonic() < end
        time.sleep(0.02)


def test_affinity_is_seen_and_ended_from_outside(rig: Rig) -> None:
    rig.write(*ENDPOINTS, sessionAffinity="ClientIP")
    start(rig)
    sticky = rig.ask()
    found = json.loads(rig.svcplane("affinity", "list", "-o", "json"))["clients"]
    assert [(row["client"], row["endpoint"]) for row in found] == [("10.200.0.2", f"{sticky}:8080")]
    assert f"which stuck to {sticky}:8080" in rig.svcplane("affinity", "evict", "10.200.0.2")
    assert json.loads(rig.svcplane("affinity", "list", "-o", "json"))["clients"] == []


def test_relay_listens_within_the_range(rig: Rig) -> None:
    rig.write(*ENDPOINTS)
    proxy = rig.proxy("--proxy-mode", "userspace", "--proxy-port-range", "41000-41001")
    proxy.ready()
    assert rig.ask() in ENDPOINTS
    assert relay_ports(rig) == {"41000"}
