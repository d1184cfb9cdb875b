"""Pods: defaults, admission defaults, graceful deletion.  Pure.

Source: pkg/apis/core/v1 defaults.go and conversion.go, pkg/registry/core/pod/strategy.go; the admission plug-ins
DefaultTolerationSeconds and Priority.  Rules are in `api.validation.pod`.
"""

from fractions import Fraction
from typing import Any

from svcplane.api import quantity
from svcplane.api.fields import FieldError
from svcplane.api.status import StatusError, forbidden
from svcplane.api.strategies import images
from svcplane.api.strategy import Strategy, Tree
from svcplane.api.validation import pod as rules
from svcplane.api.validation.names import dns1123_label
from svcplane.api.validation.pod_warnings import warnings
from svcplane.api.validation.values import ip_warnings

PHASES_DONE = ("Failed", "Succeeded")
#: Priorities that every cluster knows.
PRIORITY_CLASSES = {"system-node-critical": 2000001000, "system-cluster-critical": 2000000000}
_CONTAINER_LISTS = ("initContainers", "containers")
_PROBES = ("livenessProbe", "readinessProbe", "startupProbe")
_COMPUTE = ("cpu", "memory")
#: Files of these volumes may be read by all unless the Pod says otherwise.
_FILE_MODE, _FILE_VOLUMES = 0o644, ("secret", "configMap", "downwardAPI", "projected")


class PodStrategy(Strategy):
    has_generation = True
    metadata_again = True
    selectable = (
        "spec.nodeName",
        "spec.restartPolicy",
        "spec.schedulerName",
        "spec.serviceAccountName",
        "spec.hostNetwork",
        "status.phase",
        "status.podIP",
        "status.podIPs",
        "status.nominatedNodeName",
    )

    def default(self, obj: Tree) -> None:
        spec = obj.setdefault("spec", {})
        for kind in _CONTAINER_LISTS:
            for container in spec.get(kind, []):
                _default_container(container, host_network=bool(spec.get("hostNetwork")))
        for volume in spec.get("volumes", []):
            _default_volume(volume)
        spec.setdefault("restartPolicy", "Always")
        spec.setdefault("terminationGracePeriodSeconds", 30)
        spec.setdefault("dnsPolicy", "ClusterFirst")
        spec.setdefault("securityContext", {})
        spec.setdefault("schedulerName", "default-scheduler")
        spec.setdefault("enableServiceLinks", True)
        account = spec.get("serviceAccountName") or spec.get("serviceAccount")
        if account:
            spec["serviceAccountName"] = spec["serviceAccount"] = account
        _default_status(obj.setdefault("status", {}))

    def prepare_create(self, obj: Tree) -> None:
        """Raises StatusError 403 for a priority that admission refuses."""
        spec = obj["spec"]
        _admit_priority(obj, spec)
        _admit_tolerations(spec)
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}
        if spec.get("schedulingGates"):
            obj["status"]["conditions"] = [_gated()]

    def validate_create(self, obj: Tree) -> list[FieldError]:
        spec = obj.get("spec", {})
        return rules.annotation_faults(obj["metadata"], spec) + rules.spec_faults(spec) + rules.create_faults(spec)

    def prepare_update(self, obj: Tree, old: Tree) -> None:
        """What admission set is set again where an update leaves it out."""
        obj["status"] = old.get("status", {})
        spec, before = obj["spec"], old["spec"]
        for field in ("priority", "preemptionPolicy"):
            if field in before:
                spec.setdefault(field, before[field])
        _admit_tolerations(spec)

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        meta, spec = obj["metadata"], obj["spec"]
        marks = rules.annotation_faults(meta, spec)
        changes = rules.annotation_changes(meta, old["metadata"]) + marks  # an update is looked at twice
        return marks + rules.spec_faults(spec) + changes + rules.update_faults(spec, old["spec"])

    def prepare_status_update(self, obj: Tree, old: Tree) -> None:
        super().prepare_status_update(obj, old)
        meta, before = obj["metadata"], old["metadata"]
        meta.pop("ownerReferences", None)
        if "ownerReferences" in before:
            meta["ownerReferences"] = before["ownerReferences"]
        status = obj.setdefault("status", {})
        status.setdefault("qosClass", old.get("status", {}).get("qosClass", qos_class(obj["spec"])))
        _keep_observed_generation(status, old.get("status", {}))

    def validate_status_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        meta = obj["metadata"]
        marks = rules.annotation_changes(meta, old["metadata"]) + rules.annotation_faults(meta, obj.get("spec", {}))
        return marks + rules.status_faults(obj, old)

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        if old is not None:
            return []  # people seldom change Pods themselves
        name, found = obj["metadata"].get("name", ""), []
        if problems := dns1123_label(name):
            found.append(
                "metadata.name: this is used in the Pod's hostname, which can result in surprising behavior; "
                f"a DNS label is recommended: [{' '.join(problems)}]"
            )
        return found + warnings(obj.get("spec", {}), obj["metadata"].get("annotations", {}))

    def status_warnings(self, obj: Tree, old: Tree) -> list[str]:
        return [
            text
            for field in ("podIPs", "hostIPs")
            for index, entry in enumerate(obj.get("status", {}).get(field, []))
            for text in ip_warnings(f"status.{field}[{index}].ip", entry.get("ip", ""))
        ]

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
            "status.podIPs": status.get("podIP", ""),
            "status.nominatedNodeName": status.get("nominatedNodeName", ""),
        }

    def grace_period_on_delete(self, obj: Tree, asked_s: int | None) -> int | None:
        """At once for a Pod no node has or that has ended; one that is being deleted already may only go sooner."""
        spec, meta = obj.get("spec", {}), obj["metadata"]
        usual = int(spec.get("terminationGracePeriodSeconds", 30))
        if meta.get("deletionTimestamp"):
            usual = meta.get("deletionGracePeriodSeconds", 0)
            if not usual:
                return 0
        elif not spec.get("nodeName") or obj.get("status", {}).get("phase") in PHASES_DONE:
            return 0
        period = usual if asked_s is None else asked_s
        return max(1, period) if period < 0 else period


