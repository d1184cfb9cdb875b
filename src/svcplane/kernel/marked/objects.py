"""The contract of what makes marked packets of one IP family this host's own."""

from typing import Protocol


class Intake(Protocol):
    """Calls are idempotent.  Raises KernelError."""

    async def read(self) -> bool:
        """Whether a packet with the mark would be taken in."""

    async def create(self) -> None: ...

    async def remove(self) -> None: ...

    async def close(self) -> None: ...
