"""What a benchmark reports, and at which size it runs."""

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """A measured value.

    `limit`: what it must not exceed or, with `more`, must reach.  `floor`: what the machine itself takes for the
    least that this needs, measured in the same run and in the same unit; `floor_name` says what that was.
    """

    name: str
    value: float
    unit: str
    limit: float | None = None
    more: bool = False
    floor: float | None = None
    floor_name: str = ""

    @property
    def holds(self) -> bool:
        if self.limit is None:
            return True
        return self.value >= self.limit if self.more else self.value <= self.limit

    @property
    def ratio(self) -> float | None:
        return self.value / self.floor if self.floor else None


@dataclass(frozen=True, slots=True)
class Scale:
    """`tiny`: so small that only the benchmark itself is tested; limits mean nothing then."""

    tiny: bool = False

    def of(self, full: int, tiny: int) -> int:
        return tiny if self.tiny else full


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` (0 to 1) of all do not exceed.  Raises ValueError for no values."""
    if not values:
        raise ValueError("no values")
    return sorted(values)[max(0, math.ceil(share * len(values)) - 1)]


def shown(value: float) -> str:
    """Three significant digits, as people read them."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if value < 10 else f"{value:.1f}"
