"""Clients and Pods of the relay's benchmarks where wrk and nginx do not serve; each is a process of its own.

    python -m benchmarks.relay_load WHAT ARGUMENT...      prints one line of JSON

source PORT                  sends to everyone who connects, without end
sink PORT STREAMS SECONDS    reads from that many connections at once: bytes, seconds, processor time of the machine
echo PORT                    answers UDP datagrams, TCP connections byte by byte
ping PORT CLIENTS SECONDS    UDP clients with 16 datagrams of 64 bytes in flight each: answers and seconds
bare PORT TARGET             a relay of kept connections that does nothing but epoll, recv and send
crowd PORT COUNT             opens connections, and asks each while all are open: how many were answered

Datagrams go through recvmmsg(2) and sendmmsg(2), so that what Python does for a datagram is next to nothing.
"""

import ctypes
import json
import multiprocessing
import os
import select
import socket
import sys
import time
from contextlib import suppress

from svcplane.proxy.planes.userspace.limits import raise_descriptor_limit

HOST = "127.0.0.1"
CHUNK = 1 << 20
IN_FLIGHT, PAYLOAD, LOST_AFTER_S = 16, 64, 0.05
BATCH = 64
MSG_DONTWAIT = int(socket.MSG_DONTWAIT)
_libc = ctypes.CDLL(None, use_errno=True)


class _Vector(ctypes.Structure):
    _fields_ = (("base", ctypes.c_void_p), ("length", ctypes.c_size_t))


class _Header(ctypes.Structure):
    _fields_ = (
        ("name", ctypes.c_void_p),
        ("name_length", ctypes.c_uint32),
        ("vectors", ctypes.c_void_p),
        ("vector_count", ctypes.c_size_t),
        ("control", ctypes.c_void_p),
        ("control_length", ctypes.c_size_t),
        ("flags", ctypes.c_size_t),  # an int, and what aligns the next
        ("length", ctypes.c_size_t),
    )


class Datagrams:
    """Room for datagrams of PAYLOAD bytes with the addresses they came from, which is where they are sent to."""

    def __init__(self, count: int, *, named: bool) -> None:
        self.count = count
        self._bodies = ctypes.create_string_buffer(b"x" * (count * PAYLOAD))
        self._names = ctypes.create_string_buffer(count * 16)
        self._vectors, self.headers = (_Vector * count)(), (_Header * count)()
        for at, (vector, header) in enumerate(zip(self._vectors, self.headers, strict=True)):
            vector.base, vector.length = ctypes.addressof(self._bodies) + at * PAYLOAD, PAYLOAD
            header.vectors, header.vector_count = ctypes.addressof(vector), 1
            if named:
                header.name, header.name_length = ctypes.addressof(self._names) + at * 16, 16

    def receive(self, descriptor: int) -> int:
        """How many came; -1: none."""
        return int(_libc.recvmmsg(descriptor, self.headers, self.count, MSG_DONTWAIT, None))

    def send(self, descriptor: int, count: int) -> int:
        return int(_libc.sendmmsg(descriptor, self.headers, count, 0))


def source(port: int) -> None:
    listener = socket.create_server((HOST, port), backlog=64)
    while True:
        end, _ = listener.accept()
        multiprocessing.Process(target=_send, args=(end,), daemon=True).start()
        end.close()


def _send(end: socket.socket) -> None:
    body = memoryview(bytes(CHUNK))
    with suppress(OSError):
        while True:
            end.sendall(body)


def sink(port: int, streams: int, seconds: float) -> dict[str, float]:
    found: multiprocessing.Queue[tuple[int, float, float]] = multiprocessing.Queue()
    readers = [multiprocessing.Process(target=_read, args=(port, seconds, found)) for _ in range(streams)]
    for reader in readers:
        reader.start()
    rows = [found.get(timeout=seconds + 30) for _ in readers]
    for reader in readers:
        reader.join()
    sizes, took, busy = zip(*rows, strict=True)
    return {"bytes": sum(sizes), "seconds": max(took), "busy": max(busy)}


def busy_s() -> float:
    """Processor time of the whole machine so far, with that of interrupts."""
    with open("/proc/stat") as file:
        user, nice, system, _, _, irq, softirq = (int(word) for word in file.readline().split()[1:8])
    return (user + nice + system + irq + softirq) / os.sysconf("SC_CLK_TCK")


