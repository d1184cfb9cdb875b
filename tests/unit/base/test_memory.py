"""The collector while a large state is built, and afterwards."""

import gc
from collections.abc import Iterator

import pytest

from svcplane.base.memory import expect_growth, settle


@pytest.fixture
def as_before() -> Iterator[None]:
    thresholds = gc.get_threshold()
    yield
    gc.set_threshold(*thresholds)
    gc.unfreeze()
    gc.enable()


@pytest.mark.usefixtures("as_before")
def test_nothing_is_collected_while_it_grows_and_what_lived_then_never() -> None:
    expect_growth()
    assert not gc.isenabled()
    settle()
    assert gc.isenabled()
    frozen = gc.get_freeze_count()
    assert frozen > 0
    settle()
    assert gc.isenabled()
    assert gc.get_freeze_count() >= frozen
