"""Canonical addresses: one spelling for one address, everywhere inside.

Source: KEP-4858 (strict IP and CIDR validation) and netutils.ParseIPSloppy, which accepts leading zeros.
"""

import ipaddress
import re
from enum import IntEnum
from functools import lru_cache

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork = ipaddress.IPv4Network | ipaddress.IPv6Network


class Family(IntEnum):
    """IP family; the value is the IP version."""

    IPV4 = 4
    IPV6 = 6

    @property
    def api_name(self) -> str:
        """As in `spec.ipFamilies` and EndpointSlice `addressType`."""
        return "IPv4" if self is Family.IPV4 else "IPv6"


@lru_cache(maxsize=65536)
def family_of(address: str) -> Family:
    """The family of an address or CIDR by its spelling (no validation)."""
    return Family.IPV6 if ":" in address else Family.IPV4


def _without_leading_zeros(text: str) -> str:
    """Go's old parser read 010.0.0.1 as 10.0.0.1; stored objects may hold that."""
    if ":" in text:
        return text
    return ".".join(part.lstrip("0") or "0" if part.isdigit() else part for part in text.split("."))


_OCTET = r"(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)"
#: An IPv4 address in its canonical spelling; most addresses are, and need no more reading.
CANONICAL_IPV4 = re.compile(rf"{_OCTET}(?:\.{_OCTET}){{3}}", re.ASCII)


def canonical_ip(text: str) -> str | None:
    """The canonical spelling of an IP address, or None if it is not one.

    Leading zeros in IPv4 are accepted and dropped; IPv4-mapped IPv6 becomes IPv4, as Go prints it.
    """
    return text if CANONICAL_IPV4.fullmatch(text) else _canonical_ip(text)


@lru_cache(maxsize=65536)
def _canonical_ip(text: str) -> str | None:
    try:
        parsed = ipaddress.ip_address(_without_leading_zeros(text))
    except ValueError:
        return None
    if parsed.version == 6:
        if parsed.scope_id:
            return None
        if parsed.ipv4_mapped is not None:
            return str(parsed.ipv4_mapped)
    return str(parsed)


@lru_cache(maxsize=16384)
def canonical_cidr(text: str) -> str | None:
    """The canonical network of a CIDR (host bits cleared), or None if it is not one."""
    address, slash, length = text.strip().partition("/")
    if not slash or not (length.isascii() and length.isdigit()) or "%" in address:
        return None
    try:
        return str(ipaddress.ip_network(f"{_without_leading_zeros(address)}/{int(length)}", strict=False))
    except ValueError:
        return None


@lru_cache(maxsize=16384)
def network(cidr: str) -> IPNetwork:
    """Parsed, cached network of a canonical CIDR."""
    return ipaddress.ip_network(cidr, strict=False)


@lru_cache(maxsize=65536)
def address(text: str) -> IPAddress:
    """Parsed, cached address of a canonical IP."""
    return ipaddress.ip_address(text)


def contains(cidr: str, ip: str) -> bool:
    """Whether a canonical CIDR holds a canonical IP; False across families."""
    net, ip_ = network(cidr), address(ip)
    return net.version == ip_.version and ip_ in net


def host_port(text: str) -> tuple[str, int] | None:
    """`1.2.3.4:80`, `[::]:80`; None for anything else."""
    host, _, port = text.rpartition(":")
    if not port.isdigit() or not 1 <= int(port) <= 65535 or (":" in host and not host.startswith("[")):
        return None
    try:
        return str(ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))), int(port)
    except ValueError:
        return None


def join_host_port(host: str, port: int) -> str:
    """`1.2.3.4:80`, `[fd00::1]:80`."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
