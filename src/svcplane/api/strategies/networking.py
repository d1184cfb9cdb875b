"""IPAddresses and ServiceCIDRs.  Pure.  Source: pkg/registry/networking, pkg/apis/networking/validation."""

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Strategy, Tree, default_conditions
from svcplane.api.validation.names import dns1123_subdomain, path_segment
from svcplane.api.validation.values import valid_cidr, valid_ip
from svcplane.base.net import canonical_cidr, family_of

CIDR_FINALIZER = "networking.k8s.io/service-cidr-finalizer"
IMMUTABLE = "field is immutable"


class IPAddressStrategy(Strategy):
    metadata_again = True
    adds_suffix = False

    def validate_name(self, name: str, *, prefix: bool = False) -> list[str]:
        return [error.detail for error in valid_ip("", name)]

    def validate_create(self, obj: Tree) -> list[FieldError]:
        parent, path = obj.get("spec", {}).get("parentRef"), "spec.parentRef"
        if parent is None:
            return [f.required(path)]
        group = parent.get("group", "")
        errors = [f.invalid(f"{path}.group", group, text) for text in dns1123_subdomain(group)] if group else []
        for key in ("resource", "name", "namespace"):
            value = parent.get(key, "")
            if not value and key != "namespace":
                errors.append(f.required(f"{path}.{key}"))
            errors += [f.invalid(f"{path}.{key}", value, text) for text in path_segment(value)]
        return errors

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        parent, errors = obj.get("spec", {}).get("parentRef"), self.validate_create(obj)
        if parent == old.get("spec", {}).get("parentRef"):
            return errors
        fields = ("group", "resource", "namespace", "name")
        shown = None if parent is None else {key.capitalize(): parent.get(key, "") for key in fields}
        return [*errors, f.invalid("spec.parentRef", shown, IMMUTABLE)]


class ServiceCIDRStrategy(Strategy):
    def default(self, obj: Tree) -> None:
        obj.setdefault("spec", {})
        default_conditions(obj.setdefault("status", {}))

    # writes of the object set its status too, as upstream's strategy leaves it alone

    def prepare_status_update(self, obj: Tree, old: Tree) -> None:
        super().prepare_status_update(obj, old)
        meta, before = obj["metadata"], old["metadata"]
        for field in ("labels", "annotations", "finalizers", "ownerReferences"):
            meta.pop(field, None)
            if field in before:
                meta[field] = before[field]

    def validate_create(self, obj: Tree) -> list[FieldError]:
        cidrs, path = obj.get("spec", {}).get("cidrs", []), "spec.cidrs"
        if not cidrs:
            return [f.required(path, "at least one CIDR required")]
        if len(cidrs) > 2:
            return [f.invalid(path, {"CIDRs": cidrs}, "may only hold up to 2 values")]
        if errors := _two_families(cidrs):
            return errors
        return [error for index, cidr in enumerate(cidrs) for error in valid_cidr(f"{path}[{index}]", cidr)]

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        new, before = obj.get("spec", {}).get("cidrs", []), old.get("spec", {}).get("cidrs", [])
        path = "spec.cidrs"
        if (len(before), len(new)) == (1, 2):
            errors = [] if new[0] == before[0] else [f.invalid(f"{path}[0]", new[0], IMMUTABLE)]
            return errors + (_two_families(new) or valid_cidr(f"{path}[1]", new[1]))
        if len(before) != len(new):
            return [f.invalid(path, new, IMMUTABLE)]
        pairs = enumerate(zip(before, new, strict=True))
        return [f.invalid(f"{path}[{index}]", is_, IMMUTABLE) for index, (was, is_) in pairs if was != is_]


def _two_families(cidrs: list[str]) -> list[FieldError]:
    """Two networks are one of each family; upstream shows the whole spec."""
    valid = all(canonical_cidr(cidr) is not None for cidr in cidrs)
    if len(cidrs) < 2 or (valid and family_of(cidrs[0]) != family_of(cidrs[1])):
        return []
    detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
    return [f.invalid("spec.cidrs", {"CIDRs": cidrs}, detail)]
