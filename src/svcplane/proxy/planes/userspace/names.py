"""Names of the userspace plane's table, chains and sets, and packed keys.  Pure."""

import base64
import hashlib
import ipaddress

from svcplane.base.net import Family, join_host_port
from svcplane.kernel.nft.objects import DataType, TableName
from svcplane.proxy.model import Protocol, ServicePortName

TABLE = "svcplane-userspace"
PROTOCOL_NUMBER = {Protocol.TCP: 6, Protocol.UDP: 17, Protocol.SCTP: 132}
PROTOCOL_NAME = {number: protocol for protocol, number in PROTOCOL_NUMBER.items()}
ADDRESS_TYPE = {Family.IPV4: DataType.IPV4_ADDR, Family.IPV6: DataType.IPV6_ADDR}
#: What the relay can carry; SCTP is refused.
RELAYED = frozenset({Protocol.TCP, Protocol.UDP})


def table_name(family: Family) -> TableName:
    return TableName(family, TABLE)


def service_prefix(family: Family) -> str:
    return f"{family.api_name}/"


def service_key(family: Family, name: ServicePortName) -> str:
    """A service port to the workers, which serve both families."""
    return f"{service_prefix(family)}{name}/{name.protocol}"


def packed_ip(ip: str) -> bytes:
    return ipaddress.ip_address(ip).packed


def packed_port(port: int) -> bytes:
    return port.to_bytes(2, "big") + b"\0\0"


def port_key(protocol: Protocol, port: int) -> bytes:
    """`proto . dport`."""
    return bytes((PROTOCOL_NUMBER[protocol], 0, 0, 0)) + packed_port(port)


def address_key(ip: str, protocol: Protocol, port: int) -> bytes:
    """`daddr . proto . dport`."""
    return packed_ip(ip) + port_key(protocol, port)


def target(ip: str, port: int) -> bytes:
    """`addr . port`: where captured packets go."""
    return packed_ip(ip) + packed_port(port)


def read_target(data: bytes) -> tuple[str, int]:
    """The inverse of `target`."""
    return str(ipaddress.ip_address(data[:-4])), int.from_bytes(data[-4:-2], "big")


def firewall_names(name: ServicePortName) -> tuple[str, str]:
    """(chain, set of allowed sources) of a service port with source ranges."""
    base = f"{name.namespace}/{name.name}/{name.protocol.lower()}/{name.port_name}"
    digest = base64.b32encode(hashlib.sha256(base.encode()).digest()).decode()[:8]
    return f"firewall-{digest}-{base}"[:240], f"sources-{digest}-{base}"[:240]


def pretty(key: bytes, family: Family) -> str:
    """A key as a person would write it: an address, `proto . port`, or both."""
    width = 4 if family is Family.IPV4 else 16
    if len(key) == width:
        return str(ipaddress.ip_address(key))
    port = int.from_bytes(key[-4:-2], "big")
    protocol = PROTOCOL_NAME.get(key[-8])
    address = str(ipaddress.ip_address(key[:-8])) if len(key) > 8 else ""
    return f"{join_host_port(address, port) if address else port}/{(protocol or '?').lower()}"
