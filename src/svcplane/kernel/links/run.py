"""The kernel's links through iproute2, and running things inside a namespace.  I/O only.

A namespace is named by a bind mount below /run/netns, as ip-netns(8) has it.  `setns` moves one thread; every
use here moves it back before anything else can run on it.
"""

import contextlib
import ctypes
import json
import os
import shutil
import socket
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from svcplane.base.errors import EnvironmentProblem, KernelError
from svcplane.base.net import Family
from svcplane.kernel.links import text
from svcplane.kernel.links.objects import NetworkSpace, Observed, Operation, SetSysctl
from svcplane.kernel.links.plan import plan

NETNS_DIR = "/run/netns"
CLONE_NEWNET = 0x40000000
TOOL_TIMEOUT_S = 30
_LIBC = ctypes.CDLL(None, use_errno=True)


def preflight() -> None:
    """Raise EnvironmentProblem unless namespaces can be made here."""
    if shutil.which("ip") is None:
        raise EnvironmentProblem("the program `ip` is missing: install iproute2")
    if not may_administer():
        raise EnvironmentProblem("network namespaces need root: run this as root (sudo)")


def may_administer() -> bool:
    """CAP_NET_ADMIN and CAP_SYS_ADMIN in the current user namespace."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("CapEff:"):
            effective = int(line.split()[1], 16)
            return bool(effective >> 12 & 1 and effective >> 21 & 1)
    return os.geteuid() == 0


def path_of(namespace: str) -> str:
    """The file that stands for a namespace; the process's own for ""."""
    return f"{NETNS_DIR}/{namespace}" if namespace else "/proc/self/ns/net"


def enter(path: str) -> None:
    """Move this thread into a namespace for good.  Raises KernelError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise KernelError(f"cannot open network namespace {path}: {error.strerror}") from error
    try:
        if _LIBC.setns(descriptor, CLONE_NEWNET):
            raise KernelError(f"cannot enter network namespace {path}: {os.strerror(ctypes.get_errno())}")
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def inside(namespace: str) -> Iterator[None]:
    """Run the body with this thread in a namespace ("": where it is).  The body must not await."""
    if not namespace:
        yield
        return
    with inside_path(path_of(namespace)):
        yield


@contextlib.contextmanager
def inside_path(path: str) -> Iterator[None]:
    """As `inside`, by the file that stands for the namespace (/proc/PID/ns/net too)."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        enter(path)
        try:
            yield
        finally:
            if _LIBC.setns(home, CLONE_NEWNET):
                os.abort()  # a thread lost in a foreign namespace would change the wrong network
    finally:
        os.close(home)


def open_socket(namespace: str, family: Family, kind: socket.SocketKind = socket.SOCK_STREAM) -> socket.socket:
    """A non-blocking socket that lives in a namespace.  Raises KernelError if there is none."""
    with inside(namespace):
        made = socket.socket(socket.AF_INET6 if family is Family.IPV6 else socket.AF_INET, kind)
    made.setblocking(False)
    return made


def command_in(namespace: str, argv: Sequence[str]) -> list[str]:
    """A command that runs in a namespace and keeps this mount namespace, so that namespaces it makes are seen."""
    return ["nsenter", f"--net={path_of(namespace)}", "--", *argv] if namespace else list(argv)


def pids_in(namespace: str) -> list[int]:
    """Processes in a namespace (those this process may look at)."""
    try:
        wanted = os.stat(path_of(namespace)).st_ino
    except OSError:
        return []
    found = []
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                if os.stat(f"/proc/{name}/ns/net").st_ino == wanted:
                    found.append(int(name))
    return found