def _read(port: int, seconds: float, found: "multiprocessing.Queue[tuple[int, float, float]]") -> None:
    room, total = bytearray(CHUNK), 0
    with socket.create_connection((HOST, port), 10) as end:
        end.settimeout(None)
        busy, began = busy_s(), time.perf_counter()
        until = began + seconds
        while time.perf_counter() < until:
            total += end.recv_into(room)
        found.put((total, time.perf_counter() - began, busy_s() - busy))


def echo(port: int) -> None:
    """One process for datagrams and connections."""
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    datagrams.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
    datagrams.bind((HOST, port))
    listener = socket.create_server((HOST, port), backlog=4096)
    listener.setblocking(False)
    room, poll = Datagrams(BATCH, named=True), select.epoll()
    poll.register(datagrams, select.EPOLLIN)
    poll.register(listener, select.EPOLLIN)
    open_ends: dict[int, socket.socket] = {}
    while True:
        for descriptor, _ in poll.poll():
            if descriptor == datagrams.fileno():
                if (count := room.receive(descriptor)) > 0:
                    room.send(descriptor, count)
            elif descriptor == listener.fileno():
                with suppress(BlockingIOError):
                    while True:
                        end, _ = listener.accept()
                        open_ends[end.fileno()] = end
                        poll.register(end, select.EPOLLIN)
            else:
                try:
                    data = open_ends[descriptor].recv(4096)
                except ConnectionError:
                    data = b""
                if data:
                    open_ends[descriptor].send(data)
                else:
                    open_ends.pop(descriptor).close()


def bare(port: int, target: int) -> None:
    """The least that a relay in Python can be: what remains to a peer beyond it, no rule of ours can mend."""
    listener, poll = socket.create_server((HOST, port), backlog=4096), select.epoll()
    poll.register(listener, select.EPOLLIN)
    ways: dict[int, tuple[socket.socket, socket.socket]] = {}
    while True:
        for descriptor, _ in poll.poll():
            way = ways.get(descriptor)
            if way is None:
                if descriptor != listener.fileno():
                    continue  # closed by its other side's event
                ends = listener.accept()[0], socket.create_connection((HOST, target))
                for one, other in (ends, ends[::-1]):
                    one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    ways[one.fileno()] = one, other
                    poll.register(one, select.EPOLLIN | select.EPOLLET)
                continue
            try:
                data = way[0].recv(65_536, MSG_DONTWAIT)
                if data and way[1].send(data, MSG_DONTWAIT) == len(data):
                    continue
            except OSError:
                pass
            for end in way:
                del ways[end.fileno()]
                end.close()


def ping(port: int, clients: int, seconds: float) -> dict[str, float]:
    room, poll = Datagrams(IN_FLIGHT, named=False), select.epoll()
    ends = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(clients)]
    for end in ends:
        end.connect((HOST, port))
        poll.register(end, select.EPOLLIN)
    began, answers = time.perf_counter(), 0
    until = began + seconds
    while time.perf_counter() < until:
        ready = poll.poll(LOST_AFTER_S)
        for descriptor, _ in ready:
            if (count := room.receive(descriptor)) > 0:
                answers += count
                room.send(descriptor, count)
        if not ready:  # the first time, and where all that was in flight is lost
            for end in ends:
                room.send(end.fileno(), IN_FLIGHT)
    return {"answers": answers, "seconds": time.perf_counter() - began}


def crowd(port: int, count: int) -> None:
    ends = [socket.create_connection((HOST, port), 30) for _ in range(count)]
    for _ in range(2):
        for number, end in enumerate(ends):
            end.sendall(b"%08d" % number)
        right = sum(end.recv(8, socket.MSG_WAITALL) == b"%08d" % number for number, end in enumerate(ends))
    print(json.dumps({"answered": right}), flush=True)
    sys.stdin.readline()  # until the relay has been looked at


def main() -> None:
    raise_descriptor_limit()
    what, numbers = sys.argv[1], [float(word) if "." in word else int(word) for word in sys.argv[2:]]
    work = {"source": source, "sink": sink, "echo": echo, "ping": ping, "bare": bare, "crowd": crowd}[what]
    if (found := work(*numbers)) is not None:  # type: ignore[operator]
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
