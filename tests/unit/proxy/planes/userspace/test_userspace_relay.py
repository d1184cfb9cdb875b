"""The relays with real sockets on the loopback interface."""

import socket
import struct
import sys
import threading
import time
from collections.abc import Iterator

import pytest
from tests.relaybench import Bench, Serve, ask, closed, read_all, say, wait_until

from svcplane.proxy.planes.userspace.balance import Address
from svcplane.proxy.planes.userspace.worker import socket_mark


@pytest.fixture(params=["epoll", pytest.param("io_uring", marks=pytest.mark.io_uring)])
def bench(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Bench]:
    """With the ring, every connection goes there with its first turn, and again and again."""
    made = Bench()
    if request.param == "io_uring":
        made.with_exchange(monkeypatch)
    yield made
    made.close()


def test_clients_get_endpoints_in_turn(bench: Bench) -> None:
    address = bench.start(bench.endpoint(say(b"a:")), bench.endpoint(say(b"b:")))
    assert [ask(address) for _ in range(4)] == [b"a:hello", b"b:hello"] * 2
    wait_until(lambda: not bench.tcp.links)
    assert [backend.connections for backend in bench.balance.backends.values()] == [2, 2]
    assert [backend.active for backend in bench.balance.backends.values()] == [0, 0]
    assert [(backend.sent, backend.received) for backend in bench.balance.backends.values()] == [(10, 14)] * 2


def test_endpoint_may_speak_first(bench: Bench) -> None:
    def serve(end: socket.socket) -> None:
        end.sendall(b"220 ready\r\n")
        end.close()

    with socket.create_connection(bench.start(bench.endpoint(serve)), 5) as client:
        assert read_all(client) == b"220 ready\r\n"


def test_half_close_is_kept(bench: Bench) -> None:
    def serve(end: socket.socket) -> None:
        end.sendall(b"%d bytes" % len(read_all(end)))

    with socket.create_connection(bench.start(bench.endpoint(serve)), 5) as client:
        client.sendall(b"x" * 1000)
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"1000 bytes"


def test_answer_goes_on_after_the_endpoints_end_is_passed(bench: Bench) -> None:
    seen: list[bytes] = []

    def serve(end: socket.socket) -> None:
        end.sendall(b"that is all")
        end.shutdown(socket.SHUT_WR)
        seen.append(read_all(end))
        end.close()

    with socket.create_connection(bench.start(bench.endpoint(serve)), 5) as client:
        assert read_all(client) == b"that is all"
        client.sendall(b"y" * 300_000)
    wait_until(lambda: seen == [b"y" * 300_000])


