"""References of a Pod to its own fields and resources, for its environment and its volumes.  Pure.

Source: pkg/apis/core/validation (validateObjectFieldSelector, validateContainerResourceFieldSelector);
pkg/apis/core/pods ConvertDownwardAPIFieldLabel.
"""

from collections.abc import Sequence

from svcplane.api import fields as f
from svcplane.api import quantity
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Tree
from svcplane.api.validation.names import qualified_name

#: Fields that may be asked for by one or another.
_KNOWN = (
    *("metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"),
    *("spec.nodeName", "spec.restartPolicy", "spec.serviceAccountName", "spec.schedulerName", "status.phase"),
    *("status.hostIP", "status.hostIPs", "status.podIP", "status.podIPs"),
)
_RESOURCES = tuple(
    f"{set_}.{name}" for set_ in ("limits", "requests") for name in ("cpu", "ephemeral-storage", "memory")
)
_SIZES = ("1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei")
_UNCONVERTED = "error converting fieldPath"


def field(reference: Tree, path: str, allowed: Sequence[str]) -> list[FieldError]:
    """A field of the Pod: one of `allowed`, or a label or an annotation by its key."""
    for key in ("apiVersion", "fieldPath"):
        if not reference.get(key):
            return [f.required(f"{path}.{key}")]
    name, place = reference["fieldPath"], f"{path}.fieldPath"
    if reference["apiVersion"] != "v1":
        return [f.invalid(place, name, f"{_UNCONVERTED}: unsupported pod version: {reference['apiVersion']}")]
    head, bracket, subscript = name.removesuffix("']").partition("['")
    if head and bracket and name.endswith("']"):
        if head not in ("metadata.annotations", "metadata.labels"):
            return [f.invalid(place, name, f"{_UNCONVERTED}: field label does not support subscript: {name}")]
        key = subscript.lower() if head == "metadata.annotations" else subscript
        return [f.invalid(path, subscript, text) for text in qualified_name(key)]
    name = "spec.nodeName" if name == "spec.host" else name
    if name in allowed:
        return []
    if name in _KNOWN:
        return [f.not_supported(place, name, allowed)]
    return [f.invalid(place, name, f"{_UNCONVERTED}: field label not supported: {name}")]


def resource(reference: Tree, path: str, *, of_volume: bool = False) -> list[FieldError]:
    """A resource of a container, which volumes must name."""
    name, divisor = reference.get("resource", ""), reference.get("divisor", "0")
    kind = name.partition(".")[2]
    kind = "hugepages" if kind.startswith("hugepages-") else kind
    known = name in _RESOURCES or (kind == "hugepages" and name.startswith(("limits.", "requests.")))
    errors: list[FieldError] = []
    if of_volume and not reference.get("containerName"):
        errors.append(f.required(f"{path}.containerName"))
    elif not name:
        errors.append(f.required(f"{path}.resource"))
    elif not known:
        errors.append(f.not_supported(f"{path}.resource", name, _RESOURCES))
    if not known or not quantity.parse(divisor):
        return errors
    allowed = ("1m", "1") if kind == "cpu" else _SIZES
    if quantity.canonical(divisor) not in allowed:
        listed = "1m and 1" if kind == "cpu" else ", ".join(_SIZES)
        what = "local ephemeral storage" if kind == "ephemeral-storage" else kind
        detail = f"only divisor's values {listed} are supported with the {what} resource"
        errors.append(f.invalid(f"{path}.divisor", name, detail))
    return errors
