"""Who the processes of Pods are.  Pure.  Source: pkg/apis/core/validation (ValidateSecurityContext, ...)."""

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Tree
from svcplane.api.validation import paths

MAX_ID = (1 << 31) - 1
PROFILES = ("Localhost", "RuntimeDefault", "Unconfined")
CHANGE_POLICIES = ("Always", "OnRootMismatch")


def of_pod(spec: Tree, path: str) -> list[FieldError]:
    """A Pod's `securityContext`, and how it shares processes."""
    context = spec.get("securityContext") or {}
    errors = [error for field in ("fsGroup", "runAsUser", "runAsGroup") for error in _id(context, field, path)]
    for index, group in enumerate(context.get("supplementalGroups", [])):
        errors += _number(group, f"{path}.supplementalGroups[{index}]")
    if spec.get("shareProcessNamespace") and spec.get("hostPID"):
        both = "ShareProcessNamespace and HostPID cannot both be enabled"
        errors.append(f.invalid(f"{path}.shareProcessNamespace", True, both))
    policy = context.get("fsGroupChangePolicy")
    if policy is not None and policy not in CHANGE_POLICIES:
        errors.append(f.not_supported(f"{path}.fsGroupChangePolicy", policy, CHANGE_POLICIES))
    return errors + _seccomp(context.get("seccompProfile"), f"{path}.seccompProfile")


def of_users(spec: Tree) -> list[FieldError]:
    """Users of a Pod's own do not go with other namespaces of the host."""
    if spec.get("hostUsers") is not False:
        return []
    shown = {"hostNetwork": "hostNetwork", "hostPID": "HostPID", "hostIPC": "HostIPC"}  # as upstream writes them
    return [
        f.forbidden(f"spec.{name}", "when `pod.Spec.HostUsers` is false")
        for key, name in shown.items()
        if spec.get(key)
    ]


def of_container(context: Tree, path: str) -> list[FieldError]:
    """A container's."""
    errors = [error for field in ("runAsUser", "runAsGroup") for error in _id(context, field, path)]
    return errors + _seccomp(context.get("seccompProfile"), f"{path}.seccompProfile")


def _seccomp(profile: Tree | None, path: str) -> list[FieldError]:
    if profile is None:
        return []
    kind, file = profile.get("type", ""), profile.get("localhostProfile")
    errors: list[FieldError] = []
    if not kind:
        errors.append(f.required(f"{path}.type", "type is required when seccompProfile is set"))
    elif kind not in PROFILES:
        errors.append(f.not_supported(f"{path}.type", kind, PROFILES, keep_order=True))
    path = f"{path}.localhostProfile"
    if kind == "Localhost" and file is None:
        errors.append(f.required(path, "must be set when seccomp type is Localhost"))
    elif kind == "Localhost":
        errors += paths.local(str(file), path)
    elif file is not None:
        shown = {"Type": kind, "LocalhostProfile": file}
        errors.append(f.invalid(path, shown, "can only be set when seccomp type is Localhost"))
    return errors


def _id(context: Tree, field: str, path: str) -> list[FieldError]:
    value = context.get(field)
    return [] if value is None else _number(value, f"{path}.{field}")


def _number(value: int, path: str) -> list[FieldError]:
    return [] if 0 <= value <= MAX_ID else [f.invalid(path, value, f"must be between 0 and {MAX_ID}, inclusive")]
