"""What is accepted in Pods' volumes and yet worth a word.  Pure.

Source: k8s.io/kubernetes/pkg/api/pod/warnings.go (warningsForOverlappingVirtualPaths).
"""

from collections.abc import Iterator

from svcplane.api.fields import quoted
from svcplane.api.strategy import Tree

_GONE = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
#: Names of fields that upstream writes otherwise in messages.
_SPELT = {"storageos": "storageOS"}
#: Volumes of items: the field of the name of what is mounted, and how that is called.
_OF_ITEMS = (("configMap", "name", "ConfigMap"), ("secret", "secretName", "Secret"), ("downwardAPI", "", "DownwardAPI"))
_PROJECTED = (
    "secret",
    "configMap",
    "downwardAPI",
    "serviceAccountToken",
    "clusterTrustBundle",
    "podCertificate",
)
#: A path below the volume, and what puts it there where several things do.
_Path = tuple[str, str]


def warnings(volumes: list[Tree]) -> list[str]:
    """Texts of Warning headers about a Pod's volumes."""
    found = [
        f"spec.volumes[{index}].{_SPELT.get(kind, kind)}: {text}"
        for index, volume in enumerate(volumes)
        for kind, text in _GONE.items()
        if volume.get(kind) is not None
    ]
    for volume in volumes:
        name = quoted(volume.get("name", ""))
        for kind, key, called in _OF_ITEMS:
            source = volume.get(kind) or {}
            what = f"{called} {quoted(source.get(key, ''))}" if key else called
            paths = [(item.get("path", ""), "") for item in source.get("items", [])]
            found += [f"volume {name} ({what}): overlapping paths: {text}" for text in _overlaps(paths)]
        sources = (volume.get("projected") or {}).get("sources", [])
        found += _of_projected(sources, name)
    return found


def _of_projected(sources: list[Tree], name: str) -> list[str]:
    found: list[str] = []
    paths: list[_Path] = []
    for source in sources:
        if all(source.get(kind) is None for kind in _PROJECTED):
            found.append(f"volume {name} (Projected) has no sources provided")
            continue
        before, paths = len(paths), paths + list(_paths(source))
        found += [f"volume {name} (Projected): overlapping paths: {text}" for text in _overlaps(paths, before)]
    return found


def _paths(source: Tree) -> Iterator[_Path]:
    """What one source of a projected volume puts into it."""
    for kind, called in (("configMap", "ConfigMap"), ("secret", "Secret"), ("downwardAPI", "DownwardAPI")):
        given = source.get(kind) or {}
        if given.get("items"):
            what = called if kind == "downwardAPI" else f"{called} {quoted(given.get('name', ''))}"
            yield from ((item.get("path", ""), what) for item in given["items"])
            return
    if source.get("serviceAccountToken") is not None:
        yield source["serviceAccountToken"].get("path", ""), "ServiceAccountToken"
    elif source.get("clusterTrustBundle") is not None:
        bundle = source["clusterTrustBundle"]
        called = bundle.get("name", bundle.get("signerName", ""))
        yield bundle.get("path", ""), f"ClusterTrustBundle {quoted(called)}"
    elif source.get("podCertificate") is not None:
        certificate = source["podCertificate"]
        for key, called in (
            ("certificateChainPath", "chain"),
            ("keyPath", "key"),
            ("credentialBundlePath", "credential bundle"),
        ):
            if certificate.get(key):
                yield certificate[key], f"PodCertificate {called}"


def _overlaps(paths: list[_Path], begin: int = 0) -> list[str]:
    """Each of the paths from `begin` on that is, holds or lies in one before it."""
    trimmed = [(path.rstrip("/"), source) for path, source in paths]
    return [
        f"{_told(one)} with {_told(other)}"
        for index, one in enumerate(trimmed)
        if index >= begin and one[0]
        for other in trimmed[:index]
        if other[0] and (f"{one[0]}/".startswith(f"{other[0]}/") or f"{other[0]}/".startswith(f"{one[0]}/"))
    ]


def _told(path: _Path) -> str:
    return f"{quoted(path[0])} ({path[1]})" if path[1] else quoted(path[0])
