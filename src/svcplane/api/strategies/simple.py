"""Kinds with few rules of their own: Namespace, Lease, Event.  Pure.

Source: pkg/registry/core/{namespace,event}, pkg/registry/coordination/lease, pkg/apis/core/validation.
"""

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Strategy, Tree
from svcplane.api.validation.meta import STANDARD_FINALIZERS, UNQUALIFIED
from svcplane.api.validation.names import dns1123_label, path_segment, qualified_name

#: The most characters of some texts of an Event.
MAX_EVENT_TEXT, MAX_EVENT_MESSAGE = 128, 1024


def _finalizer(path: str, value: str) -> list[FieldError]:
    errors = [f.invalid(path, value, text) for text in qualified_name(value)]
    if "/" not in value and value not in STANDARD_FINALIZERS:
        errors.append(f.invalid(path, value, UNQUALIFIED))
    return errors


class NamespaceStrategy(Strategy):
    metadata_again = True
    selectable = ("status.phase",)

    def validate_name(self, name: str, *, prefix: bool = False) -> list[str]:
        return dns1123_label(name, prefix=prefix)

    def default(self, obj: Tree) -> None:
        name = obj["metadata"].get("name")
        if name:
            obj["metadata"].setdefault("labels", {})["kubernetes.io/metadata.name"] = name
        status = obj.setdefault("status", {})
        status.setdefault("phase", "Active")
        for condition in status.get("conditions", []):
            condition.setdefault("lastTransitionTime", None)

    def prepare_create(self, obj: Tree) -> None:
        self.default(obj)
        obj["status"] = {"phase": "Active"}
        finalizers = obj.setdefault("spec", {}).setdefault("finalizers", [])
        if "kubernetes" not in finalizers:
            finalizers.append("kubernetes")

    def validate_create(self, obj: Tree) -> list[FieldError]:
        values = obj.get("spec", {}).get("finalizers", [])
        return [error for value in values for error in _finalizer("spec.finalizers", value)]

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        return self.validate_create(obj)

    def validate_status_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        phase, going = obj.get("status", {}).get("phase", ""), "deletionTimestamp" in obj["metadata"]
        if phase == ("Terminating" if going else "Active"):
            return []
        only = (
            "'Terminating' if `deletionTimestamp` is not empty" if going else "'Active' if `deletionTimestamp` is empty"
        )
        return [f.invalid("status.Phase", phase, f"may only be {only}")]

    def validate_finalize(self, obj: Tree, old: Tree) -> list[FieldError]:
        values = enumerate(obj.get("spec", {}).get("finalizers", []))
        return [error for index, value in values for error in _finalizer(f"spec.finalizers[{index}]", value)]

    def prepare_update(self, obj: Tree, old: Tree) -> None:
        obj["status"], obj["spec"] = old.get("status", {}), old.get("spec", {})

    def selectable_fields(self, obj: Tree) -> dict[str, str]:
        return {"status.phase": obj.get("status", {}).get("phase", "")}


class LeaseStrategy(Strategy):
    allow_create_on_update = True
    allow_unconditional_update = False
    checks_finalizers = False

    def default(self, obj: Tree) -> None:
        obj.setdefault("spec", {})

    def prepare_create(self, obj: Tree) -> None:
        for field in ("strategy", "preferredHolder"):  # of coordinated leader election, which is off by default
            obj["spec"].pop(field, None)

    def prepare_update(self, obj: Tree, old: Tree) -> None:
        self.prepare_create(obj)

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
    metadata_changes_again = False
    checks_finalizers = False
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
        if obj.get("series") is not None:
            obj["series"].setdefault("lastObservedTime", None)

    def validate_create(self, obj: Tree) -> list[FieldError]:
        namespace, target = obj["metadata"].get("namespace", ""), obj["involvedObject"].get("namespace", "")
        elsewhere = f.invalid("involvedObject.namespace", target, "does not match event.namespace")
        if not obj.get("eventTime"):
            fits = target == namespace or (not target and namespace in ("", "default"))
            return [] if fits else [elsewhere]
        errors = [] if target or namespace in ("default", "kube-system") else [elsewhere]
        return errors + _new_event(obj)

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        return self.validate_create(obj)

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


def _new_event(obj: Tree) -> list[FieldError]:
    """An Event with an eventTime says more of where it comes from."""
    controller = obj.get("reportingComponent", "")
    errors = [] if controller else [f.required("reportingComponent")]
    errors += [f.invalid("reportingComponent", controller, text) for text in qualified_name(controller)]
    for field in ("reportingInstance", "action", "reason"):
        if not obj.get(field):
            errors.append(f.required(field))
        elif len(obj[field].encode()) > MAX_EVENT_TEXT:
            errors.append(f.invalid(field, "", f"can have at most {MAX_EVENT_TEXT} characters"))
    if len(obj.get("message", "").encode()) > MAX_EVENT_MESSAGE:
        errors.append(f.invalid("message", "", f"can have at most {MAX_EVENT_MESSAGE} characters"))
    return errors
