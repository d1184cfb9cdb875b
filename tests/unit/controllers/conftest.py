"""A server in this process with all controllers running."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from svcplane.base.tasks import cancel_and_wait
from svcplane.client.transport import InProcessTransport
from svcplane.controllers.run import run_controllers
from svcplane.testing.server import Caller, in_process_server


@pytest.fixture
async def cluster() -> AsyncIterator[Caller]:
    async with in_process_server() as server:
        task = asyncio.create_task(run_controllers(InProcessTransport(server.handle)))
        try:
            yield Caller(server.handle)
        finally:
            await cancel_and_wait(task)
