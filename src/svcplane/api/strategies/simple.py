"""Kinds with few rules of their own: Namespace, Node, Lease, Event, IPAddress, ServiceCIDR.  Pure.

Source: pkg/registry/core/{namespace,node,event}, pkg/registry/coordination/lease, pkg/registry/networking.
"""

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Strategy, Tree
from svcplane.api.validation.names import dns1123_label, path_segment
from svcplane.api.validation.values import strict_cidr, strict_ip
from svcplane.base.net import family_of

CIDR_FINALIZER = "networking.k8s.io/service-cidr-finalizer"
_NODE_INFO = (
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


class NamespaceStrategy(Strategy):
    selectable = ("status.phase",)

    def validate_name(self, name: str, *, prefix: bool = False) -> list[str]:
        return dns1123_label(name, prefix=prefix)

    def default(self, obj: Tree) -> None:
        name = obj["metadata"].get("name")
        if name:
            obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
        obj.setdefault("status", {}).setdefault("phase", "Active")

    def prepare_create(self, obj: Tree) -> None:
        self.default(obj)
        obj["status"] = {"phase": "Active"}
        finalizers = obj.setdefault("spec", {}).setdefault("finalizers", [])
        if "kubernetes" not in finalizers:
            finalizers.append("kubernetes")

    def prepare_update(self, obj: Tree, old: Tree) -> None:
        obj["status"], obj["spec"] = old.get("status", {}), old.get("spec", {})

    def selectable_fields(self, obj: Tree) -> dict[str, str]:
        return {"status.phase": obj.get("status", {}).get("phase", "")}


class NodeStrategy(Strategy):
    allow_create_on_update = False
    selectable = ("spec.unschedulable",)

    def default(self, obj: Tree) -> None:
        status = obj.setdefault("status", {})
        endpoint = status.setdefault("daemonEndpoints", {}).setdefault("kubeletEndpoint", {})
        endpoint.setdefault("Port", 0)
        info = status.setdefault("nodeInfo", {})
        for key in _NODE_INFO:
            info.setdefault(key, "")
        for condition in status.get("conditions", []):
            condition.setdefault("lastHeartbeatTime", None)
            condition.setdefault("lastTransitionTime", None)
        if "allocatable" not in status and "capacity" in status:
            status["allocatable"] = dict(status["capacity"])

    def prepare_create(self, obj: Tree) -> None:
        # the admission plug-in TaintNodesByCondition: a new node is not ready until it says so
        taints = obj.setdefault("spec", {}).setdefault("taints", [])
        taint = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
        if taint not in taints:
            taints.append(taint)

    def prepare_update(self, obj: Tree, old: Tree) -> None:
        obj["status"] = old.get("status", {})

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        errors: list[FieldError] = []
        spec, before = obj.get("spec", {}), old.get("spec", {})
        if before.get("podCIDRs") and spec.get("podCIDRs") != before.get("podCIDRs"):
            detail = 'node updates may not change podCIDR except from "" to valid'
            errors.append(f.forbidden("spec.podCIDRs", detail))
        if before.get("providerID") and spec.get("providerID") != before.get("providerID"):
            detail = 'node updates may not change providerID except from "" to valid'
            errors.append(f.forbidden("spec.providerID", detail))
        return errors + self._taints(spec)

    def validate_create(self, obj: Tree) -> list[FieldError]:
        return self._taints(obj.get("spec", {}))

    @staticmethod
    def _taints(spec: Tree) -> list[FieldError]:
        errors: list[FieldError] = []
        seen: set[tuple[str, str]] = set()
        for index, taint in enumerate(spec.get("taints", [])):
            path = f"spec.taints[{index}]"
            effect = taint.get("effect", "")
            if not effect:
                errors.append(f.required(f"{path}.effect"))
            elif effect not in ("NoSchedule", "PreferNoSchedule", "NoExecute"):
                supported = ("NoSchedule", "PreferNoSchedule", "NoExecute")
                errors.append(f.not_supported(f"{path}.effect", effect, supported))
            key = taint.get("key", ""), effect
            if key in seen:
                errors.append(f.duplicate(path, taint))
            seen.add(key)
        return errors

    def selectable_fields(self, obj: Tree) -> dict[str, str]:
        return {"spec.unschedulable": "true" if obj.get("spec", {}).get("unschedulable") else "false"}


class LeaseStrategy(Strategy):
    allow_create_on_update = True
    allow_unconditional_update = False

    def validate_create(self, obj: Tree) -> list[FieldError]:
        spec, errors = obj.get("spec", {}), []
        duration, transitions = spec.get("leaseDurationSeconds"), spec.get("leaseTransitions")
        if duration is not None and duration <= 0:
            errors.append(f.invalid("spec.leaseDurationSeconds", duration, "must be greater than 0"))
        if transitions is not None and transitions < 0:
            errors.append(f.invalid("spec.leaseTransitions", transitions, "must be greater than or equal to 0"))
        return errors

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        return self.validate_create(obj)


class EventStrategy(Strategy):
    allow_create_on_update = True
    selectable = (
        "involvedObject.kind",
        "involvedObject.namespace",
        "involvedObject.name",
        "involvedObject.uid",
        "involvedObject.apiVersion",
        "involvedObject.resourceVersion",
        "involvedObject.fieldPath",
        "reason",
        "reportingComponent",
        "source",
        "type",
    )

    def validate_name(self, name: str, *, prefix: bool = False) -> list[str]:
        return path_segment(name, prefix=prefix)

    def default(self, obj: Tree) -> None:
        obj.setdefault("involvedObject", {})
        obj.setdefault("source", {})
        for key in ("firstTimestamp", "lastTimestamp", "eventTime"):
            obj.setdefault(key, None)
        for key in ("reportingComponent", "reportingInstance"):
            obj.setdefault(key, "")

    def validate_create(self, obj: Tree) -> list[FieldError]:
        namespace, target = obj["metadata"].get("namespace", ""), obj["involvedObject"].get("namespace", "")
        if target != namespace and not (not target and namespace == "default"):
            detail = "does not match event.namespace"
            return [f.invalid("involvedObject.namespace", target, detail)]
        return []

    def selectable_fields(self, obj: Tree) -> dict[str, str]:
        target = obj.get("involvedObject", {})
        found = {
            f"involvedObject.{key}": target.get(key, "")
            for key in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion", "fieldPath")
        }
        return found | {
            "reason": obj.get("reason", ""),
            "reportingComponent": obj.get("reportingComponent", ""),
            "source": obj.get("source", {}).get("component", "") or obj.get("reportingComponent", ""),
            "type": obj.get("type", ""),
        }


class IPAddressStrategy(Strategy):
    selectable = ()

    def validate_name(self, name: str, *, prefix: bool = False) -> list[str]:
        if prefix or strict_ip("", name):
            return ["must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)"]
        return []

    def validate_create(self, obj: Tree) -> list[FieldError]:
        parent = obj.get("spec", {}).get("parentRef")
        if parent is None:
            return [f.required("spec.parentRef")]
        return [f.required(f"spec.parentRef.{key}") for key in ("resource", "name") if not parent.get(key)]

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        if obj.get("spec", {}).get("parentRef") != old.get("spec", {}).get("parentRef"):
            return [f.invalid("spec.parentRef", obj["spec"].get("parentRef"), "field is immutable")]
        return []


class ServiceCIDRStrategy(Strategy):
    def default(self, obj: Tree) -> None:
        obj.setdefault("spec", {})
        obj.setdefault("status", {})

    def prepare_create(self, obj: Tree) -> None:
        obj["status"] = {}

    def prepare_update(self, obj: Tree, old: Tree) -> None:
        obj["status"] = old.get("status", {})

    def validate_create(self, obj: Tree) -> list[FieldError]:
        cidrs, path = obj.get("spec", {}).get("cidrs", []), "spec.cidrs"
        errors: list[FieldError] = []
        if not cidrs:
            return [f.required(path, "at least one CIDR required")]
        if len(cidrs) > 2:
            return [f.invalid(path, cidrs, "may only hold up to 2 values")]
        for index, cidr in enumerate(cidrs):
            errors += strict_cidr(f"{path}[{index}]", cidr)
        if len(cidrs) == 2 and family_of(cidrs[0]) == family_of(cidrs[1]):
            detail = "may specify no more than one IP for each IP family, i.e 192.168.0.0/24 and 2001:db8::/64"
            errors.append(f.invalid(path, cidrs, detail))
        return errors

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        new, before = obj.get("spec", {}).get("cidrs", []), old.get("spec", {}).get("cidrs", [])
        if new == before:
            return []
        if len(before) == 1 and len(new) == 2 and new[0] == before[0]:
            return self.validate_create(obj)
        return [f.invalid("spec.cidrs", new, "field is immutable")]
