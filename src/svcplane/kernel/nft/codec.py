"""nf_tables objects as netlink messages, and back.  Pure: bytes in, bytes out.

The encoder of elements is the hot path (a full load is tens of thousands of them) and is written for speed;
the rest for clarity.  Source: include/uapi/linux/netfilter/nf_tables.h, nfnetlink.h, netlink.h.
"""

import struct
import sys
from collections.abc import Iterable, Iterator
from typing import assert_never

from svcplane.base.net import Family
from svcplane.kernel.netlink import codec as netlink
from svcplane.kernel.netlink.codec import NESTED, attr, nest, text
from svcplane.kernel.nft import objects as o

NLM_F_NONREC = 0x100  # of requests to delete
NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP, NLM_F_CREATE, NLM_F_APPEND = 0x1, 0x4, 0x300, 0x400, 0x800
NLMSG_ERROR, NLMSG_DONE = 2, 3
BATCH_BEGIN, BATCH_END = 0x10, 0x11
SUBSYS = 10
NFPROTO = {Family.IPV4: 2, Family.IPV6: 10}
FAMILY = {number: family for family, number in NFPROTO.items()}
(
    NEWTABLE,
    GETTABLE,
    DELTABLE,
    NEWCHAIN,
    GETCHAIN,
    DELCHAIN,
    NEWRULE,
    GETRULE,
    DELRULE,
    NEWSET,
    GETSET,
    DELSET,
    NEWSETELEM,
    GETSETELEM,
    DELSETELEM,
    NEWGEN,
    GETGEN,
) = range(17)

MAX_ELEMENT_LIST = 65_000  # a nested attribute's length has sixteen bits
REG32_BASE = 8
REG_VERDICT = 0
F_INTERVAL, F_MAP, F_TIMEOUT, F_EVAL, F_CONCAT = 4, 8, 16, 32, 128
VERDICT_TYPE = 0xFFFFFF00
ELEMENT_INTERVAL_END = 1
NAT_MAP_IPS, NAT_PROTO_SPECIFIED, NAT_FULLY_RANDOM = 1, 2, 16
HOST_ENDIAN, BIG_ENDIAN = 1, 2
#: ICMP and ICMPv6 codes of port unreachable.
_PORT_UNREACHABLE = {Family.IPV4: b"\x03", Family.IPV6: b"\x04"}

_HEAD = struct.Struct("=HH")
_BE32 = struct.Struct(">I")


def be32(kind: int, value: int) -> bytes:
    return attr(kind, _BE32.pack(value & 0xFFFFFFFF))


def be64(kind: int, value: int) -> bytes:
    return attr(kind, value.to_bytes(8, "big"))


def message(kind: int, flags: int, seq: int, family: int, payload: bytes, resource: int = 0) -> bytes:
    """A netlink message with its nfgenmsg."""
    body = struct.pack(">BBH", family, 0, resource) + payload
    return netlink.message(kind, flags | NLM_F_REQUEST, seq, body)


def batch_begin(seq: int, generation: int | None) -> bytes:
    payload = b"" if generation is None else be32(1, generation)
    return message(BATCH_BEGIN, 0, seq, 0, payload, SUBSYS)


def batch_end(seq: int) -> bytes:
    return message(BATCH_END, 0, seq, 0, b"", SUBSYS)


def request(kind: int, flags: int, seq: int, family: Family | None, payload: bytes = b"") -> bytes:
    return message(SUBSYS << 8 | kind, flags, seq, NFPROTO[family] if family else 0, payload)


# -- expressions -------------------------------------------------------------------------------------------------


def _reg(number: int) -> int:
    return REG32_BASE + number


def _value(kind: int, data: bytes) -> bytes:
    return nest(kind, attr(1, data))


def _verdict(kind: int, verdict: o.Verdict) -> bytes:
    parts = be32(1, verdict.code) + (text(2, verdict.chain) if verdict.chain else b"")
    return nest(kind, nest(2, parts))


