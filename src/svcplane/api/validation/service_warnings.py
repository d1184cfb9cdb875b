"""What is accepted in a Service and yet worth a word.  Pure.  Source: k8s.io/kubernetes/pkg/api/service/warnings.go."""

from svcplane.api.strategy import Tree
from svcplane.api.validation.values import cidr_warnings, ip_warnings

_HINTS, _MODE = "service.kubernetes.io/topology-aware-hints", "service.kubernetes.io/topology-mode"


def warnings(obj: Tree) -> list[str]:
    """Texts of Warning headers, in upstream's order."""
    spec, found = obj.get("spec", {}), []
    kind, ip = spec.get("type"), spec.get("clusterIP", "")
    if _HINTS in obj["metadata"].get("annotations", {}):
        found.append(f"annotation {_HINTS} is deprecated, please use {_MODE} instead")
    if ip not in ("", "None"):
        for index, address in enumerate(spec.get("clusterIPs", [])):
            found += ip_warnings(f"spec.clusterIPs[{index}]", address)
    if kind == "ClusterIP" and ip == "None":
        if spec.get("loadBalancerIP"):
            found.append("spec.loadBalancerIP is ignored for headless services")
        if spec.get("externalIPs"):
            found.append("spec.externalIPs is ignored for headless services")
        if spec.get("sessionAffinity") != "None":
            found.append("spec.SessionAffinity is ignored for headless services")
    for index, address in enumerate(spec.get("externalIPs", [])):
        found += ip_warnings(f"spec.externalIPs[{index}]", address)
    if spec.get("loadBalancerIP"):
        found += ip_warnings("spec.loadBalancerIP", spec["loadBalancerIP"])
    for index, cidr in enumerate(spec.get("loadBalancerSourceRanges", [])):
        found += cidr_warnings(f"spec.loadBalancerSourceRanges[{index}]", cidr)
    if spec.get("externalIPs"):
        found.append("spec.externalIPs is deprecated and may no longer be implemented in some clusters")
        if kind == "ExternalName":
            found.append('spec.externalIPs is ignored when spec.type is "ExternalName"')
    if kind != "ExternalName" and spec.get("externalName"):
        found.append('spec.externalName is ignored when spec.type is not "ExternalName"')
    if spec.get("trafficDistribution") == "PreferClose":
        found.append('spec.trafficDistribution: "PreferClose" is deprecated; use "PreferSameZone"')
    return found


def status_warnings(obj: Tree) -> list[str]:
    """The same of an update of the status: addresses of load balancers that are badly spelt."""
    ingress = ((obj.get("status") or {}).get("loadBalancer") or {}).get("ingress", [])
    path = "status.loadBalancer.ingress"
    return [
        text
        for index, item in enumerate(ingress)
        if item.get("ip")
        for text in ip_warnings(f"{path}[{index}]", item["ip"])
    ]
