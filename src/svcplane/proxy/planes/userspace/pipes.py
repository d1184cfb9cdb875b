"""Pipes for splicing, kept for the next direction that needs one."""

import fcntl
import os

#: The larger, the fewer system calls for a byte; and the more waits for a stalled client.
LARGE, ALONE, SMALL = 1_048_576, 524_288, 262_144
MANY = 64  # in use at once: further ones are small
KEPT = 64  # of each size
F_SETPIPE_SZ = 1031


class Pipe:
    __slots__ = ("reader", "size", "wanted", "writer")

    def __init__(self, wanted: int) -> None:
        """Raises OSError without descriptors.  The kernel may refuse the size to users: then it is smaller."""
        self.reader, self.writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self.wanted, self.size = wanted, 65_536
        for size in (wanted, SMALL):
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
        self._free: dict[int, list[Pipe]] = {LARGE: [], ALONE: [], SMALL: []}
        self._taken = 0

    def take(self) -> Pipe | None:
        """None where the process has no descriptors left.

        One that flows alone has a smaller one: its two ends work while we pass on what was before, and wait the less
        for us the sooner that is.  Several keep each other busy, and large ones save them system calls.
        """
        wanted = SMALL if self._taken >= MANY else LARGE if self._taken else ALONE
        if self._free[wanted]:
            pipe = self._free[wanted].pop()
        else:
            try:
                pipe = Pipe(wanted)
            except OSError:
                return None
        self._taken += 1
        return pipe

    def give_back(self, pipe: Pipe, *, dirty: bool) -> None:
        """`dirty`: there are bytes in it."""
        self._taken -= 1
        free = self._free[pipe.wanted]
        if dirty or len(free) >= KEPT:
            pipe.close()
        else:
            free.append(pipe)
