"""Pods: what a spec must satisfy, what an update may change, what a status may say.  Pure.

Fields that no part of svcplane reads are kept as they are given.
Source: pkg/apis/core/validation (ValidatePodSpec, ValidatePodUpdate, ValidatePodStatusUpdate).
"""

import re
from typing import Any

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Tree
from svcplane.api.validation import containers, meta, security, volumes
from svcplane.api.validation.names import (
    dns1123_label,
    dns1123_subdomain,
    dns1123_subdomain_with_underscore,
    label_value,
    qualified_name,
)
from svcplane.api.validation.values import strict_ip
from svcplane.base.net import canonical_ip, family_of

RESTART_POLICIES = ("Always", "OnFailure", "Never")
#: Annotations: of the mirror of a static Pod, and of what it costs to delete one.
MIRROR, DELETION_COST = "kubernetes.io/config.mirror", "controller.kubernetes.io/pod-deletion-cost"
DNS_POLICIES = ("ClusterFirstWithHostNet", "ClusterFirst", "Default", "None")
PREEMPTION = ("PreemptLowerPriority", "Never")
SYSTEMS = ("linux", "windows")
EFFECTS = ("NoSchedule", "PreferNoSchedule", "NoExecute")
MAX_INT32 = (1 << 31) - 1
UPDATABLE = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)
_SYSTEM_CONDITIONS = ("PodScheduled", "Ready", "Initialized")


def spec_faults(spec: Tree) -> list[FieldError]:
    """Everything a spec must satisfy, in upstream's order."""
    errors = volumes.faults(spec.get("volumes", []))
    errors += containers.containers(spec, "spec.containers")
    errors += containers.init_containers(spec, "spec.initContainers")
    errors += _host_network(spec)
    errors += _one_of("restartPolicy", spec.get("restartPolicy", ""), RESTART_POLICIES)
    errors += _one_of("dnsPolicy", spec.get("dnsPolicy", ""), DNS_POLICIES)
    errors += meta.labels(spec.get("nodeSelector", {}), "spec.nodeSelector")
    errors += security.of_pod(spec, "spec.securityContext")
    errors += _dns_config(spec)
    errors += _gates(spec)
    errors += security.of_users(spec)
    errors += _names(spec, ("serviceAccountName", "nodeName"), dns1123_subdomain)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= MAX_INT32:
        detail = f"must be between 1 and {MAX_INT32}, inclusive"
        errors.append(f.invalid("spec.activeDeadlineSeconds", deadline, detail))
    errors += _names(spec, ("hostname", "subdomain"), dns1123_label)
    errors += tolerations(spec.get("tolerations", []), "spec.tolerations")
    for index, alias in enumerate(spec.get("hostAliases", [])):
        path = f"spec.hostAliases[{index}]"
        errors += strict_ip(f"{path}.ip", alias.get("ip", ""))
        errors += [
            f.invalid(f"{path}.hostnames[{at}]", name, text)
            for at, name in enumerate(alias.get("hostnames", []))
            for text in dns1123_subdomain(name)
        ]
    errors += _names(spec, ("priorityClassName", "runtimeClassName"), dns1123_subdomain)
    if spec.get("preemptionPolicy") is not None:
        errors += _one_of("preemptionPolicy", spec["preemptionPolicy"], PREEMPTION)
    if spec.get("os") is not None:
        system = spec["os"].get("name", "")
        errors += [] if system else [f.required("spec.os.name", "cannot be empty")]
        errors += [f.not_supported("spec.os", system, SYSTEMS)] if system and system not in SYSTEMS else []
    return errors + containers.trimmed_images(spec, "spec")


def _gates(spec: Tree) -> list[FieldError]:
    wanted = [gate.get("conditionType", "") for gate in spec.get("readinessGates", [])]
    errors = [
        f.invalid(f"spec.readinessGates[{index}].conditionType", name, text)
        for index, name in enumerate(wanted)
        for text in qualified_name(name)
    ]
    names: set[str] = set()
    for index, gate in enumerate(spec.get("schedulingGates", [])):
        path, name = f"spec.schedulingGates[{index}]", gate.get("name", "")
        errors += [f.invalid(path, name, text) for text in qualified_name(name)]
        errors += [f.duplicate(path, name)] if name in names else []
        names.add(name)
    return errors


