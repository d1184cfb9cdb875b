"""Reading container logs: the text format and `kubectl logs`' options.

A line of a log file is `TIME STREAM TAG TEXT`; tag P marks a part of a line that goes on (the CRI log format).
Files of one run are LOG.n (oldest) ... LOG.1, LOG.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from svcplane.base.clock import Clock
from svcplane.base.errors import ConfigError

FOLLOW_POLL_S = 0.1
CHUNK = 64 << 10


@dataclass(frozen=True, slots=True)
class Options:
    """As PodLogOptions.  `since`: seconds since the epoch."""

    tail: int | None = None
    since: float | None = None
    timestamps: bool = False
    follow: bool = False
    previous: bool = False
    limit_bytes: int | None = None


def parse_options(query: Mapping[str, str], now: float) -> Options:
    """From a query string.  Raises ConfigError naming the parameter."""

    def number(name: str, least: int) -> int | None:
        text = query.get(name, "")
        if not text:
            return None
        if not text.lstrip("-").isdigit() or int(text) < least:
            raise ConfigError(f'{name} must be a number of at least {least}, not "{text}"')
        return int(text)

    seconds = number("sinceSeconds", 1)
    since = now - seconds if seconds is not None else None
    if query.get("sinceTime"):
        try:
            moment = datetime.fromisoformat(query["sinceTime"])
        except ValueError as error:
            raise ConfigError(f'sinceTime must be an RFC 3339 time, not "{query["sinceTime"]}"') from error
        since = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return Options(
        number("tailLines", 0),
        since,
        query.get("timestamps") in ("true", "1"),
        query.get("follow") in ("true", "1"),
        query.get("previous") in ("true", "1"),
        number("limitBytes", 1),
    )


def seconds_of(stamp: bytes) -> float:
    """`2026-01-02T03:04:05.123456789Z` as seconds since the epoch; 0 if it is no time."""
    try:
        return datetime.fromisoformat(stamp[:26].decode() + "+00:00").timestamp()
    except ValueError:
        return 0.0


def render(line: bytes, options: Options) -> bytes | None:
    """What a reader gets for one line of the file; None if it is too old or torn."""
    words = line.split(b" ", 3)
    if len(words) < 4:
        return None
    stamp, _, tag, text = words
    if options.since is not None and seconds_of(stamp) < options.since:
        return None
    head = stamp + b" " if options.timestamps else b""
    return head + text + (b"" if tag == b"P" else b"\n")


def files_of(path: Path) -> list[Path]:
    """A run's files, oldest first."""
    rotated = [file for file in path.parent.glob(f"{path.name}.*") if file.suffix[1:].isdigit()]
    rotated.sort(key=lambda file: -int(file.suffix[1:]))
    return [*rotated, path]


def _lines(files: Iterable[Path]) -> Iterator[bytes]:
    for file in files:
        with suppress(FileNotFoundError), open(file, "rb") as opened:
            for line in opened:
                yield line.rstrip(b"\n")


def last_lines(files: list[Path], count: int) -> list[bytes]:
    """The last lines over all files, reading no more of their ends than needed."""
    found: list[bytes] = []
    for file in reversed(files):
        need = count - len(found)
        if need <= 0:
            break
        found = _end_of(file, need) + found
    return found[-count:] if count else []


def _end_of(file: Path, count: int) -> list[bytes]:
    try:
        opened = open(file, "rb")  # noqa: SIM115 - closed by the with below; a rotated file may be gone
    except FileNotFoundError:
        return []
    with opened:
        position, data = opened.seek(0, 2), b""
        while position > 0 and data.count(b"\n") <= count:
            step = min(CHUNK, position)
            position -= step
            opened.seek(position)
            data = opened.read(step) + data
    return data.splitlines()[-count:]


async def read(path: Path, options: Options, clock: Clock, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    """The log in chunks.  With `follow`, until `ended()` and everything is read."""
    left = options.limit_bytes
    async for chunk in _chunks(path, options, clock, ended):
        if left is not None:
            chunk = chunk[:left]
            left -= len(chunk)
        if chunk:
            yield chunk
        if left == 0:
            return


async def _chunks(path: Path, options: Options, clock: Clock, ended: Callable[[], bool]) -> AsyncIterator[bytes]:
    follower = Follower(path)
    if options.follow:
        follower.skip()  # what is there is read below, what comes later by the follower
    files = files_of(path)
    lines = await asyncio.to_thread(last_lines, files, options.tail) if options.tail is not None else _lines(files)
    batch, size = [], 0
    for line in lines:
        text = render(line, options)
        if text is not None:
            batch.append(text)
            size += len(text)
        if size >= CHUNK:
            yield b"".join(batch)
            batch, size = [], 0
            await asyncio.sleep(0)
    yield b"".join(batch)
    while options.follow:
        over = ended()
        texts = [render(line, options) for line in follower.new_lines()]
        yield b"".join(text for text in texts if text)
        if over:
            return
        await clock.sleep(FOLLOW_POLL_S)


class Follower:
    """Lines appended to a log, across its rotation."""

    def __init__(self, path: Path) -> None:
        self._path, self._inode, self._offset, self._rest = path, 0, 0, b""

    def skip(self) -> None:
        """Begin at the end of what is there now."""
        with suppress(FileNotFoundError):
            state = self._path.stat()
            self._inode, self._offset = state.st_ino, state.st_size

    def new_lines(self) -> list[bytes]:
        data = b""
        with suppress(FileNotFoundError):
            state = self._path.stat()
            if state.st_ino != self._inode:
                if self._inode:
                    data += self._read(self._path.with_name(self._path.name + ".1"))
                self._inode, self._offset = state.st_ino, 0
            data += self._read(self._path)
        *lines, self._rest = (self._rest + data).split(b"\n")
        return lines

    def _read(self, path: Path) -> bytes:
        with suppress(FileNotFoundError), open(path, "rb") as opened:
            opened.seek(self._offset)
            data = opened.read()
            self._offset += len(data)
            return data
        return b""
