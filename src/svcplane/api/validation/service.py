"""Validation of Services.  Pure.  Source: k8s.io/kubernetes/pkg/apis/core/validation (ValidateService*)."""

from typing import Any

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Tree
from svcplane.api.validation import meta
from svcplane.api.validation import ports as port_rules
from svcplane.api.validation.names import (
    dns1123_label,
    dns1123_subdomain,
    port_name,
    port_number,
    qualified_name,
)
from svcplane.api.validation.values import special_ip, strict_cidr, strict_ip
from svcplane.base.net import Family, canonical_ip, family_of

TYPES = ("ClusterIP", "ExternalName", "LoadBalancer", "NodePort")
DISTRIBUTIONS = ("PreferClose", "PreferSameZone", "PreferSameNode")
SOURCE_RANGES = "service.beta.kubernetes.io/load-balancer-source-ranges"
_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"
LB_ONLY = "may only be used when `type` is 'LoadBalancer'"


def is_headless(spec: Tree) -> bool:
    return list(spec.get("clusterIPs", [])) == ["None"]


def externally_accessible(spec: Tree) -> bool:
    kind = spec.get("type")
    return kind in ("LoadBalancer", "NodePort") or (kind == "ClusterIP" and bool(spec.get("externalIPs")))


def needs_health_check(spec: Tree) -> bool:
    return spec.get("type") == "LoadBalancer" and spec.get("externalTrafficPolicy") == "Local"


def _one_of(path: str, value: Any, allowed: tuple[str, ...], *, keep_order: bool = False) -> list[FieldError]:
    if not value:
        return [f.required(path)]
    return [] if value in allowed else [f.not_supported(path, value, allowed, keep_order=keep_order)]


def validate(obj: Tree, old: Tree | None = None) -> list[FieldError]:
    """Everything a new or changed Service must satisfy by itself; metadata is checked by the registry."""
    spec, before = obj.get("spec", {}), (old or {}).get("spec", {})
    errors = _annotations(obj)
    errors += _type_rules(spec)
    names: set[str] = set()
    ports = spec.get("ports", [])
    for index, port in enumerate(ports):
        errors += _port(port, f"spec.ports[{index}]", names, name_required=len(ports) > 1)
    errors += meta.labels(spec.get("selector", {}), "spec.selector")
    errors += _affinity(spec)
    errors += cluster_ip_fields(spec, before)
    for index, ip in enumerate(spec.get("externalIPs", [])):
        path = f"spec.externalIPs[{index}]"
        errors += strict_ip(path, ip, before.get("externalIPs", ())) or (
            special_ip(path, ip) if canonical_ip(ip) else []
        )
    errors += _one_of("spec.type", spec.get("type"), TYPES)
    errors += _node_ports(spec)
    errors += _duplicate_ports(ports)
    errors += _source_ranges(obj, old)
    errors += _load_balancer(spec)
    errors += _external_policy(spec)
    errors += _internal_policy(spec)
    distribution = spec.get("trafficDistribution")
    if distribution is not None and distribution not in DISTRIBUTIONS:
        errors.append(f.not_supported("spec.trafficDistribution", distribution, DISTRIBUTIONS, keep_order=True))
    return errors


def _internal_policy(spec: Tree) -> list[FieldError]:
    policy, path = spec.get("internalTrafficPolicy"), "spec.internalTrafficPolicy"
    if policy is None:
        return [f.required(path)] if spec.get("type") in ("ClusterIP", "LoadBalancer", "NodePort") else []
    return [] if policy in ("Cluster", "Local") else [f.not_supported(path, policy, ("Cluster", "Local"))]


def _annotations(obj: Tree) -> list[FieldError]:
    annotations = obj["metadata"].get("annotations", {})
    if _HINTS in annotations and _MODE in annotations and annotations[_HINTS] != annotations[_MODE]:
        detail = f"must match annotations[{_HINTS}] when both are specified"
        return [f.invalid(f"metadata.annotations[{_MODE}]", annotations[_MODE], detail)]
    return []


def _type_rules(spec: Tree) -> list[FieldError]:
    kind, errors = spec.get("type"), []
    if not spec.get("ports") and not is_headless(spec) and kind != "ExternalName":
        errors.append(f.required("spec.ports"))
    if kind in ("LoadBalancer", "NodePort") and is_headless(spec):
        detail = f"may not be set to 'None' for {kind} services"
        errors.append(f.invalid("spec.clusterIPs[0]", "None", detail))
    if kind == "ExternalName":
        for field in ("clusterIPs", "ipFamilies", "ipFamilyPolicy"):
            if spec.get(field) or (field == "ipFamilyPolicy" and spec.get(field) is not None):
                errors.append(f.forbidden(f"spec.{field}", "may not be set for ExternalName services"))
        name = spec.get("externalName", "").removesuffix(".")
        if name:
            errors += [f.invalid("spec.externalName", name, text) for text in dns1123_subdomain(name)]
        else:
            errors.append(f.required("spec.externalName"))
    return errors


