"""Supervised background tasks: every task has an owner that awaits it, and no failure is silent."""

import asyncio
import contextlib
import logging
from collections.abc import Coroutine
from typing import Any, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


async def cancel_and_wait(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait for their end; their CancelledError is swallowed, other errors are logged."""
    alive = [task for task in tasks if task is not None]
    for task in alive:
        task.cancel()
    for task, result in zip(alive, await asyncio.gather(*alive, return_exceptions=True), strict=True):
        if isinstance(result, Exception):
            log.error("task failed while it was stopped: task=%s error=%r", task.get_name(), result)


async def to_the_end(work: Coroutine[Any, Any, T]) -> T:
    """Await work to its end even when cancelled meanwhile, which is raised then: half of it would be worse."""
    task = asyncio.ensure_future(work)
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        while not task.done():
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.wait((task,))
        if not task.cancelled() and (error := task.exception()) is not None:
            log.warning("failed while it was being stopped: %s", error)
        raise


def spawn(group: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start named work in a task group, whose failure ends the group."""
    return group.create_task(work, name=name)
