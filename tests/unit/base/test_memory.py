"""The collector while a large state is built, and afterwards."""

import asyncio
import gc
from collections.abc import Iterator

import pytest

from svcplane.base import memory
from svcplane.base.memory import expect_growth, settle


@pytest.fixture
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.enable()


@pytest.mark.usefixtures("as_before")
async def test_nothing_is_collected_while_it_grows_and_what_lived_then_never() -> None:
    expect_growth()
    assert not gc.isenabled()
    settle()
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    assert frozen > 0
    settle()
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen


@pytest.mark.usefixtures("as_before")
async def test_growth_that_does_not_end_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "GROWTH_S", 0.0)
    expect_growth()
    async with asyncio.timeout(5):
        while not gc.isenabled():
            await asyncio.sleep(0)
