"""Versions of the SQLite layout and the steps from each to the next.

A step is SQL that runs in one transaction with the change of the version: an interrupted start leaves the
database at the old version.  Never edit a step that was released; add one.
"""

import sqlite3

from svcplane.base.errors import StoreError

STEPS: tuple[tuple[str, ...], ...] = (
    (
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE item (key TEXT PRIMARY KEY, value BLOB NOT NULL, revision INTEGER NOT NULL,"
        " created INTEGER NOT NULL) WITHOUT ROWID",
        "CREATE TABLE event (revision INTEGER NOT NULL, position INTEGER NOT NULL, key TEXT NOT NULL, value BLOB,"
        " previous BLOB, created INTEGER NOT NULL, previous_revision INTEGER NOT NULL,"
        " PRIMARY KEY (revision, position)) WITHOUT ROWID",
        "INSERT INTO meta VALUES ('version', 0), ('revision', 1), ('compacted', 1)",
    ),
)
SCHEMA_VERSION = len(STEPS)


def version_of(connection: sqlite3.Connection) -> int:
    """0 for an empty database."""
    if not connection.execute("SELECT 1 FROM sqlite_master WHERE name='meta'").fetchone():
        return 0
    row = connection.execute("SELECT value FROM meta WHERE name='version'").fetchone()
    return int(row[0]) if row else 0


def migrate(connection: sqlite3.Connection) -> None:
    """Bring a database to SCHEMA_VERSION.  Raises StoreError for one from the future."""
    version = version_of(connection)
    if version > SCHEMA_VERSION:
        raise StoreError(
            f"the database has layout version {version}, this program knows up to {SCHEMA_VERSION}; "
            "use the newer svcplane that wrote it, or restore an older back-up"
        )
    for number in range(version, SCHEMA_VERSION):
        connection.execute("BEGIN IMMEDIATE")
        for statement in STEPS[number]:
            connection.execute(statement)
        connection.execute("UPDATE meta SET value=? WHERE name='version'", (number + 1,))
        connection.execute("COMMIT")
