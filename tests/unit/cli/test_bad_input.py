"""Wrong input and a host that lacks something: one clear line, a non-zero exit status, nothing half done."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcplane.store import sqlite

PROGRAM = [sys.executable, "-c", "from svcplane.cli.main import main; main()"]


def fails(*argv: str, **env: str) -> tuple[int, str]:
    """Exit status and the line; fails the test where there is more or less than one, or the command succeeds."""
    done = subprocess.run(
        [*PROGRAM, *argv],
        env=os.environ | env,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    lines = done.stderr.strip().splitlines()
    assert done.returncode != 0, done.stdout
    assert len(lines) == 1, done.stderr
    assert done.stdout == ""
    return done.returncode, lines[0]


@pytest.fixture
def busy_port() -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


def test_apiserver_on_a_busy_port_names_it(tmp_path: Path, busy_port: int) -> None:
    status, line = fails("apiserver", "--data-dir", str(tmp_path / "d"), "--secure-port", str(busy_port))
    assert status == 3
    assert f"127.0.0.1:{busy_port}" in line
    assert "--secure-port" in line
    assert not (tmp_path / "d" / "kubeconfig").exists()


def test_apiserver_on_a_data_directory_in_use_names_it(tmp_path: Path) -> None:
    data = tmp_path / "d"
    argv = [*PROGRAM, "apiserver", "--data-dir", str(data), "--secure-port", "0"]
    with subprocess.Popen(argv, stderr=subprocess.PIPE, text=True) as first:
        assert first.stderr is not None
        try:
            assert any("serving" in line for line in first.stderr)
            before = (data / "kubeconfig").read_bytes()
            status, line = fails("apiserver", "--data-dir", str(data), "--secure-port", "0")
            assert status == 1
            assert str(data) in line
            assert (data / "kubeconfig").read_bytes() == before
        finally:
            first.terminate()
            first.communicate(timeout=20)
        assert first.returncode == 0


@pytest.mark.parametrize("damage", [b"this is no database, it never was one", b"SQLite format 3\0" + b"\xff" * 8192])
def test_apiserver_on_a_corrupt_database_leaves_it_and_says_so(tmp_path: Path, damage: bytes) -> None:
    data = tmp_path / "d"
    data.mkdir()
    database = data / sqlite.DATABASE
    database.write_bytes(damage)
    status, line = fails("apiserver", "--data-dir", str(data), "--secure-port", "0")
    assert status == 1
    assert str(database) in line
    assert database.read_bytes() == damage
    assert not (data / "kubeconfig").exists()


def test_data_directory_that_is_a_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("mine")
    status, line = fails("apiserver", "--data-dir", str(path), "--secure-port", "0")
    assert status == 1
    assert str(path) in line
    assert path.read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Service\nspec: {ports: [}", "line"),
        ("kind: Nonsense\napiVersion: v1\nmetadata: {name: x}", "Nonsense"),
        ("just words", "mapping"),
    ],
)
def test_demonstration_with_a_bad_manifest_names_the_file_before_anything_is_made(
    tmp_path: Path, text: str, said: str
) -> None:
    (tmp_path / "broken.yaml").write_text(text)
    status, line = fails("lab", "demo", "--name", "badinput", "--manifests", str(tmp_path))
    assert status == 2
    assert "broken.yaml" in line
    assert said in line
    assert not Path("/run/svcplane/lab/badinput").exists()


@pytest.mark.parametrize("verb", ["node", "controllers", "proxy"])
def test_without_a_kubeconfig_the_flag_is_named(verb: str) -> None:
    status, line = fails(verb, KUBECONFIG="")
    assert status == 2
    assert "--kubeconfig" in line


def test_manifest_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "web.yaml").write_bytes(b"\xff\xfe\x00")
    status, line = fails("apply", "-f", str(tmp_path / "web.yaml"))
    assert status == 2
    assert line == f"svcplane: -f {tmp_path}/web.yaml: is no text in UTF-8"


@pytest.fixture
def kubeconfig(tmp_path: Path) -> Path:
    """Of a server at whose address nobody listens."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    path = tmp_path / "kubeconfig"
    cluster = f'{{name: a, cluster: {{server: "http://127.0.0.1:{port}"}}}}'
    path.write_text(f"clusters: [{cluster}]\ncontexts: [{{name: a, context: {{cluster: a}}}}]\ncurrent-context: a\n")
    return path


def test_server_out_of_reach_is_told_with_what_to_look_at(tmp_path: Path, kubeconfig: Path) -> None:
    manifest = tmp_path / "web.yaml"
    manifest.write_text("apiVersion: v1\nkind: Service\nmetadata: {name: web}\n")
    status, line = fails("apply", "-f", str(manifest), "--kubeconfig", str(kubeconfig))
    assert status == 1
    assert line.endswith(": connection refused; is it running, and is that its address?")
