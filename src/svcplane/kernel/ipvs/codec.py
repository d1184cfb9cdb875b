"""IPVS objects as generic netlink messages, and back.  Pure.  Source: include/uapi/linux/ip_vs.h."""

import ipaddress
import os
import socket
import struct
from typing import assert_never

from svcplane.base.net import Family, address
from svcplane.kernel.ipvs import objects as o
from svcplane.kernel.netlink import codec as n

GENL_CTRL, CTRL_GETFAMILY, CTRL_FAMILY_ID, CTRL_FAMILY_NAME = 16, 3, 1, 2
NAME, VERSION = "IPVS", 1
NEW_SERVICE, SET_SERVICE, DEL_SERVICE, GET_SERVICE = 1, 2, 3, 4
NEW_DEST, SET_DEST, DEL_DEST, GET_DEST = 5, 6, 7, 8
SET_CONFIG, GET_CONFIG = 12, 13
SERVICE, DEST = 1, 2
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_PROTOCOL = {number: name for name, number in PROTOCOLS.items()}
_AF = {Family.IPV4: int(socket.AF_INET), Family.IPV6: int(socket.AF_INET6)}


def generic(command: int, body: bytes = b"") -> bytes:
    """The generic netlink header, then attributes."""
    return struct.pack("=BBH", command, VERSION, 0) + body


def family_request() -> bytes:
    return struct.pack("=BBH", CTRL_GETFAMILY, 1, 0) + n.text(CTRL_FAMILY_NAME, NAME)


def family_id(body: bytes) -> int:
    return n.native(n.attributes(body, 4)[CTRL_FAMILY_ID])


def _packed(ip: str) -> bytes:
    return address(ip).packed.ljust(16, b"\0")


def _key(key: o.ServerKey) -> bytes:
    return (
        n.u16(1, _AF[key.family])
        + n.u16(2, PROTOCOLS[key.protocol])
        + n.attr(3, _packed(key.address))
        + n.be16(4, key.port)
    )


def _mask(family: Family, prefix: int | None) -> bytes:
    """IPv4: the mask as an address; IPv6: the number of bits, as a number of this host."""
    if family is Family.IPV6:
        return n.u32(9, 128 if prefix is None else prefix)
    bits = 32 if prefix is None else prefix
    return n.attr(9, ipaddress.IPv4Network((0, bits)).netmask.packed)


def _server(key: o.ServerKey, server: o.Server) -> bytes:
    flags = server.flags | (o.PERSISTENT if server.timeout_s else 0)
    return n.nest(
        SERVICE,
        _key(key),
        n.text(6, server.scheduler),
        n.attr(7, struct.pack("=II", flags, o.SETTABLE_FLAGS)),
        n.u32(8, server.timeout_s),
        _mask(key.family, server.prefix),
    )


def _destination(key: o.ServerKey, target: o.Target, weight: int | None) -> bytes:
    ip, port = target
    # masquerading is forwarding method 0; thresholds of 0 are none
    rest = b"" if weight is None else n.u32(3, 0) + n.u32(4, weight) + n.u32(5, 0) + n.u32(6, 0)
    named = n.attr(1, _packed(ip)) + n.be16(2, port) + n.u16(11, _AF[key.family])
    return n.nest(SERVICE, _key(key)) + n.nest(DEST, named, rest)


def encode(change: o.Change) -> bytes:
    match change:
        case o.AddServer(key, server):
            return generic(NEW_SERVICE, _server(key, server))
        case o.EditServer(key, server):
            return generic(SET_SERVICE, _server(key, server))
        case o.DeleteServer(key):
            return generic(DEL_SERVICE, n.nest(SERVICE, _key(key)))
        case o.AddDestination(key, target, weight):
            return generic(NEW_DEST, _destination(key, target, weight))
        case o.EditDestination(key, target, weight):
            return generic(SET_DEST, _destination(key, target, weight))
        case o.DeleteDestination(key, target):
            return generic(DEL_DEST, _destination(key, target, None))
        case _:
            assert_never(change)


