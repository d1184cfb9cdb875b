"""ObjectMeta rules common to all kinds.

Source: k8s.io/apimachinery/pkg/api/validation ValidateObjectMeta, ValidateObjectMetaUpdate.
"""

from collections.abc import Callable
from typing import Any

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.validation.names import label_value, qualified_name

MAX_ANNOTATIONS_BYTES = 256 * 1024
STANDARD_FINALIZERS = frozenset({"kubernetes", "orphan", "foregroundDeletion"})
UNQUALIFIED = "name is neither a standard finalizer name nor is it fully qualified"
NameRule = Callable[..., list[str]]


def labels(value: dict[str, str], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key, text in sorted(value.items()):
        errors += [f.invalid(path, key, problem) for problem in qualified_name(key)]
        errors += [f.invalid(path, text, problem) for problem in label_value(text)]
    return errors


def annotations(value: dict[str, str], path: str) -> list[FieldError]:
    errors = [f.invalid(path, key, problem) for key in sorted(value) for problem in qualified_name(key.lower())]
    if annotations_size(value) > MAX_ANNOTATIONS_BYTES:
        errors.append(f.too_long(path, MAX_ANNOTATIONS_BYTES))
    return errors


def annotations_size(value: dict[str, str]) -> int:
    return sum(len(key.encode()) + len(text.encode()) for key, text in value.items())


_OWNER_FIELDS = ("apiVersion", "kind", "name", "uid", "controller", "blockOwnerDeletion")


def _group_version(text: str) -> tuple[str, str]:
    """Group and version of an apiVersion; nothing of one with several slashes."""
    group, slash, version = text.partition("/")
    if "/" in version:
        return "", ""
    return (group, version) if slash else ("", text)


def _owner_references(owners: list[dict[str, Any]], path: str) -> list[FieldError]:
    """Upstream names the list, not the place in it."""
    errors: list[FieldError] = []
    shown = [{key: owner[key] for key in _OWNER_FIELDS if key in owner} for owner in owners]
    first = ""
    for owner, whole in zip(owners, shown, strict=True):
        group, version = _group_version(owner.get("apiVersion", ""))
        if not version:
            errors.append(f.invalid(f"{path}.apiVersion", owner.get("apiVersion", ""), "version must not be empty"))
        for key in ("kind", "name", "uid"):
            if not owner.get(key):
                errors.append(f.invalid(f"{path}.{key}", "", "must not be empty"))
        if (group, version, owner.get("kind")) == ("", "v1", "Event"):
            errors.append(f.invalid(path, whole, "/v1, Kind=Event is disallowed from being an owner"))
        if owner.get("controller"):
            name = f"{owner.get('kind', '')}/{owner.get('name', '')}"
            if first:
                detail = 'Only one reference can have Controller set to true. Found "true" in references for '
                errors.append(f.invalid(path, shown, f"{detail}{first} and {name}"))
            first = first or name
    return errors


def _finalizers(values: list[str], path: str) -> list[FieldError]:
    errors = [f.invalid(path, value, problem) for value in values for problem in qualified_name(value)]
    if "orphan" in values and "foregroundDeletion" in values:
        errors.append(f.invalid(path, values, "finalizer orphan and foregroundDeletion cannot be both set"))
    return errors


def kube_finalizers(meta: dict[str, Any]) -> list[FieldError]:
    """A finalizer without a domain must be one of Kubernetes' own."""
    return [
        f.invalid(f"metadata.finalizers[{index}]", value, UNQUALIFIED)
        for index, value in enumerate(meta.get("finalizers", []))
        if "/" not in value and value not in STANDARD_FINALIZERS
    ]


def validate_create(meta: dict[str, Any], *, namespaced: bool, name_rule: NameRule) -> list[FieldError]:
    path = "metadata"
    errors: list[FieldError] = []
    generate = meta.get("generateName", "")
    if generate:
        errors += [f.invalid(f"{path}.generateName", generate, text) for text in name_rule(generate, prefix=True)]
    name = meta.get("name", "")
    if not name:
        errors.append(f.required(f"{path}.name", "name or generateName is required"))
    else:
        errors += [f.invalid(f"{path}.name", name, text) for text in name_rule(name)]
    if namespaced and not meta.get("namespace"):
        errors.append(f.required(f"{path}.namespace"))
    elif not namespaced and meta.get("namespace"):
        errors.append(f.forbidden(f"{path}.namespace", "not allowed on this type"))
    return errors + validate_accessor(meta)


def validate_accessor(meta: dict[str, Any]) -> list[FieldError]:
    """What holds for metadata at any time."""
    path = "metadata"
    errors: list[FieldError] = []
    if meta.get("generation", 0) < 0:
        errors.append(f.invalid(f"{path}.generation", meta["generation"], "must be greater than or equal to 0"))
    return errors + _texts(meta, path) + _finalizers(meta.get("finalizers", []), f"{path}.finalizers")


def _texts(meta: dict[str, Any], path: str) -> list[FieldError]:
    errors = labels(meta.get("labels", {}), f"{path}.labels")
    errors += annotations(meta.get("annotations", {}), f"{path}.annotations")
    return errors + _owner_references(meta.get("ownerReferences", []), f"{path}.ownerReferences")


def validate_update(meta: dict[str, Any], old: dict[str, Any]) -> list[FieldError]:
    """What a change of metadata must satisfy."""
    path = "metadata"
    errors: list[FieldError] = []
    if old.get("deletionTimestamp"):
        added = sorted(set(meta.get("finalizers", [])) - set(old.get("finalizers", [])))
        if added:
            detail = "no new finalizers can be added if the object is being deleted, found new finalizers "
            detail += _go_strings(added)
            errors.append(f.forbidden(f"{path}.finalizers", detail))
    if meta.get("generation", 0) < old.get("generation", 0):
        errors.append(f.invalid(f"{path}.generation", meta.get("generation", 0), "must not be decremented"))
    for key in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if meta.get(key) != old.get(key):
            errors.append(f.invalid(f"{path}.{key}", meta.get(key, ""), "field is immutable"))
    return errors + _texts(meta, path)


def _go_strings(values: list[str]) -> str:
    """`[]string{"a", "b"}` as %#v prints it."""
    return "[]string{" + ", ".join(f'"{value}"' for value in values) + "}"