def _run(argv: Sequence[str], stdin: str = "") -> str:
    try:
        done = subprocess.run(
            argv,
            input=stdin,
            capture_output=True,
            text=True,
            timeout=TOOL_TIMEOUT_S,
            check=False,
            start_new_session=True,  # a Ctrl-C is for us: it finishes what it began
        )
    except FileNotFoundError as error:
        raise EnvironmentProblem(f"the program `{argv[0]}` is missing: install iproute2") from error
    except subprocess.TimeoutExpired as error:
        raise KernelError(f"{' '.join(argv)} did not end within {TOOL_TIMEOUT_S} s") from error
    if done.returncode:
        raise KernelError(_reason(argv, stdin, done.stderr or done.stdout))
    return done.stdout


def _reason(argv: Sequence[str], stdin: str, said: str) -> str:
    """One line: what `ip` said, and the batch line it said it of."""
    parts = [line.strip() for line in said.splitlines() if line.strip()]
    batch = stdin.splitlines()
    for part in parts:
        if part.startswith("Command failed -:"):
            number = int(part.rpartition(":")[2]) if part.rpartition(":")[2].isdigit() else 0
            line = batch[number - 1] if 0 < number <= len(batch) else ""
            return f"{' '.join(argv[:3])}: {line}: {'; '.join(p for p in parts if p is not part)}"
    return f"{' '.join(argv)}: {'; '.join(parts) or 'failed'}"


class KernelLinks:
    """Implements `objects.Links` on the kernel."""

    def namespaces(self, prefix: str) -> Sequence[str]:
        try:
            return sorted(name for name in os.listdir(NETNS_DIR) if name.startswith(prefix))
        except FileNotFoundError:
            return []

    def observe(self, namespace: str, sysctls: Iterable[str] = ()) -> Observed | None:
        if namespace and not os.path.exists(path_of(namespace)):
            return None
        where = ("ip", *(("-n", namespace) if namespace else ()), "-json")
        links: list[dict[str, Any]] = json.loads(_run([*where, "address", "show"]) or "[]")
        # only `ip link` tells the alias
        aliases = {link.get("ifname"): link.get("ifalias", "") for link in json.loads(_run([*where, "link", "show"]))}
        links = [{**link, "ifalias": aliases.get(link.get("ifname"), "")} for link in links]
        routes: list[dict[str, Any]] = []
        for family, flag in ((Family.IPV4, "-4"), (Family.IPV6, "-6")):
            shown = json.loads(_run([*where, flag, "route", "show"]) or "[]")
            routes += [{**route, "family": family} for route in shown]
        return text.observed(links, routes, self._read_sysctls(namespace, sysctls))

    def _read_sysctls(self, namespace: str, keys: Iterable[str]) -> dict[str, str]:
        values = {}
        with inside(namespace):
            for key in keys:
                with contextlib.suppress(OSError):
                    values[key] = Path("/proc/sys/net", key).read_text().strip()
        return values

    def apply(self, operations: Sequence[Operation]) -> None:
        for command, group in text.batches(operations):
            if command:
                stdin = "".join(f"{line}\n" for operation in group for line in text.lines(operation))
                _run([*command, "-batch", "-"], stdin)
            else:
                self._write_sysctls([operation for operation in group if isinstance(operation, SetSysctl)])

    def _write_sysctls(self, operations: Sequence[SetSysctl]) -> None:
        for operation in operations:
            with inside(operation.namespace):
                try:
                    Path("/proc/sys/net", operation.key).write_text(operation.value)
                except FileNotFoundError:
                    continue
                except OSError as error:
                    name = operation.key.replace("/", ".")
                    raise KernelError(f"cannot set net.{name} to {operation.value}: {error.strerror}") from error


def ensure(links: KernelLinks, desired: Sequence[NetworkSpace], *, fresh: bool = False) -> Sequence[Operation]:
    """Bring namespaces to what they should hold; returns what was done.  `fresh`: known to be absent, do not look."""
    seen = {space.name: None if fresh and space.name else links.observe(space.name, space.sysctls) for space in desired}
    operations = plan(desired, seen)
    links.apply(operations)
    return operations
