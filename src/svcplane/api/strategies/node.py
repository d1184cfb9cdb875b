"""Nodes.  Pure.

Source: pkg/registry/core/node/strategy.go, pkg/apis/core/validation (ValidateNode, ValidateNodeUpdate).
"""

import re

from svcplane.api import fields as f
from svcplane.api import quantity
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Strategy, Tree
from svcplane.api.validation.names import label_value, qualified_name
from svcplane.api.validation.values import cidr_warnings, strict_cidr
from svcplane.base.net import canonical_cidr, family_of

BAD_FEATURE = (
    "must start with an UpperCamelCase segment, with subsequent segments separated by '/' (e.g., MyFeature or "
    "MyFeature/mySubFeature), and contain only alphanumeric characters and slashes"
)
_FEATURE = re.compile(r"[A-Z][a-zA-Z0-9]*(/[a-zA-Z][a-zA-Z0-9]*)*")
TAINT_EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
#: Resources that come in whole pieces only.
WHOLE = frozenset(
    [
        "pods",
        "services",
        "persistentvolumeclaims",
        "secrets",
        "configmaps",
        "resourcequotas",
        "replicationcontrollers",
        "services.nodeports",
        "services.loadbalancers",
    ]
)
NODE_INFO = (
    "machineID",
    "systemUUID",
    "bootID",
    "kernelVersion",
    "osImage",
    "containerRuntimeVersion",
    "kubeletVersion",
    "kubeProxyVersion",
    "operatingSystem",
    "architecture",
)


class NodeStrategy(Strategy):
    allow_create_on_update = False
    metadata_again = True
    selectable = ("spec.unschedulable",)

    def default(self, obj: Tree) -> None:
        _join_pod_cidrs(obj.setdefault("spec", {}))
        status = obj.setdefault("status", {})
        endpoint = status.setdefault("daemonEndpoints", {}).setdefault("kubeletEndpoint", {})
        endpoint.setdefault("Port", 0)
        info = status.setdefault("nodeInfo", {})
        for key in NODE_INFO:
            info.setdefault(key, "")
        for condition in status.get("conditions", []):
            condition.setdefault("lastHeartbeatTime", None)
            condition.setdefault("lastTransitionTime", None)
        if "allocatable" not in status and "capacity" in status:
            status["allocatable"] = dict(status["capacity"])

    def prepare_create(self, obj: Tree) -> None:
        _drop_config(obj)
        # the admission plug-in TaintNodesByCondition: a new node is not ready until it says so
        taints = obj.setdefault("spec", {}).setdefault("taints", [])
        taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
        if taint not in taints:
            taints.append(taint)

    def prepare_update(self, obj: Tree, old: Tree) -> None:
        obj["status"] = old.get("status", {})
        _drop_config(obj)

    def prepare_status_update(self, obj: Tree, old: Tree) -> None:
        super().prepare_status_update(obj, old)
        _drop_config(obj)

    def validate_create(self, obj: Tree) -> list[FieldError]:
        found = [*_taints(obj), *_resources(obj), *_swap(obj), *_declared_features(obj)]
        return found + _pod_cidrs(obj["spec"].get("podCIDRs", []))

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        """A changed Node is looked at as a new one too."""
        return self.validate_create(obj) + self.validate_status_update(obj, old)

    def validate_status_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        spec, before = obj.get("spec", {}), old.get("spec", {})
        errors = [*_resources(obj), *_declared_features(obj), *_addresses(obj)]
        errors += [*_fixed(spec, before), *_taints(obj)]
        if spec.get("externalID", "") != before.get("externalID", ""):
            errors.append(f.forbidden("spec.externalID", "may not be updated"))
        return errors

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        spec, found = obj.get("spec", {}), []
        if spec.get("externalID"):
            found.append("spec.externalID: this field is deprecated, and is unused in Kubernetes")
        for index, cidr in enumerate(spec.get("podCIDRs", [])):
            found += cidr_warnings(f"spec.podCIDRs[{index}]", cidr)
        return found

    def selectable_fields(self, obj: Tree) -> dict[str, str]:
        return {"spec.unschedulable": "true" if obj.get("spec", {}).get("unschedulable") else "false"}


def _drop_config(obj: Tree) -> None:
    """Kubelets are no longer configured by their Nodes."""
    obj["spec"].pop("configSource", None)
    obj.get("status", {}).pop("config", None)


def _join_pod_cidrs(spec: Tree) -> None:
    """`podCIDR` and `podCIDRs[0]` are one; where they differ, the older field counts."""
    one, many = spec.get("podCIDR", ""), spec.get("podCIDRs", [])
    if one and one != (many or [""])[0]:
        many = spec["podCIDRs"] = [one]
    if many:
        spec["podCIDR"] = many[0]


