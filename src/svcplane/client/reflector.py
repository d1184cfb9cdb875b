"""The list-watch machine: what to do next to follow a collection.  Pure.

Events in (a page was listed, a line came, the stream ended, something failed), commands out (list, watch, wait).
No gap and no repeat: a watch begins at the last version seen; 410 lists again; failures back off with jitter.
Source: k8s.io/client-go/tools/cache reflector.go.
"""

from dataclasses import dataclass
from random import Random

BACKOFF_FIRST_S, BACKOFF_MAX_S = 0.2, 30.0
STEADY_AFTER_S = 60.0


@dataclass(frozen=True, slots=True)
class List:
    """List everything (in pages)."""


@dataclass(frozen=True, slots=True)
class Watch:
    """Watch after `version`."""

    version: str


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait `seconds`, then ask again what to do."""

    seconds: float


Command = List | Watch | Wait


class Reflector:
    """`version` is the newest the consumer has seen; empty before the first list."""

    def __init__(self, random: Random) -> None:
        self.version = ""
        self._random = random
        self._failures = 0
        self._waited = False
        self._began_s = 0.0

    def next(self) -> Command:
        if self._failures and not self._waited:
            self._waited = True
            return Wait(self._backoff())
        return Watch(self.version) if self.version else List()

    def _backoff(self) -> float:
        bound: float = min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2 ** (self._failures - 1))
        return bound * (0.5 + self._random.random() / 2)

    def listed(self, version: str) -> None:
        self.version = version
        self._failures = 0

    def saw(self, version: str) -> None:
        """An event or bookmark of this version was handed on."""
        if version:
            self.version = version
        self._failures = 0

    def watching(self, now_s: float) -> None:
        self._began_s = now_s

    def ended(self, now_s: float) -> None:
        """The stream ended as streams do.  One that ends at once counts as a failure."""
        if now_s - self._began_s < 1.0:
            self.failed()

    def gone(self) -> None:
        """410: the version is too old."""
        self.version = ""

    def failed(self) -> None:
        """The server could not be reached, or refused."""
        self._failures += 1
        self._waited = False
