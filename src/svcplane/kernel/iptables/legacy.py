"""Looking at the tables of the legacy variant without its tools: two socket options of the kernel's own.

Source: include/uapi/linux/netfilter_ipv4/ip_tables.h, netfilter_ipv6/ip6_tables.h.
"""

import ctypes
import hashlib
import socket
import struct
from dataclasses import dataclass

from svcplane.base.errors import EnvironmentProblem
from svcplane.base.net import Family

_GET_INFO, _GET_ENTRIES = 64, 65  # IPT_SO_GET_INFO, IPT_SO_GET_ENTRIES, and the same of IP6T
_INFO = struct.Struct("32sI5I5III")  # struct ipt_getinfo
_ENTRIES = struct.Struct("32sI4x")  # struct ipt_get_entries, without the entries
_OFFSET = struct.Struct("H")


@dataclass(frozen=True, slots=True)
class _Entry:
    """Where a `struct ipt_entry` or `ip6t_entry` has the offset of the next one, and its two counters of 64 bits."""

    next_offset: int
    counters: int


_LAYOUT = {Family.IPV4: _Entry(90, 96), Family.IPV6: _Entry(142, 152)}
_COUNTERS = 16


def table_info(family: Family, table: str) -> tuple[int, ...]:
    """Hook entries, underflows, number of entries and size of a table; () where there is none.

    Raises EnvironmentProblem.
    """
    found = _ask(family, _GET_INFO, _INFO.pack(table.encode(), *[0] * 13), _INFO.size)
    return tuple(_INFO.unpack(found)[1:]) if found else ()


def table_digest(family: Family, table: str) -> bytes:
    """A hash of everything in a table but its counters; empty where there is none.  Raises EnvironmentProblem."""
    info = table_info(family, table)
    size = info[-1] if info else 0
    found = _ask(family, _GET_ENTRIES, _ENTRIES.pack(table.encode(), size), _ENTRIES.size + size) if size else b""
    layout = _LAYOUT[family]
    view, at = memoryview(found), _ENTRIES.size
    digest = hashlib.blake2b(repr(info).encode(), digest_size=16)
    while at + layout.counters + _COUNTERS <= len(view):
        end = at + _OFFSET.unpack_from(view, at + layout.next_offset)[0]
        digest.update(view[at : at + layout.counters])
        digest.update(view[at + layout.counters + _COUNTERS : end])
        if end <= at:
            break
        at = end
    return digest.digest() if found else b""


def _ask(family: Family, option: int, head: bytes, size: int) -> bytes:
    """What the kernel writes into a buffer that begins with `head`; empty where it refuses: there is no such table."""
    libc = ctypes.CDLL(None, use_errno=True)
    inet = socket.AF_INET if family is Family.IPV4 else socket.AF_INET6
    level = socket.IPPROTO_IP if family is Family.IPV4 else socket.IPPROTO_IPV6
    buffer = ctypes.create_string_buffer(head, size)
    length = ctypes.c_uint(size)
    try:
        with socket.socket(inet, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
            failed = libc.getsockopt(raw.fileno(), level, option, buffer, ctypes.byref(length))
    except PermissionError as error:
        raise EnvironmentProblem("looking at iptables needs root (CAP_NET_ADMIN and CAP_NET_RAW)") from error
    return b"" if failed else buffer.raw
