"""Pods: defaults, admission defaults, validation of what this system reads, graceful deletion.  Pure.

Source: pkg/apis/core/v1 defaults.go, pkg/registry/core/pod/strategy.go, pkg/apis/core/validation; the
admission plug-ins DefaultTolerationSeconds and Priority.
"""

from typing import Any

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Strategy, Tree
from svcplane.api.validation.names import dns1123_label, dns1123_subdomain, port_name, port_number

PHASES_DONE = ("Failed", "Succeeded")
_CONTAINER_LISTS = ("initContainers", "containers")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")


class PodStrategy(Strategy):
    has_generation = True
    selectable = (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.nominatedNodeName",
    )

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        for kind in _CONTAINER_LISTS:
            for container in spec.get(kind, []):
                _default_container(container, host_network=bool(spec.get("hostNetwork")))
        spec.setdefault("restartPolicy", "Always")
        spec.setdefault("terminationGracePeriodSeconds", 30)
        spec.setdefault("dnsPolicy", "ClusterFirst")
        spec.setdefault("securityContext", {})
        spec.setdefault("schedulerName", "default-scheduler")
        spec.setdefault("enableServiceLinks", True)
        status = obj.setdefault("status", {})
        for condition in status.get("conditions", []):
            condition.setdefault("lastProbeTime", None)
            condition.setdefault("lastTransitionTime", None)
        for kind in ("initContainerStatuses", "containerStatuses"):
            for container in status.get(kind, []):
                container.setdefault("state", {})
                container.setdefault("lastState", {})
                container.setdefault("ready", False)
                container.setdefault("restartCount", 0)
                container.setdefault("image", "")
                container.setdefault("imageID", "")

    def prepare_create(self, obj: Tree) -> None:
        spec = obj["spec"]
        spec["priority"] = spec.get("priority", 0)
        spec.setdefault("preemptionPolicy", "PreemptLowerPriority")
        tolerations = spec.setdefault("tolerations", [])
        for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
            if not any(_tolerates(toleration, key) for toleration in tolerations):
                toleration = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
                tolerations.append(toleration)
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}

    def validate_create(self, obj: Tree) -> list[FieldError]:
        spec = obj.get("spec", {})
        errors: list[FieldError] = []
        if not spec.get("containers"):
            errors.append(f.required("spec.containers"))
        seen: set[str] = set()
        for kind in ("containers", "initContainers"):
            for index, container in enumerate(spec.get(kind, [])):
                errors += _container(container, f"spec.{kind}[{index}]", seen)
        policy = spec.get("restartPolicy")
        if policy not in ("Always", "OnFailure", "Never"):
            supported = ("Always", "OnFailure", "Never")
            errors.append(f.not_supported("spec.restartPolicy", policy, supported, keep_order=True))
        if spec.get("terminationGracePeriodSeconds", 0) < 0:
            value = spec["terminationGracePeriodSeconds"]
            errors.append(f.invalid("spec.terminationGracePeriodSeconds", value, "must be greater than or equal to 0"))
        if spec.get("nodeName"):
            errors += [f.invalid("spec.nodeName", spec["nodeName"], t) for t in dns1123_subdomain(spec["nodeName"])]
        for field in ("hostname", "subdomain"):
            if spec.get(field):
                errors += [f.invalid(f"spec.{field}", spec[field], text) for text in dns1123_label(spec[field])]
        return errors

    def prepare_update(self, obj: Tree, old: Tree) -> None:
        obj["status"] = old.get("status", {})

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        errors = self.validate_create(obj)
        if errors:
            return errors
        if _frozen(obj["spec"], old["spec"]) != _frozen(old["spec"], old["spec"]):
            detail = (
                "pod updates may not change fields other than `spec.containers[*].image`,"
                "`spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` "
                "(only additions to existing tolerations),`spec.terminationGracePeriodSeconds` "
                "(allow it to be set to 1 if it was previously negative)"
            )
            errors.append(f.forbidden("spec", detail))
        return errors

    def prepare_status_update(self, obj: Tree, old: Tree) -> None:
        super().prepare_status_update(obj, old)
        status, before = obj.setdefault("status", {}), old.get("status", {})
        status.setdefault("qosClass", before.get("qosClass", qos_class(obj["spec"])))
        _sync_ips(status, before, "podIP", "podIPs")
        _sync_ips(status, before, "hostIP", "hostIPs")

    def selectable_fields(self, obj: Tree) -> dict[str, str]:
        spec, status = obj.get("spec", {}), obj.get("status", {})
        return {
            "spec.nodeName": spec.get("nodeName", ""),
            "spec.restartPolicy": spec.get("restartPolicy", ""),
            "spec.schedulerName": spec.get("schedulerName", ""),
            "spec.serviceAccountName": spec.get("serviceAccountName", ""),
            "spec.hostNetwork": "true" if spec.get("hostNetwork") else "false",
            "status.phase": status.get("phase", ""),
            "status.podIP": status.get("podIP", ""),
            "status.nominatedNodeName": status.get("nominatedNodeName", ""),
        }

    def grace_period_on_delete(self, obj: Tree, asked_s: int | None) -> int | None:
        """At once for a Pod no node has or that has ended."""
        spec, meta = obj.get("spec", {}), obj["metadata"]
        period = asked_s if asked_s is not None else int(spec.get("terminationGracePeriodSeconds", 30))
        if not spec.get("nodeName") or obj.get("status", {}).get("phase") in PHASES_DONE:
            return 0
        if asked_s is None and meta.get("deletionTimestamp"):
            return int(meta.get("deletionGracePeriodSeconds", period))
        return max(1, period) if period < 0 else period


