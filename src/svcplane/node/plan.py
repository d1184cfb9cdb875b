"""A Pod, what is observed of it, and the time -> what to do next.  Pure.

Source: the kubelet's rules: init containers one after the other, restartable ones (sidecars) started in turn and
kept running, main containers together; restartPolicy; crash back-off from 10 s doubling to 5 min, forgotten
after 10 min without a crash; TERM, the grace period, KILL; sidecars end last, in reverse order.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from svcplane.api.core import Container, Pod
from svcplane.node.model import (
    Action,
    Backoff,
    CreateSandbox,
    DeleteObject,
    Deletion,
    Kill,
    Observed,
    Plan,
    RemoveSandbox,
    Run,
    Start,
    Terminate,
)

BACKOFF_FIRST_S, BACKOFF_MAX_S, BACKOFF_FORGET_S = 10.0, 300.0, 600.0
SIDECAR_MIN_GRACE_S = 2.0
DEFAULT_GRACE_S = 30


def is_sidecar(container: Container) -> bool:
    """A restartable init container."""
    return container.restart_policy == "Always"


def sidecars(pod: Pod) -> list[Container]:
    return [container for container in pod.spec.init_containers if is_sidecar(container)]


def deletion_of(pod: Pod) -> Deletion | None:
    if pod.metadata.deletion_timestamp is None:
        return None
    grace = pod.metadata.deletion_grace_period_seconds
    return Deletion(float(grace if grace is not None else DEFAULT_GRACE_S))


def grace_of(pod: Pod) -> float:
    grace = pod.spec.termination_grace_period_seconds
    return float(grace if grace is not None else DEFAULT_GRACE_S)


def restarts(policy: str, run: Run) -> bool:
    """Whether a container that ended so is started again under a restart policy."""
    return policy == "Always" or (policy == "OnFailure" and run.exit is not None and run.exit.code != 0)


def initialized(pod: Pod, observed: Observed) -> bool:
    """Whether all init containers have done their part (in this sandbox)."""
    if any(container.name in observed.runs for container in pod.spec.containers):
        return True
    return all(init_done(container, observed) for container in pod.spec.init_containers)


def init_done(container: Container, observed: Observed) -> bool:
    """Ended well; of a sidecar: started."""
    run = observed.runs.get(container.name)
    if run is None:
        return False
    if is_sidecar(container):
        return run.running and observed.health_of(run).started
    return run.exit is not None and run.exit.code == 0


def init_failed(pod: Pod, observed: Observed) -> bool:
    """An init container failed for good: restartPolicy Never."""
    if pod.spec.restart_policy != "Never":
        return False
    ended = (observed.runs.get(c.name) for c in pod.spec.init_containers if not is_sidecar(c))
    return any(run is not None and run.exit is not None and run.exit.code != 0 for run in ended)


def finished(pod: Pod, observed: Observed) -> bool:
    """Whether no main container runs or ever will again."""
    if init_failed(pod, observed):
        return True
    if pod.status.phase in ("Succeeded", "Failed") and not observed.runs:
        return True  # it ended before the agent came back; a Pod never runs twice
    for container in pod.spec.containers:
        run = observed.runs.get(container.name)
        if run is None or run.running or restarts(pod.spec.restart_policy, run):
            return False
    return True


def back_off(previous: Backoff | None, ended: float) -> Backoff:
    """The record after a restart that followed an exit at `ended`."""
    if previous is None or ended - previous.updated > BACKOFF_FORGET_S:
        return Backoff(BACKOFF_FIRST_S, ended)
    if previous.updated == ended:
        return previous  # charged already
    return Backoff(min(previous.delay_s * 2, BACKOFF_MAX_S), ended)


def wait_until(previous: Backoff | None, ended: float) -> float:
    """The earliest start after an exit at `ended`; the first restart is at once."""
    if previous is None or ended - previous.updated > BACKOFF_FORGET_S:
        return ended
    return ended + previous.delay_s


@dataclass(slots=True)
class _Draft:
    """Collects a plan."""

    pod: Pod
    observed: Observed
    now: float
    actions: list[Action] = field(default_factory=list)
    wakes: list[float] = field(default_factory=list)
    waiting: dict[str, float] = field(default_factory=dict)
    charged: dict[str, Backoff] = field(default_factory=dict)

    def plan(self) -> Plan:
        return Plan(tuple(self.actions), min(self.wakes, default=None), self.waiting, self.charged)

    def start(self, container: Container, reason: str) -> None:
        """Start a container that does not run, unless its back-off says wait."""
        name, observed = container.name, self.observed
        last = observed.runs.get(name)
        if last is None:
            self.actions.append(Start(name, observed.first_attempt.get(name, 0), reason))
            return
        if last.exit is None:
            return
        record = observed.backoff.get(name)
        earliest = wait_until(record, last.exit.finished)
        if earliest > self.now and record is not None:
            self.waiting[name] = record.delay_s
            self.wakes.append(earliest)
            return
        self.charged[name] = back_off(record, last.exit.finished)
        self.actions.append(Start(name, last.attempt + 1, reason))

    def stop(self, run: Run, grace_s: float, reason: str) -> None:
        """TERM first, KILL when the grace period is over."""
        told = self.observed.stopping.get(run.id)
        if told is None:
            if grace_s > 0:
                self.actions.append(Terminate(run, grace_s, reason))
                self.wakes.append(self.now + grace_s)
            else:
                self.actions.append(Kill(run, reason))
            return
        deadline = told.since + min(told.grace_s, grace_s)
        if deadline > self.now:
            self.wakes.append(deadline)
        elif not told.killed:
            self.actions.append(Kill(run, f"{reason}; the grace period is over"))

    def keep_healthy(self, container: Container) -> bool:
        """Stop a running container whose liveness or startup probe failed; True if it is being stopped."""
        run = self.observed.runs[container.name]
        health = self.observed.health_of(run)
        told = self.observed.stopping.get(run.id)
        if not health.failed and told is None:
            return False
        grace = float(health.grace_s) if health.grace_s is not None else grace_of(self.pod)
        self.stop(run, told.grace_s if told else grace, health.failed or "stopping")
        return True


def plan(pod: Pod, observed: Observed, now: float) -> Plan:
    """The next actions for a Pod of this node.  Planning again after they are done yields what then remains."""
    draft = _Draft(pod, observed, now)
    deletion = deletion_of(pod)
    if deletion is not None:
        _go(draft, deletion)
    elif finished(pod, observed):
        if _stop_all(draft, grace_of(pod), "the Pod has finished") and observed.sandbox:
            draft.actions.append(RemoveSandbox("the Pod has finished"))
    elif not observed.sandbox:
        draft.actions.append(CreateSandbox(observed.problem or "the Pod was bound to this node"))
    else:
        _keep_running(draft)
    return draft.plan()


def _running(containers: list[Container], runs: Mapping[str, Run]) -> Iterator[Run]:
    for container in containers:
        run = runs.get(container.name)
        if run is not None and run.running:
            yield run


def _stop_all(draft: _Draft, grace_s: float, reason: str) -> bool:
    """Mains and init containers first, then sidecars from the last to the first; True when none runs."""
    spec, runs = draft.pod.spec, draft.observed.runs
    plain = [container for container in spec.init_containers if not is_sidecar(container)]
    first = list(_running(spec.containers + plain, runs))
    for run in first:
        draft.stop(run, grace_s, reason)
    if first:
        return False
    for run in _running(sidecars(draft.pod)[::-1], runs):
        draft.stop(run, max(SIDECAR_MIN_GRACE_S, grace_s) if grace_s else 0.0, reason)
        return False
    return True


def _go(draft: _Draft, deletion: Deletion) -> None:
    if not _stop_all(draft, deletion.grace_s, "the Pod is being deleted"):
        return
    if draft.observed.sandbox:
        draft.actions.append(RemoveSandbox("the Pod is being deleted"))
    draft.actions.append(DeleteObject("all its processes have ended"))


def _keep_running(draft: _Draft) -> None:
    pod, observed = draft.pod, draft.observed
    ready_for_mains = initialized(pod, observed)
    for container in pod.spec.init_containers:
        run = observed.runs.get(container.name)
        if is_sidecar(container):
            if run is not None and run.running:
                draft.keep_healthy(container)
            else:
                draft.start(container, "sidecar")
        elif not ready_for_mains and not init_done(container, observed):
            draft.start(container, "init container")
        if not ready_for_mains and not init_done(container, observed):
            return
    held = False  # one is started after the other: the next waits for the postStart hook of the one before
    for container in pod.spec.containers:
        run = observed.runs.get(container.name)
        if run is not None and run.running:
            draft.keep_healthy(container)
            held = held or run.id in observed.hooked
        elif held:
            continue
        elif run is None or restarts(pod.spec.restart_policy, run):
            draft.start(container, "restartPolicy " + pod.spec.restart_policy if run else "container of the Pod")
            held = container.lifecycle is not None and container.lifecycle.post_start is not None