@pytest.mark.parametrize("size", [1, 65_536, 131_072, 5_000_001])
def test_bytes_arrive_as_they_were_sent(bench: Bench, size: int) -> None:
    pattern = bytes(range(251))
    body = (pattern * (size // 251 + 1))[:size]

    def serve(end: socket.socket) -> None:
        data = read_all(end)
        end.sendall(data)

    with socket.create_connection(bench.start(bench.endpoint(serve)), 5) as client:
        sender = threading.Thread(target=lambda: (client.sendall(body), client.shutdown(socket.SHUT_WR)))
        sender.start()
        assert read_all(client) == body
        sender.join()
    wait_until(lambda: not bench.tcp.links)
    assert [(b.sent, b.received) for b in bench.balance.backends.values()] == [(size, size)]


def test_endpoint_that_does_not_read_stops_the_client(bench: Bench) -> None:
    go_on = threading.Event()
    read: list[int] = []

    def serve(end: socket.socket) -> None:
        go_on.wait(10)
        read.append(len(read_all(end)))
        end.close()

    total = 64 << 20
    with socket.create_connection(bench.start(bench.endpoint(serve)), 5) as client:
        client.setblocking(False)
        sent = 0
        stalled_since = time.monotonic()
        chunk = b"z" * 262_144
        while time.monotonic() - stalled_since < 0.3:
            try:
                sent += client.send(chunk)
                stalled_since = time.monotonic()
            except BlockingIOError:
                time.sleep(0.005)
            assert sent < total, "nothing held the client back"
        go_on.set()
        client.setblocking(True)
        client.sendall(b"z" * (total - sent))
        client.shutdown(socket.SHUT_WR)
        wait_until(lambda: read == [total], 20)


def test_client_that_does_not_read_stops_the_endpoint(bench: Bench) -> None:
    sent: list[int] = [0]

    def serve(end: socket.socket) -> None:
        end.settimeout(0.5)
        try:
            while sent[0] < 64 << 20:
                sent[0] += end.send(b"w" * 262_144)
        except TimeoutError:
            pass
        end.shutdown(socket.SHUT_WR)

    with socket.create_connection(bench.start(bench.endpoint(serve)), 5) as client:
        wait_until(lambda: sent[0] > 0)
        time.sleep(0.8)
        assert sent[0] < 64 << 20
        assert len(read_all(client)) == sent[0]


def test_a_stream_has_one_turn_a_wake_up_however_long_it_flows(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its events while it waits for its turn give it no other one."""
    turns: list[int] = []
    run_due = bench.engine._run_due

    def counted() -> None:
        turns.append(len(bench.engine._again))
        run_due()

    monkeypatch.setattr(bench.engine, "_run_due", counted)

    def serve(end: socket.socket) -> None:
        end.sendall(bytes(200 << 20))

    with socket.create_connection(bench.start(bench.endpoint(serve)), 5) as client:
        room, total = bytearray(1 << 20), 0
        while size := client.recv_into(room):
            total += size
    assert total == 200 << 20
    assert max(turns) == 1


def test_reset_is_passed_on_both_ways(bench: Bench) -> None:
    seen: list[str] = []

    def serve(end: socket.socket) -> None:
        if end.recv(10) == b"reset":
            end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            end.close()
            return
        try:
            end.recv(10)
            seen.append("end")
        except ConnectionResetError:
            seen.append("reset")

    address = bench.start(bench.endpoint(serve))
    with socket.create_connection(address, 5) as client:
        client.sendall(b"reset")
        with pytest.raises(ConnectionResetError):
            client.recv(10)
    with socket.create_connection(address, 5) as client:
        client.sendall(b"wait")
        wait_until(lambda: any(link.up.moved == 4 for link in list(bench.tcp.links)))
        client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    wait_until(lambda: seen == ["reset"])


def test_endpoint_that_refuses_is_passed_over_unnoticed(bench: Bench) -> None:
    address = bench.start(closed(), closed(), bench.endpoint(say(b"c:")))
    assert [ask(address) for _ in range(6)] == [b"c:hello"] * 6


def test_endpoint_that_does_not_answer_is_passed_over_after_its_time(bench: Bench) -> None:
    address = bench.start(bench.silent(), bench.endpoint(say(b"b:")))
    began = time.monotonic()
    assert ask(address) == b"b:hello"
    assert 0.2 < time.monotonic() - began < 2
    began = time.monotonic()  # now it is set aside
    assert [ask(address) for _ in range(4)] == [b"b:hello"] * 4
    assert time.monotonic() - began < 0.2


@pytest.mark.parametrize("size", [5, 200_000])
def test_what_the_client_said_before_the_second_dial_goes_on_to_its_end(bench: Bench, size: int) -> None:
    """All of it was there before anybody could take it: nothing tells of it again."""
    read: list[bytes] = []

    def serve(end: socket.socket) -> None:
        read.append(read_all(end))
        end.sendall(b"thanks")

    address = bench.start(bench.silent(), bench.endpoint(serve))
    with socket.create_connection(address, 5) as client:
        time.sleep(0.05)
        client.sendall(b"x" * size)
        client.shutdown(socket.SHUT_WR)
        assert client.recv(100) == b"thanks"
    assert read == [b"x" * size]


def test_client_is_reset_when_no_endpoint_answers(bench: Bench) -> None:
    address = bench.start(closed(), closed())
    with pytest.raises(ConnectionError):
        ask(address)
    wait_until(lambda: bench.tcp.refused == 1)
    assert not bench.tcp.links


def test_affinity_keeps_a_client_and_moves_it_when_its_endpoint_dies(bench: Bench) -> None:
    dying = bench.endpoint(say(b"a:"))
    address = bench.start(dying, bench.endpoint(say(b"b:")), affinity_timeout_s=100)
    assert [ask(address) for _ in range(3)] == [b"a:hello"] * 3
    end = next(end for end in bench._ends if end.getsockname() == dying)
    end.shutdown(socket.SHUT_RDWR)
    end.close()
    bench._ends.remove(end)
    assert [ask(address) for _ in range(3)] == [b"b:hello"] * 3


def test_idle_connection_ends(bench: Bench) -> None:
    bench.options.idle_timeout_s = 0.2
    with socket.create_connection(bench.start(bench.endpoint(say(b""))), 5) as client:
        client.sendall(b"x")
        assert client.recv(1) == b"x"
        assert client.recv(1) == b""


def test_proxy_protocol_tells_the_clients_address(bench: Bench) -> None:
    bench.options.proxy_protocol = 1
    address = bench.start(bench.endpoint(say(b"")))
    with socket.create_connection(address, 5) as client:
        client.sendall(b"hello")
        here = client.getsockname()
        wanted = f"PROXY TCP4 127.0.0.1 127.0.0.1 {here[1]} {address[1]}\r\nhello".encode()
        found = b""
        while len(found) < len(wanted):
            found += client.recv(1000)
        assert found == wanted


def test_request_goes_to_another_endpoint_where_it_was_not_answered(bench: Bench) -> None:
    def serve(end: socket.socket) -> None:
        end.recv(100)
        end.close()

    bench.options.retry_unanswered = True
    address = bench.start(bench.endpoint(serve), bench.endpoint(say(b"b:")))
    assert [ask(address) for _ in range(4)] == [b"b:hello"] * 4


def test_request_is_not_sent_twice_unless_asked(bench: Bench) -> None:
    def serve(end: socket.socket) -> None:
        end.recv(100)
        end.close()

    address = bench.start(bench.endpoint(serve), bench.endpoint(say(b"b:")))
    assert {ask(address) for _ in range(2)} == {b"", b"b:hello"}


@pytest.mark.parametrize("bit", [0, 14, 31])
def test_every_bit_can_be_the_mark(bit: int) -> None:
    with socket.socket() as end:
        try:
            end.setsockopt(socket.SOL_SOCKET, socket.SO_MARK, socket_mark(1 << bit))
        except PermissionError:
            pytest.skip("marks take CAP_NET_ADMIN")
        found = end.getsockopt(socket.SOL_SOCKET, socket.SO_MARK, 4)
        assert int.from_bytes(found, sys.byteorder) == 1 << bit


def test_many_connections_at_once_lose_nothing(bench: Bench) -> None:
    address = bench.start(bench.endpoint(say(b"")), bench.endpoint(say(b"")))
    clients = [socket.create_connection(address, 5) for _ in range(200)]
    for number, client in enumerate(clients):
        client.sendall(b"%d" % number)
    assert [client.recv(100) for client in clients] == [b"%d" % number for number in range(200)]
    for client in clients:
        client.close()
    wait_until(lambda: not bench.tcp.links)


# -- UDP -------------------------------------------------------------------------------------------------------------


def echo(text: bytes) -> Serve:
    def serve(end: socket.socket) -> None:
        while True:
            try:
                data, client = end.recvfrom(65536)
            except OSError:
                return
            if client is None:  # shut down
                return
            end.sendto(text + data, client)

    return serve


def udp_client(address: Address) -> socket.socket:
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    client.settimeout(5)
    client.connect(address)
    return client


def ask_udp(client: socket.socket, data: bytes = b"hello") -> bytes:
    client.send(data)
    return client.recv(65536)


def test_udp_client_keeps_its_endpoint_and_clients_take_turns(bench: Bench) -> None:
    dgram = socket.SOCK_DGRAM
    address = bench.start(bench.endpoint(echo(b"a:"), dgram), bench.endpoint(echo(b"b:"), dgram), kind=dgram)
    with udp_client(address) as one, udp_client(address) as two:
        assert [ask_udp(one) for _ in range(3)] == [b"a:hello"] * 3
        assert [ask_udp(two) for _ in range(3)] == [b"b:hello"] * 3
    assert len(bench.udp.sessions) == 2


def test_udp_endpoint_that_refuses_is_passed_over_unnoticed(bench: Bench) -> None:
    dgram = socket.SOCK_DGRAM
    with socket.socket(socket.AF_INET, dgram) as gone:
        gone.bind(("127.0.0.1", 0))
        dead: Address = gone.getsockname()
    address = bench.start(dead, bench.endpoint(echo(b"b:"), dgram), kind=dgram)
    with udp_client(address) as client:
        assert ask_udp(client) == b"b:hello"


def test_udp_endpoint_without_a_way_to_it_is_passed_over_unnoticed(bench: Bench) -> None:
    dgram = socket.SOCK_DGRAM
    nowhere: Address = ("255.255.255.255", 9)  # which the kernel refuses to connect to
    address = bench.start(nowhere, bench.endpoint(echo(b"b:"), dgram), kind=dgram)
    with udp_client(address) as client:
        assert ask_udp(client) == b"b:hello"


def test_udp_session_moves_when_its_endpoint_leaves_and_another_is_there(bench: Bench) -> None:
    dgram = socket.SOCK_DGRAM
    first, second = bench.endpoint(echo(b"a:"), dgram), bench.endpoint(echo(b"b:"), dgram)
    address = bench.start(first, kind=dgram)
    with udp_client(address) as client:
        assert ask_udp(client) == b"a:hello"
        bench.balance.update((), ())
        assert ask_udp(client) == b"a:hello"
        bench.balance.update((second,), ())
        assert ask_udp(client) == b"b:hello"


def test_udp_session_stays_while_its_endpoint_serves_though_it_gets_nobody_new(bench: Bench) -> None:
    first, second = (bench.endpoint(echo(name), socket.SOCK_DGRAM) for name in (b"a", b"b"))
    address = bench.start(first, kind=socket.SOCK_DGRAM)
    with udp_client(address) as client, udp_client(address) as other:
        assert ask_udp(client).startswith(b"a")
        bench.balance.update((second,), (), kept=(first,))
        assert ask_udp(client).startswith(b"a")
        assert ask_udp(other).startswith(b"b")
        bench.balance.update((second,), ())
        assert ask_udp(client).startswith(b"b")


def test_udp_session_ends_when_idle(bench: Bench) -> None:
    bench.options.idle_timeout_s = 0.1
    dgram = socket.SOCK_DGRAM
    address = bench.start(bench.endpoint(echo(b""), dgram), kind=dgram)
    with udp_client(address) as client:
        assert ask_udp(client) == b"hello"
        wait_until(lambda: not bench.udp.sessions)
        assert ask_udp(client) == b"hello"


def test_udp_largest_datagram(bench: Bench) -> None:
    dgram = socket.SOCK_DGRAM
    address = bench.start(bench.endpoint(echo(b""), dgram), kind=dgram)
    with udp_client(address) as client:
        assert ask_udp(client, b"x" * 65_507) == b"x" * 65_507


def test_retired_udp_listener_serves_the_sessions_it_has(bench: Bench) -> None:
    dgram = socket.SOCK_DGRAM
    address = bench.start(bench.endpoint(echo(b"a:"), dgram), kind=dgram)
    with udp_client(address) as client:
        assert ask_udp(client) == b"a:hello"
        bench.udp.close_listeners()
        assert ask_udp(client) == b"a:hello"
    with udp_client(address) as late:
        late.settimeout(0.2)
        late.send(b"hello")
        with pytest.raises(TimeoutError):
            late.recv(100)


@pytest.mark.parametrize("size", [5, 20_000_000])
def test_what_comes_around_urgent_data_goes_on(bench: Bench, size: int) -> None:
    """A read ends before it, though more is there."""
    heard = bytearray()

    def serve(end: socket.socket) -> None:
        end.sendall(end.recv(100))
        while data := end.recv(1 << 20):
            heard.extend(data)

    with socket.create_connection(bench.start(bench.endpoint(serve)), 5) as client:
        client.sendall(b"hello")
        assert client.recv(100) == b"hello"
        bench.engine.later(0.0, lambda _: time.sleep(0.1), None)  # so that all is there when it is read
        time.sleep(0.05)
        client.sendall(b"x" * size)
        client.send(b"!", socket.MSG_OOB)
        client.sendall(b"y" * size)
        wait_until(lambda: len(heard) == 2 * size)
    assert heard == b"x" * size + b"y" * size
