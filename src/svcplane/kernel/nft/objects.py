"""Typed nf_tables objects and transactions.  Pure values.

Registers are the sixteen 32-bit ones, numbered 0 to 15 (NFT_REG32_00 + n).  Keys and data of elements are
packed bytes as the kernel compares them: each field of a concatenation padded to four bytes, addresses and
ports in network order, marks and numgen results in host order.

Source: include/uapi/linux/netfilter/nf_tables.h.
"""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Protocol

import msgspec

from svcplane.base.errors import KernelError
from svcplane.base.net import Family


class NftError(KernelError):
    """The kernel refused a transaction; nothing of it was applied.  `code` is the errno."""

    def __init__(self, code: int, text: str) -> None:
        super().__init__(text)
        self.code = code

    @property
    def is_too_large(self) -> bool:
        """Whether the transaction does not fit into the socket: in parts it may."""
        return self.code in (errno.EMSGSIZE, errno.ENOBUFS)

    @property
    def is_at_odds(self) -> bool:
        """Whether it does not fit together with what is there: somebody edited the table in between, or before."""
        return self.code in (errno.ENOENT, errno.EEXIST, errno.EBUSY)


class GenerationChanged(NftError):
    """Somebody else changed the ruleset since the generation the transaction was based on."""


class Hook(IntEnum):
    PREROUTING = 0
    INPUT = 1
    FORWARD = 2
    OUTPUT = 3
    POSTROUTING = 4


class ChainType(StrEnum):
    FILTER = "filter"
    NAT = "nat"


class Chain(msgspec.Struct, frozen=True, gc=False):
    """A base chain has a hook, type and priority; a regular one has none.

    `drops`: what falls off its end is dropped, which somebody else must have set, for ours accept.
    """

    name: str
    hook: Hook | None = None
    type: ChainType | None = None
    priority: int = 0
    drops: bool = False


class DataType(IntEnum):
    """Datatype numbers of the nft tool, packed six bits a field in concatenations."""

    VERDICT = 1
    IPV4_ADDR = 7
    IPV6_ADDR = 8
    INET_PROTO = 12
    INET_SERVICE = 13
    MARK = 19


WIDTH = {
    DataType.IPV4_ADDR: 4,
    DataType.IPV6_ADDR: 16,
    DataType.INET_PROTO: 4,
    DataType.INET_SERVICE: 4,
    DataType.MARK: 4,
}


class Set(msgspec.Struct, frozen=True, gc=False):
    """A set, or a map where `data` is given (a verdict map where it is VERDICT).

    `timeout`: elements may carry timeouts and the packet path may add them, at most `size` of them.
    `interval`: single-field sets of ranges (rbtree).
    """

    name: str
    key: tuple[DataType, ...]
    data: tuple[DataType, ...] = ()
    timeout: bool = False
    interval: bool = False
    size: int = 0

    @property
    def key_width(self) -> int:
        return sum(WIDTH[part] for part in self.key)

    @property
    def is_verdict_map(self) -> bool:
        return self.data == (DataType.VERDICT,)

    @property
    def data_width(self) -> int:
        return 16 if self.is_verdict_map else sum(WIDTH[part] for part in self.data)


class Code(IntEnum):
    DROP = 0
    ACCEPT = 1
    JUMP = -3
    GOTO = -4
    RETURN = -5


class Verdict(msgspec.Struct, frozen=True, gc=False):
    code: Code
    chain: str = ""


class Element(msgspec.Struct, frozen=True, gc=False):
    """One element.  `interval_end` closes the range that the element before it (in key order) began.

    `expires_ms`: only in dumps, of sets with timeout.
    """

    key: bytes
    data: bytes | Verdict | None = None
    comment: str = ""
    interval_end: bool = False
    timeout_ms: int = 0
    expires_ms: int = 0


# -- expressions ---------------------------------------------------------------------------------------------


class Base(IntEnum):
    NETWORK = 1
    TRANSPORT = 2


class Payload(msgspec.Struct, frozen=True, gc=False):
    dreg: int
    base: Base
    offset: int
    length: int


class MetaKey(IntEnum):
    MARK = 3
    IIFNAME = 6
    L4PROTO = 16


class Meta(msgspec.Struct, frozen=True, gc=False):
    dreg: int
    key: MetaKey


class MetaSet(msgspec.Struct, frozen=True, gc=False):
    sreg: int
    key: MetaKey


class CtKey(IntEnum):
    STATE = 0
    STATUS = 2


CT_STATE_NEW = 8
CT_STATUS_DNAT = 32


class Ct(msgspec.Struct, frozen=True, gc=False):
    dreg: int
    key: CtKey


FIB_SADDR, FIB_DADDR = 1, 2
ADDRTYPE_LOCAL = 2  # RTN_LOCAL


class FibType(msgspec.Struct, frozen=True, gc=False):
    """Address type (RTN_*) of the source or destination, as `fib saddr type`."""

    dreg: int
    flags: int


class Op(IntEnum):
    EQ = 0
    NEQ = 1


class Cmp(msgspec.Struct, frozen=True, gc=False):
    sreg: int
    op: Op
    data: bytes


