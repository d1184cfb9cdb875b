"""A real API server, and controllers, as processes of their own on loopback.

`with ApiServerProcess(directory) as server:` waits until it serves; `server.kubeconfig` is its administrator's.
"""

import json
import os
import signal
import ssl
import subprocess
import sys
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

import yaml

from svcplane.base.errors import EnvironmentProblem

START_TIMEOUT_S = 30.0
_RUN = "from svcplane.cli.main import main; main()"


class Process:
    """A verb of svcplane with its log in a file."""

    def __init__(self, log: Path, words: Sequence[str]) -> None:
        self._log, self._words = log, words
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, "the process has not been started"
        return self._process.pid

    def start(self) -> None:
        """Start it.  Raises EnvironmentProblem with the end of its log where it ends at once."""
        with open(self._log, "ab") as out:
            self._process = subprocess.Popen(
                [sys.executable, "-c", _RUN, *self._words],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=out,
                env=os.environ,
            )
        deadline = time.monotonic() + START_TIMEOUT_S
        while not self._started():
            if self._process.poll() is not None or time.monotonic() > deadline:
                self.kill()
                log = self._log.read_text(errors="replace")[-500:]
                raise EnvironmentProblem(f"svcplane {self._words[0]} did not start: {log}")
            time.sleep(0.01)

    def _started(self) -> bool:
        return True

    def _end(self, number: int) -> None:
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait()
            self._process = None

    def kill(self) -> None:
        """End it at once, as a crash does."""
        self._end(signal.SIGKILL)

    def stop(self) -> None:
        """Ask it to end and wait until it has."""
        self._end(signal.SIGTERM)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


class ApiServerProcess(Process):
    """`flags` are those of `svcplane apiserver`.  The data directory is `directory`; it outlives the process."""

    def __init__(self, directory: Path, *flags: str) -> None:
        words = ("apiserver", f"--data-dir={directory}", "--secure-port=0", *flags)
        super().__init__(directory / "apiserver.log", words)
        self.directory = directory

    @property
    def kubeconfig(self) -> Path:
        return self.directory / "kubeconfig"

    @property
    def ca_file(self) -> Path:
        return self.directory / "pki" / "ca.crt"

    def _config(self) -> Any:
        return yaml.safe_load(self.kubeconfig.read_text())

    @property
    def url(self) -> str:
        server: str = self._config()["clusters"][0]["cluster"]["server"]
        return server

    @property
    def token(self) -> str:
        token: str = self._config()["users"][0]["user"]["token"]
        return token

    def call(self, method: str, path: str, body: object = None) -> Any:
        """One request with JSON both ways.  Raises urllib's HTTPError for a failure."""
        headers = {"Authorization": f"Bearer {self.token}", "Content-Type": "application/json"}
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        context = ssl.create_default_context(cafile=str(self.ca_file))
        with urllib.request.urlopen(request, timeout=30, context=context) as answer:
            return json.loads(answer.read())

    def start(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.kubeconfig.unlink(missing_ok=True)
        super().start()

    def _started(self) -> bool:
        # written once the server serves, in one step
        return self.kubeconfig.exists()

    def __enter__(self) -> "ApiServerProcess":
        self.start()
        return self


class ControllersProcess(Process):
    """`svcplane controllers` on a server that runs."""

    def __init__(self, server: ApiServerProcess, *flags: str) -> None:
        words = ("controllers", f"--kubeconfig={server.kubeconfig}", *flags)
        super().__init__(server.directory / "controllers.log", words)

    def __enter__(self) -> "ControllersProcess":
        self.start()
        return self
