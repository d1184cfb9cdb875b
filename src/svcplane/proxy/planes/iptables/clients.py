"""Clients that session affinity remembers, in the kernel's `recent` lists.

Source: net/netfilter/xt_recent.c: one file a list, one line a client, times in jiffies; `+IP` and `-IP` written to
the file add and remove one.
"""

import asyncio
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from svcplane.base.errors import KernelError
from svcplane.base.net import Family
from svcplane.proxy.model import ProxyState
from svcplane.proxy.plane import AffinityEntry
from svcplane.proxy.planes.iptables.names import CLOCK, endpoint_list

_SAMPLE_S = 0.1
_RATES = (100, 250, 300, 1000)  # CONFIG_HZ


def read_list(text: str) -> Iterator[tuple[str, int]]:
    """Client and the jiffy in which it was last seen."""
    for line in text.splitlines():
        fields = line.split()
        if fields and fields[0].startswith("src=") and "last_seen:" in fields:
            yield fields[0].removeprefix("src="), int(fields[fields.index("last_seen:") + 1])


class Clients:
    """`root` is where the kernel shows its lists in this network namespace."""

    def __init__(self, root: Path = Path("/proc/net/xt_recent")) -> None:
        self._root = root
        self._hz = 0

    async def remembered(self, state: ProxyState) -> Sequence[AffinityEntry]:
        """Those whose time is not over."""
        found = []
        now = 0
        for name, port in state.services.items():
            if not port.affinity_timeout_s:
                continue
            for endpoint in state.endpoints.get(name, ()):
                path = self._root / endpoint_list(name, str(endpoint))
                if not path.exists():
                    continue
                for client, seen in read_list(path.read_text()):
                    now = now or await self._now(state.config.family)
                    left = port.affinity_timeout_s - (now - seen) / self._hz
                    if left > 0:
                        found.append(AffinityEntry(name, client, str(endpoint), left))
        return found

    async def forget(self, entry: AffinityEntry) -> None:
        path = self._root / endpoint_list(entry.service, entry.endpoint)
        if path.exists():
            path.write_text(f"-{entry.client}\n")

    async def _now(self, family: Family) -> int:
        """The present jiffy; finds out their rate the first time.  Raises KernelError without our clock's list."""
        began, first = time.monotonic(), self._tick(family)
        if not self._hz:
            await asyncio.sleep(_SAMPLE_S)
            last = self._tick(family)
            rate = (last - first) / (time.monotonic() - began)
            self._hz = min(_RATES, key=lambda hz: abs(hz - rate))
            return last
        return first

    def _tick(self, family: Family) -> int:
        path, mark = self._root / CLOCK, "127.0.0.1" if family is Family.IPV4 else "::1"
        try:
            path.write_text(f"+{mark}\n")
            return max(seen for _, seen in read_list(path.read_text()))
        except (OSError, ValueError) as error:
            raise KernelError(f"{path}: cannot tell the kernel's time: {error}") from error