def _taints(obj: Tree) -> list[FieldError]:
    """Upstream reports taints below metadata."""
    errors: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for index, taint in enumerate(obj.get("spec", {}).get("taints", [])):
        path = f"metadata.taints[{index}]"
        key, value, effect = (taint.get(field, "") for field in ("key", "value", "effect"))
        errors += [f.invalid(f"{path}.key", key, text) for text in qualified_name(key)]
        if problems := label_value(value):
            errors.append(f.invalid(f"{path}.value", value, ";".join(problems)))
        if not effect:
            errors.append(f.required(f"{path}.effect"))
        elif effect not in TAINT_EFFECTS:
            errors.append(f.not_supported(f"{path}.effect", effect, TAINT_EFFECTS, keep_order=True))
        if (key, effect) in seen:
            shown = {"Key": key, "Value": value, "Effect": effect, "TimeAdded": taint.get("timeAdded")}
            errors.append(f.duplicate(path, shown, "taints must be unique by key and effect pair"))
        seen.add((key, effect))
    return errors


def _resources(obj: Tree) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in ("capacity", "allocatable"):
        for name, text in obj.get("status", {}).get(field, {}).items():
            amount, path = quantity.parse(text), f"status.{field}.{name}"
            if amount < 0:
                errors.append(f.invalid(path, text, "must be greater than or equal to 0"))
            extended = "/" in name and "kubernetes.io/" not in name
            if (name in WHOLE or extended) and amount % 1:
                errors.append(f.invalid(path, text, "must be an integer"))
    return errors


def _swap(obj: Tree) -> list[FieldError]:
    """Upstream reports it below metadata."""
    capacity = ((obj.get("status", {}).get("nodeInfo") or {}).get("swap") or {}).get("capacity")
    if capacity is None or capacity > 0:
        return []
    return [f.invalid("metadata.nodeSwapStatus.capacity", capacity, "must be greater than zero")]


def _declared_features(obj: Tree) -> list[FieldError]:
    features = obj.get("status", {}).get("declaredFeatures", [])
    errors: list[FieldError] = []
    for index, name in enumerate(features):
        path = f"status.declaredFeatures[{index}]"
        problem = "must be no more than 253 characters" if len(name.encode()) > 253 else ""
        if not problem and not _FEATURE.fullmatch(name):
            problem = BAD_FEATURE
        if problem:
            errors.append(f.invalid(path, name, f"invalid feature name {f.quoted(name)}: {problem}"))
        following = features[index + 1] if index + 1 < len(features) else name + "/"
        path = f"status.declaredFeatures[{index + 1}]"
        if following == name:
            errors.append(f.duplicate(path, following))
        elif following < name:
            errors.append(f.invalid(path, following, "list must be sorted alphabetically"))
    return errors


def _pod_cidrs(cidrs: list[str]) -> list[FieldError]:
    path = "spec.podCIDRs"
    errors = [error for index, cidr in enumerate(cidrs) for error in strict_cidr(f"{path}[{index}]", cidr)]
    if len(cidrs) > 1:
        bad = next((index for index, cidr in enumerate(cidrs) if canonical_cidr(cidr) is None), None)
        if bad is not None:
            why = f"invalid CIDR[{bad}]: <nil> (invalid CIDR address: {cidrs[bad]})"
            errors.append(f.internal(path, f"invalid PodCIDRs. failed to check with dual stack with error:{why}"))
        if bad is not None or len(cidrs) > 2 or len({family_of(cidr) for cidr in cidrs}) < 2:
            errors.append(f.invalid(path, cidrs, "may specify no more than one CIDR for each IP family"))
        errors += [f.duplicate(f"{path}[{index}]", cidr) for index, cidr in enumerate(cidrs) if cidr in cidrs[:index]]
    return errors


def _addresses(obj: Tree) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[tuple[str, str]] = set()
    for index, address in enumerate(obj.get("status", {}).get("addresses", [])):
        key = address.get("type", ""), address.get("address", "")
        if key in seen:
            errors.append(f.duplicate(f"status.addresses[{index}]", {"Type": key[0], "Address": key[1]}))
        seen.add(key)
    return errors


def _fixed(spec: Tree, before: Tree) -> list[FieldError]:
    """What is set once."""
    errors: list[FieldError] = []
    old, new = before.get("podCIDRs", []), spec.get("podCIDRs", [])
    if old:
        detail = 'node updates may not change podCIDR except from "" to valid'
        changes = 1 if len(old) != len(new) else sum(a != b for a, b in zip(old, new, strict=True))
        errors += [f.forbidden("spec.podCIDRs", detail)] * changes
    if before.get("providerID") and spec.get("providerID", "") != before["providerID"]:
        detail = 'node updates may not change providerID except from "" to valid'
        errors.append(f.forbidden("spec.providerID", detail))
    return errors
