"""Databases of earlier versions are opened, brought to the present layout, and serve.

`layout-N.sql` is what an API server of that layout left behind (see `stored` for what is in it).  Whoever adds a
step to `store.migrations` adds the dump of a database that the step has to deal with.
"""

import asyncio
import re
import sqlite3
from pathlib import Path

import pytest

from svcplane.base.errors import StoreError
from svcplane.store import migrations, sqlite
from svcplane.store.contract import Put, Revision, Transaction
from svcplane.store.sqlite import DATABASE, SqliteStore
from svcplane.testing.server import Caller, in_process_server

HERE = Path(__file__).parent
DUMPS = {int(path.stem.removeprefix("layout-")): path for path in HERE.glob("layout-*.sql")}
SERVICES = "/api/v1/namespaces/shop/services"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices"
#: The Service was made at this revision and labelled anew at NEWEST.
MADE, NEWEST = Revision(12), Revision(14)


def stored(version: int, directory: Path) -> Path:
    """A data directory with a namespace `shop`, a NodePort Service `web` in it and its slice."""
    directory.mkdir()
    connection = sqlite3.connect(directory / DATABASE)
    connection.executescript(DUMPS[version].read_text())
    connection.close()
    return directory


def layout(path: Path) -> dict[str, str]:
    connection = sqlite3.connect(path)
    try:
        rows = connection.execute("SELECT name, sql FROM sqlite_master WHERE sql IS NOT NULL")
        return {name: re.sub(r"\s+", " ", sql) for name, sql in rows}
    finally:
        connection.close()


def test_each_layout_that_there_was_has_its_dump() -> None:
    assert set(DUMPS) == set(range(1, migrations.SCHEMA_VERSION + 1))


@pytest.mark.parametrize("version", sorted(DUMPS))
async def test_an_upgraded_database_is_laid_out_as_a_new_one(version: int, tmp_path: Path) -> None:
    old = stored(version, tmp_path / "old")
    for directory in (old, tmp_path / "new"):
        await (await SqliteStore.open(directory)).close()
    assert layout(old / DATABASE) == layout(tmp_path / "new" / DATABASE)
    assert sqlite.check(old / DATABASE) == []


@pytest.mark.parametrize("version", sorted(DUMPS))
@pytest.mark.parametrize("restored", [False, True])
async def test_an_earlier_database_serves(version: int, restored: bool, tmp_path: Path) -> None:
    """As it lies there, or as a back-up that is restored."""
    directory = stored(version, tmp_path / "data")
    if restored:
        sqlite.backup(directory / DATABASE, tmp_path / "copy.db")
        (directory / DATABASE).unlink()
        sqlite.restore(directory, tmp_path / "copy.db")
    store = await SqliteStore.open(directory)
    async with in_process_server(store=store) as server:
        api = Caller(server.handle)
        _, web = await api.call("GET", f"{SERVICES}/web")
        assert web["metadata"]["uid"] == "ae7ffca1-574a-4798-a630-53c4ec296a8d"
        assert web["metadata"]["resourceVersion"] == str(NEWEST)
        assert (web["metadata"]["labels"], web["spec"]["clusterIP"]) == ({"tier": "back"}, "10.96.0.80")
        _, slices = await api.call("GET", SLICES)
        assert [item["metadata"]["name"] for item in slices["items"]] == ["web-1"]
        # what is allocated is known
        for spec in ({"clusterIP": "10.96.0.80"}, {"type": "NodePort", "ports": [{"port": 80, "nodePort": 30080}]}):
            body = {"metadata": {"name": "other"}, "spec": {"ports": [{"port": 80}], **spec}}
            status, answer = await api.call("POST", SERVICES, body)
            assert status == 422
            assert "already allocated" in answer["message"]
        # and is free when its Service goes
        assert (await api.call("DELETE", f"{SERVICES}/web"))[0] == 200
        body = {"metadata": {"name": "other"}, "spec": {"ports": [{"port": 80}], "clusterIP": "10.96.0.80"}}
        assert (await api.call("POST", SERVICES, body))[0] == 201
    await store.close()


@pytest.mark.parametrize("version", sorted(DUMPS))
async def test_watches_resume_where_the_earlier_server_left_them(version: int, tmp_path: Path) -> None:
    store = await SqliteStore.open(stored(version, tmp_path / "data"))
    watch = await store.watch("/registry/services/", MADE)
    (event,) = await asyncio.wait_for(watch.read(1), 5) or ()
    assert (event.key, event.revision, event.previous_revision) == ("/registry/services/shop/web", NEWEST, MADE)
    assert b'"tier":"front"' in (event.previous or b"")
    assert b'"tier":"back"' in (event.value or b"")
    await store.close()


STEP = ("CREATE TABLE added (name TEXT PRIMARY KEY)", "INSERT INTO added SELECT key FROM item")


def next_version(monkeypatch: pytest.MonkeyPatch, *step: str) -> None:
    steps = (*migrations.STEPS, step)
    monkeypatch.setattr(migrations, "STEPS", steps)
    for module in (migrations, sqlite):
        monkeypatch.setattr(module, "SCHEMA_VERSION", len(steps))


async def test_a_next_step_is_taken_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = stored(migrations.SCHEMA_VERSION, tmp_path / "data")
    next_version(monkeypatch, *STEP)
    for number in range(2):
        store = await SqliteStore.open(directory)
        assert await store.revision() == NEWEST + number
        await store.commit(Transaction((Put("/x", b"1"),)))
        await store.close()
    connection = sqlite3.connect(directory / DATABASE)
    assert connection.execute("SELECT value FROM meta WHERE name='version'").fetchone()[0] == len(migrations.STEPS)
    assert ("/registry/services/shop/web",) in connection.execute("SELECT name FROM added").fetchall()
    connection.close()
    assert sqlite.check(directory / DATABASE) == []


async def test_a_step_that_fails_half_way_leaves_the_earlier_database_usable(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = stored(migrations.SCHEMA_VERSION, tmp_path / "data")
    before = layout(directory / DATABASE)
    with monkeypatch.context() as later:
        next_version(later, *STEP, "INSERT INTO nowhere VALUES (1)")
        with pytest.raises(StoreError, match=r"state\.db.*nowhere"):
            await SqliteStore.open(directory)
    assert layout(directory / DATABASE) == before
    store = await SqliteStore.open(directory)
    assert await store.revision() == NEWEST
    await store.close()


async def test_an_older_program_says_what_to_do_with_a_newer_database(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = stored(migrations.SCHEMA_VERSION, tmp_path / "data")
    with monkeypatch.context() as later:
        next_version(later, *STEP)
        await (await SqliteStore.open(directory)).close()
        sqlite.backup(directory / DATABASE, tmp_path / "copy.db")
    with pytest.raises(StoreError, match="use the newer svcplane"):
        await SqliteStore.open(directory)
    with pytest.raises(StoreError, match="not usable"):
        sqlite.restore(tmp_path / "elsewhere", tmp_path / "copy.db")
