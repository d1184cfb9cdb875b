"""The intake in memory."""


class FakeIntake:
    """Implements `objects.Intake`; `there` may be looked at and changed."""

    def __init__(self) -> None:
        self.there = False

    async def read(self) -> bool:
        return self.there

    async def create(self) -> None:
        self.there = True

    async def remove(self) -> None:
        self.there = False

    async def close(self) -> None:
        """Nothing is held."""
