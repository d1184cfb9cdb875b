"""Which IP families and cluster IPs a Service asks for.  Pure.

Source: pkg/registry/core/service/storage/alloc.go (initIPFamilyFields), KEP-563.
"""

from collections.abc import Sequence

from svcplane.api import fields as f
from svcplane.api.status import invalid
from svcplane.api.strategy import Tree
from svcplane.api.validation.service import cluster_ip_fields, is_headless
from svcplane.base.net import Family, family_of

OTHER = {"IPv4": "IPv6", "IPv6": "IPv4"}
SINGLE, PREFER, REQUIRE = "SingleStack", "PreferDualStack", "RequireDualStack"


def family_name(ip: str) -> str:
    return "IPv6" if family_of(ip) is Family.IPV6 else "IPv4"


def matching_prefer_dual_stack(spec: Tree, old: Tree | None) -> bool:
    """PreferDualStack is neither up- nor downgraded by itself when the cluster's families change."""
    if old is None or spec.get("type") == "ExternalName" or old.get("type") == "ExternalName":
        return False
    if spec.get("ipFamilyPolicy") != PREFER or old.get("ipFamilyPolicy") != PREFER:
        return False
    return all(spec.get(field, []) == old.get(field, []) for field in ("clusterIPs", "ipFamilies"))


def settle_families(obj: Tree, old: Tree | None, cluster: Sequence[str]) -> None:
    """Fill in ipFamilyPolicy and ipFamilies.  `cluster`: families of the Service ranges, the default first.

    Raises StatusError 422.
    """
    spec, before = obj["spec"], (old or {}).get("spec")
    name = obj["metadata"].get("name", "")
    if spec.get("type") == "ExternalName" or matching_prefer_dual_stack(spec, before):
        return
    selectorless = spec.get("clusterIP") == "None" and not spec.get("selector")
    if spec.get("ipFamilyPolicy") is None:
        if before is not None and before.get("ipFamilyPolicy") is not None:
            spec["ipFamilyPolicy"] = before["ipFamilyPolicy"]
        else:
            spec["ipFamilyPolicy"] = REQUIRE if selectorless else SINGLE
    _refuse(name, cluster_ip_fields(spec, before or {}))
    errors = _release_secondary(spec, before) if before is not None else []
    errors += _single_stack_conflicts(spec)
    errors += _infer_from_ips(spec, cluster)
    _refuse(name, errors)
    families = spec.setdefault("ipFamilies", [])
    if selectorless:
        if not families:
            families.append(cluster[0])
        if len(families) < 2 and spec["ipFamilyPolicy"] != SINGLE:
            families.append(OTHER[families[0]])
        return
    _refuse(name, _unavailable(spec, cluster))
    if not families:
        families.append(cluster[0])
    if spec["ipFamilyPolicy"] != SINGLE and len(families) == 1 and len(cluster) == 2:
        families.append(OTHER[families[0]])


def _refuse(name: str, errors: list[f.FieldError]) -> None:
    if errors:
        raise invalid("Service", name, errors)


def _release_secondary(spec: Tree, before: Tree) -> list[f.FieldError]:
    errors: list[f.FieldError] = []
    for field, what in (("clusterIPs", "cluster IP"), ("ipFamilies", "IP family")):
        old, new = before.get(field, []), spec.get(field, [])
        if spec["ipFamilyPolicy"] == SINGLE:
            if old == new and len(new) > 1:
                spec[field] = new[:1]
        elif len(old) == 2 and len(new) == 1:
            detail = f"must be 'SingleStack' to release the secondary {what}"
            errors.append(f.invalid("spec.ipFamilyPolicy", spec["ipFamilyPolicy"], detail))
    return errors


def _single_stack_conflicts(spec: Tree) -> list[f.FieldError]:
    errors: list[f.FieldError] = []
    if spec["ipFamilyPolicy"] != SINGLE:
        return errors
    for field, what in (("clusterIPs", "cluster IPs"), ("ipFamilies", "IP families")):
        if len(spec.get(field, [])) == 2:
            detail = f"must be 'RequireDualStack' or 'PreferDualStack' when multiple {what} are specified"
            errors.append(f.invalid("spec.ipFamilyPolicy", SINGLE, detail))
    return errors


def _infer_from_ips(spec: Tree, cluster: Sequence[str]) -> list[f.FieldError]:
    errors: list[f.FieldError] = []
    families = spec.setdefault("ipFamilies", [])
    for index, ip in enumerate(spec.get("clusterIPs", [])):
        if ip == "None":
            break
        if index >= len(families):
            family = family_name(ip)
            if family not in cluster:
                detail = f"{family} is not configured on this cluster"
                errors.append(f.invalid(f"spec.clusterIPs[{index}]", spec["clusterIPs"], detail))
            else:
                families.append(family)
    return errors


def _unavailable(spec: Tree, cluster: Sequence[str]) -> list[f.FieldError]:
    errors: list[f.FieldError] = []
    if spec["ipFamilyPolicy"] == REQUIRE and len(cluster) < 2:
        detail = "this cluster is not configured for dual-stack services"
        errors.append(f.invalid("spec.ipFamilyPolicy", REQUIRE, detail))
    for index, family in enumerate(spec["ipFamilies"]):
        if family not in cluster:
            errors.append(f.invalid(f"spec.ipFamilies[{index}]", family, "not configured on this cluster"))
    return errors


def wanted_ips(spec: Tree, old: Tree | None) -> tuple[list[tuple[int, str, str]], list[str]]:
    """((index, family, requested IP or ""), ...) to allocate, and IPs to release.

    `index` is the place in clusterIPs.  Source: updateClusterIPs, cases A to D.
    """
    if old is not None and matching_prefer_dual_stack(spec, old):
        return [], []
    families, ips = spec.get("ipFamilies", []), spec.get("clusterIPs", [])
    everything = [(index, family, ips[index] if index < len(ips) else "") for index, family in enumerate(families)]
    if old is None or (old.get("type") == "ExternalName" != spec.get("type")):
        if spec.get("type") == "ExternalName" or is_headless(spec):
            return [], []
        return everything, []
    if is_headless(old):
        return [], []
    if old.get("type") != "ExternalName" and spec.get("type") == "ExternalName":
        return [], list(old.get("clusterIPs", []))
    old_families = old.get("ipFamilies", [])
    if len(old_families) == 1 and len(families) == 2:
        return everything[1:2], []
    if len(old_families) == 2 and len(families) == 1:
        return [], list(old.get("clusterIPs", []))[1:2]
    return [], []