def _tolerates(toleration: Tree, key: str) -> bool:
    return bool(toleration.get("key", key) == key and toleration.get("effect", "NoExecute") == "NoExecute")


def _admit_tolerations(spec: Tree) -> None:
    tolerations = spec.setdefault("tolerations", [])
    for key in ("node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"):
        if not any(_tolerates(toleration, key) for toleration in tolerations):
            toleration = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
            tolerations.append(toleration)


def _admit_priority(obj: Tree, spec: Tree) -> None:
    name, meta = spec.get("priorityClassName", ""), obj["metadata"]
    if name and name not in PRIORITY_CLASSES:
        raise _refused(meta, f"no PriorityClass with name {name} was found")
    priority = PRIORITY_CLASSES.get(name, 0)
    if spec.get("priority", priority) != priority:
        why = (
            f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; priority admission "
            f"controller computed {priority} from the given PriorityClass name"
        )
        raise _refused(meta, why)
    spec["priority"] = priority
    spec.setdefault("preemptionPolicy", "PreemptLowerPriority")


def _refused(meta: Tree, why: str) -> StatusError:
    return forbidden("pods", meta.get("name", ""), why)


def _gated() -> Tree:
    return {
        "type": "PodScheduled",
        "status": "False",
        "lastProbeTime": None,
        "lastTransitionTime": None,
        "reason": "SchedulingGated",
        "message": "Scheduling is blocked due to non-empty scheduling gates",
    }


def _keep_observed_generation(status: Tree, before: Tree) -> None:
    """What a status says of the generation it has seen stays where an update leaves it out; conditions by type."""
    if not status.get("observedGeneration") and before.get("observedGeneration"):
        status["observedGeneration"] = before["observedGeneration"]
    seen: dict[str, list[int]] = {}
    for condition in before.get("conditions", []):
        seen.setdefault(condition.get("type", ""), []).append(condition.get("observedGeneration", 0))
    for condition in status.get("conditions", []):
        queue = seen.get(condition.get("type", ""), [])
        generation = queue.pop(0) if queue else 0
        if generation and not condition.get("observedGeneration"):
            condition["observedGeneration"] = generation


def _default_status(status: Tree) -> None:
    for condition in status.get("conditions", []):
        condition.setdefault("lastProbeTime", None)
        condition.setdefault("lastTransitionTime", None)
    for kind in ("initContainerStatuses", "containerStatuses", "ephemeralContainerStatuses"):
        for container in status.get(kind, []):
            for state in ("state", "lastState"):
                _default_state(container.setdefault(state, {}))
            container.setdefault("ready", False)
            container.setdefault("restartCount", 0)
            container.setdefault("image", "")
            container.setdefault("imageID", "")
    one, many = status.get("podIP", ""), status.get("podIPs", [])
    if one and one != (many or [{}])[0].get("ip", ""):  # the older of the two fields counts
        many = status["podIPs"] = [{"ip": one}]
    if many:
        status["podIP"] = many[0].get("ip", "")


