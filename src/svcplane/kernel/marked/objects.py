"""The contract of what makes marked packets of one IP family this host's own."""

from typing import Protocol


class Intake(Protocol):
    """Calls are idempotent.  Raises KernelError."""

    async def read(self) -> bool:
        """Whether a packet with the mark would be taken in."""

    async def create(self) -> None:
        """Have it so, and no more for another mark of one bit, which an earlier configuration may have had."""

    def use(self, mark: int) -> None:
        """From now on it is about this mark."""

    async def remove(self) -> None: ...

    async def close(self) -> None: ...
