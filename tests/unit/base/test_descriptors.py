"""The limit of open files."""

import subprocess
import sys


def test_the_soft_limit_becomes_the_hard_one() -> None:
    code = (
        "import resource; from svcplane.base.descriptors import allow_many\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (100, 200))\n"
        "print(allow_many(), *resource.getrlimit(resource.RLIMIT_NOFILE))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True).split() == ["200"] * 3
