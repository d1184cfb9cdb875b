"""Runs the rules of a table on one packet, every random choice at once.  Pure.

It knows the expressions this project writes; an Unknown one makes its rule not match and is noted in the way.
`trace` uses it on the live kernel state, the law tests on the fake kernel's, and so what is tested is the
rules themselves, not what they were meant to be.

Source: Linux net/netfilter/nf_tables_core.c (nft_do_chain) for verdicts and register semantics.
"""

import ipaddress
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from svcplane.kernel.nft import objects as o

_ORDER = sys.byteorder
_DEPTH_LIMIT = 16


@dataclass(frozen=True, slots=True)
class Flow:
    """A packet in the kernel: addresses packed, `iifname` empty where it was made on this host."""

    saddr: bytes
    daddr: bytes
    l4proto: int
    dport: int
    iifname: str = ""
    mark: int = 0
    new: bool = True
    dnatted: bool = False
    masqueraded: bool = False


@dataclass(frozen=True, slots=True)
class End:
    """One way a hook may end.  `dropped` and `rejected` exclude each other; neither: the packet goes on."""

    flow: Flow
    dropped: bool
    rejected: bool
    way: tuple[str, ...]

    @property
    def goes_on(self) -> bool:
        return not (self.dropped or self.rejected)


@dataclass(frozen=True, slots=True)
class _State:
    """Registers are words of four bytes; `verdict` is set when the evaluation of a rule ends with one."""

    registers: tuple[bytes, ...]
    flow: Flow
    way: tuple[str, ...]
    verdict: o.Verdict | None = None
    rejected: bool = False
    finished: bool = False  # a NAT statement ended the chain


_BLANK = (b"\0\0\0\0",) * 16


