"""The demonstration as a person runs it, and that it leaves nothing behind."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from svcplane.kernel.links.run import KernelLinks
from svcplane.lab.cluster import STATE

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.xdist_group("lab"),
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("ip", "nsenter"))), reason="needs root, iproute2, util-linux"
    ),
]

NAME = f"t{os.getpid()}"
PROGRAM = [sys.executable, "-c", "from svcplane.cli.main import main; main()"]
EXAMPLES = Path(__file__).resolve().parents[3] / "examples"


def demo(*flags: str) -> subprocess.Popen[str]:
    argv = [*PROGRAM, "lab", "demo", "--name", NAME, "--mode", "nftables", "--manifests", str(EXAMPLES), *flags]
    return subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def left_behind() -> list[str]:
    found = [*KernelLinks().namespaces(f"svclab-{NAME}-")]
    found += [str(path) for path in (STATE / NAME,) if path.exists()]
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and entry.name != str(os.getpid()):
            try:
                line = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if f"{STATE}/{NAME}/".encode() in line:
                found.append(line.decode().replace("\0", " "))
    return found


def test_demo_holds_and_leaves_nothing_behind() -> None:
    process = demo()
    output, _ = process.communicate(timeout=100)
    assert process.returncode == 0, output
    assert "passed:" in output
    assert left_behind() == []


def test_demo_interrupted_in_the_middle_leaves_nothing_behind() -> None:
    process = demo()
    assert process.stdout is not None
    line = process.stdout.readline()  # the lab is up and the demonstration has begun
    assert "a lab of 2 nodes" in line
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert left_behind() == []


def test_demo_interrupted_while_the_lab_is_made_leaves_nothing_behind() -> None:
    process = demo()
    until = time.monotonic() + 30
    while not KernelLinks().namespaces(f"svclab-{NAME}-") and time.monotonic() < until:
        time.sleep(0.01)
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)
    assert process.returncode == 130
    assert left_behind() == []


def test_second_lab_of_a_name_is_refused_in_one_line_and_the_first_stays(tmp_path: Path) -> None:
    up = [*PROGRAM, "lab", "up", "--name", NAME]
    down = [*PROGRAM, "lab", "down", "--name", NAME]
    try:
        subprocess.run(up, check=True, capture_output=True, timeout=60)
        again = subprocess.run(up, capture_output=True, text=True, timeout=60, check=False)
        assert again.returncode == 2
        assert again.stderr == f"svcplane: lab {NAME} exists: remove it with `svcplane lab down --name {NAME}`\n"
        assert left_behind()
    finally:
        subprocess.run(down, check=True, capture_output=True, timeout=60)
    assert left_behind() == []
