"""An etcd of one member for tests: on loopback, on free ports, in a directory of the caller's.

`with Etcd(directory) as etcd:` starts it and waits until it serves; `etcd.kill()` and `etcd.start()` in between
are a crash and a recovery.
"""

import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

from svcplane.base.errors import EnvironmentProblem

START_TIMEOUT_S = 20.0


def free_port() -> int:
    """A TCP port of loopback that nothing listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class Etcd:
    """See the module's text.  `flags` are handed to etcd; with `scheme` https they must name the certificates."""

    def __init__(self, directory: Path, *flags: str, scheme: str = "http") -> None:
        self._directory, self._flags, self._scheme = directory, flags, scheme
        self._process: subprocess.Popen[bytes] | None = None
        self.client_port, self.peer_port, self.metrics_port = free_port(), free_port(), free_port()

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.client_port}"

    def _command(self) -> Sequence[str]:
        peer = f"http://127.0.0.1:{self.peer_port}"
        return (
            "etcd",
            "--name=test",
            f"--data-dir={self._directory / 'etcd'}",
            f"--listen-client-urls={self.url}",
            f"--advertise-client-urls={self.url}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=test={peer}",
            f"--listen-metrics-urls=http://127.0.0.1:{self.metrics_port}",
            "--log-level=warn",
            *self._flags,
        )

    def start(self) -> None:
        """Start the process and wait until it answers.  Raises EnvironmentProblem with the end of its log."""
        self._directory.mkdir(parents=True, exist_ok=True)
        log = self._directory / "etcd.log"
        with open(log, "ab") as out:
            self._process = subprocess.Popen(self._command(), stdout=out, stderr=out, cwd=self._directory)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._healthy():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                raise EnvironmentProblem(f"etcd did not start: {log.read_text(errors='replace')[-500:]}")
            time.sleep(0.02)

    def _healthy(self) -> bool:
        url = f"http://127.0.0.1:{self.metrics_port}/health"
        try:
            with urllib.request.urlopen(url, timeout=1) as answer:
                return b'"true"' in answer.read()
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def kill(self) -> None:
        """End it at once, as a crash does.  What it has acknowledged is on disk."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def __enter__(self) -> "Etcd":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
