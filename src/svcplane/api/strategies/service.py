"""Services: defaults, what a change of type clears, warnings.  Pure.

Source: pkg/apis/core/v1 defaults.go, pkg/registry/core/service strategy.go and storage.go, pkg/api/service.
Allocation is `server.allocation`.
"""

from typing import Any

from svcplane.api.fields import FieldError
from svcplane.api.strategy import Strategy, Tree, default_conditions
from svcplane.api.validation import service as rules
from svcplane.api.validation.names import dns1123_label
from svcplane.api.validation.service_warnings import status_warnings, warnings

DEFAULT_AFFINITY_TIMEOUT_S = 10800


class ServiceStrategy(Strategy):
    allow_create_on_update = True
    metadata_again = True
    selectable = ("spec.clusterIP", "spec.type")

    def validate_name(self, name: str, *, prefix: bool = False) -> list[str]:
        return dns1123_label(name, prefix=prefix)

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        spec.setdefault("sessionAffinity", "None")
        if spec["sessionAffinity"] == "None":
            spec.pop("sessionAffinityConfig", None)
        elif spec["sessionAffinity"] == "ClientIP":
            config = spec.setdefault("sessionAffinityConfig", {}).setdefault("clientIP", {})
            config.setdefault("timeoutSeconds", DEFAULT_AFFINITY_TIMEOUT_S)
        spec.setdefault("type", "ClusterIP")
        for port in spec.get("ports", []):
            port.setdefault("port", 0)
            port.setdefault("protocol", "TCP")
            if port.get("targetPort", 0) in (0, ""):
                port["targetPort"] = port["port"]
        if rules.externally_accessible(spec):
            spec.setdefault("externalTrafficPolicy", "Cluster")
        if spec["type"] in ("NodePort", "LoadBalancer", "ClusterIP") and spec.get("internalTrafficPolicy") is None:
            spec["internalTrafficPolicy"] = "Cluster"
        if spec["type"] == "LoadBalancer":
            if spec.get("allocateLoadBalancerNodePorts") is None:
                spec["allocateLoadBalancerNodePorts"] = True
            for ingress in ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress", []):
                if ingress.get("ip") and ingress.get("ipMode") is None:
                    ingress["ipMode"] = "VIP"
        default_conditions(obj.setdefault("status", {}))
        obj["status"].setdefault("loadBalancer", {})

    def prepare_create(self, obj: Tree) -> None:
        obj["status"] = {"loadBalancer": {}}
        _strip_external_name(obj)

    def validate_create(self, obj: Tree) -> list[FieldError]:
        return rules.validate(obj)

    def prepare_update(self, obj: Tree, old: Tree) -> None:
        obj["status"] = old.get("status", {"loadBalancer": {}})
        drop_type_dependent_fields(obj["spec"], old.get("spec", {}))
        if obj["spec"].get("type") != "LoadBalancer":
            status = dict(obj["status"])
            status["loadBalancer"] = {}
            obj["status"] = status
        _strip_external_name(obj)

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        return rules.validate_update(obj, old)

    def validate_status_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        return rules.validate_status(obj, old)

    def selectable_fields(self, obj: Tree) -> dict[str, str]:
        spec = obj.get("spec", {})
        return {"spec.clusterIP": spec.get("clusterIP", ""), "spec.type": spec.get("type", "")}

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        return warnings(obj)

    def status_warnings(self, obj: Tree, old: Tree) -> list[str]:
        return status_warnings(obj)


def _strip_external_name(obj: Tree) -> None:
    """An ExternalName Service shows no internal traffic policy."""
    if obj["spec"].get("type") == "ExternalName":
        obj["spec"].pop("internalTrafficPolicy", None)


def needs_cluster_ip(spec: Tree) -> bool:
    return spec.get("type") != "ExternalName"


def needs_node_port(spec: Tree) -> bool:
    return spec.get("type") in ("NodePort", "LoadBalancer")


def _node_ports(spec: Tree) -> list[Any]:
    return [port.get("nodePort", 0) for port in spec.get("ports", []) if port.get("nodePort")]


def drop_type_dependent_fields(spec: Tree, old: Tree) -> None:
    """Clear what the old type had and the new one may not have, where the user left it as it was."""
    if needs_cluster_ip(old) and not needs_cluster_ip(spec):
        if spec.get("clusterIP") == old.get("clusterIP") and spec.get("clusterIPs") == old.get("clusterIPs"):
            spec.pop("clusterIP", None)
            spec.pop("clusterIPs", None)
        if spec.get("ipFamilies") == old.get("ipFamilies"):
            spec.pop("ipFamilies", None)
        if spec.get("ipFamilyPolicy") == old.get("ipFamilyPolicy"):
            spec.pop("ipFamilyPolicy", None)
    if needs_node_port(old) and not needs_node_port(spec) and set(_node_ports(spec)) <= set(_node_ports(old)):
        for port in spec.get("ports", []):
            port.pop("nodePort", None)
    if rules.needs_health_check(old) and not rules.needs_health_check(spec):
        if spec.get("healthCheckNodePort") == old.get("healthCheckNodePort"):
            spec.pop("healthCheckNodePort", None)
    if old.get("type") == "LoadBalancer" != spec.get("type"):
        for field in ("allocateLoadBalancerNodePorts", "loadBalancerClass"):
            if spec.get(field) == old.get(field):
                spec.pop(field, None)
    if rules.externally_accessible(old) and not rules.externally_accessible(spec):
        if spec.get("externalTrafficPolicy") == old.get("externalTrafficPolicy"):
            spec.pop("externalTrafficPolicy", None)


def patch_allocated_values(spec: Tree, old: Tree) -> None:
    """An update that leaves allocated values out keeps them; node ports go by the name of the port."""
    if needs_cluster_ip(old) and needs_cluster_ip(spec):
        if not spec.get("clusterIP") and old.get("clusterIP"):
            spec["clusterIP"] = old["clusterIP"]
        if not spec.get("clusterIPs") and old.get("clusterIPs"):
            spec["clusterIPs"] = list(old["clusterIPs"])
    if needs_node_port(old) and needs_node_port(spec):
        kept_by_others = set(_node_ports(old)) & set(_node_ports(spec))
        by_name = {port.get("name", ""): port.get("nodePort", 0) for port in old.get("ports", [])}
        for port in spec.get("ports", []):
            known = by_name.get(port.get("name", ""), 0)
            if known and not port.get("nodePort") and known not in kept_by_others:
                port["nodePort"] = known
    if rules.needs_health_check(old) and rules.needs_health_check(spec):
        if not spec.get("healthCheckNodePort") and old.get("healthCheckNodePort"):
            spec["healthCheckNodePort"] = old["healthCheckNodePort"]


def normalize_cluster_ips(spec: Tree, old: Tree | None) -> None:
    """Keep clusterIP and clusterIPs in step where only one of them was given or changed."""
    ip, ips = spec.get("clusterIP", ""), spec.get("clusterIPs", [])
    if old is None:
        if ip and not ips:
            spec["clusterIPs"] = [ip]
    elif ip == old.get("clusterIP", ""):
        if old.get("clusterIPs") and not ips:  # a client that knows the older field alone
            spec["clusterIPs"] = list(old["clusterIPs"])
    elif ips == old.get("clusterIPs", []):
        if ip:
            spec["clusterIPs"] = [ip]
        else:
            spec.pop("clusterIPs", None)