def annotation_faults(metadata: Tree, spec: Tree) -> list[FieldError]:
    """What annotations that mean something must satisfy."""
    annotations, errors = metadata.get("annotations", {}), []
    if MIRROR in annotations and not spec.get("nodeName"):
        detail = "must set spec.nodeName if mirror pod annotation is set"
        errors.append(f.invalid(f"metadata.annotations[{MIRROR}]", annotations[MIRROR], detail))
    cost = annotations.get(DELETION_COST)
    if cost is not None and not _is_int32(cost):
        errors.append(f.invalid(f"metadata.annotations[{DELETION_COST}]", cost, "must be a 32bit integer"))
    return errors


def _is_int32(text: str) -> bool:
    """A number in its usual form, as deletion costs are."""
    return re.fullmatch("0|-[0-9]+|[1-9][0-9]*", text) is not None and -MAX_INT32 - 1 <= int(text) <= MAX_INT32


def annotation_changes(metadata: Tree, old: Tree) -> list[FieldError]:
    """A mirror of a static Pod stays one, and no other becomes one."""
    new, before = (one.get("annotations", {}).get(MIRROR) for one in (metadata, old))
    if new == before:
        return []
    how = "add" if before is None else "remove or update"
    return [f.forbidden(f"metadata.annotations[{MIRROR}]", f"may not {how} mirror pod annotation")]


