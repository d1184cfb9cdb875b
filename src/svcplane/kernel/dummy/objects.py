"""The contract of a device that holds addresses of one IP family."""

from collections.abc import Iterable
from typing import Protocol


class Dummy(Protocol):
    """One device by name.  Other families' addresses on it, and link-local ones, are never seen or touched."""

    async def read(self) -> frozenset[str] | None:
        """Addresses on the device; None where there is no such device."""

    async def create(self) -> None:
        """Make the device and bring it up; one that is there is brought up.  Raises EnvironmentProblem."""

    async def add(self, addresses: Iterable[str]) -> None:
        """Addresses that are there already are no error."""

    async def delete(self, addresses: Iterable[str]) -> None:
        """Addresses that are not there are no error."""

    async def remove(self) -> None:
        """Take the addresses off; the device too, where it then holds none of any family."""

    async def close(self) -> None: ...
