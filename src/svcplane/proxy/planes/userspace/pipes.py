"""Pipes for splicing, kept for the next direction that needs one."""

import fcntl
import os

SIZES = (1_048_576, 262_144)  # the larger, the fewer system calls for a byte; and the more waits for a stalled client
LARGE = 64  # in use at once; others are of the smaller size
KEPT = 64
F_SETPIPE_SZ = 1031


class Pipe:
    __slots__ = ("reader", "size", "writer")

    def __init__(self, sizes: tuple[int, ...]) -> None:
        """Raises OSError without descriptors.  The kernel may refuse the sizes to users: then it is smaller."""
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.size = 65_536
        for size in sizes:
            try:
                self.size = fcntl.fcntl(self.writer, F_SETPIPE_SZ, size)
            except OSError:
                continue
            return

    def close(self) -> None:
        os.close(self.reader)
        os.close(self.writer)


class PipePool:
    def __init__(self) -> None:
        self._free: list[Pipe] = []
        self._taken = 0

    def take(self) -> Pipe | None:
        """None where the process has no descriptors left."""
        if self._free:
            pipe = self._free.pop()
        else:
            try:
                pipe = Pipe(SIZES if self._taken < LARGE else SIZES[1:])
            except OSError:
                return None
        self._taken += 1
        return pipe

    def give_back(self, pipe: Pipe, *, dirty: bool) -> None:
        """`dirty`: there are bytes in it."""
        self._taken -= 1
        if dirty or len(self._free) >= KEPT:
            pipe.close()
        else:
            self._free.append(pipe)
