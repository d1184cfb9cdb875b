"""What a Pod's volumes hold, as values.  Pure.

Source: core/v1 Volume and the kubelet's volume plug-ins emptyDir, hostPath, configMap, secret, downwardAPI, projected.
"""

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from svcplane.api.core import Pod
from svcplane.api.quantity import parse
from svcplane.base.errors import SvcplaneError
from svcplane.node.spec import CannotRun, field_value

Tree = dict[str, Any]
FILE_MODE = 0o644
KINDS = ("emptyDir", "hostPath", "configMap", "secret", "downwardAPI", "projected")
OF_FILES = ("configMap", "secret", "downwardAPI", "projected")


class NotMounted(SvcplaneError):
    """A volume cannot be set up (yet); the text says why, in the kubelet's words where it has them."""


@dataclass(frozen=True, slots=True)
class File:
    content: bytes
    mode: int


Files = dict[str, File]  # path below the volume ->


def kind_of(volume: Tree) -> str:
    """`configMap` and so on.  Raises NotMounted for a kind that is not served."""
    kinds = [key for key, value in volume.items() if key != "name" and value is not None]
    kind = kinds[0] if kinds else "emptyDir"
    if kind not in KINDS:
        raise NotMounted(f"svcplane has no {kind} volumes: it serves {', '.join(KINDS)}")
    return kind


def in_memory(pod: Pod) -> Iterator[tuple[str, int]]:
    """Names of the volumes that are to be in memory, and how large: bytes, 0 where nothing is said."""
    for volume in pod.spec.volumes:
        source = volume.get("emptyDir") or {}
        if source.get("medium") == "Memory":
            limit = source.get("sizeLimit")
            yield volume["name"], int(parse(str(limit))) if limit else 0


def has_files(pod: Pod) -> bool:
    """Whether what is in its volumes may change while it runs."""
    return any(volume.get(kind) is not None for volume in pod.spec.volumes for kind in OF_FILES)


def data_of(obj: Tree) -> dict[str, bytes]:
    """What a ConfigMap or a Secret holds."""
    texts, encoded = obj.get("data") or {}, obj.get("binaryData") or {}
    if obj.get("kind") == "Secret":
        texts, encoded = {}, texts
    return {key: text.encode() for key, text in texts.items()} | {
        key: base64.b64decode(text) for key, text in encoded.items()
    }


def chosen(data: Mapping[str, bytes], source: Tree, what: str, mode: int) -> Files:
    """The files of a ConfigMap or Secret: all its keys, or those the volume names.  Raises NotMounted."""
    items = source.get("items")
    if not items:
        return {key: File(content, mode) for key, content in data.items()}
    made: Files = {}
    for item in items:
        key = item.get("key", "")
        if key in data:
            made[safe(item.get("path", ""))] = File(data[key], _mode(item, mode))
        elif not source.get("optional"):
            raise NotMounted(
                f"{what} references non-existent {'config' if what == 'configmap' else 'secret'} key: {key}"
            )
    return made


def fields(pod: Pod, items: Sequence[Tree], mode: int) -> Files:
    """The files of a downwardAPI volume.  Raises NotMounted."""
    made: Files = {}
    for item in items:
        path = (item.get("fieldRef") or {}).get("fieldPath")
        if path is None:
            raise NotMounted(f"downwardAPI item {item.get('path')}: svcplane has fieldRef only")
        made[safe(item.get("path", ""))] = File(_field(pod, path).encode(), _mode(item, mode))
    return made


def _field(pod: Pod, path: str) -> str:
    if path in ("metadata.labels", "metadata.annotations"):
        values = pod.metadata.labels if path == "metadata.labels" else pod.metadata.annotations
        return "\n".join(f"{key}={json.dumps(value, ensure_ascii=False)}" for key, value in sorted(values.items()))
    try:
        return field_value(pod, path, (), ())
    except CannotRun as error:
        raise NotMounted(str(error)) from error


def _mode(item: Tree, otherwise: int) -> int:
    mode = item.get("mode")
    return otherwise if mode is None else int(mode)


def safe(path: str) -> str:
    """A file's path below its volume.  Raises NotMounted if it leads elsewhere."""
    if not path or path.startswith(("/", "..")) or ".." in path.split("/"):
        raise NotMounted(f"invalid path {path!r}: it must be relative and without '..'")
    return path
