"""When events may be handed to all who wait for them.  Pure."""

#: Of the time between, so that at most half goes to handing over and the rest is left to those who write and read.
REST = 1.0
#: So long at most does an event wait for the next.
LONGEST_S = 0.02


class Pace:
    """The longer it takes to hand events to everybody, the more of them go together.

    A hundred connections cost two milliseconds an event on a slow machine, and not much more for several in one piece.
    Without a rest, writes would queue behind the handing over of those before them.  All times in monotonic seconds.
    """

    def __init__(self) -> None:
        self._free_at = 0.0

    def wait(self, now: float) -> float:
        """Seconds from `now` until the next may begin; 0: at once."""
        return max(0.0, self._free_at - now)

    def took(self, began: float, ended: float) -> None:
        self._free_at = ended + min(LONGEST_S, REST * (ended - began))
