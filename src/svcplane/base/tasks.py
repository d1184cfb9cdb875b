"""Supervised background tasks: every task has an owner that awaits it, and no failure is silent."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

log = logging.getLogger(__name__)


async def cancel_and_wait(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel tasks and wait for their end; their CancelledError is swallowed, other errors are logged."""
    alive = [task for task in tasks if task is not None]
    for task in alive:
        task.cancel()
    for task, result in zip(alive, await asyncio.gather(*alive, return_exceptions=True), strict=True):
        if isinstance(result, Exception):
            log.error("task failed while it was stopped: task=%s error=%r", task.get_name(), result)


def spawn(group: asyncio.TaskGroup, work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Start named work in a task group, whose failure ends the group."""
    return group.create_task(work, name=name)
