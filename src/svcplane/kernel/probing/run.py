"""Connections from another network namespace of this host, and who answered.  I/O only."""

import asyncio
import os
import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from svcplane.base.errors import EnvironmentProblem, SvcplaneError
from svcplane.base.net import Family, canonical_ip, family_of, join_host_port
from svcplane.kernel.conntrack import run as conntrack
from svcplane.kernel.links.run import NETNS_DIR, inside_path
from svcplane.kernel.probing.text import local_ipv4, local_ipv6

HERE = "/proc/self/ns/net"
RTM_NEWNSID, RTM_GETNSID, NLM_F_REQUEST, NETNSA_FD = 88, 90, 1, 3
PAYLOAD = b"svcplane probe\n"


@dataclass(frozen=True, slots=True)
class Probe:
    """One connection.  `result`: connected, refused, timeout, no answer (UDP), or the kernel's error.

    `translated_to`: where this host's connection tracking sent it, as `ip:port`; empty where that is not known.
    """

    result: str
    seconds: float
    translated_to: str = ""


def namespace_of(ip: str) -> str | None:
    """The file of the network namespace of this host that has an address; None where none has.

    Those that a process is in or that have a name below /run/netns are looked at.  Where several have the address, as
    on a host of several labs, it is the one linked to ours.  Raises EnvironmentProblem where that cannot be told.
    """
    found = [path for path in _namespaces() if ip in _addresses(path)]
    if HERE in found:
        return HERE
    linked = [path for path in found if _is_linked(path)] if len(found) > 1 else found
    if len(found) > 1 and len(linked) != 1:
        raise EnvironmentProblem(f"{len(found)} network namespaces of this host have {ip}: run the probe inside one")
    return linked[0] if linked else None


def _is_linked(path: str) -> bool:
    try:
        return namespace_id(path) is not None
    except OSError:  # its last process has ended
        return False


def namespace_id(path: str) -> int | None:
    """The number by which our namespace knows another that one of our links leads to; None where none does.

    Source: include/uapi/linux/net_namespace.h, RTM_GETNSID.
    """
    with open(path, "rb") as file, socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as asking:
        attribute = struct.pack("=HHI", 8, NETNSA_FD, file.fileno())
        payload = struct.pack("=Bxxx", socket.AF_UNSPEC) + attribute
        asking.settimeout(5.0)
        asking.send(struct.pack("=IHHII", 16 + len(payload), RTM_GETNSID, NLM_F_REQUEST, 1, 0) + payload)
        answer = asking.recv(4096)
    if struct.unpack_from("=H", answer, 4)[0] != RTM_NEWNSID:
        return None
    number: int = struct.unpack_from("=i", answer, 16 + 4 + 4)[0]  # header, rtgenmsg, attribute header
    return number if number >= 0 else None


def _namespaces() -> Iterator[str]:
    """A file of each network namespace, our own first: of a process in it, else the name it is kept by."""
    seen = set()
    processes = (f"/proc/{name}/ns/net" for name in filter(str.isdigit, os.listdir("/proc")))
    named = sorted(Path(NETNS_DIR).glob("*")) if Path(NETNS_DIR).is_dir() else []
    for path in (HERE, *processes, *map(str, named)):
        try:
            found = os.stat(path)
        except OSError:
            continue
        if (found.st_dev, found.st_ino) not in seen:
            seen.add((found.st_dev, found.st_ino))
            yield path


def _addresses(path: str) -> frozenset[str]:
    """A namespace's own addresses; nothing where it cannot be looked at."""
    process = path.removesuffix("/ns/net")
    if process != path:
        trie, inet6 = _read(f"{process}/net", "fib_trie", "if_inet6")
    else:
        try:
            with inside_path(path):
                trie, inet6 = _read("/proc/thread-self/net", "fib_trie", "if_inet6")
        except (SvcplaneError, OSError):  # no namespace, or not of networks, or its last holder has gone
            return frozenset()
    return frozenset({*local_ipv4(trie), *local_ipv6(inet6)})


def _read(directory: str, *files: str) -> tuple[str, ...]:
    found = []
    for file in files:
        try:
            found.append(Path(f"{directory}/{file}").read_text())
        except OSError:
            found.append("")
    return tuple(found)


async def probe(path: str, ip: str, port: int, protocol: str, timeout_s: float) -> Probe:
    """Connect (TCP, SCTP) or send a datagram (UDP) from the namespace of a file."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    kind = socket.SOCK_DGRAM if protocol == "UDP" else socket.SOCK_STREAM
    number = {"SCTP": socket.IPPROTO_SCTP}.get(protocol, 0)
    with inside_path(path):
        made = socket.socket(family, kind, number)
    made.setblocking(False)
    began = time.monotonic()
    with made:
        result = await _try(made, ip, port, protocol, timeout_s)
        seconds = time.monotonic() - began
        return Probe(result, round(seconds, 4), await _translated(made, ip, port, protocol))


async def _try(made: socket.socket, ip: str, port: int, protocol: str, timeout_s: float) -> str:
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(timeout_s):
            await loop.sock_connect(made, (ip, port))
            if protocol != "UDP":
                return "connected"
            await loop.sock_sendall(made, PAYLOAD)
            await loop.sock_recv(made, 65535)
            return "answered"
    except TimeoutError:
        return "no answer" if protocol == "UDP" else "timeout"
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        # asyncio puts a text of its own in the place of the kernel's
        return (os.strerror(error.errno) if error.errno else str(error)).lower()


async def _translated(made: socket.socket, ip: str, port: int, protocol: str) -> str:
    """Who answers to this flow, by the connection tracking of the namespace this process is in."""
    source = made.getsockname()
    family: Family = family_of(ip)
    try:
        entries = await conntrack.flows(family, protocol.lower())
    except SvcplaneError:
        return ""
    for entry in entries:
        flow = (entry.src, entry.sport, entry.dst, entry.dport)
        if flow == (canonical_ip(source[0]) or source[0], source[1], ip, port):
            return join_host_port(entry.reply_src, entry.reply_sport)
    return ""
