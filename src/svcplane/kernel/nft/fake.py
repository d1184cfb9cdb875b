"""nf_tables in memory, with the contract of the kernel's: dry runs and law tests use it.

Transactions are all or nothing, with the kernel's errors: EEXIST for an element that is there with other
data, ENOENT for what is absent, EBUSY for a chain or set that is still referred to, ENFILE for a full set.
"""

import copy
import errno
from collections.abc import Mapping, Sequence
from typing import assert_never

from svcplane.kernel.nft.objects import (
    AddChain,
    AddElements,
    AddRule,
    AddSet,
    AddTable,
    Change,
    Code,
    DeleteChain,
    DeleteElements,
    DeleteSet,
    DeleteTable,
    Dynset,
    Element,
    FlushChain,
    GenerationChanged,
    Immediate,
    Lookup,
    NftError,
    Set,
    TableContent,
    TableName,
    Verdict,
)


class FakeNft:
    """Implements `objects.Nft`.  `content` may be looked at and, by tests that play a foreigner, changed."""

    def __init__(self) -> None:
        self.content: dict[TableName, TableContent] = {}
        self._generation = 1
        self._changed: dict[TableName, int] = {}

    async def generation(self) -> int:
        return self._generation

    def touch(self, table: TableName | None = None) -> None:
        """Count a change made behind our back, of this table or of any."""
        self._generation += 1
        for name in self.content if table is None else (table,):
            self._changed[name] = self._generation

    async def listen(self) -> None:
        return None

    async def unchanged(self, table: TableName, since: int, until: int) -> bool:
        return self._changed.get(table, 0) <= since

    async def commit(self, table: TableName, changes: tuple[Change, ...], generation: int | None = None) -> int:
        if generation is not None and generation != self._generation:
            raise GenerationChanged(errno.ERESTART, "somebody else changed nf_tables at the same time")
        if not changes:
            return self._generation
        draft = _copy(self.content.get(table))
        for change in changes:
            draft = _apply(draft, change)
        if draft is None:
            self.content.pop(table, None)
        else:
            self.content[table] = draft
        self._generation += 1
        self._changed[table] = self._generation
        return self._generation

    async def read(self, table: TableName, *, elements: bool = True) -> TableContent | None:
        content = _copy(self.content.get(table))
        if content is not None and not elements:
            content.elements = {}
        return content

    async def read_elements(self, table: TableName, set_: Set) -> Mapping[bytes, Element]:
        content = self.content.get(table)
        return dict(content.elements.get(set_.name, {})) if content else {}

    async def listed(self, table: TableName) -> Mapping[str, Sequence[str]]:
        """Chains without their rules' texts, which only the tool knows."""
        content = self.content.get(table)
        return dict.fromkeys(content.chains, ()) if content else {}

    async def tables(self) -> tuple[TableName, ...]:
        return tuple(self.content)

    async def close(self) -> None:
        return None


def _copy(content: TableContent | None) -> TableContent | None:
    if content is None:
        return None
    shallow = copy.copy(content)
    shallow.chains, shallow.rules, shallow.sets = dict(content.chains), dict(content.rules), dict(content.sets)
    shallow.elements = {name: dict(elements) for name, elements in content.elements.items()}
    return shallow


def _error(code: int, what: str) -> NftError:
    return NftError(code, f"nf_tables refused {what}: {errno.errorcode[code]}")


def _apply(content: TableContent | None, change: Change) -> TableContent | None:
    if isinstance(change, AddTable):
        return content or TableContent()
    if content is None:
        raise _error(errno.ENOENT, f"{change!r}: no such table")
    match change:
        case DeleteTable(empty):
            if empty and (content.chains or content.sets):
                raise _error(errno.EBUSY, "table")
            return None
        case AddChain(chain):
            present = content.chains.setdefault(chain.name, chain)
            if present != chain:
                raise _error(errno.EEXIST, f"chain {chain.name}")
            content.rules.setdefault(chain.name, ())
        case DeleteChain(name):
            _delete_chain(content, name)
        case FlushChain(name):
            _need(name in content.chains, f"chain {name}")
            content.rules[name] = ()
        case AddRule(name, rule):
            _need(name in content.chains, f"chain {name}")
            for expression in rule.expressions:
                _check_references(content, expression)
            content.rules[name] = (*content.rules[name], rule)
        case AddSet(spec):
            present_set = content.sets.setdefault(spec.name, spec)
            if present_set != spec:
                raise _error(errno.EEXIST, f"set {spec.name}")
            content.elements.setdefault(spec.name, {})
        case DeleteSet(name):
            _need(name in content.sets, f"set {name}")
            if _set_in_use(content, name):
                raise _error(errno.EBUSY, f"set {name}")
            del content.sets[name]
            content.elements.pop(name, None)
        case AddElements(spec, elements):
            _add_elements(content, spec, elements)
        case DeleteElements(spec, elements):
            _need(spec.name in content.sets, f"set {spec.name}")
            present_elements = content.elements[spec.name]
            for element in elements:
                _need(element.key in present_elements, f"element {element.key.hex()} of {spec.name}")
                del present_elements[element.key]
        case _:
            assert_never(change)
    return content


def _need(condition: bool, what: str) -> None:
    if not condition:
        raise _error(errno.ENOENT, what)


def _check_references(content: TableContent, expression: object) -> None:
    match expression:
        case Lookup(name) | Dynset(name):
            _need(name in content.sets, f"set {name}")
        case Immediate(Verdict(Code.JUMP | Code.GOTO, chain)):
            _need(chain in content.chains, f"chain {chain}")


def _set_in_use(content: TableContent, name: str) -> bool:
    return any(
        isinstance(expression, Lookup | Dynset) and expression.set == name
        for rules in content.rules.values()
        for rule in rules
        for expression in rule.expressions
    )


def _delete_chain(content: TableContent, name: str) -> None:
    _need(name in content.chains, f"chain {name}")
    used_by_rule = any(
        isinstance(expression, Immediate) and expression.verdict.chain == name
        for rules in content.rules.values()
        for rule in rules
        for expression in rule.expressions
    )
    used_by_element = any(
        isinstance(element.data, Verdict) and element.data.chain == name
        for elements in content.elements.values()
        for element in elements.values()
    )
    if used_by_rule or used_by_element or content.rules.get(name):
        raise _error(errno.EBUSY, f"chain {name}")
    del content.chains[name]
    content.rules.pop(name, None)


def _add_elements(content: TableContent, spec: Set, elements: tuple[Element, ...]) -> None:
    _need(spec.name in content.sets, f"set {spec.name}")
    present = content.elements[spec.name]
    for element in elements:
        if len(element.key) != spec.key_width:
            raise _error(errno.EINVAL, f"element of {spec.name} with a key of {len(element.key)} bytes")
        if isinstance(element.data, bytes) and len(element.data) != spec.data_width:
            raise _error(errno.EINVAL, f"element of {spec.name} with data of {len(element.data)} bytes")
        if isinstance(element.data, Verdict) and element.data.chain:
            _need(element.data.chain in content.chains, f"chain {element.data.chain}")
        old = present.get(element.key)
        if old is not None and old.data != element.data:
            raise _error(errno.EEXIST, f"element {element.key.hex()} of {spec.name}")
        if old is None:
            if spec.size and len(present) >= spec.size:
                raise _error(errno.ENFILE, f"element of the full set {spec.name}")
            present[element.key] = element
