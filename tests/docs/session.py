"""A shell for one page: in network, mount and process namespaces of its own, with fresh home and state directories.

Commands run one after the other in one bash, so that what a page exports holds for the rest of it.  A command that
serves until it is ended goes on beside the others, until the page's end.
"""

import contextlib
import os
import re
import select
import shlex
import subprocess
import time
from pathlib import Path
from types import TracebackType

ROOT = Path(__file__).resolve().parents[2]
#: What a page may write to, and finds empty.
FRESH = ("/run/netns", "/run/svcplane", "/etc/svcplane", "/var/lib/svcplane")
#: Commands that serve until they are ended, and what they say, or what answers, when they do.
SERVERS = {
    r"(\S+/)?svcplane apiserver ": "test -s /var/lib/svcplane/kubeconfig",
    r"(\S+/)?svcplane up\b": "kubectl --kubeconfig /var/lib/svcplane/kubeconfig get nodes | grep -qw Ready",
    r"(\S+/)?svcplane (lab )?console\b": "grep -q 'the console is at' {out}",
    r"(\S+/)?svcplane logs .* -f": "test -e {out}",
    r"(\S+/)?svcplane proxy (?!.*(--cleanup|--write-config-to|--init-only))": "curl -sf http://127.0.0.1:10256/livez",
    r"etcd ": "curl -sf http://10.0.0.1:2379/health",
}
COMMAND_S, SERVER_S = 60.0, 20.0
#: With a process namespace, so that nothing a page starts outlives its shell.
NAMESPACES = ("-m", "-n", "-p", "-f", "--kill-child", "--mount-proc", "--propagation", "private")
SETUP = f"""
set -e
for directory in {" ".join(FRESH)}; do mkdir -p $directory; mount -t tmpfs tmpfs $directory; done
ip link set lo up
ip link add eth0 type veth peer name outside
ip address add 192.0.2.10/24 dev eth0
ip link set eth0 up
ip link set outside up
exec bash
"""


class Session:
    """`run` gives the status and what was written."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._count = 0
        self._servers: list[tuple[str, Path]] = []
        self._made = [directory for directory in FRESH if not Path(directory).exists()]
        work = home / "checkout"
        work.mkdir()
        for entry in ROOT.iterdir():
            if entry.name not in (".git", ".pytest_cache"):
                (work / entry.name).symlink_to(entry)
        path = f"{ROOT}/.venv/bin:{os.environ['PATH']}:/usr/sbin:/sbin"
        self._shell = subprocess.Popen(
            ["unshare", *NAMESPACES, "bash", "-c", SETUP],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=work,
            start_new_session=True,
            env={"PATH": path, "HOME": str(home), "LANG": "C.UTF-8", "COLUMNS": "160", "TERM": "dumb"},
        )

    def __enter__(self) -> "Session":
        return self

    def run(self, command: str) -> tuple[int, str]:
        """Raises TimeoutError with what was written until then."""
        command = command.removesuffix("&").rstrip()
        for server, ready in SERVERS.items():
            if re.match(server, command):
                return self._serve(command, ready)
        return self._tell(f"{{ {command}\n}} </dev/null", COMMAND_S)

    def write(self, path: str, content: str) -> None:
        """A file of a directory that is fresh."""
        status, said = self._tell(f"printf %s {shlex.quote(content)} >{shlex.quote(path)}", COMMAND_S)
        assert status == 0, said

    def _serve(self, command: str, ready: str) -> tuple[int, str]:
        out = self._home / f"server-{len(self._servers)}"
        self._servers.append((command, out))
        self._tell(f"{{ exec {command}\n}} </dev/null >{out} 2>&1 &", COMMAND_S)
        end = time.monotonic() + SERVER_S
        condition = ready.format(out=out)
        while self._tell(f"{{ {condition}; }} </dev/null >/dev/null 2>&1 && kill -0 $!", COMMAND_S)[0]:
            if time.monotonic() > end:
                return 124, f"does not serve within {SERVER_S:g} s: {out.read_text(errors='replace')[-2000:]}"
            time.sleep(0.1)
        return 0, ""

    def _tell(self, text: str, timeout_s: float) -> tuple[int, str]:
        self._count += 1
        mark = f"@@end-{self._count}@@"
        assert self._shell.stdin is not None
        assert self._shell.stdout is not None
        self._shell.stdin.write(f"{text}\nprintf '{mark}%d\\n' $?\n".encode())
        self._shell.stdin.flush()
        said = b""
        end = time.monotonic() + timeout_s
        while not (found := re.search(rf"{mark}(\d+)\n", said.decode(errors="replace"))):
            left = end - time.monotonic()
            if left <= 0 or not select.select([self._shell.stdout], [], [], left)[0]:
                raise TimeoutError(f"not within {timeout_s:g} s: {text}\n{said.decode(errors='replace')[-2000:]}")
            chunk = os.read(self._shell.stdout.fileno(), 65536)
            if not chunk:
                raise AssertionError(f"the shell ended: {text}\n{said.decode(errors='replace')[-2000:]}")
            said += chunk
        return int(found[1]), said.decode(errors="replace")[: found.start()]

    def ended(self) -> list[str]:
        """What the servers wrote that a person would not like to see."""
        return [
            f"{command}: {text[-2000:]}" for command, out in self._servers if "Traceback" in (text := out.read_text())
        ]

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if self._shell.poll() is None and not isinstance(error, TimeoutError):
                self._tell("kill -TERM $(jobs -p) 2>/dev/null; wait", SERVER_S)
        finally:
            self._shell.kill()
            self._shell.wait()
            for stream in (self._shell.stdin, self._shell.stdout):
                assert stream is not None
                stream.close()
            for directory in self._made:
                with contextlib.suppress(OSError):  # somebody else uses it by now
                    Path(directory).rmdir()
