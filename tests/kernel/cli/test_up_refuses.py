"""`svcplane up` with wrong input or on a host that lacks something: one line, and nothing half done.

Each call is in a network namespace of its own, so that one that starts by mistake does not touch the host.
"""

import fcntl
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from svcplane.store import sqlite

pytestmark = [pytest.mark.root, pytest.mark.tools("ip", "unshare", "setpriv")]

PROGRAM = [sys.executable, "-c", "from svcplane.cli.main import main; main()", "up"]


def refuses(data: Path, *flags: str, before: tuple[str, ...] = (), path: str = "") -> tuple[int, str]:
    """Exit status and the one line."""
    argv = ["unshare", "--net", *before, *PROGRAM, "--data-dir", str(data), *flags]
    argv[0] = shutil.which("unshare") or ""
    env = os.environ | ({"PATH": path} if path else {})
    process = subprocess.Popen(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        output, errors = process.communicate(timeout=20)
    except subprocess.TimeoutExpired:
        process.terminate()
        output, errors = process.communicate(timeout=20)
        pytest.fail(f"it started: {errors}")
    lines = errors.strip().splitlines()
    assert process.returncode != 0, output
    assert len(lines) == 1, errors
    assert output == ""
    assert not (data / "kubeconfig").exists()
    return process.returncode, lines[0]


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        ("--proxy-mode", "magic"),
        ("--pod-cidr", "10.0.0.0/33"),
        ("--node-ip", "not-an-ip"),
        ("--service-cluster-ip-range", "10.96.0.0"),
    ],
)
def test_wrong_flag_is_named_with_its_value(tmp_path: Path, flag: str, value: str) -> None:
    status, line = refuses(tmp_path / "d", flag, value)
    assert status == 2
    assert flag in line
    assert value in line


def test_without_privileges_it_asks_for_root(tmp_path: Path) -> None:
    status, line = refuses(tmp_path / "d", before=("setpriv", "--bounding-set=-all", "--inh-caps=-all"))
    assert status == 3
    assert "root" in line


def test_missing_tool_is_named_with_its_package(tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir()
    status, line = refuses(tmp_path / "d", path=str(tmp_path / "bin"))
    assert status == 3
    assert "install iproute2" in line


def test_busy_port_is_named(tmp_path: Path) -> None:
    holder = (
        "import socket, sys, subprocess; s = socket.create_server(('127.0.0.1', 6443));"
        " sys.exit(subprocess.call(sys.argv[1:]))"
    )
    before = ("sh", "-c", 'ip link set lo up; exec "$@"', "sh", sys.executable, "-c", holder)
    status, line = refuses(tmp_path / "d", before=before)
    assert status == 3
    assert "127.0.0.1:6443" in line
    assert "--secure-port" in line


def test_data_directory_in_use_is_named(tmp_path: Path) -> None:
    data = tmp_path / "d"
    data.mkdir()
    with open(data / "up.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        status, line = refuses(data)
    assert status == 2
    assert str(data) in line


def test_data_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    status, line = refuses(path)
    assert status == 2
    assert str(path) in line
    assert path.read_text() == "mine"


def test_corrupt_database_is_named_and_left_as_it_is(tmp_path: Path) -> None:
    data = tmp_path / "d"
    data.mkdir()
    (data / sqlite.DATABASE).write_bytes(b"this is no database, it never was one")
    status, line = refuses(data)
    assert status == 1
    assert str(data / sqlite.DATABASE) in line
    assert "svcplane store restore" in line
    assert (data / sqlite.DATABASE).read_bytes() == b"this is no database, it never was one"
