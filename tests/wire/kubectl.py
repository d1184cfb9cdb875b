"""Running the real kubectl.  KUBECTL names another binary than the one on PATH."""

import json
import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

BINARY = os.environ.get("KUBECTL", "kubectl")


def version() -> tuple[int, int]:
    """The client's major and minor version."""
    told = json.loads(subprocess.check_output([BINARY, "version", "--client", "-o", "json"], timeout=30))
    major, minor = re.findall(r"\d+", told["clientVersion"]["gitVersion"])[:2]
    return int(major), int(minor)


def since(minor: int) -> None:
    """Skip the test where kubectl is older than 1.MINOR: it does not know what is tested."""
    if version() < (1, minor):
        pytest.skip(f"kubectl is older than 1.{minor}: install a newer one, or name it by KUBECTL=PATH")


@dataclass(frozen=True, slots=True)
class Kubectl:
    """Calls with a kubeconfig, in a namespace, with a home of its own for kubectl's caches."""

    kubeconfig: Path
    namespace: str
    home: Path

    def command(self, *words: str) -> list[str]:
        flags = [f"--kubeconfig={self.kubeconfig}", f"--namespace={self.namespace}", f"--cache-dir={self.home}"]
        return [BINARY, *flags, *words]

    def run(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.command(*words),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
            env={**os.environ, "HOME": str(self.home), **(env or {})},
        )

    def __call__(self, *words: str, stdin: str = "", env: dict[str, str] | None = None) -> str:
        """Standard output of a call that must succeed."""
        done = self.run(*words, stdin=stdin, env=env)
        assert done.returncode == 0, f"kubectl {' '.join(words)}: {done.stderr}"
        return done.stdout

    def fails(self, *words: str, stdin: str = "") -> str:
        """Standard error of a call that must fail."""
        done = self.run(*words, stdin=stdin)
        assert done.returncode != 0, f"kubectl {' '.join(words)} succeeded: {done.stdout}"
        return done.stderr

    def json(self, *words: str) -> Any:
        return json.loads(self(*words, "-o", "json"))
