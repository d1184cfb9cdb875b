"""ipset messages as bytes, and back.  Pure.  Source: include/uapi/linux/netfilter/ipset/ip_set.h."""

import ipaddress
import os
from collections.abc import Iterable, Iterator

from svcplane.base.net import Family, address
from svcplane.kernel.ipset import objects as o
from svcplane.kernel.netlink import codec as n

SUBSYSTEM, PROTOCOL = 6, 6
CREATE, DESTROY, LIST, ADD, DEL, TYPE = 2, 3, 7, 9, 10, 13
SET_NAME, TYPE_NAME, REVISION, FAMILY, DATA, ADT, LINE = 2, 3, 4, 5, 7, 8, 9
FLAGS, HEADER_ONLY = 6, 1 << 2
A_ELEMENTS, A_REFERENCES = 24, 25
A_IP, A_PORT, A_PROTO, A_IP2, A_CIDR2, A_MAX = 1, 4, 7, 20, 21, 19
NFPROTO = {Family.IPV4: 2, Family.IPV6: 10}
_FAMILY = {number: family for family, number in NFPROTO.items()}
PROTOCOLS = {"tcp": 6, "udp": 17, "sctp": 132}
_PROTOCOL_NAME = {number: name for name, number in PROTOCOLS.items()}
PART = 800  # entries a message: the attribute that holds them has sixteen bits for its length
#: errors of ipset's own begin at 4096
ERRORS = {
    4097: "protocol error",
    4098: "this kernel has no such type",
    4099: "too many sets",
    4100: "a rule refers to it",
    4101: "another set has the name",
    4102: "of another type",
    4103: "the entry is there",
    4104: "invalid CIDR",
    4108: "a rule refers to it",
    4352: "the set is full",
}


def kind(command: int) -> int:
    return SUBSYSTEM << 8 | command


def body(family: Family | None, *parts: bytes) -> bytes:
    """The netfilter header, the protocol's number, then attributes."""
    return bytes((NFPROTO[family] if family else 0, 0, 0, 0)) + n.u8(1, PROTOCOL) + b"".join(parts)


def type_request(set_: o.Set) -> bytes:
    return body(None, n.text(TYPE_NAME, set_.type), n.u8(FAMILY, NFPROTO[set_.family]))


def revision(answer: bytes) -> int:
    """The newest revision the kernel has of a type."""
    return n.attributes(answer, 4)[REVISION][0]


def create(set_: o.Set, type_revision: int) -> bytes:
    return body(
        None,
        n.text(SET_NAME, set_.name),
        n.text(TYPE_NAME, set_.type),
        n.u8(REVISION, type_revision),
        n.u8(FAMILY, NFPROTO[set_.family]),
        n.nest(DATA, n.be32(A_MAX | n.NET_BYTEORDER, set_.max_entries)),
    )


def named(name: str) -> bytes:
    return body(None, n.text(SET_NAME, name))


def header_of(name: str) -> bytes:
    return body(None, n.text(SET_NAME, name), n.be32(FLAGS | n.NET_BYTEORDER, HEADER_ONLY))


def decode_size(answer: bytes) -> o.Size:
    found = n.attributes(n.attributes(answer, 4)[DATA])
    return o.Size(n.big(found[A_ELEMENTS]), n.big(found[A_REFERENCES]))


def _ip(attribute: int, ip: str) -> bytes:
    packed = address(ip).packed
    return n.nest(attribute, n.attr((1 if len(packed) == 4 else 2) | n.NET_BYTEORDER, packed))


def _entry(set_: o.Set, entry: o.Entry) -> bytes:
    parts = [_ip(A_IP, entry.ip)]
    if set_.type != o.IP:
        parts += [n.be16(A_PORT | n.NET_BYTEORDER, entry.port), n.u8(A_PROTO, PROTOCOLS[entry.protocol])]
    if set_.type == o.IP_PORT_IP:
        parts.append(_ip(A_IP2, entry.other))
    elif set_.type == o.IP_PORT_NET:
        ip, _, bits = entry.other.partition("/")
        parts += [_ip(A_IP2, ip), n.u8(A_CIDR2, int(bits))]
    return n.nest(DATA, *parts)


def change(set_: o.Set, entries: Iterable[o.Entry]) -> Iterator[bytes]:
    """Bodies of ADD or DEL, as many as it takes."""
    encoded = [_entry(set_, entry) for entry in entries]
    for at in range(0, len(encoded), PART):
        yield body(None, n.text(SET_NAME, set_.name), n.u32(LINE, 0), n.nest(ADT, *encoded[at : at + PART]))


def decode_header(answer: bytes) -> tuple[str, o.Set | None]:
    """The set's name, and the set where the message has its header."""
    found = n.attributes(answer, 4)
    name = n.string(found[SET_NAME])
    if TYPE_NAME not in found or DATA not in found:
        return name, None
    family = _FAMILY.get(found[FAMILY][0])
    limit = n.attributes(found[DATA]).get(A_MAX, b"")
    type_ = n.string(found[TYPE_NAME])
    known = family is not None and type_ in (o.IP, o.IP_PORT, o.IP_PORT_IP, o.IP_PORT_NET)
    return name, o.Set(name, type_ if known else "", family or Family.IPV4, n.big(limit))


def decode_entries(answer: bytes, type_: str) -> Iterator[o.Entry]:
    listed = n.attributes(answer, 4).get(ADT, b"")
    for _, data in n.each(listed):
        found = n.attributes(data)
        ip = _decode_ip(found[A_IP])
        if type_ == o.IP:
            yield o.Entry(ip)
            continue
        other = _decode_ip(found[A_IP2]) if A_IP2 in found else ""
        if type_ == o.IP_PORT_NET:
            bits = found[A_CIDR2][0] if A_CIDR2 in found else (128 if ":" in other else 32)
            other = f"{other}/{bits}"
        yield o.Entry(ip, _PROTOCOL_NAME.get(found[A_PROTO][0], ""), n.big(found[A_PORT]), other)


def _decode_ip(nested: bytes) -> str:
    ((_, packed),) = n.each(nested)
    return str(ipaddress.ip_address(packed))


def reason(code: int) -> str:
    return ERRORS.get(code) or os.strerror(code)
