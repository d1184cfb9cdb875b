"""New connections to a Service's address, through the rules of two nodes in turn.

A node is a network namespace with one Pod beside it, in which a process accepts.  The client opens many connections
at once: what one costs then is its way through the kernel, and not the waiting for a process.  Nodes take short turns,
in an order that is drawn for each pair of turns; each pair gives one ratio, so that a machine which others use too
slows both, and the median of many of them is what is judged.
"""

import os
import random
import select
import socket
import statistics
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from benchmarks.figures import Figure
from svcplane.kernel.links.run import command_in, inside

POD = ("10.250.0.2", 8080)
AT_ONCE = 64
TURNS = {False: (500, 0.01), True: (1, 0.01)}  # by whether the scale is tiny: pairs of turns, seconds of each turn
RESET = struct.pack("ii", 1, 0)  # struct linger: close by RST, which leaves no port waiting


@dataclass(frozen=True, slots=True)
class Node:
    """Namespaces of a node and of its Pod, which answers on POD."""

    name: str
    pod: str


@contextmanager
def node(word: str = "node") -> Iterator[Node]:
    made = Node(f"svcplane-bench-{os.getpid()}-{word}", f"svcplane-bench-{os.getpid()}-{word}-pod")
    commands = f"""netns add {made.name}
netns add {made.pod}
link add eth0 netns {made.name} type veth peer name eth0 netns {made.pod}
-n {made.name} address add 10.250.0.1/24 dev eth0
-n {made.pod} address add {POD[0]}/24 dev eth0
-n {made.name} link set lo up
-n {made.name} link set eth0 up
-n {made.pod} link set eth0 up
-n {made.name} route add default via {POD[0]}
"""
    try:
        for line in commands.splitlines():
            subprocess.run(["ip", *line.split()], check=True, timeout=20)
        yield made
    finally:
        for name in (made.name, made.pod):
            subprocess.run(["ip", "netns", "del", name], check=False, timeout=20, stderr=subprocess.DEVNULL)


@contextmanager
def accepting(where: Node) -> Iterator[None]:
    """A process in the Pod that takes every connection and closes it."""
    command = command_in(where.pod, [sys.executable, "-m", "benchmarks.connections"])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    ) as server:
        try:
            assert server.stdout is not None
            server.stdout.readline()  # it listens
            yield
        finally:
            server.terminate()


@dataclass(frozen=True, slots=True)
class Rate:
    """Connections a second: while they are opened; and with making and closing their sockets, and the server's part."""

    opening: float
    whole: float


def rate(where: Node, address: str, seconds: float) -> Rate:
    """Connections to port 80 of a Service's address.  Raises OSError if one fails."""
    count, opening, began = 0, 0.0, time.perf_counter()
    with inside(where.name):
        while opening < seconds:
            opening += _seconds_to_open(address)
            count += AT_ONCE
    return Rate(count / opening, count / (time.perf_counter() - began))


def _seconds_to_open(address: str) -> float:
    """AT_ONCE connections; making the sockets and closing them, which no rule has a part in, is not counted."""
    links = [socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK) for _ in range(AT_ONCE)]
    try:
        began = time.perf_counter()
        for link in links:
            link.connect_ex((address, 80))
        for link in links:
            _wait_connected(link)
        return time.perf_counter() - began
    finally:
        for link in links:
            link.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            link.close()


def _wait_connected(link: socket.socket) -> None:
    """Most are by now: the whole handshake happened within `connect`."""
    try:
        link.getpeername()
    except OSError:
        select.select([], [link], [], 5)
        link.getpeername()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Medians of what both reach while they open, and of the ratios of neighbouring turns."""

    ours: float
    theirs: float
    opening: float
    whole: float

    def figures(self, name: str, at_least: float, peer: str) -> list[Figure]:
        return [
            Figure(f"{name}, their opening alone", self.ours, "/s", floor=self.theirs, floor_name=peer),
            Figure("  ratio of neighbouring turns", self.opening, "x", at_least, more=True),
            Figure("  the same, with making and closing the sockets", self.whole, "x"),
        ]


def compare(ours: Node, theirs: Node, address: str, rounds: int, seconds: float) -> Comparison:
    one: list[Rate] = []
    other: list[Rate] = []
    with accepting(ours), accepting(theirs):
        for _ in range(rounds):
            for node, found in random.sample([(ours, one), (theirs, other)], 2):
                found.append(rate(node, address, seconds))
    pairs = list(zip(one, other, strict=True))
    return Comparison(
        statistics.median(turn.opening for turn in one),
        statistics.median(turn.opening for turn in other),
        statistics.median(a.opening / b.opening for a, b in pairs),
        statistics.median(a.whole / b.whole for a, b in pairs),
    )


def _serve() -> None:
    listener = socket.create_server(POD, backlog=4096)
    print("listening", flush=True)
    while True:
        listener.accept()[0].close()


if __name__ == "__main__":
    _serve()
