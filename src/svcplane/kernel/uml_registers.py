"""What user-mode Linux needs on a processor with more registers than it knows.

User-mode Linux before 6.14 keeps the vector registers of a process in 2,696 bytes, which is AVX-512 with protection
keys, and gives just these to PTRACE_SETREGSET.  The host wants the whole of its own set, 11,008 bytes with AMX, and
answers EFAULT; the first process inside then ends in `put_fp_registers`.  There `ptrace` of `uml_ptrace.c` is loaded
before libc's: it fills up what is missing.  Nothing inside can use the registers beyond, which a process must ask for
by a call of arch_prctl that user-mode Linux does not have.

Source: Linux 6.1 arch/x86/um/os-Linux/registers.c, arch/x86/kernel/fpu/regset.c.
"""

import ctypes
import os
import platform
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from svcplane.base.errors import EnvironmentProblem, KernelError

HELD_BYTES = 2696
SOURCE = Path(__file__).with_name("uml_ptrace.c")
COMPILERS = ("tcc", "cc")
_TRACEME, _GETREGSET = 0, 0x4204
_NT_X86_XSTATE = 0x202


class _Vector(ctypes.Structure):
    """struct iovec."""

    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]


def own_state_bytes() -> int:
    """The size of a process's extended registers as ptrace gives them; 0 where it does not.

    Looks at a child of this process, which must have a single thread.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    libc.ptrace.restype = ctypes.c_long
    child = os.fork()
    if child == 0:
        libc.ptrace(_TRACEME, 0, None, None)
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    try:
        os.waitpid(child, os.WUNTRACED)
        room = ctypes.create_string_buffer(1 << 16)
        vector = _Vector(ctypes.addressof(room), len(room))
        refused = libc.ptrace(_GETREGSET, child, _NT_X86_XSTATE, ctypes.addressof(vector))
        return 0 if refused else int(vector.length)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)


def state_bytes() -> int:
    """The same, from whatever process."""
    command = [sys.executable, "-m", __name__]
    done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
    if done.returncode:
        raise KernelError(f"cannot tell the size of this processor's registers: {done.stderr.strip()[-300:]}")
    return int(done.stdout)


def compile_ptrace(to: Path) -> None:
    """Raises EnvironmentProblem where no C compiler is there, KernelError where it fails."""
    compiler = next(filter(None, map(shutil.which, COMPILERS)), None)
    if compiler is None:
        raise EnvironmentProblem(
            "user-mode Linux does not know all registers of this processor (AMX), and what helps needs a C compiler; "
            "install tcc, or use a kernel with IPVS"
        )
    command = [compiler, "-shared", "-fPIC", "-o", str(to), str(SOURCE)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode:
        raise KernelError(f"{compiler} cannot compile {SOURCE.name}: {(done.stdout + done.stderr).strip()[-300:]}")


def environment(share: Path) -> dict[str, str]:
    """What to add to the environment of user-mode Linux on this host.  `share` is where a file may be made.

    Raises EnvironmentProblem, KernelError.
    """
    if platform.machine() != "x86_64" or state_bytes() <= HELD_BYTES:
        return {}
    library = share / "ptrace.so"
    compile_ptrace(library)
    return {"LD_PRELOAD": str(library)}


if __name__ == "__main__":
    sys.stdout.write(f"{own_state_bytes()}\n")
