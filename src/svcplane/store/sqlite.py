"""The embedded store: SQLite in WAL mode with `synchronous=FULL`, one writer thread, shared commits.

All transactions that arrive while a commit waits for the disk go into the next one, so that durable writes
cost one fsync for many.  Reads and watches are served from memory (`memory.Core`), which shows a transaction
only once it is on disk.  The database holds the present state, and a log of recent events from which watches
resume after a restart.

Layout (version 1): `meta(name, value)`; `item(key, value, revision, created)`;
`event(revision, position, key, value, previous, created, previous_revision)`.
"""

import asyncio
import contextlib
import fcntl
import os
import sqlite3
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

from svcplane.base.errors import StoreError
from svcplane.store.contract import Event, KeyValue, PreconditionFailed, Revision, Transaction
from svcplane.store.history import History
from svcplane.store.memory import Core, CoreReads, Staged
from svcplane.store.migrations import SCHEMA_VERSION, migrate

DATABASE = "state.db"
LOCK = "lock"
PRUNE_EVERY = 5_000
#: How far a restore leaves the revisions behind that clients may have seen: more than a lost database can have given.
BUMP = 1_000_000_000
#: The writer asks for the interpreter some ten times a commit; a busy loop would keep each waiting for Python's 5 ms.
SWITCH_S = 0.0002


Batch = list[tuple[Staged, "asyncio.Future[Revision]"]]


class DataDirectory:
    """A directory that one process at a time may use."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock_fd: int | None = None

    @property
    def database(self) -> Path:
        return self.path / DATABASE

    def acquire(self) -> None:
        """Raise StoreError naming the process that uses it, or why it cannot be used."""
        try:
            self.path.mkdir(parents=True, exist_ok=True, mode=0o700)
            fd = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreError(f"data directory {self.path}: {error.strerror}") from error
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(fd, 32).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            raise StoreError(
                f"data directory {self.path} is in use by process {holder}; stop it or choose another --data-dir"
            ) from None
        os.ftruncate(fd, 0)
        os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
        self._lock_fd = fd

    def release(self) -> None:
        if self._lock_fd is not None:
            os.close(self._lock_fd)
            self._lock_fd = None


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn SQLite's errors into one line that says what to do."""
    try:
        yield
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            raise StoreError(f"database {path}: {error}; look whether its disk is full or broken") from error
        raise StoreError(
            f"database {path} is corrupt or unreadable ({error}); restore a back-up with `svcplane store restore`"
        ) from error


def open_database(path: Path) -> sqlite3.Connection:
    """Open, migrate and set up a database for writing.  Raises StoreError."""
    with explained(path):
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=10)
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if problem != "ok":
                raise sqlite3.DatabaseError(problem)
            migrate(connection)
        except BaseException:
            connection.close()
            raise
        return connection


