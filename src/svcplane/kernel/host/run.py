"""Reads the host's facts.  I/O only; what cannot be read is left out."""

import asyncio
import ctypes
import os
import socket
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from svcplane.base.errors import SvcplaneError
from svcplane.kernel.host import text
from svcplane.kernel.host.objects import HostFacts
from svcplane.kernel.nft.run import NftSocket

TOOLS = {
    "nft": ("--version",),
    "iptables": ("--version",),
    "conntrack": ("--version",),
    "ip": ("-Version",),
    "ipset": ("--version",),
    "ipvsadm": ("--version",),
}
SYSCTLS = (
    "net.ipv4.ip_forward",
    "net.ipv6.conf.all.forwarding",
    "net.ipv6.conf.all.disable_ipv6",
    "net.ipv4.conf.all.rp_filter",
    "net.ipv4.conf.all.route_localnet",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.ip_local_reserved_ports",
    "net.ipv4.ip_nonlocal_bind",
    "net.netfilter.nf_conntrack_tcp_be_liberal",
    "net.netfilter.nf_conntrack_udp_timeout_stream",
    "net.bridge.bridge-nf-call-iptables",
    "net.ipv4.vs.conntrack",
    "net.ipv4.vs.conn_reuse_mode",
)
TIME_ERROR = 5  # adjtimex(2): the clock is not synchronized


async def read_facts() -> HostFacts:
    shown, routes4, routes6 = await asyncio.gather(
        _json("ip", "-json", "-details", "address", "show"),
        _json("ip", "-json", "-4", "route", "show"),
        _json("ip", "-json", "-6", "route", "show"),
    )
    links = text.links(shown)
    recent = Path("/proc/net/xt_recent")
    return HostFacts(
        release=os.uname().release,
        capabilities=text.capabilities(_file("/proc/self/status")),
        tools=await _tools(),
        sysctls=_sysctls(link.name for link in links),
        lacking=await _lacking(),
        conntrack_count=_number("/proc/sys/net/netfilter/nf_conntrack_count"),
        conntrack_max=_number("/proc/sys/net/netfilter/nf_conntrack_max"),
        conntrack_dropped=text.dropped(_file("/proc/net/stat/nf_conntrack")),
        recent_limit=_number("/sys/module/xt_recent/parameters/ip_list_tot"),
        recent_used={file.name: len(_file(file).splitlines()) for file in recent.iterdir()} if recent.is_dir() else {},
        links=links,
        routes=text.routes([*routes4, *routes6]),
        listening=frozenset(_listening()),
        clock_synchronized=_clock_synchronized(),
        programs=_programs(),
    )


def _file(path: str | Path) -> str:
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return ""


def _number(path: str) -> int:
    found = _file(path).strip()
    return int(found) if found.isdigit() else 0


def _sysctls(interfaces: Iterable[str]) -> Mapping[str, str]:
    paths = {name: Path("/proc/sys", name.replace(".", "/")) for name in SYSCTLS}
    for name in interfaces:
        paths[f"net.ipv4.conf.{name}.rp_filter"] = Path("/proc/sys/net/ipv4/conf", name, "rp_filter")
    return {name: " ".join(value.split()) for name, path in paths.items() if (value := _file(path).strip())}


async def _tools() -> Mapping[str, str]:
    answers = await asyncio.gather(*(_output(name, *flags) for name, flags in TOOLS.items()))
    return {name: text.version(answer) for name, answer in zip(TOOLS, answers, strict=True) if answer is not None}


async def _lacking() -> Mapping[str, str]:
    """Features tried out, without a trace."""
    found = {}
    try:
        nft = NftSocket()
        try:
            await nft.generation()
        finally:
            await nft.close()
    except SvcplaneError as error:
        found["nf_tables"] = str(error)
    for name, probe in (("IPv6", socket.AF_INET6),):
        try:
            socket.socket(probe, socket.SOCK_DGRAM).close()
        except OSError as error:
            found[name] = error.strerror or str(error)
    if not Path("/proc/sys/net/netfilter/nf_conntrack_max").exists():
        found["nf_conntrack"] = "the kernel does not track connections here: modprobe nf_conntrack"
    if not Path("/proc/net/ip_vs").exists():
        found["ip_vs"] = "the kernel has no ip_vs, or it is not loaded: modprobe ip_vs"
    return found


def _listening() -> Iterable[tuple[str, int]]:
    for protocol in ("tcp", "udp"):
        for suffix in ("", "6"):
            table = _file(f"/proc/net/{protocol}{suffix}")
            for port in text.listening(table, udp=protocol == "udp"):
                yield protocol, port


def _clock_synchronized() -> bool | None:
    buffer = ctypes.create_string_buffer(512)  # struct timex with modes 0: read only
    state = ctypes.CDLL(None, use_errno=True).adjtimex(buffer)
    return None if state < 0 else bool(state != TIME_ERROR)


def _programs() -> tuple[str, ...]:
    here = os.stat("/proc/self/ns/net").st_ino
    found = set()
    for name in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.stat(f"/proc/{name}/ns/net").st_ino == here:
                found.add(_file(f"/proc/{name}/comm").strip())
        except OSError:
            continue
    return tuple(sorted(found))


async def _output(*command: str) -> str | None:
    """None where the program is missing."""
    pipe = asyncio.subprocess.PIPE
    try:
        process = await asyncio.create_subprocess_exec(*command, stdout=pipe, stderr=asyncio.subprocess.STDOUT)
    except FileNotFoundError:
        return None
    out, _ = await process.communicate()
    return out.decode(errors="replace")


async def _json(*command: str) -> list[dict[str, Any]]:
    answer = await _output(*command)
    try:
        found: list[dict[str, Any]] = msgspec.json.decode((answer or "").encode() or b"[]")
    except msgspec.DecodeError:
        return []
    return found
