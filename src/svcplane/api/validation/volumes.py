"""Volumes of Pods.  Pure.  Source: pkg/apis/core/validation (ValidateVolumes, validateVolumeSource)."""

from typing import Any

from svcplane.api import fields as f
from svcplane.api import quantity
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Tree
from svcplane.api.validation import paths, references
from svcplane.api.validation.names import dns1123_label

BAD_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
HOST_PATHS = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
#: What files of downwardAPI volumes may hold.
FIELDS = ("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid")
PROJECTED = ("secret", "configMap", "downwardAPI", "serviceAccountToken")
#: Kinds of volumes in the order in which upstream looks for them.
SOURCES = (
    "emptyDir",
    "hostPath",
    "gitRepo",
    "gcePersistentDisk",
    "awsElasticBlockStore",
    "secret",
    "nfs",
    "iscsi",
    "glusterfs",
    "flocker",
    "persistentVolumeClaim",
    "rbd",
    "cinder",
    "cephfs",
    "quobyte",
    "downwardAPI",
    "fc",
    "flexVolume",
    "configMap",
    "azureFile",
    "vsphereVolume",
    "photonPersistentDisk",
    "portworxVolume",
    "azureDisk",
    "storageos",
    "projected",
    "scaleIO",
    "csi",
    "ephemeral",
    "image",
)


def _place(kind: str) -> int:
    """Where upstream looks for a kind of volume: the first one found is what the volume is of."""
    return SOURCES.index(kind) if kind in SOURCES else len(SOURCES)


def faults(volumes: list[Tree]) -> list[FieldError]:
    """Everything the volumes of a Pod must satisfy."""
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, volume in enumerate(volumes):
        path, name = f"spec.volumes[{index}]", volume.get("name", "")
        sources = sorted((field for field in volume if field != "name"), key=_place)
        found = _volume_source(sources[0], volume[sources[0]], f"{path}.{sources[0]}") if sources else []
        found += [f.forbidden(f"{path}.{s}", "may not specify more than 1 volume type") for s in sources[1:]]
        found += [f.invalid(f"{path}.name", name, text) for text in dns1123_label(name)] if name else []
        found += [] if name else [f.required(f"{path}.name")]
        found += [f.duplicate(f"{path}.name", name)] if name in names else []
        names |= set() if found else {name}
        errors += found
    return errors


def _volume_source(kind: str, source: Any, path: str) -> list[FieldError]:
    """Of the kinds that a node's agent makes."""
    if source is None:
        return []
    match kind:
        case "emptyDir" if quantity.parse(source.get("sizeLimit", "0")) < 0:
            return [f.forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
        case "hostPath":
            return _host_path(source, path)
        case "secret" | "configMap":
            name = "secretName" if kind == "secret" else "name"
            errors = [] if source.get(name) else [f.required(f"{path}.{name}")]
            return errors + _mode(source, "defaultMode", path) + _items(source, path)
        case "downwardAPI":
            return _mode(source, "defaultMode", path) + _own_fields(source, path)
        case "projected":
            return _mode(source, "defaultMode", path) + _projected(source.get("sources", []), path)
    return []


def _host_path(source: Tree, path: str) -> list[FieldError]:
    given = source.get("path", "")
    if not given:
        return [f.required(f"{path}.path")]
    errors = paths.no_way_up(given, f"{path}.path")
    if source.get("type") not in (None, *HOST_PATHS):
        errors.append(f.not_supported(f"{path}.type", source["type"], HOST_PATHS))
    return errors


def _mode(holder: Tree, field: str, path: str) -> list[FieldError]:
    mode = holder.get(field, 0)
    return [] if 0 <= mode <= 0o777 else [f.invalid(f"{path}.{field}", mode, BAD_MODE)]


def _below(holder: Tree, path: str) -> list[FieldError]:
    """A path of a file within a volume."""
    given, path = holder.get("path", ""), f"{path}.path"
    errors = ([] if given else [f.required(path)]) + paths.local(given, path)
    if given.startswith("..") and not given.startswith("../"):
        errors.append(f.invalid(path, given, "must not start with '..'"))
    return errors


def _items(source: Tree, path: str) -> list[FieldError]:
    return [
        error
        for index, item in enumerate(source.get("items", []))
        for error in (
            *([] if item.get("key") else [f.required(f"{path}.items[{index}].key")]),
            *_below(item, f"{path}.items[{index}]"),
            *_mode(item, "mode", f"{path}.items[{index}]"),
        )
    ]


def _own_fields(source: Tree, path: str) -> list[FieldError]:
    """Files of the Pod's fields.  Upstream does not say which of them is at fault."""
    errors: list[FieldError] = []
    for item in source.get("items", []):
        errors += _below(item, path)
        if item.get("fieldRef") is not None:
            errors += references.field(item["fieldRef"], f"{path}.fieldRef", FIELDS)
            if item.get("resourceFieldRef") is not None:
                both = "fieldRef and resourceFieldRef can not be specified simultaneously"
                errors.append(f.invalid(path, "resource", both))
        elif item.get("resourceFieldRef") is not None:
            errors += references.resource(item["resourceFieldRef"], f"{path}.resourceFieldRef", of_volume=True)
        else:
            errors.append(f.required(path, "one of fieldRef and resourceFieldRef is required"))
        errors += _mode(item, "mode", path)
    return errors


def _projected(sources: list[Tree], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    known: set[str] = set()
    for index, source in enumerate(sources):
        given = [kind for kind in PROJECTED if source.get(kind) is not None]
        for kind in given:
            place, one = f"{path}.sources[{index}].{kind}", source[kind]
            if kind == "serviceAccountToken":
                errors += _token(one, place, path)
                continue
            name = one.get("name", "")
            if not name and kind != "downwardAPI":
                errors.append(f.required(f"{place}.name"))
            errors += _own_fields(one, place) if kind == "downwardAPI" else _items(one, place)
            for file in filter(None, (item.get("path") for item in one.get("items", []))):
                if file in known:
                    shown = file if kind == "downwardAPI" else name
                    errors.append(f.invalid(path, shown, "conflicting duplicate paths"))
                known.add(file)
        if len(given) > 1:
            errors.append(f.forbidden(f"{path}.sources[{index}]", "may not specify more than 1 volume type"))
    return errors


def _token(token: Tree, place: str, path: str) -> list[FieldError]:
    """Upstream reports the token's path as the volume's."""
    seconds, where = token.get("expirationSeconds", 3600), f"{place}.expirationSeconds"
    errors: list[FieldError] = []
    if seconds < 600:
        errors.append(f.invalid(where, seconds, "may not specify a duration less than 10 minutes"))
    if seconds > 1 << 32:
        errors.append(f.invalid(where, seconds, "may not specify a duration larger than 2^32 seconds"))
    return errors + _below(token, path)
