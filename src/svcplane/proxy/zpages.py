"""/statusz and /flagz: which program this is, since when it runs, how it was called.  Pure.

For people; the form is that of Kubernetes' components.  Source: k8s.io/component-base/zpages.
"""

import platform
from collections.abc import Iterable, Mapping

from svcplane import __version__
from svcplane.base.clock import rfc3339
from svcplane.base.durations import format_duration

_NOTE = "Warning: This page is for people: its form may change with every version."


def statusz(began_wall: float, now_wall: float, paths: Iterable[str]) -> bytes:
    """`began_wall`, `now_wall`: seconds since 1970."""
    lines = [
        "svcplane proxy statusz",
        _NOTE,
        "",
        f"Started: {rfc3339(began_wall)}",
        f"Up: {format_duration(int(now_wall - began_wall))}",
        f"Python version: {platform.python_version()}",
        f"Binary version: {__version__}",
        f"Paths: {' '.join(paths)}",
    ]
    return ("\n".join(lines) + "\n").encode()


def flagz(flags: Mapping[str, str]) -> bytes:
    """The flags that were given or have a value of their own."""
    lines = ["svcplane proxy flags", _NOTE, "", *(f"{name}={value}" for name, value in sorted(flags.items()))]
    return ("\n".join(lines) + "\n").encode()
