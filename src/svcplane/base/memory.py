"""The collector and the heap of a process that builds one large state and then changes little of it.

Python's collector walks everything that lives again and again while it grows, which is half of the time of a start,
and later for a tenth of a second at a time, which is what a change would wait for.  The state has no cycles.
"""

import asyncio
import contextlib
import ctypes
import gc

#: So long, in seconds, is worth waiting for the growth to end.
GROWTH_S = 60.0
_AFTERWARDS = (20_000, 20, 50)


def expect_growth() -> None:
    """Do not collect until `settle` is called, or for a minute: who waits for its API server collects meanwhile.
    Within a running loop."""
    gc.disable()
    asyncio.get_running_loop().call_later(GROWTH_S, _end_growth)


def _end_growth() -> None:
    if not gc.isenabled():
        settle()


def settle() -> None:
    """What lives now will live on: leave it out of collections, and give back what was freed."""
    gc.freeze()
    gc.set_threshold(*_AFTERWARDS)
    gc.enable()
    with contextlib.suppress(AttributeError, OSError):  # glibc's
        ctypes.CDLL(None).malloc_trim(0)