def _encode_loads(expression: o.Expression) -> tuple[str, bytes] | None:
    match expression:
        case o.Payload(dreg, base, offset, length):
            return "payload", be32(1, _reg(dreg)) + be32(2, base) + be32(3, offset) + be32(4, length)
        case o.Meta(dreg, key):
            return "meta", be32(2, key) + be32(1, _reg(dreg))
        case o.MetaSet(sreg, key):
            return "meta", be32(2, key) + be32(3, _reg(sreg))
        case o.Ct(dreg, key):
            return "ct", be32(1, _reg(dreg)) + be32(2, key)
        case o.FibType(dreg, flags):
            return "fib", be32(1, _reg(dreg)) + be32(2, 3) + be32(3, flags)
        case o.Cmp(sreg, op, data):
            return "cmp", be32(1, _reg(sreg)) + be32(2, op) + _value(3, data)
        case o.Bitwise(sreg, dreg, mask, xor):
            head = be32(1, _reg(sreg)) + be32(2, _reg(dreg)) + be32(3, len(mask))
            return "bitwise", head + _value(4, mask) + _value(5, xor)
        case o.NumgenRandom(dreg, modulus):
            return "numgen", be32(1, _reg(dreg)) + be32(2, modulus) + be32(3, 1) + be32(4, 0)
    return None


def _encode_acts(expression: o.Expression) -> tuple[str, bytes]:
    match expression:
        case o.Immediate(verdict):
            return "immediate", be32(1, REG_VERDICT) + _verdict(2, verdict)
        case o.Lookup(name, sreg, dreg, inverted, is_verdict):
            payload = text(1, name) + be32(2, _reg(sreg))
            if is_verdict:
                payload += be32(3, REG_VERDICT)
            elif dreg is not None:
                payload += be32(3, _reg(dreg))
            return "lookup", payload + be32(5, int(inverted))
        case o.Dynset(name, op, sreg_key, sreg_data, timeout_ms):
            payload = text(1, name) + be32(3, op) + be32(4, _reg(sreg_key))
            if sreg_data is not None:
                payload += be32(5, _reg(sreg_data))
            return "dynset", payload + (be64(6, timeout_ms) if timeout_ms else b"")
        case o.Dnat(family, addr, port):
            regs = b"".join(be32(kind, _reg(reg)) for kind, reg in ((3, addr), (4, addr), (5, port), (6, port)))
            flags = NAT_MAP_IPS | NAT_PROTO_SPECIFIED
            return "nat", be32(1, 1) + be32(2, NFPROTO[family]) + regs + be32(7, flags)
        case o.Masquerade(fully_random):
            return "masq", be32(1, NAT_FULLY_RANDOM) if fully_random else b""
        case o.Reject(family):
            return "reject", be32(1, 0) + attr(2, _PORT_UNREACHABLE[family])
        case _:
            raise TypeError(f"cannot encode {expression!r}")


def encode_expression(expression: o.Expression | o.Unknown) -> bytes:
    if isinstance(expression, o.Unknown):
        raise TypeError(f"an unknown expression cannot be written: {expression.name}")
    name, payload = _encode_loads(expression) or _encode_acts(expression)
    return nest(1, text(1, name), nest(2, payload))


def user_comment(comment: str) -> bytes:
    """User data holding a comment, as the nft tool writes it for rules, chains, tables and elements."""
    raw = comment.encode()[:127].decode(errors="ignore").encode() + b"\0"
    return bytes((0, len(raw))) + raw


# -- elements: the hot path ----------------------------------------------------------------------------------------


def encode_element(element: o.Element) -> bytes:
    key, data, comment = element.key, element.data, element.comment
    size = len(key)
    # nested KEY(1){VALUE(1)}: keys are always a multiple of four bytes long here
    parts = _HEAD.pack(size + 8, 0x8001) + _HEAD.pack(size + 4, 1) + key
    if data is not None:
        if isinstance(data, bytes):
            size = len(data)
            parts += _HEAD.pack(size + 8, 0x8002) + _HEAD.pack(size + 4, 1) + data
        else:
            parts += _verdict(2, data)
    if element.interval_end:
        parts += be32(3, ELEMENT_INTERVAL_END)
    if element.timeout_ms:
        parts += be64(4, element.timeout_ms)
    if comment:
        parts += attr(6, user_comment(comment))
    return _HEAD.pack(len(parts) + 4, 0x8001) + parts


