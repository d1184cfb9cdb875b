"""Who of several API servers lives."""

from svcplane.server.members import GONE_AFTER_S, PREFIX, Members, sight
from svcplane.store.contract import Put, Revision, Transaction
from svcplane.store.memory import MemoryStore


class Jumps:
    """A clock that tests set."""

    def __init__(self) -> None:
        self.time = 0.0

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return self.time

    async def sleep(self, seconds: float) -> None:
        raise AssertionError("nobody waits here")


def test_record_that_does_not_change_is_gone_in_the_end() -> None:
    known, gone = sight({}, {"a": Revision(1), "b": Revision(2)}, 0.0)
    assert gone == []
    known, gone = sight(known, {"a": Revision(3), "b": Revision(2)}, GONE_AFTER_S + 1)
    assert gone == ["b"]
    assert known["a"].at_s == GONE_AFTER_S + 1


async def test_the_living_are_published_and_the_dead_forgotten() -> None:
    store, clock = MemoryStore(), Jumps()
    published: list[list[str]] = []

    async def publish(addresses: object) -> None:
        published.append(list(addresses))  # type: ignore[call-overload]

    await store.commit(Transaction((Put(PREFIX + "10.0.0.2", b""),)))
    here = Members(store, "10.0.0.1", publish, clock)
    await here._look()
    clock.time = GONE_AFTER_S + 1
    await here._look()
    assert published == [["10.0.0.1", "10.0.0.2"], ["10.0.0.1"]]
    assert [item.key for item in (await store.list(PREFIX)).items] == [PREFIX + "10.0.0.1"]
