"""An agent on an empty node."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from podrig import PREFIX, Bench
from svcplane.kernel.links.run import KernelLinks


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    made = Bench(tmp_path)
    await made.start()
    yield made
    await made.agent.close(stop_pods=True, grace_s=1)
    assert not KernelLinks().namespaces(PREFIX)
