"""Labs of a caller without privilege: namespaces of its own in which it may do all that a lab needs.  I/O.

A holder process keeps a user, a mount and a network namespace for all labs of one user; commands join them.  The
holder is found by an abstract socket in the caller's network namespace, so that no file can be stale, and a command's
connection to it is a lease: with no connection and no lab left, the holder ends, and everything of it.
"""

import contextlib
import ctypes
import os
import selectors
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

from svcplane.base.errors import EnvironmentProblem
from svcplane.kernel.links.run import may_administer

CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET = 0x20000, 0x10000000, 0x40000000
MS_NOSUID, MS_NODEV, MS_REC, MS_PRIVATE = 2, 4, 0x4000, 0x40000
START_TIMEOUT_S = 20.0
RUN = "/run"
LABS = Path("/run/svcplane/lab")
_LIBC = ctypes.CDLL(None, use_errno=True)
_HOLD = "from svcplane.lab.rootless import hold; hold()"
_REMEDY = "run this as root, or allow unprivileged user namespaces (sysctl user.max_user_namespaces, AppArmor)"
_lease: list[socket.socket] = []  # open as long as this process, and through exec


def enter() -> None:
    """Make sure that this process may make labs: where it lacks the privilege, move it to where it has it.

    Only while the process has a single thread.  Raises EnvironmentProblem.
    """
    if not may_administer():
        _join(_connected())
    elif not os.access(RUN, os.W_OK) and not _is_initial_user_namespace():
        _mount_run()  # `unshare -Urnm`: root of namespaces whose /run is somebody else's


def _is_initial_user_namespace() -> bool:
    return Path("/proc/self/uid_map").read_text().split() == ["0", "0", "4294967295"]


def _name() -> bytes:
    return f"\0svcplane labs of {os.getuid()}".encode()


# -- joining -------------------------------------------------------------------------------------------------


def _connected() -> socket.socket:
    """A connection to the holder, which is started if there is none."""
    link = _connect()
    if link is not None:
        return link
    program = [sys.executable, "-c", _HOLD]
    pipe = subprocess.PIPE
    holder = subprocess.Popen(program, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, start_new_session=True)
    assert holder.stdout is not None
    assert holder.stderr is not None
    with holder.stdout, holder.stderr:
        said = holder.stdout.readline()
        if said not in (b"ready\n", b"taken\n"):
            lines = holder.stderr.read().decode(errors="replace").strip().splitlines()
            raise EnvironmentProblem(f"{lines[-1] if lines else 'the namespaces of labs were not made'}; {_REMEDY}")
    holder.returncode = 0  # it outlives this process
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:  # taken: another command's holder is about to listen
        link = _connect()
        if link is not None:
            return link
        time.sleep(0.01)
    raise EnvironmentProblem(f"the namespaces of labs were not made within {START_TIMEOUT_S:g} s; {_REMEDY}")


def _connect() -> socket.socket | None:
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.connect(_name())
    except OSError:
        link.close()
        return None
    return link


def _peer(link: socket.socket) -> tuple[int, int]:
    """Process and user that listen."""
    size = struct.calcsize("3i")
    pid, uid, _ = struct.unpack("3i", link.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return pid, uid


def _join(link: socket.socket) -> None:
    pid, uid = _peer(link)
    if uid != os.getuid():
        raise EnvironmentProblem(f"the process {pid} of user {uid} poses as the keeper of this user's labs: end it")
    here = os.getcwd()
    descriptor = os.pidfd_open(pid)
    try:
        if _LIBC.setns(descriptor, CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET):
            raise EnvironmentProblem(f"cannot join the namespaces of labs: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)
    with contextlib.suppress(OSError):
        os.chdir(here)
    link.set_inheritable(True)
    _lease.append(link)


# -- holding -------------------------------------------------------------------------------------------------


def _done(result: int, what: str) -> None:
    if result:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def _mount_run() -> None:
    """A /run of our own: namespaces, locks and states live below it."""
    options = ctypes.c_char_p(b"mode=755")
    try:
        _done(_LIBC.mount(b"none", b"/", None, MS_REC | MS_PRIVATE, None), "cannot make mounts private")
        _done(_LIBC.mount(b"tmpfs", RUN.encode(), b"tmpfs", MS_NOSUID | MS_NODEV, options), f"cannot mount {RUN}")
    except OSError as error:
        raise EnvironmentProblem(f"{error.strerror}; {_REMEDY}") from error


def _make_namespaces() -> None:
    uid, gid = os.getuid(), os.getgid()
    try:
        _done(_LIBC.unshare(CLONE_NEWUSER), "cannot make a user namespace")
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {uid} 1")
        Path("/proc/self/gid_map").write_text(f"0 {gid} 1")
        # only now: files of a network belong to who is root when it is made
        _done(_LIBC.unshare(CLONE_NEWNS | CLONE_NEWNET), "cannot make namespaces")
    except OSError as error:
        text = error.strerror if error.filename is None else f"cannot write {error.filename}: {error.strerror}"
        raise EnvironmentProblem(str(text)) from error
    _mount_run()
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True, stdin=subprocess.DEVNULL)


def hold() -> None:
    """The holder process: says `ready` once it can be joined, `taken` if there is one already."""
    server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        server.bind(_name())
    except OSError:
        os.write(1, b"taken\n")
        return
    try:
        _make_namespaces()
    except (EnvironmentProblem, OSError, subprocess.SubprocessError) as error:
        sys.exit(str(error))
    server.listen(64)
    os.write(1, b"ready\n")
    quiet = os.open(os.devnull, os.O_RDWR)
    for descriptor in (1, 2):
        os.dup2(quiet, descriptor)
    os.chdir("/")
    _serve_leases(server)


def _serve_leases(server: socket.socket) -> None:
    """Until the last command has gone and no lab is there."""
    selector = selectors.DefaultSelector()
    selector.register(server, selectors.EVENT_READ)
    open_leases: set[socket.socket] = set()
    first = True  # the command that started us has not connected yet
    while first or open_leases or _any_lab():
        for key, _ in selector.select(START_TIMEOUT_S if first else None):
            if key.fileobj is server:
                lease, _ = server.accept()
                open_leases.add(lease)
                selector.register(lease, selectors.EVENT_READ)
            else:
                lease = key.fileobj  # type: ignore[assignment]
                selector.unregister(lease)
                open_leases.discard(lease)
                lease.close()
        first = False


def _any_lab() -> bool:
    try:
        return any(not entry.name.startswith(".") for entry in LABS.iterdir())
    except FileNotFoundError:
        return False
