"""Addresses of this network namespace's interfaces, and the networks they are in.

One rtnetlink dump (rtnetlink(7)), without another process.
"""

import ipaddress
import socket
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field

from svcplane.base.errors import KernelError
from svcplane.base.net import Family

#: Devices that hold addresses of Services, not of the node.
NOT_THE_NODES = ("kube-ipvs0",)
_NEWADDR, _GETADDR = 20, 22
_ERROR, _DONE = 2, 3
_REQUEST_DUMP = 0x301  # NLM_F_REQUEST | NLM_F_ROOT | NLM_F_MATCH
_ADDRESS, _LOCAL = 1, 2  # IFA_ADDRESS, IFA_LOCAL
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
_HEADER, _IFADDR, _ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=BBBBI"), struct.Struct("=HH")


@dataclass(frozen=True, slots=True)
class Local:
    """By family: the node's addresses, loopback included, in the kernel's order; and the networks that it is in, where
    its neighbours are, as CIDRs."""

    addresses: dict[Family, tuple[str, ...]] = field(default_factory=dict)
    networks: dict[Family, tuple[str, ...]] = field(default_factory=dict)


async def local() -> Local:
    """Raises KernelError."""
    addresses: dict[Family, dict[str, None]] = {Family.IPV4: {}, Family.IPV6: {}}
    networks: dict[Family, set[str]] = {Family.IPV4: set(), Family.IPV6: set()}
    for address, length in _listed():
        family = Family(address.version)
        addresses[family][str(address)] = None
        if length < address.max_prefixlen and not address.is_loopback and not address.is_link_local:
            networks[family].add(str(ipaddress.ip_network(f"{address}/{length}", strict=False)))
    return Local(
        {family: tuple(found) for family, found in addresses.items()},
        {family: tuple(sorted(found)) for family, found in networks.items()},
    )


async def local_addresses() -> dict[Family, tuple[str, ...]]:
    """Those of `local`.  Raises KernelError."""
    return (await local()).addresses


def _listed() -> list[tuple[Address, int]]:
    """The node's addresses with the length of their prefix."""
    found = []
    try:
        with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as link:
            link.settimeout(10)
            link.send(_HEADER.pack(_HEADER.size + _IFADDR.size, _GETADDR, _REQUEST_DUMP, 1, 0) + _IFADDR.pack(*[0] * 5))
            bodies = list(_messages(link))
        passed_over = {index for index in {_index(body) for body in bodies} if _is_passed_over(index)}
        for body in bodies:
            address = _address(body)
            if address is not None and _index(body) not in passed_over:
                found.append((address, _IFADDR.unpack_from(body)[1]))
    except OSError as error:
        raise KernelError(f"cannot list this host's addresses: {error.strerror or error}") from error
    return found


def _index(body: bytes) -> int:
    """Of the device that has the address."""
    index: int = _IFADDR.unpack_from(body)[4]
    return index


def _is_passed_over(index: int) -> bool:
    """Whether a device holds addresses of Services, or went since it was listed, with its addresses."""
    try:
        return socket.if_indextoname(index) in NOT_THE_NODES
    except OSError:
        return True


def _messages(link: socket.socket) -> Iterator[bytes]:
    """Bodies of the dump's answers."""
    while True:
        data, at = link.recv(1 << 18), 0
        while at + _HEADER.size <= len(data):
            length, kind, *_ = _HEADER.unpack_from(data, at)
            body = data[at + _HEADER.size : at + length]
            if kind == _DONE:
                return
            if kind == _ERROR:
                code = -int(struct.unpack_from("=i", body)[0])
                raise OSError(code, f"rtnetlink error {code}")
            if kind == _NEWADDR:
                yield body
            at += (length + 3) & ~3


def _address(body: bytes) -> Address | None:
    """The interface's own address: IFA_LOCAL, which alone is it on a point-to-point link, else IFA_ADDRESS."""
    attributes: dict[int, bytes] = {}
    at = _IFADDR.size
    while at + _ATTRIBUTE.size <= len(body):
        length, kind = _ATTRIBUTE.unpack_from(body, at)
        attributes[kind] = body[at + _ATTRIBUTE.size : at + length]
        at += max(_ATTRIBUTE.size, (length + 3) & ~3)
    packed = attributes.get(_LOCAL, attributes.get(_ADDRESS))
    return ipaddress.ip_address(packed) if packed is not None and len(packed) in (4, 16) else None
