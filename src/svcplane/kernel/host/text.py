"""Kernel files and tool output -> facts.  Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

from svcplane.kernel.host.objects import HostLink, HostRoute

#: include/uapi/linux/capability.h
CAPABILITIES = {12: "NET_ADMIN", 13: "NET_RAW", 16: "SYS_MODULE", 21: "SYS_ADMIN"}
_VERSION = re.compile(r"v?(\d+(?:\.\d+)+)")
_LISTEN, _UNCONNECTED = "0A", "07"


def capabilities(status: str) -> frozenset[str]:
    """Of /proc/self/status, those that matter here."""
    for line in status.splitlines():
        if line.startswith("CapEff:"):
            bits = int(line.split()[1], 16)
            return frozenset(name for bit, name in CAPABILITIES.items() if bits >> bit & 1)
    return frozenset()


def version(text: str) -> str:
    """The first version number in a tool's answer."""
    found = _VERSION.search(text)
    return found[1] if found else "unknown"


def listening(table: str, *, udp: bool) -> Iterable[int]:
    """Ports of /proc/net/tcp, tcp6, udp and udp6 that something waits on, loopback aside."""
    wanted = _UNCONNECTED if udp else _LISTEN
    for line in table.splitlines()[1:]:
        words = line.split()
        if len(words) < 4 or words[3] != wanted:
            continue
        address, _, port = words[1].rpartition(":")
        if address not in ("0100007F", "00000000000000000000000001000000"):
            yield int(port, 16)


def dropped(stat: str) -> int:
    """insert_failed, drop and early_drop of all CPUs, /proc/net/stat/nf_conntrack."""
    lines = [line.split() for line in stat.splitlines()]
    if not lines:
        return 0
    columns = [index for index, name in enumerate(lines[0]) if name in ("insert_failed", "drop", "early_drop")]
    return sum(int(line[index], 16) for line in lines[1:] for index in columns if index < len(line))


def links(shown: Iterable[Mapping[str, Any]]) -> tuple[HostLink, ...]:
    """Of `ip -json -details address show`."""
    return tuple(
        HostLink(
            str(link.get("ifname", "")),
            int(link.get("mtu", 0)),
            str((link.get("linkinfo") or {}).get("info_kind", "")),
            "UP" in (link.get("flags") or ()),
            tuple(
                f"{entry['local']}/{entry['prefixlen']}" for entry in link.get("addr_info") or () if "local" in entry
            ),
        )
        for link in shown
    )


def routes(shown: Iterable[Mapping[str, Any]]) -> tuple[HostRoute, ...]:
    """Of `ip -json route show`; a bare address is a host route."""
    found = []
    for route in shown:
        destination = str(route.get("dst", ""))
        if destination != "default" and "/" not in destination:
            destination += "/128" if ":" in destination else "/32"
        found.append(HostRoute(destination, str(route.get("dev", "")), str(route.get("gateway", ""))))
    return tuple(found)