def element_lists(elements: Iterable[o.Element]) -> Iterator[bytes]:
    """Encoded elements in lists that fit one message each."""
    parts: list[bytes] = []
    size = 0
    for element in elements:
        encoded = encode_element(element)
        if size + len(encoded) > MAX_ELEMENT_LIST:
            yield b"".join(parts)
            parts, size = [], 0
        parts.append(encoded)
        size += len(encoded)
    if parts:
        yield b"".join(parts)


# -- changes ------------------------------------------------------------------------------------------------------


def _packed_type(types: tuple[o.DataType, ...]) -> int:
    packed = 0
    for part in types:
        packed = packed << 6 | part
    return packed


def _byteorder(types: tuple[o.DataType, ...]) -> int:
    return HOST_ENDIAN if types and all(part is o.DataType.MARK for part in types) else BIG_ENDIAN


def _set_flags(spec: o.Set) -> int:
    flags = F_INTERVAL if spec.interval else 0
    if spec.data:
        flags |= F_MAP
    if spec.timeout:
        flags |= F_TIMEOUT | F_EVAL
    return flags


_DORMANT = 1  # NFT_TABLE_F_DORMANT


def encode_set(table: str, spec: o.Set, ident: int) -> bytes:
    payload = text(1, table) + text(2, spec.name) + be32(3, _set_flags(spec))
    payload += be32(4, _packed_type(spec.key)) + be32(5, spec.key_width)
    user = bytes((0, 4)) + _byteorder(spec.key).to_bytes(4, sys.byteorder)
    if spec.is_verdict_map:
        payload += be32(6, VERDICT_TYPE)
    elif spec.data:
        payload += be32(6, _packed_type(spec.data)) + be32(7, spec.data_width)
        user += bytes((1, 4)) + _byteorder(spec.data).to_bytes(4, sys.byteorder)
    if spec.size:
        payload += nest(9, be32(1, spec.size))
    return payload + be32(10, ident) + attr(13, user)


def _encode_chain(table: str, chain: o.Chain) -> bytes:
    payload = text(1, table) + text(3, chain.name)
    if chain.hook is not None and chain.type is not None:
        payload += nest(4, be32(1, chain.hook), be32(2, chain.priority)) + text(7, chain.type)
    return payload


def encode_change(table: o.TableName, change: o.Change, seq: int) -> Iterator[bytes]:
    """The messages of one change, numbered from `seq`."""
    name, family = table.name, table.family

    def one(kind: int, flags: int, payload: bytes) -> bytes:
        return request(kind, flags, seq, family, payload)

    match change:
        case o.AddTable(comment):
            yield one(NEWTABLE, NLM_F_CREATE, text(1, name) + (attr(6, user_comment(comment)) if comment else b""))
        case o.DeleteTable(empty):
            yield one(DELTABLE, NLM_F_NONREC if empty else 0, text(1, name))
        case o.AddChain(chain):
            yield one(NEWCHAIN, NLM_F_CREATE, _encode_chain(name, chain))
        case o.DeleteChain(chain_name):
            yield one(DELCHAIN, 0, text(1, name) + text(3, chain_name))
        case o.FlushChain(chain_name):
            yield one(DELRULE, 0, text(1, name) + text(2, chain_name))
        case o.AddRule(chain_name, rule):
            expressions = nest(4, *(encode_expression(part) for part in rule.expressions))
            user = attr(7, user_comment(rule.comment)) if rule.comment else b""
            yield one(NEWRULE, NLM_F_CREATE | NLM_F_APPEND, text(1, name) + text(2, chain_name) + expressions + user)
        case o.AddSet(spec):
            yield one(NEWSET, NLM_F_CREATE, encode_set(name, spec, seq))
        case o.DeleteSet(set_name):
            yield one(DELSET, 0, text(1, name) + text(2, set_name))
        case o.AddElements(spec, elements):
            for part in element_lists(elements):
                yield one(NEWSETELEM, NLM_F_CREATE, text(1, name) + text(2, spec.name) + attr(3 | NESTED, part))
        case o.DeleteElements(spec, elements):
            for part in element_lists(elements):
                yield one(DELSETELEM, 0, text(1, name) + text(2, spec.name) + attr(3 | NESTED, part))
        case _:
            assert_never(change)


# -- reading ------------------------------------------------------------------------------------------------------

Attributes = dict[int, bytes]


