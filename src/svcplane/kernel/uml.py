"""Run a command in user-mode Linux: a kernel of its own as an ordinary process, on this host's own files.

Debian's `user-mode-linux` has what the host's kernel may lack (IPVS, ipset, dummy devices).  The command sees the
host's file system at the same paths, except /run, which is its own; it has no network but what it makes.
Inside, `iptables` is the legacy variant, because that kernel has no nf_tables.  Boots in about 5 s, has one CPU.
"""

import os
import shlex
import shutil
import signal
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from svcplane.base.errors import SvcplaneError
from svcplane.kernel import uml_registers

MODULES = Path("/usr/lib/uml/modules")
PROGRAM = "linux.uml"
INSIDE = "SVCPLANE_UML"  # set in the environment of the command
LEGACY = ("iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore")

_INIT = """#!/bin/sh
# process 1: the few mounts a program expects, then the command, then off
export PATH={share}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root {inside}=1
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t tmpfs tmpfs /run
mkdir -p /run/lock /run/tmp /run/netns
export TMPDIR=/run/tmp
echo {share}/bin/modprobe > /proc/sys/kernel/modprobe
modprobe ipv6  # parameters below /proc/sys are there only with it
ip link set lo up
cd {cwd}
{environment}{command} > {share}/output 2>&1 < /dev/null
echo $? > {share}/status.part
mv {share}/status.part {share}/status
sync
echo o > /proc/sysrq-trigger
sleep 60
"""


class UmlProblem(SvcplaneError):
    """The kernel did not run the command to its end; the text has the last lines of its console."""


def available() -> bool:
    """Whether this host has the program, its modules, and what loads them."""
    return bool(shutil.which(PROGRAM) and shutil.which("modprobe")) and MODULES.is_dir()


@dataclass(frozen=True, slots=True)
class Finished:
    """What the command left: its exit status, and its standard output and error as one text."""

    status: int
    output: str


class Uml:
    """One boot that runs one command.  Start, then wait; `share` is an empty directory of the caller's for its files.

    What the command says is in `output` while it runs.  Raises EnvironmentProblem where this host lacks what is needed.
    """

    def __init__(
        self,
        command: Sequence[str],
        share: Path,
        *,
        cwd: Path,
        environment: Mapping[str, str] | None = None,
        memory_mb: int = 1024,
    ) -> None:
        self._share, self.output = share, share / "output"
        self._prepare(command, cwd, environment or {})
        arguments = [PROGRAM, f"mem={memory_mb}M", "rootfstype=hostfs", "rootflags=/", "root=/dev/root", "rw"]
        arguments += [f"init={share / 'init'}", f"uml_dir={share / 'uml'}/", "con=null", "con0=fd:0,fd:1", "quiet"]
        arguments += ["random.trust_cpu=on"]
        with (share / "console").open("wb") as console:
            self._process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                env={**os.environ, **uml_registers.environment(share)},
                start_new_session=True,
            )

    def _prepare(self, command: Sequence[str], cwd: Path, environment: Mapping[str, str]) -> None:
        share = self._share
        for directory in ("bin", "uml", "root/lib"):
            (share / directory).mkdir(parents=True)
        (share / "root/lib/modules").symlink_to(MODULES)
        for name in LEGACY:
            family, _, rest = name.partition("-")
            (share / "bin" / name).symlink_to(f"/usr/sbin/{family}-legacy{'-' + rest if rest else ''}")
        modprobe = shutil.which("modprobe")
        self._script("bin/modprobe", f'#!/bin/sh\nexec {modprobe} -d {share}/root "$@"\n')
        values = "".join(f"export {name}={shlex.quote(value)}\n" for name, value in environment.items())
        text = _INIT.format(
            share=share, inside=INSIDE, cwd=shlex.quote(str(cwd)), environment=values, command=shlex.join(command)
        )
        self._script("init", text)

    def _script(self, name: str, text: str) -> None:
        path = self._share / name
        path.write_text(text)
        path.chmod(0o755)

    @property
    def is_running(self) -> bool:
        return self._process.poll() is None

    def wait(self, timeout_s: float) -> Finished:
        """Raises UmlProblem where the command did not end in time or the kernel stopped before it."""
        try:
            self._process.wait(timeout_s)
            late = False
        except subprocess.TimeoutExpired:
            late = True
        self.kill()
        status = self._share / "status"
        text = self.output.read_text(errors="replace") if self.output.exists() else ""
        if not status.exists():
            console = (self._share / "console").read_text(errors="replace").splitlines()[-15:]
            why = f"did not end within {timeout_s:.0f} s" if late else "stopped without an exit status"
            raise UmlProblem("\n".join([f"the command in user-mode Linux {why}", text[-4000:], *console]))
        return Finished(int(status.read_text()), text)

    def kill(self) -> None:
        """End the kernel and the processes it is made of; harmless where it has ended."""
        try:
            os.killpg(self._process.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass
        self._process.wait(10)


def run(command: Sequence[str], share: Path, *, cwd: Path, timeout_s: float, memory_mb: int = 1024) -> Finished:
    """Boot, run, and power off."""
    return Uml(command, share, cwd=cwd, memory_mb=memory_mb).wait(timeout_s)
