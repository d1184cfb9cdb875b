"""When events may be handed to all who wait."""

import asyncio

from hypothesis import given
from hypothesis import strategies as s

from svcplane.store.contract import Put, Transaction
from svcplane.store.memory import MemoryStore
from svcplane.store.pace import LONGEST_S, Pace

moment = s.floats(0, 1e6)
short = s.floats(0, 0.1)


def test_the_first_goes_at_once() -> None:
    assert Pace().wait(123.0) == 0


@given(moment, short, short)
def test_at_most_half_of_the_time_goes_to_handing_over_and_nobody_waits_long(
    began: float, took: float, later: float
) -> None:
    pace = Pace()
    pace.took(began, began + took)
    wait = pace.wait(began + took + later)
    assert 0 <= wait <= LONGEST_S + 1e-9
    if 0 < took < LONGEST_S / 2:
        assert abs(later + wait - max(later, took)) < 1e-6
    assert later < LONGEST_S or wait == 0


async def test_what_comes_while_nothing_may_go_goes_together() -> None:
    store = MemoryStore()
    watch = await store.watch("/a/", await store.revision())
    batches: list[int] = []
    enough = asyncio.Event()

    def slow_client(events: object) -> bool:
        batches.append(len(list(events)))  # type: ignore[call-overload]
        until = asyncio.get_running_loop().time() + 0.002  # as a hundred connections take
        while asyncio.get_running_loop().time() < until:
            pass
        if sum(batches) == 20:
            enough.set()
        return True

    watch.deliver_to(slow_client)
    reading = asyncio.ensure_future(watch.read(60))
    await asyncio.sleep(0)
    for number in range(20):
        await store.commit(Transaction((Put(f"/a/{number}", b"x"),)))
        await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await enough.wait()
    assert batches[0] == 1  # nobody was busy
    assert len(batches) < 6
    reading.cancel()
    await watch.aclose()
    await store.close()
