"""Who the processes of Pods are.  Pure.  Source: pkg/apis/core/validation (ValidateSecurityContext, ...)."""

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Tree

MAX_ID = (1 << 31) - 1
CHANGE_POLICIES = ("Always", "OnRootMismatch")


def of_pod(context: Tree, path: str) -> list[FieldError]:
    """A Pod's `securityContext`."""
    errors = [error for field in ("fsGroup", "runAsUser", "runAsGroup") for error in _id(context, field, path)]
    for index, group in enumerate(context.get("supplementalGroups", [])):
        errors += _number(group, f"{path}.supplementalGroups[{index}]")
    policy = context.get("fsGroupChangePolicy")
    if policy is not None and policy not in CHANGE_POLICIES:
        errors.append(f.not_supported(f"{path}.fsGroupChangePolicy", policy, CHANGE_POLICIES))
    return errors


def of_container(context: Tree, path: str) -> list[FieldError]:
    """A container's."""
    return [error for field in ("runAsUser", "runAsGroup") for error in _id(context, field, path)]


def _id(context: Tree, field: str, path: str) -> list[FieldError]:
    value = context.get(field)
    return [] if value is None else _number(value, f"{path}.{field}")


def _number(value: int, path: str) -> list[FieldError]:
    return [] if 0 <= value <= MAX_ID else [f.invalid(path, value, f"must be between 0 and {MAX_ID}, inclusive")]
