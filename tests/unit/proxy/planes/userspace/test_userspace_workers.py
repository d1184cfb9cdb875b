"""Relay workers as processes, without capture: ports on the loopback interface."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from svcplane.base.errors import EnvironmentProblem
from svcplane.proxy.planes.userspace import handover, process, wire
from svcplane.proxy.planes.userspace.balance import Address
from svcplane.proxy.planes.userspace.workers import Workers

KEY = "IPv4/d/web:p/TCP"
SLOT = (KEY, False)


class Pod:
    """Answers each connection with its name."""

    def __init__(self, name: bytes) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.address: Address = self._listener.getsockname()
        self._name = name
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._answer, args=(end,), daemon=True).start()

    def _answer(self, end: socket.socket) -> None:
        with end, suppress(OSError):
            end.recv(100)
            end.sendall(self._name)

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._thread.join(5)
        self._listener.close()


@pytest.fixture
def pods() -> Iterator[list[Pod]]:
    made = [Pod(b"a"), Pod(b"b")]
    yield made
    for pod in made:
        pod.close()


@pytest.fixture
def scope() -> Iterator[str]:
    """Of this test's workers alone; those that still drain end with it."""
    name = f"test-{uuid.uuid4().hex}"
    yield name
    for line in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if line.read_bytes().rstrip(b"\0").endswith(name.encode()):
                os.kill(int(line.parent.name), signal.SIGKILL)


@pytest.fixture
async def workers() -> AsyncIterator[Workers]:
    made = Workers(2)
    yield made
    await made.close()


def ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        client.sendall(b"x")
        return client.recv(100)


async def asks(port: int, count: int) -> list[bytes]:
    return await asyncio.to_thread(lambda: [ask(port) for _ in range(count)])


def serve(*pods: Pod, **options: Any) -> wire.Serve:
    return wire.Serve(KEY, "TCP", cluster=tuple(pod.address for pod in pods), **options)


async def started(workers: Workers, message: wire.Serve, port: int = 0) -> int:
    chosen = workers.open(SLOT, "TCP", "127.0.0.1", port)
    await workers.serve([message], [SLOT])
    return chosen


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


async def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < until, "it never came true"
        await asyncio.sleep(0.01)


async def test_all_workers_serve_and_count(workers: Workers, pods: list[Pod]) -> None:
    port = await started(workers, serve(*pods))
    assert set(await asks(port, 40)) == {b"a", b"b"}
    counts = [row for answer in await workers.ask(wire.Ask("endpoints")) for row in answer.endpoints]
    assert len(counts) == 4  # two endpoints of two workers
    assert sum(row.connections for row in counts) == 40
    assert all(row.connections for row in counts)


async def test_affinity_is_one_workers_and_can_be_seen_and_forgotten(workers: Workers, pods: list[Pod]) -> None:
    port = await started(workers, serve(*pods, affinity_timeout_s=60))
    assert len(set(await asks(port, 20))) == 1
    (row,) = [row for answer in await workers.ask(wire.Ask("affinity")) for row in answer.affinity]
    assert (row.key, row.client) == (KEY, "127.0.0.1")
    assert 55 < row.left_s <= 60
    await workers.tell(wire.Forget(KEY, "127.0.0.1"))
    assert not [row for answer in await workers.ask(wire.Ask("affinity")) for row in answer.affinity]


async def test_affinity_switched_on_and_off_moves_the_sockets(workers: Workers, pods: list[Pod]) -> None:
    port = await started(workers, serve(*pods))
    await workers.serve([serve(*pods, affinity_timeout_s=60)], [])
    assert len(set(await asks(port, 20))) == 1
    await workers.serve([serve(*pods)], [])
    assert set(await asks(port, 20)) == {b"a", b"b"}


async def test_connection_goes_on_after_its_service_went(workers: Workers, pods: list[Pod]) -> None:
    port = await started(workers, serve(*pods))
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        found = []
        while not found:  # accepted and relayed
            found = [row for answer in await workers.ask(wire.Ask("connections")) for row in answer.connections]
        assert found[0].client == f"127.0.0.1:{client.getsockname()[1]}"
        await workers.drop([], [KEY])
        client.sendall(b"x")
        assert await asyncio.to_thread(client.recv, 10) in (b"a", b"b")
    with pytest.raises(ConnectionRefusedError):
        ask(port)


