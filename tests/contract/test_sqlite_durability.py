"""What SQLite adds to the contract: nothing acknowledged is lost, one process at a time, clear errors."""

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from svcplane.base.errors import StoreError
from svcplane.store import sqlite
from svcplane.store.contract import Compacted, Delete, Put, Revision, Transaction
from svcplane.store.sqlite import SqliteStore

WRITER = textwrap.dedent(
    """
    import asyncio, sys
    from svcplane.store.contract import Put, Transaction
    from svcplane.store.sqlite import SqliteStore

    async def one(store, worker):
        number = 0
        while True:
            await store.commit(Transaction((Put(f"/{worker}", str(number).encode()),)))
            print(worker, number, flush=True)
            number += 1

    async def main():
        store = await SqliteStore.open(sys.argv[1])
        await asyncio.gather(*(one(store, worker) for worker in range(8)))

    asyncio.run(main())
    """
)


async def test_state_and_history_are_there_after_a_restart(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    await store.commit(Transaction((Put("/a", b"1"), Put("/b", b"1"))))
    await store.commit(Transaction((Put("/a", b"2"), Delete("/b"))))
    await store.close()
    store = await SqliteStore.open(tmp_path)
    assert await store.revision() == 3
    assert [(item.key, item.value) for item in (await store.list("/")).items] == [("/a", b"2")]
    old = await store.list("/", revision=Revision(2))
    assert [(item.key, item.value) for item in old.items] == [("/a", b"1"), ("/b", b"1")]
    await store.close()


async def test_kill_under_load_loses_no_acknowledged_write(tmp_path: Path) -> None:
    for _ in range(3):
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", WRITER, str(tmp_path), stdout=subprocess.PIPE
        )
        assert process.stdout is not None
        acknowledged: dict[str, int] = {}
        for _ in range(200):
            worker, number = (await process.stdout.readline()).split()
            acknowledged[worker.decode()] = int(number)
        os.kill(process.pid, signal.SIGKILL)
        *whole, _ = (await process.stdout.read()).split(b"\n")  # the last line may have been cut anywhere
        for line in whole:
            worker, number = line.split()
            acknowledged[worker.decode()] = int(number)
        await process.wait()
        store = await SqliteStore.open(tmp_path)
        for worker, number in acknowledged.items():
            item = await store.get(f"/{worker}")
            assert item is not None
            assert int(item.value) >= number
        await store.close()
        assert sqlite.check(tmp_path / sqlite.DATABASE) == []


async def test_second_process_is_told_who_uses_the_directory(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    with pytest.raises(StoreError, match=f"in use by process {os.getpid()}"):
        await SqliteStore.open(tmp_path)
    await store.close()


@pytest.mark.parametrize("damage", [b"this is no database, not at all" * 100, b""])
async def test_damaged_database_is_one_clear_line(tmp_path: Path, damage: bytes) -> None:
    store = await SqliteStore.open(tmp_path)
    await store.commit(Transaction((Put("/a", b"1" * 10_000),)))
    await store.close()
    path = tmp_path / sqlite.DATABASE
    content = path.read_bytes()
    path.write_bytes(damage + content[len(damage) :] if damage else content[:4096])
    with pytest.raises(StoreError, match=r"corrupt or unreadable.*restore"):
        await SqliteStore.open(tmp_path)


async def test_backup_of_a_store_in_use_can_be_restored(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "data")
    await store.commit(Transaction((Put("/a", b"1"),)))
    saved = await store.revision()
    await asyncio.to_thread(sqlite.backup, tmp_path / "data" / sqlite.DATABASE, tmp_path / "copy.db")
    await store.commit(Transaction((Put("/a", b"2"),)))
    with pytest.raises(StoreError, match="in use"):
        sqlite.restore(tmp_path / "data", tmp_path / "copy.db")
    seen = await store.revision()
    await store.close()
    sqlite.restore(tmp_path / "data", tmp_path / "copy.db")
    store = await SqliteStore.open(tmp_path / "data")
    item = await store.get("/a")
    assert item is not None
    assert item.value == b"1"
    # whoever had read on after the back-up must list again, now and when as much has been written once more
    assert await store.revision() > seen
    for known in (saved, seen):
        with pytest.raises(Compacted):
            await store.watch("/", known)
    await store.close()


async def test_backup_never_overwrites(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "data")
    (tmp_path / "copy.db").write_text("mine")
    with pytest.raises(StoreError, match="never overwrites"):
        sqlite.backup(tmp_path / "data" / sqlite.DATABASE, tmp_path / "copy.db")
    await store.close()


async def test_database_of_a_newer_program_is_refused(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path)
    await store.close()
    connection = sqlite3.connect(tmp_path / sqlite.DATABASE)
    connection.execute("UPDATE meta SET value=99 WHERE name='version'")
    connection.commit()
    connection.close()
    with pytest.raises(StoreError, match="layout version 99"):
        await SqliteStore.open(tmp_path)
    assert any("newer" in problem for problem in sqlite.check(tmp_path / sqlite.DATABASE))