def _default_state(state: Tree) -> None:
    if state.get("running") is not None:
        state["running"].setdefault("startedAt", None)
    if state.get("terminated") is not None:
        ended = state["terminated"]
        ended.setdefault("exitCode", 0)
        for field in ("startedAt", "finishedAt"):
            ended.setdefault(field, None)


def _default_container(container: Tree, *, host_network: bool) -> None:
    _default_resources(container.setdefault("resources", {}))
    container.setdefault("terminationMessagePath", "/dev/termination-log")
    container.setdefault("terminationMessagePolicy", "File")
    if "imagePullPolicy" not in container:
        latest = images.tag(container.get("image", "")) == "latest"
        container["imagePullPolicy"] = "Always" if latest else "IfNotPresent"
    for port in container.get("ports", []):
        port.setdefault("containerPort", 0)
        port.setdefault("protocol", "TCP")
        if host_network and not port.get("hostPort") and port["containerPort"]:
            port["hostPort"] = port["containerPort"]
    for variable in container.get("env", []):
        _default_references(variable.get("valueFrom") or {})
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _default_http_get(hook)
    for name in _PROBES:
        if container.get(name) is not None:
            _default_probe(container[name])


def _default_resources(resources: Tree) -> None:
    """What is not finer than a thousandth; requests that are not given are the limits."""
    limits = resources.get("limits", {})
    for name, text in limits.items():
        limits[name] = quantity.rounded(text)
    requests = resources.get("requests", {})
    for name, text in requests.items():
        requests[name] = quantity.rounded(text)
    missing = {name: text for name, text in limits.items() if name not in requests}
    if missing:
        resources["requests"] = {**requests, **missing}


def _default_http_get(handler: Tree) -> None:
    if handler.get("httpGet") is not None:
        handler["httpGet"].setdefault("path", "/")
        handler["httpGet"].setdefault("scheme", "HTTP")


def _default_probe(probe: Tree) -> None:
    for field, value in (
        ("timeoutSeconds", 1),
        ("periodSeconds", 10),
        ("successThreshold", 1),
        ("failureThreshold", 3),
    ):
        probe.setdefault(field, value)
    _default_http_get(probe)
    if probe.get("grpc") is not None:
        probe["grpc"].setdefault("service", "")


def _default_volume(volume: Tree) -> None:
    if not any(field != "name" for field in volume):
        volume["emptyDir"] = {}
    for kind in _FILE_VOLUMES:
        if volume.get(kind) is not None:
            volume[kind].setdefault("defaultMode", _FILE_MODE)
    if volume.get("hostPath") is not None:
        volume["hostPath"].setdefault("type", "")
    sources = (volume.get("projected") or {}).get("sources", [])
    for source in sources:
        if source.get("serviceAccountToken") is not None:
            source["serviceAccountToken"].setdefault("expirationSeconds", 3600)
    for place in (volume, *sources):
        for item in (place.get("downwardAPI") or {}).get("items", []):
            _default_references(item)


def _default_references(holder: Tree) -> None:
    """To the Pod's own fields and resources."""
    if holder.get("fieldRef") is not None:
        holder["fieldRef"].setdefault("apiVersion", "v1")
    if holder.get("resourceFieldRef") is not None:
        holder["resourceFieldRef"].setdefault("divisor", "0")


def qos_class(spec: Tree) -> str:
    """Guaranteed, Burstable or BestEffort, by what is asked of processors and memory."""
    requests: dict[str, Fraction] = {}
    limits: dict[str, Fraction] = {}
    guaranteed = True
    for container in spec.get("containers", []) + spec.get("initContainers", []):
        asked = container.get("resources", {})
        _add(requests, asked.get("requests", {}))
        if _add(limits, asked.get("limits", {})) != set(_COMPUTE):
            guaranteed = False
    if not requests and not limits:
        return "BestEffort"
    if guaranteed and all(limits.get(name) == amount for name, amount in requests.items()):
        return "Guaranteed" if len(requests) == len(limits) else "Burstable"
    return "Burstable"


def _add(total: dict[str, Fraction], amounts: dict[str, Any]) -> set[str]:
    """Add up what is more than nothing; which were there."""
    found: set[str] = set()
    for name in _COMPUTE:
        amount = quantity.parse(amounts[name]) if name in amounts else Fraction(0)
        if amount > 0:
            total[name] = total.get(name, Fraction(0)) + amount
            found.add(name)
    return found
