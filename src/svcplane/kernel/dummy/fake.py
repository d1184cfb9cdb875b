"""A dummy device in memory."""

from collections.abc import Iterable

from svcplane.base.errors import KernelError


class FakeDummy:
    """Implements `objects.Dummy`.  `content` may be looked at and changed; None is no device."""

    def __init__(self) -> None:
        self.content: set[str] | None = None

    async def read(self) -> frozenset[str] | None:
        return None if self.content is None else frozenset(self.content)

    async def create(self) -> None:
        self.content = set() if self.content is None else self.content

    async def add(self, addresses: Iterable[str]) -> None:
        if self.content is None:
            raise KernelError("there is no such device")
        self.content |= set(addresses)

    async def delete(self, addresses: Iterable[str]) -> None:
        if self.content is not None:
            self.content -= set(addresses)

    async def remove(self) -> None:
        self.content = None

    async def close(self) -> None:
        """Nothing is held."""
