"""A Pod's volumes on this host: STATE/pods/UID/volumes/NAME, or what a hostPath names.  I/O."""

import asyncio
import contextlib
import os
import shutil
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from svcplane.api.core import Pod
from svcplane.api.resources import Resource
from svcplane.api.status import StatusError
from svcplane.base.clock import parse_rfc3339
from svcplane.base.errors import TransportError
from svcplane.node.api import Api, Tree
from svcplane.node.volumes import FILE_MODE, File, Files, NotMounted, chosen, data_of, fields, has_files, kind_of, safe

REFRESH_S, RETRY_S = 60.0, 1.0
CONFIG_MAPS = Resource("", "v1", "ConfigMap", "configmaps", "configmap", True)
SECRETS = Resource("", "v1", "Secret", "secrets", "secret", True)
# hostPath type -> what must be there, and how the kubelet calls it
HOST_TYPES: dict[str, tuple[Callable[[int], bool], str]] = {
    "Directory": (stat.S_ISDIR, "a directory"),
    "DirectoryOrCreate": (stat.S_ISDIR, "a directory"),
    "File": (stat.S_ISREG, "a file"),
    "FileOrCreate": (stat.S_ISREG, "a file"),
    "Socket": (stat.S_ISSOCK, "a socket file"),
    "CharDevice": (stat.S_ISCHR, "a character device"),
    "BlockDevice": (stat.S_ISBLK, "a block device"),
}


@dataclass(slots=True)
class PodVolumes:
    """The volumes of one Pod.  `paths`: volume -> where it is on this host."""

    api: Api
    directory: Path
    paths: dict[str, str] = field(default_factory=dict)
    due: float | None = 0.0  # when to look after them again; None: never
    problem: str = ""
    _tokens: dict[str, tuple[File, float]] = field(default_factory=dict)  # audience and lifetime -> renew at

    async def keep(self, pod: Pod, now: float) -> str:
        """Make what is missing, bring files up to date; nothing before it is due.  Returns what hinders one, or ""."""
        if self.due is not None and now >= self.due:
            self.problem = await self._bring_about(pod, now)
        return self.problem

    async def _bring_about(self, pod: Pod, now: float) -> str:
        security = pod.spec.security_context
        group = security.fs_group if security is not None else None
        self.due = now + RETRY_S
        for volume in pod.spec.volumes:
            name = volume.get("name", "")
            try:
                self.paths[name] = await self._one(pod, volume, group, now)
            except (NotMounted, OSError) as error:
                text = str(error)
                if isinstance(error, OSError) and error.filename:
                    text = f"{error.filename}: {error.strerror}"
                return f'MountVolume.SetUp failed for volume "{name}" : {text}'
        self.due = now + REFRESH_S if has_files(pod) else None
        return ""

    async def _one(self, pod: Pod, volume: Tree, group: int | None, now: float) -> str:
        kind = kind_of(volume)
        source = volume.get(kind) or {}
        if kind == "hostPath":
            return _host_path(source.get("path", ""), source.get("type") or "")
        where = self.directory / volume["name"]
        if kind == "emptyDir":
            medium = source.get("medium") or ""
            if medium not in ("", "Memory"):
                raise NotMounted(f"svcplane has no emptyDir of medium {medium}: it serves the default and Memory")
            _empty_dir(where, group)
        else:
            files = await self._files(pod, kind, source, now)
            await asyncio.to_thread(write, where, files, group)
        return str(where)

    # -- files -----------------------------------------------------------------------------------------------

    async def _files(self, pod: Pod, kind: str, source: Tree, now: float) -> Files:
        mode = source.get("defaultMode")
        mode = FILE_MODE if mode is None else int(mode)
        sources = source.get("sources") or [] if kind == "projected" else [{kind: source}]
        made: Files = {}
        for part in sources:
            for of, content in part.items():
                made |= await self._part(pod, of, content or {}, mode, now)
        return made

    async def _part(self, pod: Pod, kind: str, source: Tree, mode: int, now: float) -> Files:
        match kind:
            case "configMap":
                data = await self._data(CONFIG_MAPS, pod, source.get("name", ""), source)
                return chosen(data, source, "configmap", mode)
            case "secret":
                data = await self._data(SECRETS, pod, source.get("secretName") or source.get("name", ""), source)
                return chosen(data, source, "secret", mode)
            case "downwardAPI":
                return fields(pod, source.get("items") or [], mode)
            case "serviceAccountToken":
                return {safe(source.get("path", "")): await self._token(pod, source, mode, now)}
        raise NotMounted(f"svcplane has no {kind} in projected volumes")

    async def _data(self, resource: Resource, pod: Pod, name: str, source: Tree) -> dict[str, bytes]:
        try:
            return data_of({"kind": resource.kind} | await self.api.get(resource, pod.metadata.namespace, name))
        except StatusError as error:
            if error.code == 404 and source.get("optional"):
                return {}
            if error.code == 404 and "requested resource" in str(error):
                raise NotMounted(f'{resource.singular} "{name}": this API server has no {resource.kind}s') from error
            raise NotMounted(str(error)) from error
        except TransportError as error:
            raise NotMounted(str(error)) from error

    async def _token(self, pod: Pod, source: Tree, mode: int, now: float) -> File:
        """A token bound to the Pod, kept for four fifths of its life."""
        audience, seconds = source.get("audience", ""), int(source.get("expirationSeconds") or 3600)
        key = f"{audience} {seconds}"
        known = self._tokens.get(key)
        if known is not None and now < known[1]:
            return File(known[0].content, mode)
        meta, account = pod.metadata, pod.spec.service_account_name or "default"
        spec: dict[str, Any] = {"expirationSeconds": seconds}
        spec["audiences"] = [audience] if audience else []
        spec["boundObjectRef"] = {"kind": "Pod", "apiVersion": "v1", "name": meta.name, "uid": meta.uid}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        # a create in the collection of one account's tokens
        tokens = Resource("", "v1", "TokenRequest", f"serviceaccounts/{account}/token", "token", True)
        try:
            answer = (await self.api.create(tokens, meta.namespace, request))["status"]
        except (StatusError, TransportError) as error:
            raise NotMounted(f"failed to fetch token: {error}") from error
        ends = parse_rfc3339(answer["expirationTimestamp"]) or now
        made = File(answer["token"].encode(), mode)
        self._tokens[key] = (made, now + (ends - now) * 0.8)
        return made