class Interpreter:
    """Bound to one table's content and the host's own addresses (packed)."""

    def __init__(self, content: o.TableContent, local_addresses: frozenset[bytes]) -> None:
        self._content = content
        self._local = local_addresses

    def run(self, hook: o.Hook, flow: Flow) -> list[End]:
        """The flow through all base chains of a hook by priority."""
        if self._content.dormant:
            return [End(flow, dropped=False, rejected=False, way=())]
        chains = [chain for chain in self._content.chains.values() if chain.hook is hook]
        ends = [End(flow, dropped=False, rejected=False, way=())]
        for chain in sorted(chains, key=lambda chain: chain.priority):
            following: list[End] = []
            for end in ends:
                if not end.goes_on or (chain.type is o.ChainType.NAT and not end.flow.new):
                    following.append(end)
                    continue
                state = _State(_BLANK, end.flow, (*end.way, f"chain {chain.name}"))
                following += [self._end(done, chain) for done in self._chain(chain.name, state, 0)]
            ends = _unique(following)
        return ends

    @staticmethod
    def _end(state: _State, chain: o.Chain) -> End:
        fell_off = state.verdict is None and not state.finished and not state.rejected
        dropped = chain.drops if fell_off else state.verdict is not None and state.verdict.code is o.Code.DROP
        return End(state.flow, dropped, state.rejected, state.way)

    def _chain(self, name: str, state: _State, depth: int) -> Iterator[_State]:
        """States in which the chain is left: ended (verdict drop/accept, reject, NAT) or fallen off (none)."""
        if depth > _DEPTH_LIMIT:
            raise RecursionError(f"chain {name} is nested deeper than the kernel allows")
        running = [replace(state, verdict=None)]
        for index, rule in enumerate(self._content.rules.get(name, ())):
            following: list[_State] = []
            for current in running:
                for after in self._rule(rule, current):
                    note = f"{name} rule {index + 1}" + (f": {rule.comment}" if rule.comment else "")
                    yield_or_keep = list(self._obey(after, note, depth))
                    for done, ended in yield_or_keep:
                        if ended:
                            yield done
                        else:
                            following.append(done)
            running = following
            if not running:
                return
        yield from running

    def _obey(self, after: _State, note: str, depth: int) -> Iterator[tuple[_State, bool]]:
        """(state, whether the chain is left for good) after a rule."""
        if after.rejected or after.finished:
            yield replace(after, way=(*after.way, note)), True
            return
        verdict = after.verdict
        if verdict is None:
            yield after, False
            return
        way = (*after.way, note)
        match verdict.code:
            case o.Code.DROP | o.Code.ACCEPT:
                yield replace(after, way=way), True
            case o.Code.RETURN:
                yield replace(after, way=way, verdict=None), True
            case o.Code.GOTO | o.Code.JUMP:
                inside = replace(after, way=(*way, f"chain {verdict.chain}"), verdict=None)
                for done in self._chain(verdict.chain, inside, depth + 1):
                    ended = done.verdict is not None or done.rejected or done.finished
                    yield done, ended or verdict.code is o.Code.GOTO

    def _rule(self, rule: o.Rule, state: _State) -> Iterator[_State]:
        """All states after a rule; a rule that breaks leaves flow changes made before the break."""
        running = [state]
        for expression in rule.expressions:
            following: list[_State] = []
            for current in running:
                if current.verdict is not None or current.rejected or current.finished:
                    following.append(current)
                    continue
                stepped = self._step(expression, current)
                if stepped is None:
                    yield replace(current, registers=state.registers)
                else:
                    following += stepped
            running = following
        yield from running

    # -- expressions -------------------------------------------------------------------------------------------

    def _step(self, expression: o.Expression | o.Unknown, state: _State) -> list[_State] | None:
        """States after one expression, or None where the rule does not match (NFT_BREAK)."""
        match expression:
            case o.Payload() | o.Meta() | o.Ct() | o.FibType():
                return [_store(state, expression.dreg, self._load(expression, state.flow))]
            case o.MetaSet(sreg, o.MetaKey.MARK):
                mark = int.from_bytes(state.registers[sreg], _ORDER)
                return [replace(state, flow=replace(state.flow, mark=mark))]
            case o.Cmp(sreg, op, data):
                equal = _fetch(state, sreg, len(data))[: len(data)] == data
                return [state] if equal == (op is o.Op.EQ) else None
            case o.Bitwise(sreg, dreg, mask, xor):
                value = _fetch(state, sreg, len(mask))
                result = bytes((v & m) ^ x for v, m, x in zip(value, mask, xor, strict=True))
                return [_store(state, dreg, result)]
            case o.Immediate(verdict):
                return [replace(state, verdict=verdict)]
            case o.Lookup():
                return self._lookup(expression, state)
            case o.NumgenRandom(dreg, modulus):
                return [_store(state, dreg, value.to_bytes(4, _ORDER)) for value in range(modulus)]
            case o.Dynset():
                return self._dynset(expression, state)
            case o.Dnat(_, addr, port):
                width = len(state.flow.daddr)
                daddr = _fetch(state, addr, width)
                dport = int.from_bytes(_fetch(state, port, 4)[:2], "big")
                flow = replace(state.flow, daddr=daddr, dport=dport, dnatted=True)
                return [replace(state, flow=flow, finished=True)]
            case o.Masquerade():
                return [replace(state, flow=replace(state.flow, masqueraded=True), finished=True)]
            case o.Reject():
                return [replace(state, rejected=True)]
            case _:
                return None

    def _load(self, expression: o.Payload | o.Meta | o.Ct | o.FibType, flow: Flow) -> bytes:
        match expression:
            case o.Payload(_, o.Base.TRANSPORT, 2, 2):
                return flow.dport.to_bytes(2, "big") + b"\0\0"
            case o.Payload(_, o.Base.NETWORK, offset, length):
                return flow.saddr if (offset, length) in ((12, 4), (8, 16)) else flow.daddr
            case o.Meta(_, o.MetaKey.MARK):
                return flow.mark.to_bytes(4, _ORDER)
            case o.Meta(_, o.MetaKey.L4PROTO):
                return bytes((flow.l4proto, 0, 0, 0))
            case o.Meta(_, o.MetaKey.IIFNAME):
                return flow.iifname.encode().ljust(16, b"\0")
            case o.Ct(_, o.CtKey.STATE):
                return (o.CT_STATE_NEW if flow.new else 2).to_bytes(4, _ORDER)
            case o.Ct():
                return (o.CT_STATUS_DNAT if flow.dnatted else 0).to_bytes(4, _ORDER)
            case o.FibType(_, flags):
                address = flow.saddr if flags & o.FIB_SADDR else flow.daddr
                local = address in self._local or ipaddress.ip_address(address).is_loopback
                return (o.ADDRTYPE_LOCAL if local else 1).to_bytes(4, _ORDER)
            case _:
                raise NotImplementedError(f"{expression!r}")

    def _lookup(self, expression: o.Lookup, state: _State) -> list[_State] | None:
        spec = self._content.sets.get(expression.set)
        if spec is None:
            return None
        key = _fetch(state, expression.sreg, spec.key_width)
        found, data = lookup(spec, self._content.elements.get(spec.name, {}), key)
        if expression.verdict:
            return [replace(state, verdict=data)] if isinstance(data, o.Verdict) else None
        if expression.dreg is not None:
            return [_store(state, expression.dreg, data)] if found and isinstance(data, bytes) else None
        return [state] if found != expression.inverted else None

    def _dynset(self, expression: o.Dynset, state: _State) -> list[_State] | None:
        spec = self._content.sets.get(expression.set)
        if spec is None:
            return None
        present = self._content.elements.get(spec.name, {})
        key = _fetch(state, expression.sreg_key, spec.key_width)
        if expression.op is not o.DynsetOp.DELETE and key not in present and spec.size and len(present) >= spec.size:
            return None
        return [state]


def lookup(spec: o.Set, elements: Mapping[bytes, o.Element], key: bytes) -> tuple[bool, bytes | o.Verdict | None]:
    """(found, data) of a key, in ranges where the set is an interval set."""
    if not spec.interval:
        element = elements.get(key)
        return element is not None, element.data if element else None
    below = [candidate for candidate in elements if candidate <= key]
    if not below:
        return False, None
    nearest = elements[max(below)]
    return not nearest.interval_end, nearest.data


def _store(state: _State, register: int, value: bytes) -> _State:
    registers = list(state.registers)
    for offset in range(0, len(value), 4):
        registers[register + offset // 4] = value[offset : offset + 4].ljust(4, b"\0")
    return replace(state, registers=tuple(registers))


def _fetch(state: _State, register: int, width: int) -> bytes:
    words = state.registers[register : register + (width + 3) // 4]
    return b"".join(words)[:width]


def _unique(ends: list[End]) -> list[End]:
    """One end for each distinct result; the first way to it is kept."""
    kept: dict[tuple[Flow, bool, bool], End] = {}
    for end in ends:
        kept.setdefault((end.flow, end.dropped, end.rejected), end)
    return list(kept.values())
