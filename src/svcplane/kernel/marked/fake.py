"""The intake in memory."""


class FakeIntake:
    """Implements `objects.Intake`; `there`, the marks that are taken in, may be looked at and changed."""

    def __init__(self) -> None:
        self.there: set[int] = set()
        self._mark = 0

    def use(self, mark: int) -> None:
        self._mark = mark

    async def read(self) -> bool:
        return self._mark in self.there

    async def create(self) -> None:
        self.there = {self._mark}

    async def remove(self) -> None:
        self.there = set()

    async def close(self) -> None:
        """Nothing is held."""