def get_server(key: o.ServerKey) -> bytes:
    return generic(GET_SERVICE, n.nest(SERVICE, _key(key)))


def get_destinations(key: o.ServerKey) -> bytes:
    return generic(GET_DEST, n.nest(SERVICE, _key(key)))


def _ip(family: int, packed: bytes) -> str:
    return str(ipaddress.ip_address(packed[:4] if family == socket.AF_INET else packed[:16]))


def decode_server(body: bytes) -> tuple[o.ServerKey, o.Server] | None:
    """None for one that has a firewall mark instead of an address."""
    found = n.attributes(n.attributes(body, 4)[SERVICE])
    if 3 not in found or 5 in found:
        return None
    family = n.native(found[1])
    flags = struct.unpack_from("=I", found[7])[0]
    protocol = _PROTOCOL.get(n.native(found[2]))
    if protocol is None:
        return None
    if family == socket.AF_INET:
        prefix: int | None = n.big(found[9]).bit_count()
        prefix = None if prefix == 32 else prefix
    else:
        prefix = n.native(found[9])
        prefix = None if prefix == 128 else prefix
    key = o.ServerKey(protocol, _ip(family, found[3]), n.big(found[4]))
    timeout_s = n.native(found[8]) if flags & o.PERSISTENT else 0
    return key, o.Server(n.string(found[6]), timeout_s, prefix, flags & (o.FALLBACK | o.BY_PORT | o.ONE_PACKET))


def decode_destination(body: bytes, family: Family) -> tuple[o.Target, o.Destination]:
    found = n.attributes(n.attributes(body, 4)[DEST])
    target = (_ip(_AF[family], found[1]), n.big(found[2]))
    return target, o.Destination(n.native(found[4]), n.native(found[7]), n.native(found[8]))


def decode_timeouts(body: bytes) -> o.Timeouts:
    found = n.attributes(body, 4)
    return o.Timeouts(n.native(found[4]), n.native(found[5]), n.native(found[6]))


def encode_timeouts(timeouts: o.Timeouts) -> bytes:
    return generic(SET_CONFIG, n.u32(4, timeouts.tcp) + n.u32(5, timeouts.tcp_fin) + n.u32(6, timeouts.udp))


def describe(change: o.Change, code: int) -> o.IpvsError:
    """A refused change, in a person's words."""
    verb, what = {
        o.AddServer: ("add", "virtual server"),
        o.EditServer: ("change", "virtual server"),
        o.DeleteServer: ("delete", "virtual server"),
        o.AddDestination: ("add", "a destination of virtual server"),
        o.EditDestination: ("change", "a destination of virtual server"),
        o.DeleteDestination: ("delete", "a destination of virtual server"),
    }[type(change)]
    why = os.strerror(code)
    if isinstance(change, o.AddServer | o.EditServer) and code == 2:
        why = f"this kernel has no scheduler {change.server.scheduler} (module ip_vs_{change.server.scheduler})"
    return o.IpvsError(code, f"IPVS did not {verb} {what} {change.key}: {why}")


def parse_connections(text: str) -> list[o.Connection]:
    """/proc/net/ip_vs_conn: addresses and ports in hexadecimal, IPv6 addresses in brackets."""
    found = []
    for line in text.splitlines()[1:]:
        fields = line.split()
        if len(fields) < 9:
            continue
        try:
            ips = [_hex_ip(fields[at]) for at in (1, 3, 5)]
            ports = [int(fields[at], 16) for at in (2, 4, 6)]
            expires = int(fields[8])
        except ValueError:
            continue
        server, target = (ips[1], ports[1]), (ips[2], ports[2])
        found.append(o.Connection(fields[0].lower(), ips[0], ports[0], server, target, fields[7], expires))
    return found


def _hex_ip(text: str) -> str:
    if ":" in text:
        return str(ipaddress.IPv6Address(text.strip("[]")))
    return str(ipaddress.IPv4Address(int(text, 16)))
