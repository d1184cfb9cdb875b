"""Fixtures and rules for all tests: what is missing is said loudly, and in CI nothing may be missing."""

import os
import shutil
import signal
from functools import cache

import pytest

from svcplane.kernel.io_uring import Ring


def pytest_configure() -> None:
    """A shell starts what runs in the background with SIGINT ignored, which every process started here would inherit:
    tests that interrupt one as Ctrl-C does would wait for ever."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@cache
def without_io_uring() -> str:
    """Why there is none; nothing where there is."""
    try:
        Ring().close()
    except OSError as problem:
        return str(problem)
    return ""


def lacks(item: pytest.Item) -> list[str]:
    """What a test needs and this machine does not have."""
    found = []
    if item.get_closest_marker("root") and os.geteuid() != 0:
        found.append("root (run as root)")
    if item.get_closest_marker("io_uring") and (problem := without_io_uring()):
        found.append(f"io_uring ({problem}; Linux 6.1 that does not forbid it has it)")
    for marker in item.iter_markers("tools"):
        found += [f"the program {name} (make dev installs it)" for name in marker.args if not shutil.which(name)]
    return found


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what this machine cannot run; in CI that is a failure."""
    missing = lacks(item)
    if missing:
        reason = f"needs {', '.join(missing)}"
        if os.environ.get("CI"):
            pytest.fail(reason, pytrace=False)
        pytest.skip(reason)