async def test_port_is_the_one_asked_for_unless_it_is_taken(workers: Workers, pods: list[Pod]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        port = await started(workers, serve(*pods), taken)
        assert port != taken
    assert workers.open(("other", False), "TCP", "127.0.0.1", port) != port  # ours, of another slot
    assert workers.open(SLOT, "TCP", "127.0.0.1", 0) == port


async def test_nobody_listens_where_the_node_was_reached_before(workers: Workers, pods: list[Pod]) -> None:
    port = await started(workers, serve(*pods))
    moved = workers.open(SLOT, "TCP", "127.0.0.2", port)
    await workers.serve([], [SLOT])
    with pytest.raises(ConnectionRefusedError):
        await asyncio.to_thread(ask, port)
    with socket.create_connection(("127.0.0.2", moved), 5) as client:
        client.sendall(b"x")
        assert await asyncio.to_thread(client.recv, 100) in (b"a", b"b")


async def test_range_without_a_free_port_is_told_in_one_line() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        workers = Workers(1, range(other.getsockname()[1], other.getsockname()[1] + 1))
        with pytest.raises(EnvironmentProblem, match=r"no free port at 127\.0\.0\.1 for IPv4/d/web:p/TCP"):
            workers.open(SLOT, "TCP", "127.0.0.1", 0)
        await workers.close()


async def test_workers_end_with_the_proxy_and_drain_when_asked(pods: list[Pod]) -> None:
    workers = Workers(1)
    port = await started(workers, serve(*pods))
    process = workers._processes[0]._process
    with socket.create_connection(("127.0.0.1", port), 5) as client:
        while not [row for answer in await workers.ask(wire.Ask("connections")) for row in answer.connections]:
            pass
        closing = asyncio.ensure_future(workers.close(drain_s=5))
        await asyncio.sleep(0.1)
        assert process.poll() is None
        client.sendall(b"x")
        assert await asyncio.to_thread(client.recv, 10) in (b"a", b"b")
    await closing
    assert process.poll() == 0


async def test_next_proxy_gets_the_sockets_and_connections_end_where_they_are(pods: list[Pod], scope: str) -> None:
    before, after = Workers(2, scope=scope), Workers(2, scope=scope)
    port = await started(before, serve(*pods))
    with socket.create_connection(("127.0.0.1", port), 5) as live:
        while not [row for answer in await before.ask(wire.Ask("connections")) for row in answer.connections]:
            pass
        old = before.pids
        waiting = asyncio.ensure_future(asks(port, 200))  # while one proxy goes and another comes
        before.let_go()
        await wait_until(lambda: len(handover.waiting(scope)) == 2)
        assert set(await asks(port, 20)) == {b"a", b"b"}  # nobody is there but the workers
        after.inherit()
        assert await started(after, serve(*pods)) == port
        assert set(await waiting) == {b"a", b"b"}
        assert set(await asks(port, 20)) == {b"a", b"b"}
        counts = [row for answer in await after.ask(wire.Ask("endpoints")) for row in answer.endpoints]
        assert sum(row.connections for row in counts) >= 20
        live.sendall(b"x")
        assert await asyncio.to_thread(live.recv, 10) in (b"a", b"b")
    await wait_until(lambda: not any(is_running(pid) for pid in old))
    await after.close()


async def test_next_proxy_remembers_clients(pods: list[Pod], scope: str) -> None:
    before, after = Workers(2, scope=scope), Workers(3, scope=scope)
    port = await started(before, serve(*pods, affinity_timeout_s=60))
    (name,) = set(await asks(port, 3))
    before.let_go()
    await wait_until(lambda: len(handover.waiting(scope)) == 1)  # affinity needs one worker alone
    after.inherit()
    await started(after, serve(*reversed(pods), affinity_timeout_s=60))
    (row,) = [row for answer in await after.ask(wire.Ask("affinity")) for row in answer.affinity]
    assert (row.key, row.client) == (KEY, "127.0.0.1")
    assert set(await asks(port, 3)) == {name}
    await after.close()


async def test_next_proxy_goes_on_with_udp_sessions(scope: str) -> None:
    key = "IPv4/d/dns:p/UDP"
    with socket.socket(type=socket.SOCK_DGRAM) as pod, socket.socket(type=socket.SOCK_DGRAM) as client:
        pod.bind(("127.0.0.1", 0))
        message = wire.Serve(key, "UDP", cluster=(pod.getsockname(),))
        before, after = Workers(2, scope=scope), Workers(2, scope=scope)
        port = before.open((key, False), "UDP", "127.0.0.1", 0)
        await before.serve([message], [(key, False)])
        pod.settimeout(5)
        client.settimeout(5)
        client.connect(("127.0.0.1", port))
        client.send(b"one")
        data, session = await asyncio.to_thread(pod.recvfrom, 100)
        before.let_go()
        await wait_until(lambda: len(handover.waiting(scope)) == 2)
        after.inherit()
        assert after.open((key, False), "UDP", "127.0.0.1", 0) == port
        await after.serve([message], [(key, False)])
        pod.sendto(b"answer to " + data, session)
        assert await asyncio.to_thread(client.recv, 100) == b"answer to one"
        client.send(b"two")
        assert await asyncio.to_thread(pod.recvfrom, 100) == (b"two", session)
        await after.close()


class Echo:
    """A Pod that answers each datagram with its name."""

    def __init__(self, name: bytes) -> None:
        self._socket = socket.socket(type=socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.address: Address = self._socket.getsockname()
        self._thread = threading.Thread(target=self._run, args=(name,))
        self._thread.start()

    def _run(self, name: bytes) -> None:
        while (found := self._socket.recvfrom(100))[0] != b"end":
            self._socket.sendto(name, found[1])

    def close(self) -> None:
        with socket.socket(type=socket.SOCK_DGRAM) as end:
            end.sendto(b"end", self.address)
        self._thread.join(5)
        self._socket.close()


DNS = "IPv4/d/dns:p/UDP"


def asked(client: socket.socket) -> bytes:
    client.send(b"x")
    return client.recv(100)


def udp_clients(port: int, count: int) -> list[socket.socket]:
    made = [socket.socket(type=socket.SOCK_DGRAM) for _ in range(count)]
    for client in made:
        client.settimeout(2)
        client.connect(("127.0.0.1", port))
    return made


@pytest.fixture
def echoes() -> Iterator[list[Echo]]:
    made = [Echo(b"a"), Echo(b"b")]
    yield made
    for echo in made:
        echo.close()


async def test_udp_clients_lose_nothing_to_the_workers_of_before(scope: str, echoes: list[Echo]) -> None:
    """Which have the same sockets, and must not read from them any more; nor keep clients at an endpoint that went."""
    gone, stays = (echo.address for echo in echoes)
    before, after = Workers(2, scope=scope), Workers(2, scope=scope)
    port = before.open((DNS, False), "UDP", "127.0.0.1", 0)
    await before.serve([wire.Serve(DNS, "UDP", cluster=(gone,))], [(DNS, False)])
    first = udp_clients(port, 4)
    assert await asyncio.to_thread(lambda: {asked(client) for client in first}) == {b"a"}
    before.let_go()
    await wait_until(lambda: len(handover.waiting(scope)) == 2)
    after.inherit()
    assert after.open((DNS, False), "UDP", "127.0.0.1", 0) == port
    await after.serve([wire.Serve(DNS, "UDP", cluster=(stays,))], [(DNS, False)])
    clients = [*first, *udp_clients(port, 20)]
    for _ in range(3):
        assert await asyncio.to_thread(lambda: [asked(client) for client in clients]) == [b"b"] * 24
    for client in clients:
        client.close()
    await after.close()


async def test_udp_clients_lose_nothing_to_sessions_of_a_service_that_is_gone(echoes: list[Echo]) -> None:
    """A worker goes on with them over their socket, whose port a kernel that is asked to share it would give again."""
    with udp_clients(9, 1)[0] as free:
        first = free.getsockname()[1]
    workers = Workers(1, range(first, first + 20))
    port = workers.open((DNS, False), "UDP", "127.0.0.1", 0)
    await workers.serve([wire.Serve(DNS, "UDP", cluster=(echoes[0].address,))], [(DNS, False)])
    clients = udp_clients(port, 2)
    assert await asyncio.to_thread(lambda: {asked(client) for client in clients}) == {b"a"}
    await workers.drop([(DNS, False)], [DNS])
    again = workers.open((DNS, False), "UDP", "127.0.0.1", 0)
    assert again != port
    await workers.serve([wire.Serve(DNS, "UDP", cluster=(echoes[1].address,))], [(DNS, False)])
    others = udp_clients(again, 12)
    assert await asyncio.to_thread(lambda: {asked(client) for client in others}) == {b"b"}
    for client in (*clients, *others):
        client.close()
    await workers.close()


async def test_udp_clients_lose_nothing_where_affinity_is_switched(workers: Workers, echoes: list[Echo]) -> None:
    port = workers.open((DNS, False), "UDP", "127.0.0.1", 0)
    message = wire.Serve(DNS, "UDP", cluster=tuple(echo.address for echo in echoes))
    await workers.serve([message], [(DNS, False)])
    clients = udp_clients(port, 16)
    assert await asyncio.to_thread(lambda: {asked(client) for client in clients}) == {b"a", b"b"}
    await workers.serve([msgspec.structs.replace(message, affinity_timeout_s=60)], [])
    found = await asyncio.to_thread(lambda: [asked(client) for client in clients for _ in range(3)])
    assert len(set(found)) == 1
    for client in clients:
        client.close()


@pytest.mark.parametrize(
    "said", [b'{"type":"Unheard"}', b"{", b'{"type":"Listen","key":"IPv4/d/web:p/TCP","local":false}']
)
async def test_a_worker_that_says_what_nobody_understands_is_passed_over(scope: str, said: bytes) -> None:
    """One of another version; the last lends no socket, as where the process may open no more."""
    with handover.doorstep(scope) as door:
        door.settimeout(5)

        def say() -> None:
            with door.accept()[0] as end:
                end.recv(1000)
                end.sendall(len(said).to_bytes(4, "big") + said)
                end.shutdown(socket.SHUT_WR)

        saying = asyncio.create_task(asyncio.to_thread(say))
        assert not (await asyncio.to_thread(handover.take_over, scope)).slots
        await saying


async def test_what_the_next_proxy_does_not_want_is_closed(pods: list[Pod], scope: str) -> None:
    before, after = Workers(1, scope=scope), Workers(1, scope=scope)
    port = await started(before, serve(*pods))
    before.let_go()
    await wait_until(lambda: len(handover.waiting(scope)) > 0)
    after.inherit()
    after.disinherit("IPv4/")
    await wait_until(lambda: not handover.waiting(scope))
    with pytest.raises(ConnectionRefusedError):
        ask(port)


async def test_worker_without_a_proxy_ends_in_time(pods: list[Pod], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "LINGER_S", 0.3)
    workers = Workers(1)
    port = await started(workers, serve(*pods))
    (pid,) = workers.pids
    os.kill(pid, 0)
    workers.let_go()
    await wait_until(lambda: not is_running(pid))
    with pytest.raises(ConnectionRefusedError):
        ask(port)


async def test_worker_that_was_killed_is_replaced_at_once(workers: Workers, pods: list[Pod]) -> None:
    port = await started(workers, serve(*pods))
    before = workers.pids
    os.kill(before[0], signal.SIGKILL)
    waiting = asyncio.ensure_future(asks(port, 30))  # nobody tells the workers anything
    assert set(await waiting) == {b"a", b"b"}
    assert workers.intact
    assert workers.pids != before


async def test_worker_that_is_left_late_is_taken_over_too(pods: list[Pod], scope: str) -> None:
    before, after = Workers(1, scope=scope), Workers(1, scope=scope)
    port = await started(before, serve(*pods[:1]))
    (old,) = before.pids
    after.inherit()
    assert await started(after, serve(*pods[1:]), port) == port  # beside it: both accept
    before.let_go()
    while handover.waiting(scope) or is_running(old):
        await after.take_late()
    assert set(await asks(port, 20)) == {b"b"}
    await after.close()


async def test_thousands_of_idle_listeners_take_no_thread_and_no_task(workers: Workers, pods: list[Pod]) -> None:
    count = 2000
    keys = [f"IPv4/d/web-{number}:p/TCP" for number in range(count)]
    ports = [workers.open((key, False), "TCP", "127.0.0.1", 0) for key in keys]
    tasks = len(asyncio.all_tasks())
    served = [wire.Serve(key, "TCP", cluster=tuple(pod.address for pod in pods)) for key in keys]
    await workers.serve(served, [(key, False) for key in keys])
    assert len(asyncio.all_tasks()) == tasks
    for pid in workers.pids:
        assert len(list(Path(f"/proc/{pid}/task").iterdir())) == 1
    assert set(await asks(ports[0], 4) + await asks(ports[-1], 4)) == {b"a", b"b"}


def test_more_descriptors_than_a_shell_gives_are_asked_for() -> None:
    code = """if True:
        import resource
        from svcplane.proxy.planes.userspace.workers import Workers
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, most))
        Workers(1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= most > 256
    """
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


async def test_ipv6_tcp_and_udp(workers: Workers) -> None:
    with (
        socket.create_server(("::1", 0), family=socket.AF_INET6) as pod,
        socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as datagrams,
    ):
        datagrams.bind(("::1", 0))
        ports = {}
        for protocol, end in (("TCP", pod), ("UDP", datagrams)):
            slot = f"IPv6/d/web:p/{protocol}", False
            ports[protocol] = workers.open(slot, protocol, "::1", 0)
            message = wire.Serve(slot[0], protocol, cluster=(end.getsockname()[:2],))  # type: ignore[arg-type]
            await workers.serve([message], [slot])
        with socket.create_connection(("::1", ports["TCP"]), 5) as client:
            client.sendall(b"hello")
            end, _ = await asyncio.to_thread(pod.accept)
            with end:
                assert await asyncio.to_thread(end.recv, 10) == b"hello"
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as client:
            client.connect(("::1", ports["UDP"]))
            datagrams.settimeout(5)
            client.settimeout(5)
            client.send(b"hello")
            data, session = await asyncio.to_thread(datagrams.recvfrom, 10)
            datagrams.sendto(data * 2, session)
            assert await asyncio.to_thread(client.recv, 100) == b"hellohello"
            (row,) = [row for answer in await workers.ask(wire.Ask("connections")) for row in answer.connections]
            assert row.client == f"[::1]:{client.getsockname()[1]}"
