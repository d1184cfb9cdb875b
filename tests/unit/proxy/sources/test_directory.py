"""A directory of manifests: edits are followed, mistakes change nothing."""

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from svcplane.api.core import Service
from svcplane.base.errors import ConfigError
from svcplane.proxy.sources.directory import DirectorySource

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: NAME}
spec: {clusterIP: 10.96.0.10, ports: [{port: PORT}]}
"""


def service(name: str = "web", port: int = 80) -> str:
    return SERVICE.replace("NAME", name).replace("PORT", str(port))


class Seen:
    """A running source, and what it told."""

    def __init__(self, directory: Path) -> None:
        self.source = DirectorySource(directory, "n1")
        self.changes: list[str] = []
        self._told = asyncio.Event()
        self.source.services.on_change(self._changed)

    def _changed(self, old: Service | None, new: Service | None) -> None:
        word = "+" if old is None else "-" if new is None else "~"
        item = new or old
        assert item is not None
        self.changes.append(f"{word}{item.metadata.name}:{item.spec.ports[0].port}")
        self._told.set()

    async def until(self, done: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not done():
                await asyncio.sleep(0.01)


@pytest.fixture
async def seen(tmp_path: Path) -> AsyncIterator[Seen]:
    (tmp_path / "a.yaml").write_text(service())
    seen = Seen(tmp_path)
    seen.source.start()
    await seen.source.services.synced.wait()
    yield seen
    await seen.source.close()


async def test_edits_are_followed(seen: Seen, tmp_path: Path) -> None:
    assert seen.changes == ["+web:80"]
    (tmp_path / "a.yaml").write_text(service(port=81))
    await seen.until(lambda: len(seen.changes) == 2)
    (tmp_path / "b.json").write_text(
        '{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b"}, '
        '"spec": {"clusterIP": "10.96.0.11", "ports": [{"port": 1}]}}'
    )
    await seen.until(lambda: len(seen.changes) == 3)
    (tmp_path / "a.yaml").unlink()
    await seen.until(lambda: len(seen.changes) == 4)
    assert seen.changes == ["+web:80", "~web:81", "+b:1", "-web:81"]


async def test_a_mistake_is_told_once_and_changes_nothing(
    seen: Seen, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    (tmp_path / "a.yaml").write_text(service().replace("port: 80", "port: 99999"))
    await seen.until(lambda: bool(caplog.records))
    (tmp_path / "other.txt").write_text("")  # another look
    (tmp_path / "c.yaml").write_text(service("c"))
    await seen.until(lambda: len(seen.changes) == 2)
    assert seen.changes == ["+web:80", "+c:80"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert str(tmp_path / "a.yaml") in line
    assert "spec.ports[0].port: Invalid value: 99999" in line
    assert "what it held before stays" in line
    (tmp_path / "a.yaml").write_text(service(port=82))
    await seen.until(lambda: len(seen.changes) == 3)
    assert seen.changes[-1] == "~web:82"


async def test_a_file_emptied_keeps_its_objects(seen: Seen, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.ERROR)
    (tmp_path / "a.yaml").write_text("")
    await seen.until(lambda: bool(caplog.records))
    assert seen.changes == ["+web:80"]


async def test_links_are_followed_as_configmaps_are_mounted(tmp_path: Path) -> None:
    for version, port in (("v1", 80), ("v2", 90)):
        (tmp_path / version).mkdir()
        (tmp_path / version / "a.yaml").write_text(service(port=port))
    mount = tmp_path / "mount"
    mount.mkdir()
    os.symlink("../v1", mount / "..data")
    os.symlink("..data/a.yaml", mount / "a.yaml")
    seen = Seen(mount)
    seen.source.start()
    try:
        await seen.source.services.synced.wait()
        os.symlink("../v2", mount / "..data_tmp")
        os.rename(mount / "..data_tmp", mount / "..data")
        await seen.until(lambda: len(seen.changes) == 2)
        assert seen.changes == ["+web:80", "~web:90"]
        (tmp_path / "v2" / "a.yaml").write_text(service(port=91))  # where the link leads, not where it is
        await seen.until(lambda: len(seen.changes) == 3)
        assert seen.changes[2] == "~web:91"
    finally:
        await seen.source.close()


async def test_of_two_files_with_one_object_the_first_counts(
    seen: Seen, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    (tmp_path / "b.yaml").write_text(service(port=99))
    await seen.until(lambda: bool(caplog.records))
    assert seen.changes == ["+web:80"]
    assert "Service default/web: is in a.yaml already" in caplog.text


async def test_no_directory_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is no directory"):
        DirectorySource(tmp_path / "none", "n1").start()


async def test_a_mistake_at_the_start_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text(service().replace("clusterIP", "clusterIp"))
    with pytest.raises(ConfigError, match=r'a.yaml: Service web: unknown field "spec.clusterIp"$'):
        DirectorySource(tmp_path, "n1").start()
