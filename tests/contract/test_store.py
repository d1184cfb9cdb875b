"""The store contract, held against every implementation."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import pytest

from svcplane.store.contract import (
    WATCH_BACKLOG,
    Compacted,
    Delete,
    Event,
    FutureRevision,
    PreconditionFailed,
    Put,
    Revision,
    Store,
    Transaction,
    Unchanged,
    Watch,
    WatcherTooSlow,
)
from svcplane.store.etcd import EtcdAccess, EtcdStore
from svcplane.store.memory import MemoryStore
from svcplane.store.sqlite import SqliteStore


@pytest.fixture(params=["memory", "sqlite", pytest.param("etcd", marks=pytest.mark.tools("etcd"))])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Store]:
    made: Store
    if request.param == "memory":
        made = MemoryStore()
    elif request.param == "sqlite":
        made = await SqliteStore.open(tmp_path / "data")
    else:
        made = await EtcdStore.open(EtcdAccess((request.getfixturevalue("etcd").url,)), ours="")
    yield made
    await made.close()


async def put(store: Store, key: str, value: bytes) -> Revision:
    return await store.commit(Transaction((Put(key, value),)))


async def take(watch: Watch, count: int) -> list[Event]:
    """The next `count` events."""
    found: list[Event] = []
    async with asyncio.timeout(5):
        async for events in watch:
            found += events
            if len(found) >= count:
                return found
    raise AssertionError("the watch ended")


async def test_new_store_is_at_revision_one_and_each_commit_takes_the_next(store: Store) -> None:
    assert await store.revision() == 1
    assert [await put(store, "/a", b"1"), await put(store, "/a", b"2")] == [2, 3]
    item = await store.get("/a")
    assert item is not None
    assert (item.value, item.revision, item.created) == (b"2", 3, 2)


async def test_operations_of_one_transaction_share_its_revision(store: Store) -> None:
    revision = await store.commit(Transaction((Put("/a", b"1"), Put("/b", b"2"))))
    page = await store.list("/")
    assert [(item.key, item.revision) for item in page.items] == [("/a", revision), ("/b", revision)]


async def test_failed_precondition_changes_nothing(store: Store) -> None:
    revision = await put(store, "/a", b"1")
    with pytest.raises(PreconditionFailed) as caught:
        await store.commit(Transaction((Put("/b", b"x"),), (Unchanged("/a", Revision(revision - 1)),)))
    assert caught.value.key == "/a"
    assert caught.value.current is not None
    assert caught.value.current.value == b"1"
    assert await store.get("/b") is None
    assert await store.revision() == revision


async def test_one_of_many_that_create_the_same_key_succeeds(store: Store) -> None:
    attempts = [store.commit(Transaction((Put("/a", bytes([i])),), (Unchanged("/a", Revision(0)),))) for i in range(20)]
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert sum(isinstance(result, int) for result in results) == 1
    assert sum(isinstance(result, PreconditionFailed) for result in results) == 19


async def test_what_refused_a_commit_can_be_read_by_who_tries_again(store: Store) -> None:
    async def increment() -> None:
        for _ in range(30):
            item = await store.get("/n")
            count = int(item.value) + 1 if item else 1
            condition = Unchanged("/n", item.revision if item else Revision(0))
            try:
                await store.commit(Transaction((Put("/n", b"%d" % count),), (condition,)))
                return
            except PreconditionFailed:
                continue
        raise AssertionError("a commit of thirty tries never came through")

    await asyncio.gather(*(increment() for _ in range(20)))
    item = await store.get("/n")
    assert item is not None
    assert item.value == b"20"


async def test_reading_a_watch_takes_all_that_has_come(store: Store) -> None:
    watch = await store.watch("/", await store.revision())
    for number in range(50):
        await put(store, f"/{number}", b"")
    assert len(await watch.read(5) or ()) == 50
    assert await watch.read(0.01) == ()
    last = await put(store, "/a", b"")
    assert [event.revision for event in watch.take()] == [last]
    assert watch.progress == last
    await watch.aclose()
    assert await watch.read(5) is None


async def test_while_a_reader_waits_events_are_handed_over_in_order_and_once(store: Store) -> None:
    """What the taker refuses, by a word or by an error, comes to the reader; what follows, to the taker again."""
    watch = await store.watch("/", await store.revision())
    seen: list[tuple[str, str]] = []
    answers = itertools.cycle([True, True, False, True, ValueError("broken")])

    def taker(events: Sequence[Event]) -> bool:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        if answer:
            seen.extend(("taker", event.key) for event in events)
        return answer

    async def read() -> None:
        while (events := await watch.read(5)) is not None:
            seen.extend(("reader", event.key) for event in events)

    watch.deliver_to(taker)
    reading = asyncio.create_task(read())
    await asyncio.sleep(0)  # it waits
    for number in range(20):
        await put(store, f"/{number}", b"")
        async with asyncio.timeout(5):
            while len(seen) <= number:
                await asyncio.sleep(0)
    by = ("taker", "taker", "reader", "taker", "reader")
    assert seen == [(by[number % 5], f"/{number}") for number in range(20)]
    await watch.aclose()
    await reading


async def test_nothing_is_handed_over_while_nobody_waits(store: Store) -> None:
    watch = await store.watch("/", await store.revision())
    handed: list[Event] = []
    watch.deliver_to(lambda events: handed.extend(events) or True)
    for number in range(3):
        await put(store, f"/{number}", b"")
    assert [event.key for event in await watch.read(5) or ()] == ["/0", "/1", "/2"]
    reading = asyncio.create_task(watch.read(0.05))
    await asyncio.sleep(0)
    await put(store, "/last", b"")
    assert await reading == ()  # in time, with nothing: it was not woken by what was handed over
    assert [event.key for event in handed] == ["/last"]
    await watch.aclose()
    await put(store, "/after", b"")
    await asyncio.sleep(0)
    assert [event.key for event in handed] == ["/last"]


async def test_deleting_an_absent_key_is_no_event(store: Store) -> None:
    watch = await store.watch("/", await store.revision())
    await store.commit(Transaction((Delete("/a"),)))
    await put(store, "/b", b"1")
    assert [event.key for event in await take(watch, 1)] == ["/b"]
    await watch.aclose()


async def test_list_pages_in_key_order_and_counts_the_rest(store: Store) -> None:
    for name in ("b", "a", "c", "ä"):
        await put(store, f"/x/{name}", name.encode())
    await put(store, "/y/z", b"")
    first = await store.list("/x/", limit=2)
    assert ([item.key for item in first.items], first.remaining) == (["/x/a", "/x/b"], 2)
    rest = await store.list("/x/", limit=2, after_key="/x/b")
    assert ([item.key for item in rest.items], rest.remaining) == (["/x/c", "/x/ä"], 0)


async def test_list_of_an_old_revision_shows_that_state(store: Store) -> None:
    await put(store, "/a", b"1")
    then = await put(store, "/b", b"1")
    await put(store, "/a", b"2")
    await store.commit(Transaction((Delete("/b"), Put("/c", b"1"))))
    page = await store.list("/", revision=then)
    assert [(item.key, item.value, item.revision) for item in page.items] == [("/a", b"1", 2), ("/b", b"1", 3)]
    limited = await store.list("/", revision=then, limit=1)
    assert ([item.key for item in limited.items], limited.remaining) == (["/a"], 1)


async def test_watch_resumes_without_gap_or_repeat(store: Store) -> None:
    start = await put(store, "/a", b"1")
    await put(store, "/other", b"1")
    await put(store, "/a", b"2")
    watch = await store.watch("/a", start)
    await store.commit(Transaction((Delete("/a"),)))
    events = await take(watch, 2)
    assert [(event.value, event.previous) for event in events] == [(b"2", b"1"), (None, b"2")]
    assert [event.previous_revision for event in events] == [2, 4]
    await watch.aclose()


async def test_watch_progress_counts_events_of_other_prefixes(store: Store) -> None:
    watch = await store.watch("/a/", await store.revision())
    revision = await put(store, "/b/x", b"1")
    assert watch.progress == revision
    await watch.aclose()


async def test_compacted_and_future_revisions_are_refused(store: Store) -> None:
    for number in range(5):
        await put(store, "/a", bytes([number]))
    await store.compact(Revision(4))
    with pytest.raises(Compacted):
        await store.list("/", revision=Revision(3))
    with pytest.raises(Compacted):
        await take(await store.watch("/", Revision(3)), 1)
    with pytest.raises(FutureRevision):
        await store.list("/", revision=Revision(99))
    watch = await store.watch("/", Revision(4))
    assert [event.revision for event in await take(watch, 2)] == [5, 6]
    await watch.aclose()


async def test_watcher_that_does_not_read_is_cut_off_and_others_go_on(store: Store) -> None:
    lazy = await store.watch("/", await store.revision())
    many = tuple(Put(f"/k{number}", b"") for number in range(120))
    for _ in range(WATCH_BACKLOG // len(many) + 1):
        await store.commit(Transaction(many))
    with pytest.raises(WatcherTooSlow):
        await take(lazy, 1)
    fresh = await store.watch("/", await store.revision())
    await put(store, "/z", b"1")
    assert [event.key for event in await take(fresh, 1)] == ["/z"]
    await fresh.aclose()


async def test_closed_watch_ends(store: Store) -> None:
    watch = await store.watch("/", await store.revision())
    await watch.aclose()
    assert [events async for events in watch] == []
