"""`svcplane store`: back up, restore and check an API server's data."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from svcplane.base.errors import ConfigError, StoreError

if TYPE_CHECKING:
    from svcplane.store.etcd import EtcdAccess

FILE = click.Path(path_type=Path)


def where(verb: Callable[..., None]) -> Callable[..., None]:
    """The flags that say which store is meant; `etcd` is handed on, None for the data directory's database."""

    def called(
        etcd_servers: str, etcd_cafile: Path | None, etcd_certfile: Path | None, etcd_keyfile: Path | None, **rest: Any
    ) -> None:
        from svcplane.store.etcd import EtcdAccess

        access = EtcdAccess.parse(etcd_servers, etcd_cafile, etcd_certfile, etcd_keyfile) if etcd_servers else None
        verb(etcd=access, **rest)

    called.__name__, called.__doc__ = verb.__name__, verb.__doc__
    called.__click_params__ = getattr(verb, "__click_params__", [])  # type: ignore[attr-defined]
    for option in (
        click.option("--etcd-keyfile", type=FILE, help="Its key."),
        click.option("--etcd-certfile", type=FILE, help="Client certificate for etcd."),
        click.option("--etcd-cafile", type=FILE, help="Authority of etcd's certificate."),
        click.option("--etcd-servers", default="", help="URLs of etcd, for an API server that keeps its data there."),
        click.option("--data-dir", default="/var/lib/svcplane", show_default=True, type=FILE),
    ):
        called = option(called)
    return called


@click.group(short_help="Back up, restore and check an API server's data.")
def store() -> None:
    """Care for the embedded database, or etcd."""


@store.command()
@where
@click.argument("file", type=FILE)
def backup(data_dir: Path, etcd: "EtcdAccess | None", file: Path) -> None:
    """Copy the data into FILE; the server may run meanwhile.  Of etcd this is a snapshot as etcdctl makes it."""
    from svcplane.store import sqlite
    from svcplane.store.etcd import care

    if etcd is not None:
        asyncio.run(care.backup(etcd, file))
    else:
        sqlite.backup(data_dir / sqlite.DATABASE, file)
    click.echo(f"backed up to {file}")


@store.command()
@where
@click.argument("file", type=FILE)
def restore(data_dir: Path, etcd: "EtcdAccess | None", file: Path) -> None:
    """Put a back-up in the database's place; the server must be stopped.  The old one is kept as state.db.old."""
    from svcplane.store import sqlite
    from svcplane.store.etcd import care

    if etcd is not None:
        raise ConfigError(care.RESTORE.replace("FILE", str(file)))
    sqlite.restore(data_dir, file)
    click.echo(f"restored from {file}")


@store.command()
@where
def check(data_dir: Path, etcd: "EtcdAccess | None") -> None:
    """Look for damage; exit status 1 where there is some."""
    from svcplane.store import sqlite
    from svcplane.store.etcd import care

    problems = asyncio.run(care.check(etcd)) if etcd is not None else sqlite.check(data_dir / sqlite.DATABASE)
    if problems:
        raise StoreError("; ".join(problems))
    click.echo("no damage found")
