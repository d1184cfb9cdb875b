"""Starting a Pod's process, and naming one for good.  Part of the supervisor: imports `mounts` alone of svcplane."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import subprocess

from svcplane.node import mounts

TYPE_CHECKING = False
if TYPE_CHECKING:  # `typing` itself would double the time to start
    from typing import Any

    Message = dict[str, Any]

PR_SET_PDEATHSIG = 1
libc = ctypes.CDLL(None, use_errno=True)


def starttime_of(pid: int) -> str:
    """Field 22 of /proc/PID/stat: with the pid it names a process for good.  "" if there is none."""
    try:
        with open(f"/proc/{pid}/stat", encoding="latin-1") as file:
            return file.read().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


class NotStarted(OSError):
    """What went wrong in the process before it became the command."""


def spawn(request: Message, mark: dict[str, str], *, beside: int = 0) -> subprocess.Popen[bytes]:
    """Start a request's process, which dies with its supervisor.  Raises OSError, ValueError, SubprocessError.

    `mark` is added to the environment: what the process leaves behind is known by it.  `beside`: the pid of a process
    whose volumes this one shall see.
    """
    supervisor = os.getpid()
    told, tell = os.pipe2(os.O_CLOEXEC)

    def prepare() -> None:
        step = ""
        try:
            if request.get("mounts"):
                mounts.join(beside) if beside else mounts.enter(request["mounts"], request["staging"])
            step = "user"
            become(request.get("user"))
            step = "cwd"
            os.chdir(request.get("cwd") or "/")
        except OSError as error:
            os.write(tell, text_of(step, error, request).encode())
            raise
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)  # after the change of user, which clears it
        if os.getppid() != supervisor:
            os._exit(1)
        for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
            signal.signal(number, signal.SIG_DFL)

    environment = {**request["env"], **mark}
    argv = list(request["argv"])
    if "/" not in argv[0]:
        argv[0] = find(argv[0], environment.get("PATH", os.defpath))
    try:
        process = subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            start_new_session=True,
            preexec_fn=prepare,  # noqa: PLW1509 - single-threaded here
        )
    except subprocess.SubprocessError as error:
        os.set_blocking(told, False)
        raise NotStarted(os.read(told, 4096).decode()) from error
    finally:
        os.close(told)
        os.close(tell)
    process.returncode = 0  # reaped by `reap`, not by the object
    return process


def become(user: Message | None) -> None:
    """Be another user for good.  None: stay who the supervisor is."""
    if user is not None:
        os.setgroups(user["groups"])
        os.setgid(user["gid"])
        os.setuid(user["uid"])


def text_of(step: str, error: OSError, request: Message) -> str:
    """In a container runtime's words."""
    if isinstance(error, mounts.NotMounted):
        return error.text
    reason = (error.strerror or str(error)).lower()
    if step == "cwd":
        return f'chdir to workingDir ("{request.get("cwd") or "/"}"): {reason}'
    if step == "user":
        return f"becoming user {request['user']['uid']} with group {request['user']['gid']}: {reason}"
    return reason


def find(name: str, path: str) -> str:
    for directory in path.split(":"):
        candidate = os.path.join(directory or ".", name)
        if os.access(candidate, os.X_OK) and not os.path.isdir(candidate):
            return candidate
    raise FileNotFoundError(errno.ENOENT, "executable file not found in $PATH", name)


def why(error: Exception, request: Message) -> str:
    """In a container runtime's words: which command, and what was wrong."""
    if isinstance(error, NotStarted):
        return str(error)
    reason = getattr(error, "strerror", None) or str(error)
    name = request["argv"][0]
    return f'exec: "{name}": {reason[:1].lower() + reason[1:]}'
