"""Being told of edits in directories: inotify(7), by its three system calls.

What changed is not told, only that something did: the caller looks.  Only finished edits count (a file closed after
writing, renamed, removed), so that half a file is not read where its writer takes its time.
"""

import asyncio
import ctypes
import os
from pathlib import Path

from svcplane.base.errors import EnvironmentProblem

# linux/inotify.h
_CLOSE_WRITE, _MOVED, _CREATE, _DELETE = 0x8, 0xC0, 0x100, 0x200
_DELETE_SELF, _MOVE_SELF = 0x400, 0x800
_MASK = _CLOSE_WRITE | _MOVED | _CREATE | _DELETE | _DELETE_SELF | _MOVE_SELF
_libc = ctypes.CDLL(None, use_errno=True)


class DirectoryWatch:
    """Opened in a running event loop.  Call `watch` before each look, else an edit between the two may be missed."""

    def __init__(self) -> None:
        self._fd: int = _libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
        if self._fd < 0:
            reason = os.strerror(ctypes.get_errno())
            raise EnvironmentProblem(f"cannot watch for edits: {reason}; raise fs.inotify.max_user_instances")
        self._told = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._fd, self._read)

    def watch(self, directory: Path) -> bool:
        """Be told of edits in `directory`; again for one already watched does nothing.  False where it is not there."""
        return bool(_libc.inotify_add_watch(self._fd, os.fsencode(directory), _MASK) >= 0)

    def _read(self) -> None:
        try:
            while os.read(self._fd, 65536):
                self._told.set()
        except BlockingIOError:
            pass

    async def changed(self, at_most_s: float) -> bool:
        """Wait until something changed (True), or so many seconds (False)."""
        try:
            await asyncio.wait_for(self._told.wait(), at_most_s)
        except TimeoutError:
            return False
        self._told.clear()
        return True

    def close(self) -> None:
        if self._fd >= 0:
            asyncio.get_running_loop().remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1
