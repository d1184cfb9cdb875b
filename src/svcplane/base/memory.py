"""The collector and the heap of a process that builds one large state and then changes little of it.

Python's collector walks everything that lives again and again while it grows, which is half of the time of a start,
and later for a tenth of a second at a time, which is what a change would wait for.  The state has no cycles.
"""

import contextlib
import ctypes
import gc

_WHILE_GROWING = (100_000, 50, 1000)
_AFTERWARDS = (20_000, 20, 50)


def expect_growth() -> None:
    """Collect rarely from now on."""
    gc.set_threshold(*_WHILE_GROWING)


def settle() -> None:
    """What lives now will live on: leave it out of collections, and give back what was freed."""
    gc.freeze()
    gc.set_threshold(*_AFTERWARDS)
    with contextlib.suppress(AttributeError, OSError):  # glibc's
        ctypes.CDLL(None).malloc_trim(0)
