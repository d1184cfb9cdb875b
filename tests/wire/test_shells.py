"""Completion in real shells: the script is sourced as the documentation says, a key is pressed, a name is there."""

import os
import pty
import select
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.wire.kubectl import Kubectl

from svcplane.testing.process import ApiServerProcess

pytestmark = pytest.mark.tools("bash", "zsh", "fish")

WAIT_S = 60.0
#: How each is started without a person's own files, and what its documentation has to be typed first.
SHELLS = {
    "bash": (("bash", "--norc", "--noprofile", "-i"), "source <(svcplane completion bash)"),
    "zsh": (("zsh", "-f", "-i"), "autoload -Uz compinit; compinit -u; source <(svcplane completion zsh)"),
}


class Terminal:
    """A shell on a terminal of its own."""

    def __init__(self, argv: tuple[str, ...], env: dict[str, str]) -> None:
        self._end, theirs = pty.openpty()
        self._process = subprocess.Popen(
            argv, stdin=theirs, stdout=theirs, stderr=theirs, env=env, start_new_session=True, close_fds=True
        )
        os.close(theirs)
        self.said = ""

    def type(self, text: str) -> None:
        os.write(self._end, text.encode())

    def until(self, text: str) -> None:
        """Wait for something on the screen that was not there when this was called."""
        end, begun = time.monotonic() + WAIT_S, len(self.said)
        while text not in self.said[begun:]:
            ready, _, _ = select.select([self._end], [], [], max(0.0, end - time.monotonic()))
            assert ready, f"not within {WAIT_S:g} s: {text!r}; the screen has {self.said!r}"
            self.said += os.read(self._end, 65536).decode(errors="replace")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._end)


@pytest.fixture
def environment(svcplane_api: ApiServerProcess, tmp_path: Path) -> dict[str, str]:
    """A person's, with the command on the path and the cluster's kubeconfig."""
    (tmp_path / "bin").mkdir()
    command = tmp_path / "bin" / "svcplane"
    command.write_text(f"#!{sys.executable}\nfrom svcplane.cli.main import main\nmain()\n")
    command.chmod(0o755)
    path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
    kubeconfig = str(svcplane_api.kubeconfig)
    return {
        "PATH": path,
        "HOME": str(tmp_path),
        "TERM": "dumb",
        "KUBECONFIG": kubeconfig,
        "PS1": "$ ",
    }


@pytest.fixture
def named(kubectl: Kubectl, svcplane_namespace: str) -> str:
    """A Service of a name that nothing else on a screen has."""
    kubectl("create", "service", "clusterip", "quince", "--tcp=80", "-n", svcplane_namespace)
    return svcplane_namespace


@pytest.mark.parametrize("shell", list(SHELLS))
def test_a_tab_completes_verbs_and_names_of_services(shell: str, environment: dict[str, str], named: str) -> None:
    argv, script = SHELLS[shell]
    terminal = Terminal(argv, environment)
    try:
        terminal.type(f"{script}; echo rea''dy\n")
        terminal.until("ready")
        terminal.type(f"svcplane expl\t-n {named} svc/qu\t")
        terminal.until("svcplane expl")
        terminal.until("ain")
        terminal.until("ince")
    finally:
        terminal.close()


def test_fish_completes_verbs_and_names_of_services(environment: dict[str, str], named: str) -> None:
    fish = shutil.which("fish")
    assert fish is not None
    script = "svcplane completion fish | source; complete -C $argv[1]"

    def completed(words: str) -> list[str]:
        done = subprocess.run(
            [fish, "--no-config", "-c", script, words],
            env=environment,
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        return [line.split("\t")[0] for line in done.stdout.splitlines()]

    assert "explain" in completed("svcplane expl")
    assert completed(f"svcplane explain -n {named} svc/qu") == ["svc/quince"]
