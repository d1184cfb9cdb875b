"""What the verbs of labs share."""

import asyncio
import re
import signal
from collections.abc import Coroutine
from typing import Any

import click

from svcplane.base.errors import ConfigError

NAME = click.option("--name", default="lab", envvar="SVCPLANE_LAB", show_default=True, help="The lab's name.")


def begin(name: str) -> None:
    """Go where labs can be made.  Raises ConfigError for a wrong name, EnvironmentProblem."""
    from svcplane.lab import rootless

    check_name(name)
    rootless.enter()


def check_name(name: str) -> None:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9]{0,18}[a-z0-9])?", name):
        raise ConfigError(f"--name {name}: must be 1 to 20 lower-case letters and digits")


def until_done(work: Coroutine[Any, Any, int]) -> int:
    """Run until done; a signal cancels the work, which then cleans up and ends with 130; more change nothing."""

    async def main() -> int:
        task = asyncio.ensure_future(work)
        told = 0

        def stop() -> None:
            nonlocal told
            told += 1
            if told == 1:
                task.cancel()
            elif not task.done():
                click.echo("still removing what was made; wait a moment", err=True)

        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, stop)
        try:
            return await task
        except asyncio.CancelledError:
            return 130

    return asyncio.run(main())
