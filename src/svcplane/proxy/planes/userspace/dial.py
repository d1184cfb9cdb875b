"""How often and how long the relay dials for one connection of a client.  Pure.

Source: kube-proxy's userspace mode dials four times, waiting 250 ms, 500 ms, 1 s and 2 s, a different endpoint each
time.  Here dialing also goes on while there are endpoints that were not tried, as long as they refuse at once.
"""

from svcplane.proxy.planes.userspace.balance import Backend

DIAL_TIMEOUTS_S = (0.25, 0.5, 1.0, 2.0)


class Dialing:
    """The dials of one connection.  `tried` holds endpoints in the order in which they failed."""

    __slots__ = ("_made", "_slow", "_timeouts_s", "tried")

    def __init__(self, timeouts_s: tuple[float, ...] = DIAL_TIMEOUTS_S) -> None:
        self._timeouts_s = timeouts_s
        self._made = self._slow = 0
        self.tried: list[Backend] = []

    def failed(self, backend: Backend, *, timed_out: bool) -> None:
        self._made += 1
        self._slow += timed_out
        if backend in self.tried:
            self.tried.remove(backend)
        self.tried.append(backend)

    def next_timeout_s(self, endpoints: int) -> float | None:
        """How long to wait for the next dial, or None to give up.  `endpoints`: how many there are to choose from."""
        most = len(self._timeouts_s)
        if self._slow >= most or (self._made >= most and len(self.tried) >= endpoints):
            return None
        return self._timeouts_s[min(self._made, most - 1)]
