"""`svcplane store`: back up, restore and check an API server's data."""

from pathlib import Path

import click

from svcplane.base.errors import StoreError

DATA_DIR = click.option("--data-dir", default="/var/lib/svcplane", show_default=True, type=click.Path(path_type=Path))


@click.group(short_help="Back up, restore and check an API server's data.")
def store() -> None:
    """Care for the embedded database."""


@store.command()
@DATA_DIR
@click.argument("file", type=click.Path(path_type=Path))
def backup(data_dir: Path, file: Path) -> None:
    """Copy the database into FILE; the server may run meanwhile."""
    from svcplane.store import sqlite

    sqlite.backup(data_dir / sqlite.DATABASE, file)
    click.echo(f"backed up to {file}")


@store.command()
@DATA_DIR
@click.argument("file", type=click.Path(path_type=Path))
def restore(data_dir: Path, file: Path) -> None:
    """Put a back-up in the database's place; the server must be stopped.  The old one is kept as state.db.old."""
    from svcplane.store import sqlite

    sqlite.restore(data_dir, file)
    click.echo(f"restored from {file}")


@store.command()
@DATA_DIR
def check(data_dir: Path) -> None:
    """Look for damage; exit status 1 where there is some."""
    from svcplane.store import sqlite

    problems = sqlite.check(data_dir / sqlite.DATABASE)
    if problems:
        raise StoreError("; ".join(problems))
    click.echo("no damage found")
