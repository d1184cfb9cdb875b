"""New Services settle before they are written.  Pure.

Pods often come right after their Service, and what a watch of Pods shows may be a little behind what a watch of
Services shows; waiting a moment makes one write of several.  Nobody waits for the record that nothing is there.
"""

#: How long a new Service waits, and how long the record of no endpoints does.
NEW_S, EMPTY_S = 0.03, 0.25


class Settling:
    """By the Service's key; times are monotonic seconds."""

    def __init__(self) -> None:
        self._since: dict[str, float] = {}

    def appeared(self, key: str, now: float) -> None:
        self._since[key] = now

    def wait_s(self, key: str, now: float) -> float:
        """For how long to hold back the record that a Service has no endpoints; 0: write it."""
        since = self._since.get(key)
        return 0.0 if since is None else max(0.0, since + EMPTY_S - now)

    def forget(self, key: str) -> None:
        self._since.pop(key, None)