def create_faults(spec: Tree) -> list[FieldError]:
    """What holds for new Pods only."""
    errors: list[FieldError] = []
    if spec.get("ephemeralContainers"):
        errors.append(f.forbidden("spec.ephemeralContainers", "cannot be set on create"))
    if spec.get("nodeName") and spec.get("schedulingGates"):
        errors.append(f.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared"))
    return errors


def _one_of(field: str, value: str, allowed: tuple[str, ...]) -> list[FieldError]:
    path = f"spec.{field}"
    if not value:
        return [f.required(path)]
    return [] if value in allowed else [f.not_supported(path, value, allowed, keep_order=True)]


def _names(spec: Tree, fields: tuple[str, ...], rule: Any) -> list[FieldError]:
    return [f.invalid(f"spec.{n}", spec[n], text) for n in fields if spec.get(n) for text in rule(spec[n])]


def _host_network(spec: Tree) -> list[FieldError]:
    if not spec.get("hostNetwork"):
        return []
    detail = "must match `containerPort` when `hostNetwork` is true"
    return [
        f.invalid(f"spec.containers[{number}].ports[{index}].hostPort", port.get("hostPort", 0), detail)
        for number, container in enumerate(spec.get("containers", []))
        for index, port in enumerate(container.get("ports", []))
        if port.get("hostPort", 0) != port.get("containerPort", 0)
    ]


def _dns_config(spec: Tree) -> list[FieldError]:
    config, path = spec.get("dnsConfig"), "spec.dnsConfig"
    if spec.get("dnsPolicy") == "None":
        if config is None:
            return [f.required(path, "must provide `dnsConfig` when `dnsPolicy` is None")]
        if not config.get("nameservers"):
            detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
            return [f.required(f"{path}.nameservers", detail)]
    config = config or {}
    servers, searches = config.get("nameservers", []), config.get("searches", [])
    errors = []
    if len(servers) > 3:
        errors.append(f.invalid(f"{path}.nameservers", servers, "must not have more than 3 nameservers"))
    errors += [e for i, ip in enumerate(servers) for e in strict_ip(f"{path}.nameservers[{i}]", ip)]
    if len(searches) > 32:
        errors.append(f.invalid(f"{path}.searches", searches, "must not have more than 32 search paths"))
    if len(" ".join(searches).encode()) > 2048:
        detail = "must not have more than 2048 characters (including spaces) in the search list"
        errors.append(f.invalid(f"{path}.searches", searches, detail))
    for index, search in enumerate(searches):
        name = search if search == "." else search.removesuffix(".")
        problems = [] if name == "." else dns1123_subdomain_with_underscore(name)
        errors += [f.invalid(f"{path}.searches[{index}]", name, text) for text in problems]
    return errors + [
        f.required(f"{path}.options[{index}]", "must not be empty")
        for index, option in enumerate(config.get("options", []))
        if not option.get("name")
    ]


def tolerations(values: list[Tree], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, toleration in enumerate(values):
        place = f"{path}[{index}]"
        key, operator, value, effect = (toleration.get(n, "") for n in ("key", "operator", "value", "effect"))
        seconds = toleration.get("tolerationSeconds")
        if key:
            errors += [f.invalid(f"{place}.key", key, text) for text in qualified_name(key)]
        elif operator != "Exists":
            detail = 'operator must be Exists when `key` is empty, which means "match all values and all keys"'
            errors.append(f.invalid(f"{place}.operator", operator, detail))
        if seconds is not None and effect != "NoExecute":
            detail = "effect must be 'NoExecute' when `tolerationSeconds` is set"
            errors.append(f.invalid(f"{place}.effect", effect, detail))
        if operator in ("Equal", ""):
            if problems := label_value(value):
                errors.append(f.invalid(f"{place}.operator", value, ";".join(problems)))
        elif operator != "Exists":
            errors.append(f.not_supported(f"{place}.operator", operator, ("Equal", "Exists"), keep_order=True))
        elif value:
            errors.append(f.invalid(f"{place}.operator", value, "value must be empty when `operator` is 'Exists'"))
        if effect and effect not in EFFECTS:
            errors.append(f.not_supported(f"{place}.effect", effect, EFFECTS, keep_order=True))
    return errors


# -- update -----------------------------------------------------------------------------------------------------------


def update_faults(spec: Tree, old: Tree) -> list[FieldError]:
    """What an update changed and may not.  The spec by itself is `spec_faults`."""
    errors: list[FieldError] = []
    for kind in ("containers", "initContainers"):
        new = spec.get(kind, [])
        if len(new) != len(old.get(kind, [])):
            return [*errors, f.forbidden(f"spec.{kind}", "pod updates may not add or remove containers")]
        for index, container in enumerate(new):
            image, path = container.get("image", ""), f"spec.{kind}[{index}].image"
            errors += [] if image else [f.required(path)]
            errors += [f.invalid(path, image, containers.PADDED)] if image != image.strip() else []
    deadline, before_s = spec.get("activeDeadlineSeconds"), old.get("activeDeadlineSeconds")
    path = "spec.activeDeadlineSeconds"
    if deadline is None and before_s is not None:
        errors.append(f.invalid(path, None, "must not update from a positive integer to nil value"))
    elif deadline is not None and not 0 <= deadline <= MAX_INT32:
        return [*errors, f.invalid(path, deadline, f"must be between 0 and {MAX_INT32}, inclusive")]
    elif deadline is not None and before_s is not None and before_s < deadline:
        return [*errors, f.invalid(path, deadline, "must be less than or equal to previous value")]
    errors += _only_added(spec.get("tolerations", []), old.get("tolerations", []))
    errors += _only_deleted(spec.get("schedulingGates", []), old.get("schedulingGates", []))
    after, before = _frozen(spec, old), _frozen(old, old)
    if old.get("schedulingGates") and (changed := spec.get("nodeSelector", {})) != old.get("nodeSelector", {}):
        if not old.get("nodeSelector", {}).items() <= changed.items():
            detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
            errors.append(f.invalid("spec.nodeSelector", changed or None, detail))
        after["nodeSelector"] = before["nodeSelector"] = {}
    lines = [f"- {key}" for key in sorted(after.keys() | before.keys()) if after.get(key) != before.get(key)]
    if lines:
        errors.append(f.forbidden("spec", f"{UPDATABLE}\n" + "\n".join(lines) + "\n"))
    return errors


def _only_added(new: list[Tree], old: list[Tree]) -> list[FieldError]:
    def bare(toleration: Tree) -> Tree:
        return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}

    if any(bare(before) not in [bare(one) for one in new] for before in old):
        detail = "existing toleration can not be modified except its tolerationSeconds"
        return [f.forbidden("spec.tolerations", detail)]
    return tolerations(new, "spec.tolerations")


def _only_deleted(new: list[Tree], old: list[Tree]) -> list[FieldError]:
    known = {gate.get("name") for gate in old}
    return [
        f.forbidden(
            f"spec.schedulingGates[{index}].name",
            f"only deletion is allowed, but found new scheduling gate '{gate.get('name')}'",
        )
        for index, gate in enumerate(new)
        if gate.get("name") not in known
    ]


def _frozen(spec: Tree, old: Tree) -> dict[str, Any]:
    """The fields that an update may not change."""
    frozen: dict[str, Any] = {
        key: value
        for key, value in spec.items()
        if key not in ("activeDeadlineSeconds", "tolerations", "schedulingGates", "ephemeralContainers")
    }
    if old.get("terminationGracePeriodSeconds", 0) < 0 and spec.get("terminationGracePeriodSeconds") == 1:
        frozen["terminationGracePeriodSeconds"] = old["terminationGracePeriodSeconds"]
    for kind in ("containers", "initContainers"):
        frozen[kind] = [{k: v for k, v in one.items() if k != "image"} for one in spec.get(kind, [])]
    return frozen


# -- status -----------------------------------------------------------------------------------------------------------


def status_faults(obj: Tree, old: Tree) -> list[FieldError]:
    status, before = obj.get("status", {}), old.get("status", {})
    errors = [
        f.invalid(f"metadata.conditions[{index}].Type", condition.get("type", ""), text)
        for index, condition in enumerate(status.get("conditions", []))
        if condition.get("type") not in _SYSTEM_CONDITIONS
        for text in qualified_name(condition.get("type", ""))
    ]
    nominated = status.get("nominatedNodeName", "")
    if nominated and nominated != before.get("nominatedNodeName", ""):
        errors += [f.invalid("status.nominatedNodeName", nominated, text) for text in dns1123_subdomain(nominated)]
    if before.get("qosClass") and status.get("qosClass") != before["qosClass"]:  # Pods of an earlier version lack it
        errors.append(f.invalid("status.qosClass", status.get("qosClass", ""), "field is immutable"))
    policy = old.get("spec", {}).get("restartPolicy", "Always")
    sidecars = {c.get("name") for c in old["spec"].get("initContainers", []) if c.get("restartPolicy") == "Always"}
    for field in ("containerStatuses", "initContainerStatuses", "ephemeralContainerStatuses"):
        rule = "Never" if field == "ephemeralContainerStatuses" else policy
        errors += _transitions(status.get(field, []), before.get(field, []), field, rule, sidecars)
    faults, doubles, repeated = _ips(status.get("podIPs", []), "status.podIPs")
    errors += [*faults, *doubles, *repeated]
    hosts = status.get("hostIPs", [])
    if hosts and status.get("hostIP", "") != hosts[0].get("ip", ""):
        errors.append(f.invalid("status.hostIPs[0].ip", hosts[0].get("ip", ""), "must be equal to `hostIP`"))
    faults, doubles, repeated = _ips(hosts, "status.hostIPs")
    return [*errors, *faults, *repeated, *doubles]


def _transitions(
    new: list[Tree], old: list[Tree], field: str, policy: str, sidecars: set[str | None]
) -> list[FieldError]:
    """What has ended and may not restart stays ended."""
    errors: list[FieldError] = []
    for index, before in enumerate(old):
        ended, name = before.get("state", {}).get("terminated"), before.get("name")
        if policy == "Always" or ended is None or (field == "initContainerStatuses" and name in sidecars):
            continue
        if policy == "OnFailure" and ended.get("exitCode", 0) != 0:
            continue
        if any(one.get("name") == name and one.get("state", {}).get("terminated") is None for one in new):
            detail = "may not be transitioned to non-terminated state"
            errors.append(f.forbidden(f"status.{field}[{index}].state", detail))
    return errors


def _ips(values: list[Tree], path: str) -> tuple[list[FieldError], list[FieldError], list[FieldError]]:
    """Faults of each address, of the families of all, and of those that are there again."""
    ips = [value.get("ip", "") for value in values]
    faults = [error for index, ip in enumerate(ips) for error in strict_ip(f"{path}[{index}]", ip)]
    if len(ips) < 2:
        return faults, [], []
    families: list[FieldError] = []
    bad = next((index for index, ip in enumerate(ips) if canonical_ip(ip) is None), None)
    if bad is not None:
        why = f"invalid IP[{bad}]: {ips[bad]}"
        families.append(f.internal(path, f"failed to check for dual stack with error:{why}"))
    shown = [{"IP": ip} for ip in ips]
    if bad is not None or len(ips) > 2 or len({family_of(ip) for ip in ips}) < 2:
        families.append(f.invalid(path, shown, "may specify no more than one IP for each IP family"))
    repeated = [f.duplicate(f"{path}[{index}]", shown[index]) for index, ip in enumerate(ips) if ip in ips[:index]]
    return faults, families, repeated
