"""The iptables plane: observe, plan, apply.  I/O only; everything it decides is in the modules beside it.

A change is one run of `iptables-restore --noflush` with the chains that changed.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from typing import Protocol

from svcplane.base.errors import EnvironmentProblem
from svcplane.base.net import Family
from svcplane.kernel.iptables.text import Rules, Tables, restore
from svcplane.proxy.model import NodeConfig, Outcome, Packet, ProxyState, ServicePortName
from svcplane.proxy.plane import AffinityEntry, LiveRule, Operation, SyncReport
from svcplane.proxy.planes.iptables.book import Book, Chain, ChainChange
from svcplane.proxy.planes.iptables.clients import Clients
from svcplane.proxy.planes.iptables.compile import Fragment, compile_port
from svcplane.proxy.planes.iptables.describe import live_rules
from svcplane.proxy.planes.iptables.plan import Draft, as_left, difference, removal, takeover
from svcplane.proxy.planes.iptables.trace import trace
from svcplane.proxy.topology import categorize

log = logging.getLogger(__name__)
#: One part in so many of the time, at most, goes to digests, and to whole comparisons after writes of ours.
DIGEST_SHARE, COMPARE_SHARE = 25, 10
#: How far apart looks are anyway: what keeps its share with that is never put off.
LOOKS_APART_S = 3.0


class Tools(Protocol):
    """What the plane asks of `kernel.iptables.run.IptablesTools`, or of the fake one."""

    variant: str

    async def choose(self) -> str: ...
    async def save(self) -> Tables: ...
    async def restore(self, text: str, *, mark: bool = False) -> None: ...
    async def fingerprint(self) -> object: ...
    async def concerns_others(self, since: object, until: object) -> bool: ...
    async def digest(self) -> object: ...
    async def tidy(self) -> None: ...
    async def close(self) -> None: ...
    def others(self) -> Sequence["Tools"]: ...
    def tcp_be_liberal(self) -> bool: ...
    def allow_localnet(self) -> None: ...


class IptablesPlane:
    """Implements `proxy.plane.Plane`.  Not safe for concurrent calls."""

    mode = "iptables"

    def __init__(self, config: NodeConfig, tools: Tools, clients: Clients | None = None) -> None:
        self._config, self._tools = config, tools
        self._clients = clients or Clients()
        self._book: Book | None = None  # what the kernel has; None until the first sync, and after a failed one
        self._live: dict[Chain, int] = {}  # number of rules by chain
        self._rules: dict[str, int] = {}  # their sum by table
        self._fingerprint: object = None
        self._digest: object = None  # None: not taken since we last wrote
        self._digest_at = self._compare_at = 0.0  # monotonic seconds until which it is too soon to take it again
        self._chosen = False

    async def preflight(self) -> None:
        await self._choose()
        await self._tools.save()

    async def close(self) -> None:
        await self._tools.close()

    async def _choose(self) -> None:
        if not self._chosen:
            log.info("iptables tools: variant=%s family=%s", await self._tools.choose(), self._config.family.api_name)
            self._chosen = True

    # -- sync --------------------------------------------------------------------------------------------------------

    async def sync(self, state: ProxyState, touched: frozenset[ServicePortName] | None, *, now: float) -> SyncReport:
        await self._choose()
        book, self._book = self._book, None  # until the kernel has taken it
        if touched is None or book is None or book.config != state.config:
            return await self._sync_full(state)
        for name in sorted(touched):
            book.update(name, _fragment(state, name))
        changes = book.changes()
        draft = difference(changes, self._live)
        await self._apply(draft, changes)
        self._book = book
        return SyncReport(draft.operations, draft.count, False, None, self._facts())

    async def _sync_full(self, state: ProxyState) -> SyncReport:
        self._config = state.config
        config = state.config
        if config.family is Family.IPV4 and config.localhost_nodeports and not config.nodeport_primary_only:
            self._tools.allow_localnet()
        book = self._new_book(state)
        changes = book.changes()
        draft = takeover(_wanted(changes), await self._tools.save())
        self._live, self._rules = {}, {}
        await self._apply(draft, changes)
        for other in self._tools.others():
            if await _remove(other):
                log.info("removed our rules of the tools not chosen: variant=%s", other.variant)
        self._book = book
        return SyncReport(draft.operations, draft.count, True, None, self._facts())

    def _new_book(self, state: ProxyState) -> Book:
        book = Book(state.config, tcp_be_liberal=self._tools.tcp_be_liberal())
        for name in sorted(state.services):
            book.update(name, _fragment(state, name))
        return book

    async def _apply(self, draft: Draft, changes: Mapping[Chain, ChainChange]) -> None:
        if text := restore(draft.tables):
            await self._tools.restore(text, mark=True)
            self._fingerprint = self._digest = None
        if self._fingerprint is None:
            self._fingerprint = await self._tools.fingerprint()
        for chain, change in changes.items():
            self._rules[chain[0]] = self._rules.get(chain[0], 0) - self._live.pop(chain, 0) + len(change.rules or ())
            if change.rules is not None:
                self._live[chain] = len(change.rules)

    def _facts(self) -> dict[str, int]:
        return {"chains": len(self._live)} | {f"rules_{table}": count for table, count in self._rules.items()}

    # -- looking -----------------------------------------------------------------------------------------------------

    async def intact(self) -> bool:
        if self._book is None:
            return False
        found = await self._tools.fingerprint()
        digest = await self._look_closely()
        if found == self._fingerprint or await self._tools.concerns_others(self._fingerprint, found):
            self._fingerprint = found
            if digest == self._digest or (self._digest is None and time.monotonic() < self._compare_at):
                return True
        began = time.monotonic()
        if not as_left(dict(self._book.chains()), await self._tools.save()):
            return False
        self._compare_at = _again_at(began, COMPARE_SHARE)
        self._fingerprint, self._digest = found, digest
        return True

    async def _look_closely(self) -> object:
        """The digest, or what it was where taking it again is not yet worth its time."""
        began = time.monotonic()
        if began < self._digest_at:
            return self._digest
        digest = await self._tools.digest()
        self._digest_at = _again_at(began, DIGEST_SHARE)
        return digest

    async def plan(self, state: ProxyState) -> Sequence[Operation]:
        await self._choose()
        return takeover(_wanted(self._new_book(state).changes()), await self._tools.save()).operations

    async def trace(self, state: ProxyState, packet: Packet) -> tuple[frozenset[Outcome], Sequence[str]]:
        await self._choose()
        return trace(await self._tools.save(), state, packet)

    async def rules(self, state: ProxyState) -> Sequence[LiveRule]:
        await self._choose()
        return list(live_rules(await self._tools.save()))

    async def affinity(self, state: ProxyState) -> Sequence[AffinityEntry]:
        return await self._clients.remembered(state)

    async def forget_affinity(self, entry: AffinityEntry) -> None:
        await self._clients.forget(entry)

    async def cleanup(self) -> None:
        try:
            await self._choose()
        except EnvironmentProblem:
            return  # without the tools nothing of ours was written
        for tools in (self._tools, *self._tools.others()):
            await _remove(tools)
        self._book = None


def _again_at(began: float, share: int) -> float:
    """When what began then and is over now may be done again, at one part in `share` of the time."""
    now = time.monotonic()
    return now + max(0.0, share * (now - began) - LOOKS_APART_S)


async def _remove(tools: Tools) -> bool:
    """Take out everything of ours; whether there was anything."""
    text = restore(removal(await tools.save()).tables)
    if text:
        await tools.restore(text)
    await tools.tidy()
    return bool(text)


def _fragment(state: ProxyState, name: ServicePortName) -> Fragment | None:
    port = state.services.get(name)
    if port is None:
        return None
    return compile_port(port, categorize(port, state.endpoints.get(name, ()), state.node), state.config)


def _wanted(changes: Mapping[Chain, ChainChange]) -> dict[Chain, tuple[Rules, str]]:
    return {chain: (change.rules, change.reason) for chain, change in changes.items() if change.rules is not None}