class Bitwise(msgspec.Struct, frozen=True, gc=False):
    sreg: int
    dreg: int
    mask: bytes
    xor: bytes


class Immediate(msgspec.Struct, frozen=True, gc=False):
    """Ends or redirects the evaluation."""

    verdict: Verdict


class Lookup(msgspec.Struct, frozen=True, gc=False):
    """Without `dreg`: is the key in the set (or not, `inverted`)?  With: load the data.  `verdict`: obey it."""

    set: str
    sreg: int
    dreg: int | None = None
    inverted: bool = False
    verdict: bool = False


class NumgenRandom(msgspec.Struct, frozen=True, gc=False):
    dreg: int
    modulus: int


class DynsetOp(IntEnum):
    ADD = 0
    UPDATE = 1
    DELETE = 2


class Dynset(msgspec.Struct, frozen=True, gc=False):
    set: str
    op: DynsetOp
    sreg_key: int
    sreg_data: int | None = None
    timeout_ms: int = 0


class Dnat(msgspec.Struct, frozen=True, gc=False):
    family: Family
    addr_reg: int
    port_reg: int


class Masquerade(msgspec.Struct, frozen=True, gc=False):
    fully_random: bool = True


class Reject(msgspec.Struct, frozen=True, gc=False):
    """ICMP port unreachable, in the table's family."""

    family: Family


Expression = (
    Payload
    | Meta
    | MetaSet
    | Ct
    | FibType
    | Cmp
    | Bitwise
    | Immediate
    | Lookup
    | NumgenRandom
    | Dynset
    | Dnat
    | Masquerade
    | Reject
)


class Unknown(msgspec.Struct, frozen=True, gc=False):
    """An expression this code never writes (somebody edited our table)."""

    name: str


class Rule(msgspec.Struct, frozen=True, gc=False):
    expressions: tuple[Expression | Unknown, ...]
    comment: str = ""


# -- a table's content and changes to it ------------------------------------------------------------------------


@dataclass(slots=True)
class TableContent:
    """One table as read, or as wanted.  Elements by set name and key.

    `dormant`: it is switched off, and no packet passes through it.
    """

    chains: dict[str, Chain] = field(default_factory=dict)
    rules: dict[str, tuple[Rule, ...]] = field(default_factory=dict)
    sets: dict[str, Set] = field(default_factory=dict)
    elements: dict[str, dict[bytes, Element]] = field(default_factory=dict)
    dormant: bool = False


class AddTable(msgspec.Struct, frozen=True, gc=False):
    comment: str = ""


class DeleteTable(msgspec.Struct, frozen=True, gc=False):
    """With all that is in it; `empty`: refused where anything but what the transaction deletes is."""

    empty: bool = False


class AddChain(msgspec.Struct, frozen=True, gc=False):
    """No error where the same chain exists."""

    chain: Chain


class DeleteChain(msgspec.Struct, frozen=True, gc=False):
    name: str


class FlushChain(msgspec.Struct, frozen=True, gc=False):
    """Delete all rules of a chain."""

    name: str


class AddRule(msgspec.Struct, frozen=True, gc=False):
    chain: str
    rule: Rule


class AddSet(msgspec.Struct, frozen=True, gc=False):
    set: Set


class DeleteSet(msgspec.Struct, frozen=True, gc=False):
    name: str


class AddElements(msgspec.Struct, frozen=True, gc=False):
    """Adding an element that is there with the same data is no error, with other data it is (EEXIST)."""

    set: Set
    elements: tuple[Element, ...]


class DeleteElements(msgspec.Struct, frozen=True, gc=False):
    """Deleting an absent key fails the transaction (ENOENT)."""

    set: Set
    elements: tuple[Element, ...]


Change = (
    AddTable
    | DeleteTable
    | AddChain
    | DeleteChain
    | FlushChain
    | AddRule
    | AddSet
    | DeleteSet
    | AddElements
    | DeleteElements
)


class TableName(msgspec.Struct, frozen=True, gc=False):
    family: Family
    name: str


class Nft(Protocol):
    """What planes ask of nf_tables; `run.NftSocket` and `fake.FakeNft` keep the same contract."""

    async def generation(self) -> int:
        """Grows with each commit of anybody to any table of this network namespace."""

    async def listen(self) -> None:
        """From now on remember what each generation changes.  Again: nothing."""

    async def unchanged(self, table: TableName, since: int, until: int) -> bool:
        """Whether it is known that no generation after `since`, up to `until`, changed the table."""

    async def commit(self, table: TableName, changes: tuple[Change, ...], generation: int | None = None) -> int:
        """All or nothing.  Returns the new generation.

        Raises GenerationChanged where `generation` is given and is not the present one, NftError otherwise.
        """

    async def read(self, table: TableName, *, elements: bool = True) -> TableContent | None:
        """The whole table of one generation, or None if there is none."""

    async def read_elements(self, table: TableName, set_: Set) -> Mapping[bytes, Element]:
        """One set's elements."""

    async def listed(self, table: TableName) -> Mapping[str, Sequence[str]]:
        """The rules by chain, as text for people; nothing where there is no such table."""

    async def tables(self) -> tuple[TableName, ...]:
        """Tables of the IPv4 and IPv6 families."""

    async def close(self) -> None: ...
