"""A server in this process and an administrator who calls it."""

from collections.abc import AsyncIterator

import pytest

from svcplane.testing.server import Caller, in_process_server


@pytest.fixture
async def admin() -> AsyncIterator[Caller]:
    async with in_process_server() as server:
        yield Caller(server.handle)
