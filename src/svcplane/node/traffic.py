"""What goes over this node's translations, from the kernel's connection tracking: for the console's map."""

import asyncio
from dataclasses import dataclass

from svcplane.base.net import Family
from svcplane.kernel.conntrack import run as conntrack
from svcplane.kernel.conntrack.text import Counted
from svcplane.kernel.conntrack.traffic import Translated, translations

FAMILIES = (Family.IPV4, Family.IPV6)
SECONDS = 1.0


@dataclass(frozen=True, slots=True)
class Traffic:
    """Of the last `seconds`."""

    seconds: float
    flows: list[Translated]


class Meter:
    """Measures when asked; those who ask meanwhile get the same answer, so that many askers cost what one does."""

    def __init__(self) -> None:
        self._running: asyncio.Task[Traffic] | None = None

    async def measure(self) -> Traffic:
        """Takes SECONDS.  Raises EnvironmentProblem without the `conntrack` tool, KernelError where it fails."""
        if self._running is None or self._running.done():
            self._running = asyncio.create_task(_measure(), name="traffic")
        # one asker who leaves must not take the answer from the others
        return await asyncio.shield(self._running)


async def _measure() -> Traffic:
    before = await _all()
    begun = await asyncio.gather(*(conntrack.new_flows(family, SECONDS) for family in FAMILIES))
    new = [flow for group in begun for flow in group]
    return Traffic(SECONDS, translations(before, await _all(), new))


async def _all() -> list[Counted]:
    groups = await asyncio.gather(*(conntrack.counted(family) for family in FAMILIES))
    return [flow for group in groups for flow in group]
