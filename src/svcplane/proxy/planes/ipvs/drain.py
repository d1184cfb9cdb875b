"""Targets that take no new connections: until their last one ended, or their time is up.  Pure.

Source: kube-proxy 1.36 graceful termination, which has no deadline and looks once a minute.
"""

from collections.abc import Iterable, Mapping

from svcplane.kernel.ipvs.objects import Destination, ServerKey, Target
from svcplane.proxy.planes.ipvs.plan import Drained, Plan

LOOK_EVERY_S = 5.0


class Drains:
    """Deadlines in monotonic seconds."""

    def __init__(self) -> None:
        self._until: dict[Drained, float] = {}

    def __len__(self) -> int:
        return len(self._until)

    def follow(self, plan: Plan, now: float) -> None:
        """Take what a plan begins and ends.  A drain that goes on keeps its deadline, unless it was cut short."""
        for drained in plan.revived:
            self._until.pop(drained, None)
        for drained, seconds in plan.drains.items():
            self._until[drained] = min(self._until.get(drained, now + seconds), now + seconds)

    def forget(self, servers: Iterable[ServerKey]) -> None:
        """These virtual servers are gone."""
        gone = set(servers)
        self._until = {drained: at for drained, at in self._until.items() if drained[0] not in gone}

    def servers(self) -> set[ServerKey]:
        return {key for key, _ in self._until}

    def done(self, found: Mapping[ServerKey, Mapping[Target, Destination]], now: float) -> dict[Drained, str]:
        """Those that may go now, with why; those that are gone already are forgotten."""
        ended = {}
        for (key, target), until in list(self._until.items()):
            destination = found.get(key, {}).get(target)
            if destination is None:
                del self._until[key, target]
            elif not destination.active and not destination.inactive:
                ended[key, target] = "its last connection ended"
            elif now >= until:
                left = destination.active + destination.inactive
                ended[key, target] = f"its time is up, with {left} connections left"
        return ended

    def end(self, drained: Iterable[Drained]) -> None:
        for each in drained:
            self._until.pop(each, None)

    def wake_at(self, now: float) -> float | None:
        """When to look again."""
        return min(now + LOOK_EVERY_S, max(now, min(self._until.values()))) if self._until else None