def _port(port: Tree, path: str, names: set[str], *, name_required: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    name = port.get("name", "")
    if not name and name_required:
        errors.append(f.required(f"{path}.name"))
    elif name:
        errors += [f.invalid(f"{path}.name", name, text) for text in dns1123_label(name)]
        if name in names:
            errors.append(f.duplicate(f"{path}.name", name))
        names.add(name)
    number = port.get("port", 0)
    errors += [f.invalid(f"{path}.port", number, text) for text in port_number(number)]
    errors += port_rules.protocol(port, path)
    target = port.get("targetPort", 0)
    rule = port_number(target) if isinstance(target, int) else port_name(target)
    errors += [f.invalid(f"{path}.targetPort", target, text) for text in rule]
    return errors + port_rules.app_protocol(port, path)


def _affinity(spec: Tree) -> list[FieldError]:
    affinity = spec.get("sessionAffinity")
    errors = _one_of("spec.sessionAffinity", affinity, ("ClientIP", "None"))
    config = spec.get("sessionAffinityConfig")
    path = "spec.sessionAffinityConfig"
    if affinity == "ClientIP":
        timeout = ((config or {}).get("clientIP") or {}).get("timeoutSeconds")
        if timeout is None:
            detail = "when session affinity type is ClientIP"
            errors.append(f.required(path, detail))
        elif not 0 < timeout <= 86400:
            detail = "must be greater than 0 and less than 86400"
            errors.append(f.invalid(f"{path}.clientIP.timeoutSeconds", timeout, detail))
    elif affinity == "None" and config is not None:
        errors.append(f.forbidden(path, "must not be set when session affinity is None"))
    return errors


def cluster_ip_fields(spec: Tree, before: Tree) -> list[FieldError]:
    """clusterIP, clusterIPs, ipFamilies and ipFamilyPolicy among themselves (also run before allocation)."""
    if spec.get("type") == "ExternalName":
        return []
    ip, ips, families = spec.get("clusterIP", ""), spec.get("clusterIPs", []), spec.get("ipFamilies", [])
    path, errors = "spec.clusterIPs", []
    if ip:
        if not ips:
            errors.append(f.required(path))
        elif ips[0] != ip:
            errors.append(f.invalid(path, ips, "first value must match `clusterIP`"))
    elif ips:
        errors.append(f.invalid(path, ips, "must be empty when `clusterIP` is not specified"))
    seen: set[str] = set()
    for index, family in enumerate(families):
        if family not in ("IPv4", "IPv6"):
            errors.append(f.not_supported(f"spec.ipFamilies[{index}]", family, ("IPv4", "IPv6")))
        if family in seen:
            errors.append(f.duplicate(f"spec.ipFamilies[{index}]", family))
        seen.add(family)
    policy = spec.get("ipFamilyPolicy")
    if policy is not None and policy not in ("SingleStack", "PreferDualStack", "RequireDualStack"):
        supported = ("SingleStack", "PreferDualStack", "RequireDualStack")
        errors.append(f.not_supported("spec.ipFamilyPolicy", policy, supported))
    bad = False
    for index, value in enumerate(ips):
        if index == 0 and value == "None":
            if len(ips) > 1:
                bad = True
                errors.append(f.invalid(path, ips, "'None' must be the first and only value"))
            continue
        found = strict_ip(f"{path}[{index}]", value, before.get("clusterIPs", ()))
        bad = bad or bool(found)
        errors += found
    if len(ips) > 2:
        errors.append(f.invalid(path, ips, "may only hold up to 2 values"))
    return errors if bad else errors + _families_of_ips(ips, families)


def _families_of_ips(ips: list[str], families: list[str]) -> list[FieldError]:
    path, errors = "spec.clusterIPs", []
    real = [ip for ip in ips if ip != "None"]
    if len(real) > 1 and len({family_of(ip) for ip in real}) != 2:
        errors.append(f.invalid(path, ips, "may specify no more than one IP for each IP family"))
    for index, (ip, family) in enumerate(zip(real, families, strict=False)):
        actual = "IPv6" if family_of(ip) is Family.IPV6 else "IPv4"
        if family in ("IPv4", "IPv6") and family != actual:
            detail = f"expected an {family} value as indicated by `ipFamilies[{index}]`"
            errors.append(f.invalid(f"{path}[{index}]", ip, detail))
    return errors


def _node_ports(spec: Tree) -> list[FieldError]:
    errors: list[FieldError] = []
    ports = spec.get("ports", [])
    if spec.get("type") == "ClusterIP":
        for index, port in enumerate(ports):
            if port.get("nodePort"):
                detail = "may not be used when `type` is 'ClusterIP'"
                errors.append(f.forbidden(f"spec.ports[{index}].nodePort", detail))
    seen: set[tuple[Any, int]] = set()
    for index, port in enumerate(ports):
        if not port.get("nodePort"):
            continue
        key = port.get("protocol"), port["nodePort"]
        if key in seen:
            errors.append(f.duplicate(f"spec.ports[{index}].nodePort", port["nodePort"]))
        seen.add(key)
    return errors


def _duplicate_ports(ports: list[Tree]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[tuple[Any, Any]] = set()
    for index, port in enumerate(ports):
        key = port.get("protocol"), port.get("port", 0)
        if key in seen:
            # upstream prints the internal type, whose fields have no JSON names
            shown = {
                "Name": "",
                "Protocol": key[0],
                "AppProtocol": None,
                "Port": key[1],
                "TargetPort": 0,
                "NodePort": 0,
            }
            errors.append(f.duplicate(f"spec.ports[{index}]", shown))
        seen.add(key)
    return errors


def _source_ranges(obj: Tree, old: Tree | None) -> list[FieldError]:
    spec, before = obj.get("spec", {}), (old or {}).get("spec", {})
    ranges = spec.get("loadBalancerSourceRanges", [])
    errors: list[FieldError] = []
    if ranges:
        path = "spec.LoadBalancerSourceRanges"
        if spec.get("type") != "LoadBalancer":
            errors.append(f.forbidden(path, LB_ONLY))
        existing = [value.strip() for value in before.get("loadBalancerSourceRanges", [])]
        for index, value in enumerate(ranges):
            errors += strict_cidr(f"{path}[{index}]", value.strip(), existing)
        return errors
    value = obj["metadata"].get("annotations", {}).get(SOURCE_RANGES)
    if value is None:
        return errors
    path = f"metadata.annotations[{SOURCE_RANGES}]"
    if spec.get("type") != "LoadBalancer":
        errors.append(f.forbidden(path, LB_ONLY))
    if value != (old or {"metadata": {}})["metadata"].get("annotations", {}).get(SOURCE_RANGES) and value.strip():
        for part in value.strip().split(","):
            errors += strict_cidr(path, part.strip())
    return errors


def _load_balancer(spec: Tree) -> list[FieldError]:
    errors: list[FieldError] = []
    is_lb = spec.get("type") == "LoadBalancer"
    if spec.get("allocateLoadBalancerNodePorts") is not None and not is_lb:
        errors.append(f.forbidden("spec.allocateLoadBalancerNodePorts", LB_ONLY))
    if spec.get("allocateLoadBalancerNodePorts") is None and is_lb:
        errors.append(f.required("allocateLoadBalancerNodePorts"))
    return errors + _load_balancer_class(spec)


def _load_balancer_class(spec: Tree) -> list[FieldError]:
    class_, path = spec.get("loadBalancerClass"), "spec.loadBalancerClass"
    if class_ is None:
        return []
    if spec.get("type") != "LoadBalancer":
        return [f.forbidden(path, LB_ONLY)]
    return [f.invalid(path, class_, text) for text in qualified_name(class_)]


def _external_policy(spec: Tree) -> list[FieldError]:
    errors: list[FieldError] = []
    policy = spec.get("externalTrafficPolicy", "")
    path = "spec.externalTrafficPolicy"
    if not externally_accessible(spec):
        if policy:
            errors.append(f.invalid(path, policy, "may only be set for externally-accessible services"))
    elif not policy:
        errors.append(f.required(path))
    elif policy not in ("Cluster", "Local"):
        errors.append(f.not_supported(path, policy, ("Cluster", "Local")))
    check = spec.get("healthCheckNodePort", 0)
    path = "spec.healthCheckNodePort"
    if not needs_health_check(spec):
        if check:
            detail = "may only be set when `type` is 'LoadBalancer' and `externalTrafficPolicy` is 'Local'"
            errors.append(f.invalid(path, check, detail))
    elif check == 0:
        errors.append(f.required(path))
    else:
        errors += [f.invalid(path, check, text) for text in port_number(check)]
    return errors


def validate_update(obj: Tree, old: Tree) -> list[FieldError]:
    """What may not change, then everything else."""
    spec, before = obj.get("spec", {}), old.get("spec", {})
    errors = _cluster_ip_changes(spec, before)
    errors += _family_changes(spec, before)
    if "LoadBalancer" == spec.get("type") == before.get("type"):
        class_ = spec.get("loadBalancerClass")
        if class_ != before.get("loadBalancerClass"):
            errors.append(f.invalid("spec.loadBalancerClass", class_, "may not change once set"))
    errors += _load_balancer_class(spec)  # an update is looked at twice, and each time counts as a cause
    if needs_health_check(spec) and needs_health_check(before):
        if spec.get("healthCheckNodePort") != before.get("healthCheckNodePort"):
            errors.append(f.forbidden("spec.healthCheckNodePort", "field is immutable"))
    return errors + validate(obj, old)


def _cluster_ip_changes(spec: Tree, before: Tree) -> list[FieldError]:
    if "ExternalName" in (spec.get("type"), before.get("type")) or (is_headless(spec) and is_headless(before)):
        return []
    old, new, path = before.get("clusterIPs", []), spec.get("clusterIPs", []), "spec.clusterIPs"
    errors: list[FieldError] = []
    if len(old) == len(new):
        for index, (was, is_) in enumerate(zip(old, new, strict=True)):
            if was != is_:
                errors.append(f.invalid(f"{path}[{index}]", new, "may not change once set"))
    elif len(old) > len(new):
        if not new:
            errors.append(f.invalid(f"{path}[0]", new, "primary clusterIP can not be unset"))
        elif old[0] != new[0]:
            errors.append(f.invalid(f"{path}[0]", new, "may not change once set"))
        if len(new) == 1 and spec.get("ipFamilyPolicy") != "SingleStack":
            detail = "must be set to 'SingleStack' when releasing the secondary clusterIP"
            errors.append(f.invalid("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), detail))
    elif old and old[0] != new[0]:
        errors.append(f.invalid(f"{path}[0]", new, "may not change once set"))
    return errors


def _family_changes(spec: Tree, before: Tree) -> list[FieldError]:
    if "ExternalName" in (spec.get("type"), before.get("type")) or is_headless(spec) or is_headless(before):
        return []
    old, new, path = before.get("ipFamilies", []), spec.get("ipFamilies", []), "spec.ipFamilies"
    ips, changed = spec.get("clusterIPs", []), "may not change once set"
    errors: list[FieldError] = []
    if len(old) == len(new):
        return [f.invalid(f"{path}[0]", new, changed) for was, is_ in zip(old, new, strict=True) if was != is_]
    if len(old) > len(new) and not ips:
        errors.append(f.invalid(f"{path}[0]", new, "primary ipFamily can not be unset"))
    if old and new and old[0] != new[0]:
        errors.append(f.invalid(f"{path}[0]", ips, changed))  # upstream shows the addresses here
    if len(old) > len(new) == 1 and spec.get("ipFamilyPolicy") != "SingleStack":
        detail = "must be set to 'SingleStack' when releasing the secondary ipFamily"
        errors.append(f.invalid("spec.ipFamilyPolicy", spec.get("ipFamilyPolicy"), detail))
    return errors


def validate_status(obj: Tree, old: Tree) -> list[FieldError]:
    """`status.loadBalancer`."""
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress", [])
    existing = [item.get("ip") for item in ((old.get("status") or {}).get("loadBalancer") or {}).get("ingress", [])]
    errors: list[FieldError] = []
    path = "status.loadBalancer.ingress"
    if obj.get("spec", {}).get("type") != "LoadBalancer" and ingress:
        return [f.forbidden(path, "may only be used when `spec.type` is 'LoadBalancer'")]
    for index, item in enumerate(ingress):
        place = f"{path}[{index}]"
        ip, mode = item.get("ip", ""), item.get("ipMode")
        if ip:
            errors += strict_ip(f"{place}.ip", ip, existing)
        if mode is None:
            if ip:
                errors.append(f.required(f"{place}.ipMode", "must be specified when `ip` is set"))
        elif not ip:
            errors.append(f.forbidden(f"{place}.ipMode", "may not be specified when `ip` is not set"))
        elif mode not in ("VIP", "Proxy"):
            errors.append(f.not_supported(f"{place}.ipMode", mode, ("Proxy", "VIP")))
        if item.get("hostname"):
            name = item["hostname"]
            errors += [f.invalid(f"{place}.hostname", name, text) for text in dns1123_subdomain(name)]
            if canonical_ip(name) is not None:
                errors.append(f.invalid(f"{place}.hostname", name, "must be a DNS name, not an IP address"))
    return errors
