"""Names of tables, chains and sets of the nftables plane, and packed keys.  Pure.

A *class* says how a frontend's packets are treated: its kind, the affinity timeout and the number of slots of
its pool.  Each class has one constant chain (see `layout`); a frontend is an element that names its class.
"""

import base64
import hashlib
import ipaddress
import socket
import struct
import sys
from collections.abc import Container
from dataclasses import dataclass
from enum import IntEnum, StrEnum

from svcplane.base.net import Family
from svcplane.kernel.nft.objects import DataType, TableName
from svcplane.proxy.model import Protocol, ServicePortName

TABLE = "svcplane"
PROTOCOL_NUMBER = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}
PROTOCOL_NAME = {number: protocol for protocol, number in PROTOCOL_NUMBER.items()}
ADDRESS_TYPE = {Family.IPV4: DataType.IPV4_ADDR, Family.IPV6: DataType.IPV6_ADDR}


def table_name(family: Family) -> TableName:
    return TableName(family, TABLE)


class Kind(IntEnum):
    """What happens to a frontend's packets besides being translated."""

    PLAIN = 0  # nothing (the short cut, which has decided before)
    MASQUERADE = 1  # always masqueraded (external traffic, policy Cluster)
    LOCAL = 2  # external traffic, policy Local: Pods and the node itself take the short cut to every endpoint
    CLUSTER_IP = 3  # masqueraded where it comes from outside the cluster


class Context(StrEnum):
    """Which key a frontend has, and whether the short cut of policy Local has been taken."""

    ADDRESS = "address"
    NODEPORT = "nodeport"
    ADDRESS_SHORT = "address-short"
    NODEPORT_SHORT = "nodeport-short"

    @property
    def is_nodeport(self) -> bool:
        return self in (Context.NODEPORT, Context.NODEPORT_SHORT)

    @property
    def short(self) -> "Context":
        return Context.NODEPORT_SHORT if self.is_nodeport else Context.ADDRESS_SHORT


#: Sets by context: key -> class, key -> pool, class -> chain.
CLASS_MAP = {
    Context.ADDRESS: "service-ips",
    Context.NODEPORT: "service-nodeports",
    Context.ADDRESS_SHORT: "short-cut-ips",
    Context.NODEPORT_SHORT: "short-cut-nodeports",
}
POOL_MAP = {
    Context.ADDRESS: "service-ip-pools",
    Context.NODEPORT: "service-nodeport-pools",
    Context.ADDRESS_SHORT: "short-cut-ip-pools",
    Context.NODEPORT_SHORT: "short-cut-nodeport-pools",
}
CHAIN_MAP = {
    Context.ADDRESS: "ip-classes",
    Context.NODEPORT: "nodeport-classes",
    Context.ADDRESS_SHORT: "short-cut-ip-classes",
    Context.NODEPORT_SHORT: "short-cut-nodeport-classes",
}

MAX_SLOTS = (1 << 13) - 1
_HEAD = {
    Kind.PLAIN: "pick",
    Kind.MASQUERADE: "masquerade-pick",
    Kind.LOCAL: "local-pick",
    Kind.CLUSTER_IP: "cluster-ip-pick",
}
OWNER_MASK = 0xFFFFFFFE


@dataclass(frozen=True, slots=True, order=True)
class Class:
    """`slots` 0 with kind LOCAL: no endpoint here, the short cut still works."""

    kind: Kind
    affinity_timeout_s: int
    slots: int

    @property
    def number(self) -> int:
        """Two bits of kind, seventeen of timeout (at most 86400), thirteen of slots."""
        return self.kind << 30 | self.affinity_timeout_s << 13 | self.slots

    @classmethod
    def unpacked(cls, data: bytes) -> "Class":
        """The inverse of `packed`."""
        number = unword(data)
        return cls(Kind(number >> 30), number >> 13 & (1 << 17) - 1, number & MAX_SLOTS)

    @property
    def packed(self) -> bytes:
        return word(self.number)

    def chain(self, context: Context) -> str:
        """The chain packets of this class go to; a PLAIN class's own chain is the one that picks."""
        affinity = f"-sticky-{self.affinity_timeout_s}s" if self.affinity_timeout_s else ""
        return f"{context}-{_HEAD[self.kind]}-{self.slots}{affinity}"

    @property
    def pick(self) -> "Class":
        """The PLAIN class that picks among the same slots."""
        return Class(Kind.PLAIN, self.affinity_timeout_s, self.slots)


def word(number: int) -> bytes:
    """A mark or numgen result: four bytes in host order."""
    return number.to_bytes(4, sys.byteorder)


def unword(data: bytes) -> int:
    return int.from_bytes(data, sys.byteorder)


_addresses: dict[str, bytes] = {}


def packed_ip(ip: str) -> bytes:
    """Network-order bytes; remembered, since the text form is what costs."""
    packed = _addresses.get(ip)
    if packed is None:
        packed = socket.inet_pton(socket.AF_INET6 if ":" in ip else socket.AF_INET, ip)
        if len(_addresses) > 1_000_000:
            _addresses.clear()
        _addresses[ip] = packed
    return packed


def packed_service(port: int) -> bytes:
    return port.to_bytes(2, "big") + b"\0\0"


def address_key(ip: str, protocol: Protocol, port: int) -> bytes:
    """`daddr . proto . dport`."""
    return packed_ip(ip) + nodeport_key(protocol, port)


def nodeport_key(protocol: Protocol, port: int) -> bytes:
    """`proto . dport`."""
    return bytes((PROTOCOL_NUMBER[protocol], 0, 0, 0)) + packed_service(port)


_SLOT = struct.Struct("=II")


def read_slot(key: bytes) -> tuple[int, int]:
    """Pool and slot of a key of the map of endpoints."""
    pool, slot = _SLOT.unpack(key)
    return pool, slot


def endpoint_data(ip: str, port: int) -> bytes:
    """`addr . port` of an endpoint."""
    return packed_ip(ip) + packed_service(port)


def read_endpoint(data: bytes) -> tuple[str, int]:
    """The inverse of `endpoint_data`."""
    packed = data[:-4]
    ip = socket.inet_ntoa(packed) if len(packed) == 4 else str(ipaddress.IPv6Address(packed))
    return ip, int.from_bytes(data[-4:-2], "big")


def owner_of(pool: int) -> int:
    """The number of a service port, by which affinity remembers its clients: its pools have it and the next one."""
    return pool & OWNER_MASK


def endpoint_id(ip: str, port: int, departures: int, taken: Container[int]) -> int:
    """The number affinity remembers an endpoint by: a hash, so that it survives restarts.

    `departures`: how often endpoints had left by the time it came, so that one that comes back is another one.
    `taken`: numbers of the service port's other endpoints; a collision takes the next free one.
    """
    text = f"{ip}:{port}" + (f"#{departures}" if departures else "")
    number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest(), "big") or 1
    while number in taken:
        number = (number + 1) & 0xFFFFFFFF or 1
    return number


def firewall_names(name: ServicePortName) -> tuple[str, str]:
    """(chain, set of allowed sources) of a service port with source ranges."""
    base = f"{name.namespace}/{name.name}/{name.protocol.lower()}/{name.port_name}"
    digest = base64.b32encode(hashlib.sha256(base.encode()).digest()).decode()[:8]
    return f"firewall-{digest}-{base}"[:240], f"sources-{digest}-{base}"[:240]