def attributes(raw: bytes, offset: int = 0) -> Attributes:
    """Attributes by number (flags masked); of repeated ones the last."""
    found: Attributes = {}
    end = len(raw)
    while offset + 4 <= end:
        length, kind = _HEAD.unpack_from(raw, offset)
        if length < 4:
            break
        found[kind & 0x3FFF] = raw[offset + 4 : offset + length]
        offset += (length + 3) & ~3
    return found


def repeated(raw: bytes) -> Iterator[bytes]:
    """The payloads of a list of attributes."""
    offset, end = 0, len(raw)
    while offset + 4 <= end:
        length, _ = _HEAD.unpack_from(raw, offset)
        if length < 4:
            return
        yield raw[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def string(raw: bytes) -> str:
    return raw.rstrip(b"\0").decode(errors="replace")


def number(raw: bytes) -> int:
    return int.from_bytes(raw, "big")


def comment_of(raw: bytes) -> str:
    """The comment in user data, or an empty text."""
    offset = 0
    while offset + 2 <= len(raw):
        kind, length = raw[offset], raw[offset + 1]
        if kind == 0:
            return string(raw[offset + 2 : offset + 2 + length])
        offset += 2 + length
    return ""


def _signed(raw: bytes) -> int:
    return int.from_bytes(raw, "big", signed=True)


def _read_verdict(raw: bytes) -> o.Verdict | None:
    found = attributes(raw)
    try:
        return o.Verdict(o.Code(_signed(found[1])), string(found.get(2, b"")))
    except ValueError:
        return None


def decode_table(raw: bytes) -> tuple[str, bool]:
    """(table name, whether it is dormant)."""
    found = attributes(raw)
    return string(found[1]), bool(2 in found and number(found[2]) & _DORMANT)


def decode_chain(raw: bytes) -> tuple[str, o.Chain]:
    """(table name, chain)."""
    found = attributes(raw)
    name = string(found[3])
    if 4 not in found:
        return string(found[1]), o.Chain(name)
    hook = attributes(found[4])
    kind = string(found.get(7, b""))
    known = next((type_ for type_ in o.ChainType if type_ == kind), None)
    drops = 5 in found and number(found[5]) == o.Code.DROP
    return string(found[1]), o.Chain(name, o.Hook(number(hook[1])), known, _signed(hook[2]), drops)


def _unpack_types(packed: int) -> tuple[o.DataType, ...]:
    parts: list[o.DataType] = []
    while packed:
        try:
            parts.insert(0, o.DataType(packed & 0x3F))
        except ValueError:
            return ()
        packed >>= 6
    return tuple(parts)


def decode_set(raw: bytes) -> tuple[str, o.Set]:
    """(table name, set)."""
    found = attributes(raw)
    flags = number(found.get(3, b""))
    data: tuple[o.DataType, ...] = ()
    if flags & F_MAP:
        kind = number(found.get(6, b""))
        data = (o.DataType.VERDICT,) if kind == VERDICT_TYPE else _unpack_types(kind)
    size = number(attributes(found.get(9, b"")).get(1, b""))
    key = _unpack_types(number(found.get(4, b"")))
    return string(found[1]), o.Set(string(found[2]), key, data, bool(flags & F_TIMEOUT), bool(flags & F_INTERVAL), size)


def _alike(listed: bytes) -> list[o.Element] | None:
    """Elements of a map that all have a key and data of one size and nothing else, as the tens of thousands have that
    a start reads; None where one has more, or another size."""
    first = next(repeated(listed), b"")
    found = attributes(first)
    if len(found) != 2 or 1 not in found or 2 not in found:
        return None
    key, data = attributes(found[1]), attributes(found[2])
    sizes = len(key.get(1, b"")), len(data.get(1, b""))
    if list(key) != [1] or list(data) != [1] or any(not size or size % 4 for size in sizes):
        return None
    shape = struct.Struct(f"=6H{sizes[0]}s4H{sizes[1]}s")
    if len(listed) % shape.size:
        return None
    (*head, _, one, two, three, four, _) = shape.unpack_from(listed)
    marks = (*head, one, two, three, four)
    rows = list(shape.iter_unpack(listed))
    if (rows[0][6], rows[0][11]) != (key[1], data[1]) or any((*row[:6], *row[7:11]) != marks for row in rows):
        return None
    return [o.Element(row[6], row[11]) for row in rows]


def decode_elements(raw: bytes) -> Iterator[o.Element]:
    """Elements of one NEWSETELEM message's body (after nfgenmsg)."""
    listed = attributes(raw).get(3, b"")
    alike = _alike(listed)
    if alike is not None:
        yield from alike
        return
    for body in repeated(listed):
        found = attributes(body)
        data: bytes | o.Verdict | None = None
        if 2 in found:
            value = attributes(found[2])
            data = value[1] if 1 in value else _read_verdict(value[2])
        key = attributes(found[1])[1] if 1 in found else b""
        if len(found) <= (2 if 2 in found else 1):
            yield o.Element(key, data)
            continue
        yield o.Element(
            key,
            data,
            comment_of(found.get(6, b"")),
            bool(number(found.get(3, b"")) & ELEMENT_INTERVAL_END),
            number(found.get(4, b"")),
            number(found.get(5, b"")),
        )


def decode_rule(raw: bytes) -> tuple[str, str, o.Rule]:
    """(table name, chain name, rule)."""
    found = attributes(raw)
    expressions = []
    for part in repeated(found.get(4, b"")):
        inner = attributes(part)
        expressions.append(decode_expression(string(inner[1]), attributes(inner.get(2, b""))))
    return string(found[1]), string(found[2]), o.Rule(tuple(expressions), comment_of(found.get(7, b"")))


def _r(raw: bytes) -> int:
    """A register number as used here.  The kernel reports the 128-bit alias (1..4) where it can."""
    register = number(raw)
    return (register - 1) * 4 if 1 <= register <= 4 else register - REG32_BASE


def decode_expression(name: str, found: Attributes) -> o.Expression | o.Unknown:
    try:
        return _decode_load(name, found) or _decode_act(name, found) or o.Unknown(name)
    except (KeyError, ValueError, IndexError):
        return o.Unknown(name)


def _decode_load(name: str, found: Attributes) -> o.Expression | None:
    match name:
        case "payload" if 1 in found:
            return o.Payload(_r(found[1]), o.Base(number(found[2])), number(found[3]), number(found[4]))
        case "meta" if 1 in found:
            return o.Meta(_r(found[1]), o.MetaKey(number(found[2])))
        case "meta":
            return o.MetaSet(_r(found[3]), o.MetaKey(number(found[2])))
        case "ct" if 1 in found:
            return o.Ct(_r(found[1]), o.CtKey(number(found[2])))
        case "fib" if number(found[2]) == 3:
            return o.FibType(_r(found[1]), number(found[3]))
        case "cmp":
            return o.Cmp(_r(found[1]), o.Op(number(found[2])), attributes(found[3])[1])
        case "bitwise":
            return o.Bitwise(_r(found[1]), _r(found[2]), attributes(found[4])[1], attributes(found[5])[1])
        case "numgen" if number(found[3]) == 1 and not number(found.get(4, b"")):
            return o.NumgenRandom(_r(found[1]), number(found[2]))
    return None


def _decode_act(name: str, found: Attributes) -> o.Expression | None:
    match name:
        case "immediate":
            verdict = _read_verdict(attributes(found[2])[2]) if number(found[1]) == REG_VERDICT else None
            return o.Immediate(verdict) if verdict else None
        case "lookup":
            inverted = bool(number(found.get(5, b"")) & 1)
            is_verdict = 3 in found and number(found[3]) == REG_VERDICT
            dreg = _r(found[3]) if 3 in found and not is_verdict else None
            return o.Lookup(string(found[1]), _r(found[2]), dreg, inverted, is_verdict)
        case "dynset":
            data = _r(found[5]) if 5 in found else None
            op = o.DynsetOp(number(found[3]))
            return o.Dynset(string(found[1]), op, _r(found[4]), data, number(found.get(6, b"")))
        case "nat" if number(found[1]) == 1:
            return o.Dnat(FAMILY[number(found[2])], _r(found[3]), _r(found[5]))
        case "masq":
            return o.Masquerade(bool(number(found.get(1, b"")) & NAT_FULLY_RANDOM))
        case "reject" if number(found[1]) == 0 and found.get(2) in _PORT_UNREACHABLE.values():
            return o.Reject(next(family for family, code in _PORT_UNREACHABLE.items() if code == found[2]))
    return None