def _empty_dir(where: Path, group: int | None) -> None:
    """Open to all, as the kubelet makes it; what is in it stays."""
    if where.is_dir():
        return
    where.mkdir(parents=True)
    if group is not None:
        os.chown(where, -1, group)
    where.chmod(0o777 | (stat.S_ISGID if group is not None else 0))


def _host_path(path: str, kind: str) -> str:
    """Checked against its type; made where the type says so, or where nothing is said, as a container runtime does."""
    if not path.startswith("/"):
        raise NotMounted(f"hostPath {path!r}: must be an absolute path")
    if kind and kind not in HOST_TYPES:
        raise NotMounted(f"hostPath type {kind!r}: must be one of {', '.join(HOST_TYPES)}")
    if kind in ("", "DirectoryOrCreate") and not os.path.exists(path):
        os.makedirs(path, 0o755)
    elif kind == "FileOrCreate" and not os.path.exists(path):
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    if kind:
        holds, what = HOST_TYPES[kind]
        try:
            good = holds(os.stat(path).st_mode)
        except OSError:
            good = False
        if not good:
            raise NotMounted(f"hostPath type check failed: {path} is not {what}")
    return path


def write(where: Path, files: Files, group: int | None = None) -> None:
    """Make a volume's files these, all at once: `..data` leads to a directory that is replaced as a whole."""
    where.mkdir(parents=True, exist_ok=True)
    where.chmod(0o755)
    current = where / "..data"
    if current.exists() and _read(current) == files:
        return
    fresh = where / f"..{time.time_ns()}"
    fresh.mkdir(0o755)
    for path, file in files.items():
        made = fresh / path
        made.parent.mkdir(parents=True, exist_ok=True)
        made.write_bytes(file.content)
        if group is not None:
            os.chown(made, -1, group)
        made.chmod(file.mode)
    old = current.resolve() if current.exists() else None
    pointer = where / "..data_tmp"
    with contextlib.suppress(FileNotFoundError):
        pointer.unlink()
    pointer.symlink_to(fresh.name)
    os.replace(pointer, current)
    tops = {path.partition("/")[0] for path in files}
    for entry in where.iterdir():
        if not entry.name.startswith("..") and entry.name not in tops:
            entry.unlink()
    for top in tops:
        if not (where / top).is_symlink():
            (where / top).symlink_to(f"..data/{top}")
    if old is not None:
        shutil.rmtree(old, ignore_errors=True)


def _read(directory: Path) -> Files:
    found: Files = {}
    for path in directory.resolve().rglob("*"):
        if path.is_file():
            name = str(path.relative_to(directory.resolve()))
            found[name] = File(path.read_bytes(), stat.S_IMODE(path.stat().st_mode))
    return found
