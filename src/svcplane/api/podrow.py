"""What `kubectl get pods` says of one Pod.  Pure.  Source: pkg/printers/internalversion printPod."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from svcplane.api.strategy import Tree

NONE = "<none>"
_ENDED = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}


@dataclass(slots=True)
class _Summary:
    """`restarted`: when a container last came to its end before it was started again."""

    reason: str
    ready: int = 0
    restarts: int = 0
    restarted: str = ""

    def count(self, container: Tree) -> None:
        self.restarts += container.get("restartCount", 0)
        ended = container.get("lastState", {}).get("terminated") or {}
        self.restarted = max(self.restarted, ended.get("finishedAt") or "")


def conditions(obj: Tree) -> list[Tree]:
    """Those of the row: a Pod that has ended is marked, so that clients can leave it out."""
    phase = obj.get("status", {}).get("phase", "")
    if phase not in _ENDED:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": _ENDED[phase]}]


def cells(obj: Tree, since: Callable[[str | None], str]) -> list[Any]:
    spec, status, meta = obj.get("spec", {}), obj.get("status", {}), obj["metadata"]
    summary = _summary(spec, status)
    reason, phase = summary.reason, status.get("phase", "")
    if meta.get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif phase not in _ENDED:
            reason = "Terminating"
    restarts = str(summary.restarts)
    if summary.restarts and summary.restarted:
        restarts += f" ({since(summary.restarted)} ago)"
    ips = status.get("podIPs", [])
    total = len(spec.get("containers", [])) + len(_sidecars(spec))
    return [
        meta["name"],
        f"{summary.ready}/{total}",
        reason,
        restarts,
        since(meta.get("creationTimestamp")),
        ips[0]["ip"] if ips else status.get("podIP") or NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        _gates(spec, status),
    ]


def _summary(spec: Tree, status: Tree) -> _Summary:
    found = {condition.get("type"): condition for condition in reversed(status.get("conditions", []))}
    reason = status.get("reason") or status.get("phase", "")
    if found.get("PodScheduled", {}).get("reason") == "SchedulingGated":
        reason = "SchedulingGated"
    everyone, sidecars = _Summary(reason), _Summary(reason)
    waits = _look_at_init(spec, status, everyone, sidecars)
    if waits and found.get("Initialized", {}).get("status") != "True":
        everyone.ready = sidecars.ready
        return everyone
    sidecars.reason = everyone.reason
    running = False
    for container in reversed(status.get("containerStatuses", [])):
        sidecars.count(container)
        state = container.get("state", {})
        if (state.get("waiting") or {}).get("reason"):
            sidecars.reason = state["waiting"]["reason"]
        elif state.get("terminated") is not None:
            sidecars.reason = _end(state["terminated"])
        elif container.get("ready") and state.get("running") is not None:
            running = True
            sidecars.ready += 1
    if sidecars.reason == "Completed" and running:
        sidecars.reason = "Running" if found.get("Ready", {}).get("status") == "True" else "NotReady"
    return sidecars


def _look_at_init(spec: Tree, status: Tree, everyone: _Summary, sidecars: _Summary) -> bool:
    """Whether the Pod waits for an init container; all up to that one are counted."""
    restartable = _sidecars(spec)
    for index, container in enumerate(status.get("initContainerStatuses", [])):
        state, is_sidecar = container.get("state", {}), container.get("name") in restartable
        everyone.count(container)
        if is_sidecar:
            sidecars.count(container)
        ended, waiting = state.get("terminated"), (state.get("waiting") or {}).get("reason", "")
        if ended is not None and not ended.get("exitCode"):
            continue
        if is_sidecar and container.get("started"):
            sidecars.ready += bool(container.get("ready"))
            continue
        if ended is not None:
            everyone.reason = f"Init:{_end(ended)}"
        elif waiting and waiting != "PodInitializing":
            everyone.reason = f"Init:{waiting}"
        else:
            everyone.reason = f"Init:{index}/{len(spec.get('initContainers', []))}"
        return True
    return False


def _sidecars(spec: Tree) -> set[str]:
    return {one.get("name", "") for one in spec.get("initContainers", []) if one.get("restartPolicy") == "Always"}


def _end(terminated: Tree) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _gates(spec: Tree, status: Tree) -> str:
    wanted = [gate.get("conditionType") for gate in spec.get("readinessGates", [])]
    if not wanted:
        return NONE
    found = {one.get("type"): one.get("status") for one in reversed(status.get("conditions", []))}
    return f"{sum(found.get(type_) == 'True' for type_ in wanted)}/{len(wanted)}"
