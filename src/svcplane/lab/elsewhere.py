"""The demonstration of modes that this host's kernel lacks, in user-mode Linux: a kernel of its own as a process."""

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from svcplane.base.errors import EnvironmentProblem
from svcplane.kernel import uml

MODES = ("ipvs",)  # what that kernel has and a host may lack; it has no nf_tables
PACKAGES = "user-mode-linux kmod"
TIMEOUT_S = 600.0
LOOK_EVERY_S = 0.1
_PROGRAM = "from svcplane.cli.main import main; main()"


def split(
    hindrances: Mapping[str, str], *, kernel: bool, asked: bool, keep: bool = False
) -> tuple[list[str], list[str], list[str]]:
    """What hinders each mode here (empty: nothing) -> modes to show here, modes to show there, lines for people.

    `kernel`: whether user-mode Linux is there.  `asked`: the modes were named, not `all`; then one that cannot be
    shown anywhere is an error.  `keep`: whether the lab is to be left running.  Raises EnvironmentProblem.
    """
    here, there, said = [], [], []
    for mode, problem in hindrances.items():
        if not problem:
            here.append(mode)
            continue
        remedy = "" if kernel or mode not in MODES else f"; or apt-get install {PACKAGES} for a kernel of its own"
        if kernel and mode in MODES:
            there.append(mode)
            why = problem.partition(";")[0]
            said.append(f"{mode} is shown in user-mode Linux, a kernel of its own: {why}")
        elif asked:
            raise EnvironmentProblem(f"--mode {mode}: {problem}{remedy}")
        else:
            said.append(f"leaving out {mode}: {problem}{remedy}")
    if keep and there:
        rest = f"the lab that stays is in {here[-1]} mode" if here else "no lab stays"
        said.append(f"--keep cannot keep {', '.join(there)}: that kernel ends with the demonstration; {rest}")
    return here, there, said


@contextmanager
def booted(name: str, nodes: int, modes: Sequence[str], directory: Path) -> Iterator[uml.Uml]:
    """A kernel in which `svcplane lab demo` of the modes runs; it ends with the context at the latest."""
    words = ["lab", "demo", "--name", name, "--nodes", str(nodes), "--mode", ",".join(modes)]
    command = [sys.executable, "-c", _PROGRAM, *words, "--manifests", str(directory.resolve())]
    environment = {
        "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
        "COLUMNS": str(shutil.get_terminal_size().columns),
    }
    with tempfile.TemporaryDirectory(prefix=f"svcplane-uml-{name}-") as share:
        kernel = uml.Uml(command, Path(share), cwd=Path.cwd(), environment=environment)
        try:
            yield kernel
        finally:
            kernel.kill()


async def told(kernel: uml.Uml, say: Callable[[str], None]) -> int:
    """The exit status of the demonstration in there; all that it says is passed on as it comes.  Raises UmlProblem."""
    await _pass_on(kernel, say)
    return kernel.wait(timeout_s=10).status


async def _pass_on(kernel: uml.Uml, say: Callable[[str], None]) -> None:
    """Until the kernel stops, or the time is up."""
    until, at = asyncio.get_running_loop().time() + TIMEOUT_S, 0
    while True:
        last = not kernel.is_running or asyncio.get_running_loop().time() > until
        if kernel.output.exists():
            with kernel.output.open("rb") as file:
                file.seek(at)
                new = file.read()
            whole = new if last else new[: new.rfind(b"\n") + 1]
            at += len(whole)
            for line in whole.decode(errors="replace").splitlines():
                say(line)
        if last:
            return
        await asyncio.sleep(LOOK_EVERY_S)
