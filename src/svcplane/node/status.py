"""Pod and what is observed of it -> the status a kubelet would write.  Pure.

Source: core/v1 PodStatus and the kubelet's status generation: conditions with their reasons and messages, the
phase from the containers' states, container statuses in the order of the spec.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from svcplane.api.core import Container, Pod, VolumeMount
from svcplane.base.clock import rfc3339
from svcplane.node.model import Exit, Observed, Run
from svcplane.node.plan import init_done, init_failed, initialized, is_sidecar, restarts, sidecars
from svcplane.node.users import user_of

Tree = dict[str, Any]
ID_SCHEME = "svcplane://"


def pod_status(
    pod: Pod,
    observed: Observed,
    *,
    now: float,
    host_ips: Sequence[str],
    waiting: Mapping[str, float],
    problems: Mapping[str, tuple[str, str]] | None = None,
) -> Tree:
    """The whole status.  `waiting`: containers in crash back-off; `problems`: container -> (reason, message) of what
    keeps it from being started.  Transition times of conditions that did not change are taken over."""
    trouble = problems or {}
    phase = phase_of(pod, observed)
    started = pod.status.start_time or rfc3339(now)
    ips = list(observed.ips) or [ip.ip for ip in pod.status.pod_ips]
    status: Tree = {
        "phase": phase,
        "conditions": _conditions(pod, observed, phase, now),
        "hostIP": host_ips[0] if host_ips else "",
        "hostIPs": [{"ip": ip} for ip in host_ips],
        "startTime": started,
        "containerStatuses": [_container(pod, c, observed, waiting, trouble) for c in pod.spec.containers],
    }
    if pod.metadata.generation:
        status["observedGeneration"] = pod.metadata.generation
    if ips:
        status |= {"podIP": ips[0], "podIPs": [{"ip": ip} for ip in ips]}
    if pod.spec.init_containers:
        status["initContainerStatuses"] = [
            _container(pod, c, observed, waiting, trouble) for c in pod.spec.init_containers
        ]
    return status


def phase_of(pod: Pod, observed: Observed) -> str:
    """Pending until the main containers have been started, then by how they stand."""
    if init_failed(pod, observed):
        return "Failed"
    if not observed.runs and pod.status.phase in ("Succeeded", "Failed"):
        return pod.status.phase
    runs = [observed.runs.get(container.name) for container in pod.spec.containers]
    if any(run is None for run in runs):
        return "Pending"
    going = pod.metadata.deletion_timestamp is not None
    ended = [run for run in runs if run is not None and run.exit is not None]
    if len(ended) < len(runs):
        return "Running"
    if not going and any(restarts(pod.spec.restart_policy, run) for run in ended):
        return "Running"
    if any(_alive(container, observed) for container in sidecars(pod)):
        return "Running"
    return "Succeeded" if all(run.exit is not None and run.exit.code == 0 for run in ended) else "Failed"


def _alive(container: Container, observed: Observed) -> bool:
    run = observed.runs.get(container.name)
    return run is not None and run.running


def is_ready(container: Container, observed: Observed) -> bool:
    run = observed.runs.get(container.name)
    return run is not None and run.running and observed.health_of(run).ready


# -- conditions ----------------------------------------------------------------------------------------------


def _conditions(pod: Pod, observed: Observed, phase: str, now: float) -> list[Tree]:
    old = {condition.type: condition for condition in pod.status.conditions}
    made: list[Tree] = []

    def add(kind: str, good: bool, reason: str = "", message: str = "") -> None:
        status = "True" if good else "False"
        before = old.get(kind)
        since = before.last_transition_time if before is not None and before.status == status else None
        condition: Tree = {"type": kind, "status": status, "lastProbeTime": None}
        condition["lastTransitionTime"] = since or rfc3339(now)
        if reason:
            condition["reason"] = reason
        if message:
            condition["message"] = message
        if pod.metadata.generation:
            condition["observedGeneration"] = pod.metadata.generation
        made.append(condition)

    ended = {"Succeeded": "PodCompleted", "Failed": "PodFailed"}.get(phase, "")
    add("PodReadyToStartContainers", observed.sandbox)
    waits = [c.name for c in pod.spec.init_containers if not init_done(c, observed)]
    if initialized(pod, observed) or phase == "Succeeded":
        add("Initialized", True, "PodCompleted" if phase == "Succeeded" else "")
    else:
        text = f"containers with incomplete status: [{' '.join(waits)}]"
        add("Initialized", False, "ContainersNotInitialized", text)
    watched = [*sidecars(pod), *pod.spec.containers]
    unready = [c.name for c in watched if not is_ready(c, observed)]
    unready_text = f"containers with unready status: [{' '.join(unready)}]"
    for kind in ("Ready", "ContainersReady"):
        if ended:
            add(kind, False, ended)
        elif unready:
            add(kind, False, "ContainersNotReady", unready_text)
        else:
            add(kind, True)
    add("PodScheduled", True)
    known = {condition["type"] for condition in made}
    return made + [_kept(condition) for kind, condition in old.items() if kind not in known]


def _kept(condition: Any) -> Tree:
    """A condition somebody else owns (readiness gates)."""
    kept = {"type": condition.type, "status": condition.status, "lastTransitionTime": condition.last_transition_time}
    kept |= {key: value for key, value in (("reason", condition.reason), ("message", condition.message)) if value}
    return kept


# -- containers ----------------------------------------------------------------------------------------------


def _container(
    pod: Pod,
    container: Container,
    observed: Observed,
    waiting: Mapping[str, float],
    problems: Mapping[str, tuple[str, str]],
) -> Tree:
    name = container.name
    run, before = observed.runs.get(name), observed.previous.get(name)
    status: Tree = {
        "name": name,
        "image": container.image,
        "imageID": "",
        "ready": is_ready(container, observed) or _init_ready(pod, container, observed),
        "restartCount": run.attempt if run is not None else observed.first_attempt.get(name, 0),
        "started": run is not None and run.running and observed.health_of(run).started,
        "state": {},
        "lastState": {},
    }
    if container.volume_mounts:
        status["volumeMounts"] = [_volume_mount(mount) for mount in container.volume_mounts]
    if run is None:
        waits = problems.get(name) or (_first_wait(pod, container, observed), "")
        status["state"] = {"waiting": _reason(*waits)}
        return status
    status["containerID"] = ID_SCHEME + run.id
    user = user_of(pod, container) or observed.user
    status["user"] = {"linux": {"uid": user.uid, "gid": user.gid, "supplementalGroups": list(user.groups)}}
    if run.exit is None:
        status |= _resources(container)
        status["state"] = {"running": {"startedAt": rfc3339(run.started)}}
    elif name in waiting:
        text = f"back-off {_go_duration(waiting[name])} restarting failed container={name} pod={_pod_name(pod)}"
        status["state"] = {"waiting": _reason("CrashLoopBackOff", text)}
        status["lastState"] = {"terminated": _terminated(run, run.exit)}
        return status
    elif name in problems:
        status["state"] = {"waiting": _reason(*problems[name])}
        before = run
    else:
        status["state"] = {"terminated": _terminated(run, run.exit)}
    if before is not None and before.exit is not None:
        status["lastState"] = {"terminated": _terminated(before, before.exit)}
    return status


def _volume_mount(mount: VolumeMount) -> Tree:
    shown: Tree = {"name": mount.name, "mountPath": mount.mount_path}
    if mount.read_only:
        shown |= {"readOnly": True, "recursiveReadOnly": "Enabled" if mount.read_only_below else "Disabled"}
    return shown


def _resources(container: Container) -> Tree:
    """Of a running container: what it asks for and may have."""
    asked = {key: container.resources[key] for key in ("limits", "requests") if container.resources.get(key)}
    return ({"allocatedResources": asked["requests"]} if "requests" in asked else {}) | {"resources": asked}


def _init_ready(pod: Pod, container: Container, observed: Observed) -> bool:
    """A plain init container counts as ready once it has succeeded."""
    if container not in pod.spec.init_containers or is_sidecar(container):
        return False
    return init_done(container, observed)


def _first_wait(pod: Pod, container: Container, observed: Observed) -> str:
    """Why a container has not been started yet."""
    waits = pod.spec.init_containers and container in pod.spec.containers and not initialized(pod, observed)
    return "PodInitializing" if waits or container in pod.spec.init_containers else "ContainerCreating"


def _reason(reason: str, message: str) -> Tree:
    return {"reason": reason, "message": message} if message else {"reason": reason}


def _terminated(run: Run, end: Exit) -> Tree:
    made: Tree = {"exitCode": end.code, "reason": end.reason or ("Completed" if end.code == 0 else "Error")}
    if end.message:
        made["message"] = end.message
    if end.signal:
        made["signal"] = end.signal
    return made | {
        "startedAt": rfc3339(run.started),
        "finishedAt": rfc3339(end.finished),
        "containerID": ID_SCHEME + run.id,
    }


def _pod_name(pod: Pod) -> str:
    meta = pod.metadata
    return f"{meta.name}_{meta.namespace}({meta.uid})"


def _go_duration(seconds: float) -> str:
    """As Go prints a Duration of whole seconds: 10s, 1m20s, 5m0s."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
