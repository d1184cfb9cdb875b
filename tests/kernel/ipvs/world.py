"""Network namespaces for the tests here: one of its own, or a node with a client side and Pods behind it."""

import contextlib
import errno
import os
import selectors
import socket
import struct
import subprocess
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from svcplane.kernel.links import run as links

ETH_P_ARP = 0x0806


def ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True)


@contextlib.contextmanager
def own_namespace() -> Iterator[str]:
    """The calling thread is in a fresh namespace during the body."""
    name = f"t{uuid.uuid4().hex[:8]}"
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    ip("netns", "add", name)
    try:
        ip("-n", name, "link", "set", "lo", "up")
        links.enter(links.path_of(name))
        yield name
    finally:
        links.enter(f"/proc/self/fd/{before}")
        os.close(before)
        ip("netns", "del", name)


@contextlib.contextmanager
def thread_in(namespace: str) -> Iterator[None]:
    before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    links.enter(links.path_of(namespace))
    try:
        yield
    finally:
        links.enter(f"/proc/self/fd/{before}")
        os.close(before)


class Pods:
    """TCP, SCTP and UDP servers in Pods' namespaces: each tells its name and whom it sees first, then echoes."""

    PORT = 8080

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._names: dict[int, str] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def add(self, namespace: str, name: str, address: str) -> None:
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        with thread_in(namespace):
            streams = [socket.socket(family, socket.SOCK_STREAM, protocol) for protocol in (0, socket.IPPROTO_SCTP)]
            datagram = socket.socket(family, socket.SOCK_DGRAM)
        for each in (*streams, datagram):
            each.bind((address, self.PORT))
            each.setblocking(False)
            self._names[each.fileno()] = name
        for stream in streams:
            stream.listen(64)
            self._selector.register(stream, selectors.EVENT_READ, self._accept)
        self._selector.register(datagram, selectors.EVENT_READ, self._answer)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join(5)
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _serve(self) -> None:
        while not self._stop.is_set():
            for key, _ in self._selector.select(0.1):
                key.data(key.fileobj)

    def _accept(self, listener: socket.socket) -> None:
        try:
            accepted, peer = listener.accept()
            accepted.sendall(f"{self._names[listener.fileno()]} {peer[0]}\n".encode())
        except OSError:  # the client went again
            return
        self._selector.register(accepted, selectors.EVENT_READ, self._echo)

    def _echo(self, accepted: socket.socket) -> None:
        try:
            data = accepted.recv(4096)
        except OSError:
            data = b""
        if data:
            accepted.sendall(data)
        else:
            self._selector.unregister(accepted)
            accepted.close()

    def _answer(self, datagram: socket.socket) -> None:
        _, peer = datagram.recvfrom(4096)
        datagram.sendto(f"{self._names[datagram.fileno()]} {peer[0]}".encode(), peer)


