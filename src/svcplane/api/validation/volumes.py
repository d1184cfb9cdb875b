"""Volumes of Pods.  Pure.  Source: pkg/apis/core/validation (ValidateVolumes, validateVolumeSource)."""

from typing import Any

from svcplane.api import fields as f
from svcplane.api import quantity
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Tree
from svcplane.api.validation.names import dns1123_label

BAD_MODE = "must be a number between 0 and 0777 (octal), both inclusive"
HOST_PATHS = ("", "BlockDevice", "CharDevice", "Directory", "DirectoryOrCreate", "File", "FileOrCreate", "Socket")
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
    """Of the kinds that need to be told what they are of."""
    field = {"hostPath": "path", "secret": "secretName", "configMap": "name"}.get(kind)
    if kind == "emptyDir" and quantity.parse((source or {}).get("sizeLimit", "0")) < 0:
        return [f.forbidden(f"{path}.sizeLimit", "SizeLimit field must be a valid resource quantity")]
    if field is None or source is None:
        return []
    value = source.get(field, "")
    errors = [] if value else [f.required(f"{path}.{field}")]
    if kind != "hostPath":
        mode = source.get("defaultMode", 0)
        return errors + ([] if 0 <= mode <= 0o777 else [f.invalid(f"{path}.defaultMode", mode, BAD_MODE)])
    if not value:
        return errors
    errors = [f.invalid(f"{path}.path", value, "must not contain '..'")] if ".." in value.split("/") else []
    if source.get("type") not in (None, *HOST_PATHS):
        errors.append(f.not_supported(f"{path}.type", source["type"], HOST_PATHS))
    return errors
