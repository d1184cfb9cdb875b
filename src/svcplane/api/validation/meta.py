"""ObjectMeta rules common to all kinds.

Source: k8s.io/apimachinery/pkg/api/validation ValidateObjectMeta, ValidateObjectMetaUpdate.
"""

from collections.abc import Callable
from typing import Any

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.validation.names import label_value, qualified_name

MAX_ANNOTATIONS_BYTES = 256 * 1024
NameRule = Callable[..., list[str]]


def labels(value: dict[str, str], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for key, text in sorted(value.items()):
        errors += [f.invalid(path, key, problem) for problem in qualified_name(key)]
        errors += [f.invalid(path, text, problem) for problem in label_value(text)]
    return errors


def annotations(value: dict[str, str], path: str) -> list[FieldError]:
    errors = [f.invalid(path, key, problem) for key in sorted(value) for problem in qualified_name(key.lower())]
    size = sum(len(key.encode()) + len(text.encode()) for key, text in value.items())
    if size > MAX_ANNOTATIONS_BYTES:
        errors.append(f.too_long(path, MAX_ANNOTATIONS_BYTES))
    return errors


def _owner_references(owners: list[dict[str, Any]], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    controllers: list[str] = []
    for index, owner in enumerate(owners):
        place = f"{path}[{index}]"
        if not owner.get("apiVersion"):
            errors.append(f.invalid(f"{place}.apiVersion", "", "version must not be empty"))
        for key in ("kind", "name", "uid"):
            if not owner.get(key):
                errors.append(f.invalid(f"{place}.{key}", "", "must not be empty"))
        if owner.get("controller"):
            controllers.append(owner.get("name", ""))
    if len(controllers) > 1:
        both = " and ".join(controllers[:2])
        detail = f'Only one reference can have Controller set to true. Found "true" in references for {both}'
        errors.append(f.invalid(path, owners, detail))
    return errors


def _finalizers(values: list[str], path: str) -> list[FieldError]:
    return [f.invalid(path, value, problem) for value in values for problem in qualified_name(value)]


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
    return errors + validate_accessor(meta, path)


def validate_accessor(meta: dict[str, Any], path: str) -> list[FieldError]:
    """What holds for metadata at any time."""
    errors: list[FieldError] = []
    if meta.get("generation", 0) < 0:
        errors.append(f.invalid(f"{path}.generation", meta["generation"], "must be greater than or equal to 0"))
    errors += labels(meta.get("labels", {}), f"{path}.labels")
    errors += annotations(meta.get("annotations", {}), f"{path}.annotations")
    errors += _owner_references(meta.get("ownerReferences", []), f"{path}.ownerReferences")
    errors += _finalizers(meta.get("finalizers", []), f"{path}.finalizers")
    return errors


def validate_update(meta: dict[str, Any], old: dict[str, Any]) -> list[FieldError]:
    path = "metadata"
    errors: list[FieldError] = []
    if old.get("deletionTimestamp"):
        added = [value for value in meta.get("finalizers", []) if value not in old.get("finalizers", [])]
        if added:
            detail = "no new finalizers can be added if the object is being deleted, found new finalizers "
            detail += _go_strings(added)
            errors.append(f.forbidden(f"{path}.finalizers", detail))
    for key in ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"):
        if meta.get(key) != old.get(key):
            errors.append(f.invalid(f"{path}.{key}", meta.get(key, ""), "field is immutable"))
    if meta.get("generation", 0) < old.get("generation", 0):
        errors.append(f.invalid(f"{path}.generation", meta.get("generation", 0), "must not be decremented"))
    return errors + validate_accessor(meta, path)


def _go_strings(values: list[str]) -> str:
    """`[]string{"a", "b"}` as %#v prints it."""
    return "[]string{" + ", ".join(f'"{value}"' for value in values) + "}"