class World:
    """A node (the thread is in its namespace), clients 10.9.N.2 to 10.9.N.9 (N 0 to 2) and Pods p1, p2, p3."""

    VIP = "10.96.0.10"
    VIP6 = "fd00:10:96::a"

    def __init__(self, node: str) -> None:
        self.node, self.client, self.pods = node, f"{node}c", Pods()
        self.port = 80  # where `connect` goes
        self._made = [self.client]
        self._open: list[socket.socket] = []

    @staticmethod
    def pod_ip(name: str, *, six: bool = False) -> str:
        return f"fd00:10:244::1{name[1:]}" if six else f"10.244.1.1{name[1:]}"

    def build(self) -> None:
        for parameter in ("ipv4/ip_forward", "ipv6/conf/all/forwarding"):
            Path(f"/proc/sys/net/{parameter}").write_text("1")
        self._box(self.client, "c0")
        ip("addr", "add", "10.9.0.1/16", "dev", "c0")
        ip("-6", "addr", "add", "fd09::1/64", "dev", "c0", "nodad")
        lines = [f"addr add 10.9.{net}.{host}/16 dev eth0" for net in range(3) for host in range(2, 10)]
        self._batch(self.client, [*lines, "route add default via 10.9.0.1"])
        self._batch(self.client, ["addr add fd09::2/64 dev eth0 nodad", "route add default via fd09::1"], six=True)
        for name in ("p1", "p2", "p3"):
            inside, four, six = f"{self.node}{name}", self.pod_ip(name), self.pod_ip(name, six=True)
            self._box(inside, name)
            ip("addr", "add", "10.244.1.1/32", "dev", name)
            ip("-6", "addr", "add", "fd00:10:244::1/128", "dev", name, "nodad")
            ip("route", "add", f"{four}/32", "dev", name)
            ip("-6", "route", "add", f"{six}/128", "dev", name)
            routes = ["route add 10.244.1.1/32 dev eth0", "route add default via 10.244.1.1"]
            self._batch(inside, [f"addr add {four}/32 dev eth0", *routes])
            routes = ["route add fd00:10:244::1/128 dev eth0", "route add default via fd00:10:244::1 dev eth0"]
            self._batch(inside, [f"addr add {six}/128 dev eth0 nodad", *routes], six=True)
            self.pods.add(inside, name, four)
            self.pods.add(inside, name, six)
        self.pods.start()

    def _box(self, namespace: str, device: str) -> None:
        ip("netns", "add", namespace)
        self._made.append(namespace)
        ip("link", "add", device, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        ip("link", "set", device, "up")
        self._batch(namespace, ["link set lo up", "link set eth0 up"])

    @staticmethod
    def _batch(namespace: str, lines: list[str], *, six: bool = False) -> None:
        command = ["ip", *(["-6"] if six else []), "-n", namespace, "-batch", "-"]
        subprocess.run(command, input="\n".join(lines) + "\n", text=True, check=True, capture_output=True)

    def connect(self, source: str = "10.9.0.2", *, vip: str = VIP, sport: int = 0) -> "Connection":
        """A TCP connection that is kept until `close` or the end.  Raises OSError within three seconds."""
        deadline = time.monotonic() + 3
        with thread_in(self.client):
            made = socket.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_STREAM)
            Path("/proc/sys/net/ipv4/tcp_tw_reuse").write_text("1")
        self._open.append(made)
        made.settimeout(3)
        if sport:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind((source if ":" not in vip else "fd09::2", sport))
        while True:
            try:
                made.connect((vip, self.port))
                break
            except OSError as error:  # the client's own last connection from this port is still remembered
                if error.errno != errno.EADDRNOTAVAIL or time.monotonic() > deadline:
                    raise
                time.sleep(0.1)
        return Connection(made, made.recv(100).decode().split()[0])

    def pods_of(self, count: int, source: str = "10.9.0.2") -> list[str]:
        """The Pods that connections, closed one after the other, come to."""
        found = []
        for _ in range(count):
            connection = self.connect(source)
            found.append(connection.pod)
            connection.socket.close()
        return found

    def ask(self, asking: socket.socket) -> str:
        """The Pod that answers a datagram of a connected socket, or why none does."""
        try:
            asking.send(b"who")
            return asking.recv(100).decode().split()[0]
        except TimeoutError:
            return "timeout"
        except ConnectionRefusedError:
            return "refused"

    def pings(self, address: str) -> bool:
        """Whether an IPv4 address answers an echo request."""
        with thread_in(self.client):
            asking = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        with asking:
            asking.settimeout(2)
            asking.sendto(bytes.fromhex("0800f7ff00000000"), (address, 0))
            try:
                return asking.recv(200)[20] == 0
            except TimeoutError:
                return False

    def answers_arp(self, address: str) -> bool:
        """Whether the node tells a client its hardware address for an IPv4 address."""
        with thread_in(self.client):
            asking = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ARP))
        with asking:
            asking.bind(("eth0", ETH_P_ARP))
            asking.settimeout(1)
            mine = asking.getsockname()[4]
            wanted = socket.inet_aton(address)
            head = b"\xff" * 6 + mine + struct.pack(">HHHBBH", ETH_P_ARP, 1, 0x0800, 6, 4, 1)
            asking.send(head + mine + socket.inet_aton("10.9.0.2") + bytes(6) + wanted)
            try:
                while True:
                    frame = asking.recv(100)
                    if frame[20:22] == b"\0\2" and frame[28:32] == wanted:
                        return True
            except TimeoutError:
                return False

    def datagrams(self, *, vip: str = VIP) -> socket.socket:
        with thread_in(self.client):
            made = socket.socket(socket.AF_INET6 if ":" in vip else socket.AF_INET, socket.SOCK_DGRAM)
        self._open.append(made)
        made.settimeout(1.5)
        made.connect((vip, self.port))
        return made

    def remove(self) -> None:
        for each in self._open:
            each.close()
        if self.pods._thread.ident is not None:
            self.pods.stop()
        for namespace in dict.fromkeys(self._made):
            subprocess.run(["ip", "netns", "del", namespace], check=False, capture_output=True)


class Connection(NamedTuple):
    socket: socket.socket
    pod: str

    def echoes(self) -> bool:
        try:
            self.socket.sendall(b"ping")
            return self.socket.recv(100) == b"ping"
        except OSError:
            return False


@contextlib.contextmanager
def node_with_pods() -> Iterator[World]:
    with own_namespace() as node:
        world = World(node)
        try:
            world.build()
            yield world
        finally:
            world.remove()
