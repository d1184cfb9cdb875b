"""Modules of the kernel."""

import subprocess

_AT_MOST_S = 30


def load_module(name: str) -> bool:
    """Whether it is loaded, or part of the kernel; False where that may not be done, or cannot."""
    try:
        return (
            subprocess.run(["modprobe", "--", name], capture_output=True, timeout=_AT_MOST_S, check=False).returncode
            == 0
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
