"""One API server with its controllers, and one replay of all recordings against it."""

import json
import re
import socket
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from svcplane.testing.etcd import Etcd

HERE = Path(__file__).parent
PYTHON_SVCPLANE = [sys.executable, "-c", "from svcplane.cli.main import main; main()"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    context = ssl._create_unverified_context()
    end = time.monotonic() + 30
    while time.monotonic() < end:
        if process.poll() is not None:
            raise RuntimeError(f"the server ended: {log.read_text()[-2000:]}")
        try:
            with urllib.request.urlopen(f"{url}/readyz", context=context, timeout=2):
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError("the server did not become ready")


@pytest.fixture(scope="session", params=["sqlite", pytest.param("etcd", marks=pytest.mark.tools("etcd"))])
def store_flags(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[str]]:
    """What makes a server use each store: nobody must be able to tell which."""
    if request.param == "sqlite":
        yield []
        return
    with Etcd(tmp_path_factory.mktemp("golden-etcd")) as etcd:
        yield ["--etcd-servers", etcd.url]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, store_flags: list[str]) -> Iterator[tuple[str, str]]:
    """(url, token) of a server with controllers."""
    work = tmp_path_factory.mktemp("golden")
    (work / "tokens.csv").write_text('admintoken,admin,1,"system:masters"\n')
    port = free_port()
    server_log, controllers_log = work / "server.log", work / "controllers.log"
    command = ["apiserver", "--secure-port", str(port), "--data-dir", str(work / "data")]
    command += ["--token-auth-file", str(work / "tokens.csv")]
    command += ["--service-cluster-ip-range", "10.96.0.0/16,fd00:10:96::/112", *store_flags]
    with server_log.open("wb") as log, controllers_log.open("wb") as other:
        server = subprocess.Popen(PYTHON_SVCPLANE + command, stdout=log, stderr=log)
        controllers: subprocess.Popen[bytes] | None = None
        try:
            url = f"https://127.0.0.1:{port}"
            wait_ready(url, server, server_log)
            kubeconfig = str(work / "data" / "kubeconfig")
            controllers = subprocess.Popen(
                [*PYTHON_SVCPLANE, "controllers", "--kubeconfig", kubeconfig], stdout=other, stderr=other
            )
            yield url, "admintoken"
        finally:
            for process in (controllers, server):
                if process is not None:
                    process.terminate()
                    process.wait(20)


@pytest.fixture(scope="session")
def replayed(cluster: tuple[str, str]) -> dict[str, str]:
    """Scenario -> `` where it passed, else what differed."""
    results = replay(cluster, [HERE / "data"], workers=4)
    assert results
    return results


def replay(cluster: tuple[str, str], places: list[Path], workers: int) -> dict[str, str]:
    """Scenario -> `` or the first difference."""
    url, token = cluster
    command = [sys.executable, str(HERE / "replay.py"), "--server", url, "--token", token, "--insecure"]
    command += ["-j", str(workers), *map(str, places)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False)
    found = {}
    for line in run.stdout.splitlines():
        if match := re.match(r"(PASS|FAIL) (\S+)(?: - (.*))?", line):
            found[match[2]] = "" if match[1] == "PASS" else match[3]
    assert found, run.stdout + run.stderr
    return found


def not_yet() -> dict[str, str]:
    listed: dict[str, str] = json.loads((HERE / "not_yet.json").read_text())
    return listed
