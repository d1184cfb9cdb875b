"""Waiting for what comes about by itself."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def until(condition: Callable[[], Awaitable[T]], within_s: float = 10.0) -> T:
    """The first true value of `condition`; AssertionError where there is none in time."""
    end = time.monotonic() + within_s
    while True:
        found = await condition()
        if found:
            return found
        assert time.monotonic() < end, "it did not come about in time"
        await asyncio.sleep(0.005)
