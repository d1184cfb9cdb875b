"""A container's volumes in its process's own view of the file system.  Part of the supervisor: no import of svcplane.

Called in a process just forked.  A volume is bound over its mount path, which the host's other processes do not see.
Where the host has nothing at a mount path, the process gets a root of its own in memory in which every entry of the
host's root is bound, and in which the missing directories can be made; so nothing is made on the host.
"""

from __future__ import annotations

import ctypes
import errno
import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Mount = dict[str, Any]  # source, sub, target, read_only, recursive

libc = ctypes.CDLL(None, use_errno=True)
CLONE_NEWNS = 0x00020000
MS_BIND, MS_REC, MS_UNBINDABLE, MS_SLAVE = 0x1000, 0x4000, 0x20000, 0x80000
MNT_DETACH = 2
SYS_MOUNT_SETATTR, AT_FDCWD, AT_RECURSIVE, MOUNT_ATTR_RDONLY = 442, -100, 0x8000, 1


class NotMounted(OSError):
    """`text` says which mount and why."""

    def __init__(self, text: str) -> None:
        super().__init__(errno.EINVAL, text)
        self.text = text


def _failed(what: str) -> OSError:
    number = ctypes.get_errno()
    return OSError(number, os.strerror(number), what)


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    if libc.mount(os.fsencode(source), os.fsencode(target), kind.encode(), flags, data.encode()):
        raise _failed(target)


def own_view() -> None:
    """A mount namespace that sees the host's later mounts, while the host sees none of ours."""
    if libc.unshare(CLONE_NEWNS):
        raise _failed("/")
    _mount("none", "/", "", MS_REC | MS_SLAVE)


def in_memory(path: str, size: int) -> None:
    """A file system in memory (`size` in bytes, 0: as the kernel chooses) at an existing directory."""
    _mount("tmpfs", path, "tmpfs", 0, "mode=777" + (f",size={size}" if size else ""))


def join(pid: int) -> None:
    """Move into a process's view."""
    descriptor = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if libc.setns(descriptor, CLONE_NEWNS):
            raise _failed("mount namespace")
    finally:
        os.close(descriptor)


def enter(mounts: list[Mount], staging: str) -> None:
    """Make the mounts, outer ones first, for this process and its children.  `staging`: an empty directory.

    Raises NotMounted.
    """
    own_view()
    wanted = sorted(mounts, key=lambda mount: str(mount["target"]).count("/"))
    places = [os.path.realpath(mount["target"]) for mount in wanted]
    view = _View(staging if any(not os.path.lexists(place) for place in places) else "")
    for mount, place in zip(wanted, places, strict=True):
        try:
            view.bind(mount, place)
        except OSError as error:
            raise NotMounted(f'mounting "{mount["source"]}" to "{mount["target"]}": {_lower(error)}') from error
    view.finish()


def _lower(error: OSError) -> str:
    reason = error.strerror or str(error)
    return reason[:1].lower() + reason[1:]


class _View:
    """What the process will see, below `root` until it moves there; "" where the host's own root will do."""

    def __init__(self, root: str) -> None:
        self.root = root
        self.bound: list[str] = []  # where volumes are, as the process will name them
        self.ours: set[str] = set()  # directories whose entries are bound one by one
        if root:
            self._list("/")

    def bind(self, mount: Mount, place: str) -> None:
        source = _sub_path(mount["source"], mount["sub"])
        where = self.root + place
        if not os.path.lexists(where):
            self._make(place, os.path.isdir(source))
        _mount(source, where, "", MS_BIND | MS_REC)
        self.bound.append(place)
        if mount["read_only"]:
            attributes = (ctypes.c_uint64 * 4)(MOUNT_ATTR_RDONLY, 0, 0, 0)
            flags = AT_RECURSIVE if mount["recursive"] else 0
            path = os.fsencode(where)
            if libc.syscall(SYS_MOUNT_SETATTR, AT_FDCWD, path, flags, ctypes.byref(attributes), 32):
                raise _failed(where)

    def _make(self, place: str, directory: bool) -> None:
        """The missing mount point: in a volume that is mounted above it, else in a directory of ours."""
        above = os.path.dirname(place)
        while not os.path.isdir(self.root + above):
            above = os.path.dirname(above)
        inside = any(place.startswith(volume.rstrip("/") + "/") for volume in self.bound)
        if not inside and above not in self.ours and os.path.isdir(above):  # the host's, bound here
            self._list(above)
        os.makedirs(self.root + (place if directory else os.path.dirname(place)), exist_ok=True)
        if not directory:
            os.close(os.open(self.root + place, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))

    def _list(self, path: str) -> None:
        """Replace a directory in our root by one in memory that has the host's entries bound."""
        where = (self.root + path).rstrip("/")
        mode = os.stat(path).st_mode & 0o7777
        _mount("tmpfs", where, "tmpfs", 0, f"mode={mode:o}")
        if path == "/":
            _mount("none", where, "", MS_UNBINDABLE)
        for entry in os.scandir(path):
            try:
                _copy(entry, f"{where}/{entry.name}")
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.EACCES):  # gone meanwhile, or not for us to see
                    raise
        self.ours.add(path)

    def finish(self) -> None:
        """Make our root the process's root."""
        if not self.root:
            return
        os.chdir(self.root)
        if libc.pivot_root(b".", b".") or libc.umount2(b".", MNT_DETACH):
            raise NotMounted(f"changing the root directory: {_lower(_failed('.'))}")
        os.chdir("/")


def _copy(entry: os.DirEntry[str], copy: str) -> None:
    """An entry of a host's directory in one of ours."""
    if entry.is_symlink():
        os.symlink(os.readlink(entry.path), copy)
        return
    if entry.is_dir():
        os.mkdir(copy)
    else:
        os.close(os.open(copy, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC))
    _mount(entry.path, copy, "", MS_BIND | MS_REC)


def _sub_path(source: str, sub: str) -> str:
    """The part of a volume to mount; a missing directory is made, one outside of the volume refused."""
    if not sub:
        return source
    volume = os.path.realpath(source)
    found = os.path.realpath(os.path.join(volume, sub))
    if found != volume and not found.startswith(volume + "/"):
        raise OSError(errno.EINVAL, f"subPath {sub} leads out of the volume")
    if not os.path.exists(found):
        os.makedirs(found, 0o750)
    return found