def _tolerates(toleration: Tree, key: str) -> bool:
    return bool(toleration.get("key", key) == key and toleration.get("effect", "NoExecute") == "NoExecute")


def _default_container(container: Tree, *, host_network: bool) -> None:
    container.setdefault("resources", {})
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if "imagePullPolicy" not in container:
        image = str(container.get("image", "")).partition("@")[0]
        tag = image.rpartition("/")[2].partition(":")[2]
        latest = (not tag and "@" not in str(container.get("image", ""))) or tag == "latest"
        container["imagePullPolicy"] = "Always" if latest else "IfNotPresent"
    for port in container.get("ports", []):
        port.setdefault("protocol", "TCP")
        if host_network and not port.get("hostPort"):
            port["hostPort"] = port.get("containerPort", 0)
    for variable in container.get("env", []):
        reference = (variable.get("valueFrom") or {}).get("fieldRef")
        if reference is not None:
            reference.setdefault("apiVersion", "v1")
    for name in _PROBES:
        probe = container.get(name)
        if probe is None:
            continue
        for field, value in (("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1)):
            probe.setdefault(field, value)
        probe.setdefault("failureThreshold", 3)
        if probe.get("httpGet") is not None:
            probe["httpGet"].setdefault("path", "/")
            probe["httpGet"].setdefault("scheme", "HTTP")


def _container(container: Tree, path: str, seen: set[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    name = container.get("name", "")
    if not name:
        errors.append(f.required(f"{path}.name"))
    else:
        errors += [f.invalid(f"{path}.name", name, text) for text in dns1123_label(name)]
        if name in seen:
            errors.append(f.duplicate(f"{path}.name", name))
        seen.add(name)
    if not container.get("image"):
        errors.append(f.required(f"{path}.image"))
    errors += _ports(container.get("ports", []), f"{path}.ports")
    for field in _PROBES:
        if container.get(field) is not None:
            errors += _probe(container[field], f"{path}.{field}")
    return errors


def _ports(ports: list[Tree], path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, port in enumerate(ports):
        place = f"{path}[{index}]"
        if port.get("name"):
            found = [f.invalid(f"{place}.name", port["name"], text) for text in port_name(port["name"])]
            if not found and port["name"] in names:
                found.append(f.duplicate(f"{place}.name", port["name"]))
            names.add(port["name"])
            errors += found
        number = port.get("containerPort", 0)
        if not number:
            errors.append(f.required(f"{place}.containerPort"))
        else:
            errors += [f.invalid(f"{place}.containerPort", number, text) for text in port_number(number)]
        if port.get("hostPort"):
            errors += [f.invalid(f"{place}.hostPort", port["hostPort"], text) for text in port_number(port["hostPort"])]
        if port.get("protocol") not in ("TCP", "UDP", "SCTP"):
            errors.append(f.not_supported(f"{place}.protocol", port.get("protocol"), ("SCTP", "TCP", "UDP")))
    return errors


def _probe(probe: Tree, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    handlers = [name for name in ("exec", "httpGet", "tcpSocket", "grpc") if probe.get(name) is not None]
    if not handlers:
        errors.append(f.required(path, "must specify a handler type"))
    for name in handlers[1:]:
        errors.append(f.forbidden(f"{path}.{name}", "may not specify more than 1 handler type"))
    for field in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        if probe.get(field, 0) < 0:
            errors.append(f.invalid(f"{path}.{field}", probe[field], "must be greater than or equal to 0"))
    return errors


def _frozen(spec: Tree, old: Tree) -> dict[str, Any]:
    """The spec without what an update may change."""
    frozen = {
        key: value for key, value in spec.items() if key not in ("activeDeadlineSeconds", "tolerations", "nodeName")
    }
    frozen["nodeName"] = spec.get("nodeName") if old.get("nodeName") else None
    for kind in _CONTAINER_LISTS:
        frozen[kind] = [
            {key: value for key, value in container.items() if key not in ("image", "imagePullPolicy")}
            for container in spec.get(kind, [])
        ]
    return frozen


def _sync_ips(status: Tree, before: Tree, single: str, plural: str) -> None:
    """`podIP` and `podIPs[0]` are one: whichever was changed wins."""
    one, many = status.get(single), status.get(plural)
    if one and (not many or (many == before.get(plural) and many[0].get("ip") != one)):
        status[plural] = [{"ip": one}]
    elif many and not one:
        status[single] = many[0].get("ip", "")


def qos_class(spec: Tree) -> str:
    """Guaranteed, Burstable or BestEffort."""
    requests, limits, guaranteed = False, False, True
    for container in spec.get("containers", []) + spec.get("initContainers", []):
        asked = container.get("resources", {})
        mine, bound = asked.get("requests", {}), asked.get("limits", {})
        requests, limits = requests or bool(mine), limits or bool(bound)
        if set(bound) & {"cpu", "memory"} != {"cpu", "memory"} or any(mine.get(k, v) != v for k, v in bound.items()):
            guaranteed = False
    if not requests and not limits:
        return "BestEffort"
    return "Guaranteed" if guaranteed else "Burstable"
