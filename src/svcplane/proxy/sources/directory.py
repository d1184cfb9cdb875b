"""A directory of manifest files as a Source: read at the start, read again as files are edited.

A file that cannot be read or holds a mistake is told of in one line, and what it held before stays; at the start,
where nothing was held before, it is an error.  Files whose name begins with a dot are left alone; a link is
followed, so a mounted ConfigMap works.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from stat import S_ISREG
from typing import Generic, TypeVar

from svcplane.api.core import Node, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.api.meta import Object
from svcplane.api.networking import ServiceCIDR
from svcplane.base.errors import ConfigError
from svcplane.base.tasks import cancel_and_wait
from svcplane.kernel.inotify import DirectoryWatch
from svcplane.proxy.sources.manifests import SUFFIXES, Manifest, ObjectKey, read
from svcplane.proxy.tracker import HEADLESS_LABEL, PROXY_NAME_LABEL

log = logging.getLogger(__name__)
SETTLE_S = 0.05  # edits come in bursts
LOOK_ANYWAY_S = 10.0  # file systems that tell of nothing, a directory that was replaced
T = TypeVar("T", bound=Object)
Stamp = tuple[int, int, int]  # modification time, size, inode


class _Feed(Generic[T]):
    """Implements `proxy.sources.Feed`."""

    def __init__(self) -> None:
        self.synced, self.tried = asyncio.Event(), asyncio.Event()
        self._items: dict[str, T] = {}
        self._handlers: list[Callable[[T | None, T | None], None]] = []

    @property
    def items(self) -> Mapping[str, T]:
        return self._items

    @property
    def version(self) -> str:
        return ""

    def on_change(self, handler: Callable[[T | None, T | None], None]) -> None:
        self._handlers.append(handler)

    def become(self, wanted: Mapping[str, T]) -> int:
        """Tell of the difference; how many objects differ."""
        changes: list[tuple[str, T | None, T | None]]
        changes = [(key, old, wanted.get(key)) for key, old in self._items.items() if wanted.get(key) != old]
        changes += [(key, None, new) for key, new in wanted.items() if key not in self._items]
        for key, old, new in changes:
            if new is None:
                del self._items[key]
            else:
                self._items[key] = new
            for handler in self._handlers:
                handler(old, new)
        self.synced.set()
        self.tried.set()
        return len(changes)


@dataclass(slots=True)
class _File:
    stamp: Stamp
    manifest: Manifest


class DirectorySource:
    """Implements `proxy.sources.Source`."""

    def __init__(self, directory: Path, node_name: str) -> None:
        self._directory, self._node_name = directory, node_name
        self.services: _Feed[Service] = _Feed()
        self.slices: _Feed[EndpointSlice] = _Feed()
        self.nodes: _Feed[Node] = _Feed()
        self.cidrs: _Feed[ServiceCIDR] = _Feed()
        self._files: dict[Path, _File] = {}
        self._told: dict[Path, str] = {}
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Read everything once.  Raises ConfigError for a mistake: there is no last good state to keep yet."""
        if not self._directory.is_dir():
            raise ConfigError(f"--manifests {self._directory}: is no directory")
        self._take(self._present() or {}, _load)
        for path, problem in self._told.items():
            raise ConfigError(f"--manifests {path}: {problem}")
        self._task = asyncio.create_task(self._run(), name="manifests")

    async def close(self) -> None:
        await cancel_and_wait(self._task)

    async def _run(self) -> None:
        watch = DirectoryWatch()
        try:
            while True:
                watch.watch(self._directory)
                places = self._linked()
                for place in places:
                    watch.watch(place)
                await self._look()
                if self._linked() != places:  # an edit there may have come before we watched
                    continue
                if await watch.changed(LOOK_ANYWAY_S):
                    while await watch.changed(SETTLE_S):
                        pass
        finally:
            watch.close()

    # -- looking ---------------------------------------------------------------------------------------------------

    async def _look(self) -> None:
        """Read what changed, and tell of it.  Without a change nothing is read."""
        present = self._present()
        if present is None:
            return
        changed = [
            path for path, stamp in present.items() if path not in self._files or self._files[path].stamp != stamp
        ]
        loaded = {path: await asyncio.to_thread(_load, path) for path in changed}
        self._take(present, loaded.get)

    def _take(self, present: Mapping[Path, Stamp], loaded: Callable[[Path], Manifest | str | None]) -> None:
        """Make these files the present ones.  `loaded` gives what a changed file holds, or what is wrong with it."""
        for path in [path for path in self._files if path not in present]:
            del self._files[path]
            self._told.pop(path, None)
            log.info("manifest removed: file=%s", path)
        for path, stamp in present.items():
            result = loaded(path)
            if result is None:
                continue
            before = self._files.get(path)
            kept = before.manifest if before is not None else Manifest()
            if isinstance(result, str):
                self._tell(path, f"{result}; what it held before stays" if kept.objects else result)
                result = kept
            else:
                self._told.pop(path, None)
                if result.passed_over:
                    log.warning("manifest: file=%s: the proxy does not read %s", path, ", ".join(result.passed_over))
            self._files[path] = _File(stamp, result)
        self._hand_on()

    def _present(self) -> dict[Path, Stamp] | None:
        """The files now; None where the directory itself cannot be read, and all stays as it is."""
        found: dict[Path, Stamp] = {}
        try:
            paths = sorted(self._directory.iterdir())
        except OSError as error:
            self._tell(self._directory, f"{error.strerror}; what it held stays")
            return None
        self._told.pop(self._directory, None)
        for path in paths:
            if path.suffix not in SUFFIXES or path.name.startswith("."):
                continue
            try:
                status = path.stat()
            except OSError:
                continue  # it went while we looked, or is a link to nowhere
            if S_ISREG(status.st_mode):
                found[path] = status.st_mtime_ns, status.st_size, status.st_ino
        return found

    def _linked(self) -> set[Path]:
        """Directories elsewhere that hold what links in ours lead to."""
        found = set()
        for path in self._files:
            with contextlib.suppress(OSError, RuntimeError):  # it went, or the links lead in a circle
                if path.is_symlink():
                    found.add(path.resolve().parent)
        return found

    def _hand_on(self) -> None:
        """Fold all files into one set of objects; of two with one name the first file's counts."""
        owner: dict[ObjectKey, Path] = {}
        objects: dict[str, dict[str, Object]] = {}
        for path in sorted(self._files):
            for key, item in self._files[path].manifest.objects.items():
                if key in owner:
                    self._tell(path, f"{key[0]} {key[1]}: is in {owner[key].name} already, which counts")
                    continue
                owner[key] = path
                if _wanted(key[0], item, self._node_name):
                    objects.setdefault(key[0], {})[key[1]] = item
        count = self.nodes.become(objects.get("Node", {}))  # type: ignore[arg-type]
        count += self.cidrs.become(objects.get("ServiceCIDR", {}))  # type: ignore[arg-type]
        count += self.services.become(objects.get("Service", {}))  # type: ignore[arg-type]
        count += self.slices.become(objects.get("EndpointSlice", {}))  # type: ignore[arg-type]
        if count:
            log.info("manifests: objects changed=%d files=%d", count, len(self._files))

    def _tell(self, path: Path, problem: str) -> None:
        """Once for each problem, not at each look; at the start it is an error instead."""
        known, self._told[path] = self._told.get(path), problem
        if known != problem and self._task is not None:
            log.error("manifest: file=%s: %s", path, problem)


def _load(path: Path) -> Manifest | str:
    """What a file holds, or what is wrong with it."""
    try:
        return read(path.read_text())
    except OSError as error:
        return error.strerror or str(error)
    except (ConfigError, UnicodeDecodeError) as error:
        return str(error)


def _wanted(kind: str, item: Object, node_name: str) -> bool:
    """What the label selectors of a watch leave out is left out here too."""
    labels = item.metadata.labels
    if kind == "Node":
        return item.metadata.name == node_name
    if kind == "EndpointSlice" and HEADLESS_LABEL in labels:
        return False
    return PROXY_NAME_LABEL not in labels