class SqliteStore(CoreReads):
    """Implements `contract.Store`.  Make one with `await SqliteStore.open(path)`."""

    def __init__(self, directory: DataDirectory, connection: sqlite3.Connection, core: Core) -> None:
        self._directory, self._connection, self._core = directory, connection, core
        self._loop = asyncio.get_running_loop()
        self._queue: Batch = []
        self._condition = threading.Condition()
        self._stopping = False
        self._broken: StoreError | None = None
        self._since_prune = 0
        self._last: asyncio.Future[Revision] | None = None
        sys.setswitchinterval(min(SWITCH_S, sys.getswitchinterval()))
        self._thread = threading.Thread(target=self._write_forever, name="store-writer", daemon=True)
        self._thread.start()

    @classmethod
    async def open(cls, path: str | Path) -> "SqliteStore":
        """Lock, check, migrate and load.  Raises StoreError with one line for a person."""
        directory = DataDirectory(Path(path))
        directory.acquire()
        try:
            connection = open_database(directory.database)
            try:
                core = await asyncio.to_thread(_load, connection, directory.database)
            except BaseException:
                connection.close()
                raise
        except BaseException:
            directory.release()
            raise
        return cls(directory, connection, core)

    # -- contract ------------------------------------------------------------------------------------------------

    async def commit(self, transaction: Transaction) -> Revision:
        if self._broken is not None:
            raise self._broken
        try:
            staged = self._core.stage(transaction)
        except PreconditionFailed:
            # what stands against it may not be on disk yet: nobody may see that, nor read the old state and try again
            if self._last is not None:
                await asyncio.wait((self._last,))
            if self._broken is not None:
                raise self._broken from None
            raise
        done: asyncio.Future[Revision] = self._loop.create_future()
        self._last = done
        with self._condition:
            self._queue.append((staged, done))
            self._condition.notify()
        # a caller that goes away does not take back what is on its way to the disk
        return await asyncio.shield(done)

    async def compact(self, revision: Revision) -> None:
        self._core.history.compact(revision)
        self._since_prune = PRUNE_EVERY

    async def close(self) -> None:
        """Write what is queued, then close."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        await asyncio.to_thread(self._thread.join)
        await asyncio.sleep(0)  # let the last publications, queued by the thread, run
        self._core.close(StoreError("the store is closed"))
        self._connection.close()
        self._directory.release()

    # -- the writer thread -------------------------------------------------------------------------------------

    def _write_forever(self) -> None:
        while True:
            with self._condition:
                while not self._queue and not self._stopping:
                    self._condition.wait()
                batch, self._queue = self._queue, []
                if not batch:
                    return
            error: StoreError | None = None
            try:
                self._write(batch)
            except sqlite3.Error as problem:
                error = StoreError(f"database {self._directory.database} cannot be written: {problem}")
            self._loop.call_soon_threadsafe(self._finish, batch, error)
            if error is not None:
                return

    def _write(self, batch: Batch) -> None:
        connection = self._connection
        connection.execute("BEGIN IMMEDIATE")
        try:
            newest: dict[str, Event] = {}
            log = []
            for staged, _ in batch:
                for position, event in enumerate(staged.events):
                    newest[event.key] = event
                    log.append(_event_row(event, position))
            connection.executemany("INSERT INTO event VALUES (?,?,?,?,?,?,?)", log)
            connection.executemany(
                "INSERT OR REPLACE INTO item VALUES (?,?,?,?)",
                [(e.key, e.value, e.revision, e.created) for e in newest.values() if e.value is not None],
            )
            connection.executemany(
                "DELETE FROM item WHERE key=?", [(e.key,) for e in newest.values() if e.value is None]
            )
            connection.execute("UPDATE meta SET value=? WHERE name='revision'", (batch[-1][0].revision,))
            self._since_prune += len(log)
            if self._since_prune >= PRUNE_EVERY:
                self._since_prune = 0
                compacted = self._core.history.compacted
                connection.execute("DELETE FROM event WHERE revision<=?", (compacted,))
                connection.execute("UPDATE meta SET value=? WHERE name='compacted'", (compacted,))
            connection.execute("COMMIT")
        except sqlite3.Error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("ROLLBACK")
            raise

    def _finish(self, batch: Batch, error: StoreError | None) -> None:
        """On the loop: show what is on disk now, in order; or break for good."""
        if error is not None:
            self._broken = error
            self._core.abandon()
            with self._condition:
                batch = batch + self._queue
                self._queue = []
        for staged, done in batch:
            if error is None:
                self._core.publish(staged)
            if done.done():
                continue
            if error is None:
                done.set_result(staged.revision)
            else:
                done.set_exception(error)


def _event_row(event: Event, position: int) -> tuple[int, int, str, bytes | None, bytes | None, int, int]:
    return (
        event.revision,
        position,
        event.key,
        event.value,
        event.previous,
        event.created,
        event.previous_revision,
    )


def _load(connection: sqlite3.Connection, path: Path) -> Core:
    """The whole state into memory."""
    with explained(path):
        meta = dict(connection.execute("SELECT name, value FROM meta"))
        current, compacted = Revision(int(meta["revision"])), Revision(int(meta["compacted"]))
        history = History(compacted)
        rows = connection.execute("SELECT * FROM event WHERE revision>? ORDER BY revision, position", (compacted,))
        pending: list[Event] = []
        for revision, _, key, value, previous, created, previous_revision in rows:
            if pending and pending[0].revision != revision:
                history.append(pending, pending[0].revision, 0.0)
                pending = []
            pending.append(
                Event(key, value, previous, Revision(revision), Revision(created), Revision(previous_revision))
            )
        if pending:
            history.append(pending, pending[0].revision, 0.0)
        history.append((), current, 0.0)
        core = Core(history)
        for key, value, revision, created in connection.execute("SELECT key, value, revision, created FROM item"):
            core.load(KeyValue(key, value, Revision(revision), Revision(created)))
        return core


def check(path: Path) -> list[str]:
    """What is wrong with a database file; an empty list where nothing is.  The file is not changed."""
    if not path.exists():
        return [f"{path}: no such file"]
    problems: list[str] = []
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            problems += [row[0] for row in connection.execute("PRAGMA integrity_check") if row[0] != "ok"]
            meta = dict(connection.execute("SELECT name, value FROM meta"))
            if int(meta.get("version", 0)) > SCHEMA_VERSION:
                problems.append(f"layout version {meta['version']} is newer than this program's {SCHEMA_VERSION}")
            newest = connection.execute("SELECT max(revision) FROM item").fetchone()[0] or 0
            if newest > int(meta["revision"]):
                problems.append(f"an item has revision {newest}, newer than the store's {meta['revision']}")
            stray = connection.execute("SELECT key FROM item WHERE created>revision LIMIT 5").fetchall()
            problems += [f"{key}: created after its last change" for (key,) in stray]
        finally:
            connection.close()
    except (sqlite3.Error, KeyError, ValueError) as error:
        problems.append(f"{path}: {error}")
    return problems


def backup(path: Path, target: Path) -> None:
    """Copy a database, also one in use, into one new file.  Raises StoreError."""
    if not path.exists():
        raise StoreError(f"{path}: no such database")
    if target.exists():
        raise StoreError(f"{target} exists already; a back-up never overwrites")
    partial = target.with_name(target.name + ".partial")
    with explained(path):
        source = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        copy = sqlite3.connect(partial)
        try:
            source.backup(copy)
            copy.execute("PRAGMA journal_mode=DELETE")
        finally:
            copy.close()
            source.close()
    with open(partial, "rb") as file:
        os.fsync(file.fileno())
    os.replace(partial, target)


def _revision_of(path: Path) -> int:
    """The newest revision of a database; 0 where there is none that can be read."""
    if not path.exists():
        return 0
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        try:
            return int(connection.execute("SELECT value FROM meta WHERE name='revision'").fetchone()[0])
        finally:
            connection.close()
    except (sqlite3.Error, TypeError):
        return 0


def _begin_after(path: Path, revision: int) -> None:
    """Number what comes next well after `revision`, and forget the history: who has read on from here lists again."""
    with explained(path):
        connection = sqlite3.connect(path)
        try:
            connection.execute("DELETE FROM event")
            connection.execute("UPDATE meta SET value=? WHERE name IN ('revision', 'compacted')", (revision + BUMP,))
            connection.commit()
        finally:
            connection.close()


def restore(path: Path, source: Path) -> None:
    """Put a checked back-up in the place of the data directory's database.  The old one is kept as `.old`.

    Revisions go on after those of the database that is replaced: a client that had seen newer ones than the back-up
    holds would wait for them, and then take the changes up to them for known.
    """
    problems = check(source)
    if problems:
        raise StoreError(f"back-up {source} is not usable: {problems[0]}")
    directory = DataDirectory(path)
    directory.acquire()
    try:
        target = directory.database
        fresh = target.with_name(target.name + ".restored")
        fresh.unlink(missing_ok=True)
        backup(source, fresh)
        _begin_after(fresh, max(_revision_of(target), _revision_of(fresh)))
        for suffix in ("", "-wal", "-shm"):
            present = target.with_name(target.name + suffix)
            if present.exists():
                os.replace(present, target.with_name(target.name + ".old" + suffix))
        os.replace(fresh, target)
    finally:
        directory.release()
