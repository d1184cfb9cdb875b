"""IPVS in memory, with the kernel's errors: dry runs and tests of laws use it."""

import errno
from collections.abc import Mapping, Sequence
from dataclasses import replace

from svcplane.kernel.ipvs.codec import describe
from svcplane.kernel.ipvs.objects import (
    SCHEDULERS,
    AddDestination,
    AddServer,
    Change,
    Connection,
    DeleteDestination,
    DeleteServer,
    Destination,
    EditDestination,
    EditServer,
    Refusal,
    Server,
    ServerKey,
    Target,
    Timeouts,
)


class FakeIpvs:
    """Implements `objects.Ipvs`.  `content` may be looked at and changed; `log` has every change that was taken."""

    def __init__(self, schedulers: Sequence[str] = SCHEDULERS) -> None:
        """`schedulers`: what this kernel has."""
        self.content: dict[ServerKey, Server] = {}
        self.targets: dict[ServerKey, dict[Target, Destination]] = {}
        self.table: list[Connection] = []
        self.log: list[Change] = []
        self._schedulers = schedulers
        self._timeouts = Timeouts(900, 120, 300)

    async def available(self) -> bool:
        return True

    async def servers(self) -> Mapping[ServerKey, Server]:
        return dict(self.content)

    async def find(self, keys: Sequence[ServerKey]) -> Mapping[ServerKey, Server]:
        return {key: self.content[key] for key in keys if key in self.content}

    async def destinations(self, key: ServerKey) -> Mapping[Target, Destination]:
        return dict(self.targets.get(key, {}))

    async def commit(self, changes: Sequence[Change]) -> Sequence[Refusal]:
        refused = []
        for change in changes:
            code = self._apply(change)
            if code:
                refused.append(Refusal(change, describe(change, code)))
            else:
                self.log.append(change)
        return refused

    def _apply(self, change: Change) -> int:
        key = change.key
        if isinstance(change, AddServer | EditServer):
            exists = key in self.content
            if isinstance(change, AddServer) and exists:
                return errno.EEXIST
            if isinstance(change, EditServer) and not exists:
                return errno.ESRCH
            if change.server.scheduler not in self._schedulers:
                return errno.ENOENT
            self.content[key] = change.server
            self.targets.setdefault(key, {})
            return 0
        if key not in self.content:
            return errno.ESRCH
        if isinstance(change, DeleteServer):
            del self.content[key], self.targets[key]
            return 0
        return _apply_destination(self.targets[key], change)

    async def timeouts(self) -> Timeouts:
        return self._timeouts

    async def set_timeouts(self, timeouts: Timeouts) -> None:
        old = self._timeouts
        self._timeouts = Timeouts(timeouts.tcp or old.tcp, timeouts.tcp_fin or old.tcp_fin, timeouts.udp or old.udp)

    async def connections(self) -> Sequence[Connection]:
        return list(self.table)

    async def close(self) -> None:
        """Nothing is held."""


def _apply_destination(
    targets: dict[Target, Destination], change: AddDestination | EditDestination | DeleteDestination
) -> int:
    there = targets.get(change.target)
    if isinstance(change, AddDestination):
        if there is not None:
            return errno.EEXIST
        targets[change.target] = Destination(change.weight)
        return 0
    if there is None:
        return errno.ENOENT
    if isinstance(change, EditDestination):
        targets[change.target] = replace(there, weight=change.weight)
    else:
        del targets[change.target]
    return 0
