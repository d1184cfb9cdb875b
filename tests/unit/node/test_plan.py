"""What is done next for a Pod, by its spec and what is observed."""

from typing import Any

import msgspec

from svcplane.api.core import Pod
from svcplane.node.model import (
    Backoff,
    CreateSandbox,
    DeleteObject,
    Exit,
    Health,
    Kill,
    Observed,
    RemoveSandbox,
    Run,
    Start,
    Stopping,
    Terminate,
)
from svcplane.node.plan import back_off, plan, wait_until

GOOD = Health(started=True, ready=True)


def pod(*names: str, **spec: Any) -> Pod:
    meta = spec.pop("meta", {})
    tree = {
        "metadata": {"name": "web", "uid": "u", **meta},
        "spec": {"containers": [{"name": n} for n in names], **spec},
    }
    return msgspec.convert(tree, Pod)


def run(name: str, attempt: int = 0, code: int | None = None, at: float = 100.0) -> Run:
    return Run(f"{name}{attempt}", name, attempt, at - 1, None if code is None else Exit(code, 0, at))


def seen(*runs: Run, **more: Any) -> Observed:
    health = {item.id: GOOD for item in runs if item.running} | more.pop("health", {})
    return Observed(sandbox=True, runs={item.container: item for item in runs}, health=health, **more)


def actions(pod: Pod, observed: Observed, now: float = 100.0) -> list[tuple[str, str]]:
    named = []
    for action in plan(pod, observed, now).actions:
        match action:
            case Start(name):
                named.append(("start", name))
            case Terminate(item):
                named.append(("term", item.container))
            case Kill(item):
                named.append(("kill", item.container))
            case CreateSandbox() | RemoveSandbox() | DeleteObject():
                named.append((type(action).__name__, ""))
    return named


def test_new_pod_gets_a_sandbox_first() -> None:
    assert actions(pod("a"), Observed()) == [("CreateSandbox", "")]


def test_containers_start_together_in_order() -> None:
    assert actions(pod("a", "b"), seen()) == [("start", "a"), ("start", "b")]


def test_next_container_is_started_once_the_hook_of_the_one_before_has_ended() -> None:
    hook = {"lifecycle": {"postStart": {"exec": {"command": ["true"]}}}}
    both = pod(containers=[{"name": "a", **hook}, {"name": "b"}])
    assert actions(both, seen()) == [("start", "a")]
    assert actions(both, seen(run("a"), hooked={"a0"})) == []
    assert actions(both, seen(run("a"))) == [("start", "b")]


def test_running_pod_needs_nothing() -> None:
    planned = plan(pod("a"), seen(run("a")), 100.0)
    assert (planned.actions, planned.wake_at) == ((), None)


def test_init_containers_run_one_after_the_other() -> None:
    made = pod("a", initContainers=[{"name": "one"}, {"name": "two"}])
    assert actions(made, seen()) == [("start", "one")]
    assert actions(made, seen(run("one"))) == []
    assert actions(made, seen(run("one", code=0))) == [("start", "two")]
    assert actions(made, seen(run("one", code=0), run("two", code=0))) == [("start", "a")]


def test_sidecar_lets_the_next_start_only_once_it_is_started() -> None:
    made = pod("a", initContainers=[{"name": "side", "restartPolicy": "Always"}])
    side = run("side")
    assert actions(made, seen(side, health={side.id: Health()})) == []
    assert actions(made, seen(side)) == [("start", "a")]


def test_sidecar_that_ends_is_restarted_without_touching_the_rest() -> None:
    made = pod("a", initContainers=[{"name": "side", "restartPolicy": "Always"}])
    assert actions(made, seen(run("a"), run("side", code=1))) == [("start", "side")]


def test_failed_init_container_of_a_pod_that_never_restarts_ends_it() -> None:
    made = pod("a", restartPolicy="Never", initContainers=[{"name": "one"}])
    assert actions(made, seen(run("one", code=1))) == [("RemoveSandbox", "")]


def test_first_crash_restarts_at_once_and_is_charged() -> None:
    planned = plan(pod("a"), seen(run("a", code=1)), 100.0)
    assert [type(action) for action in planned.actions] == [Start]
    assert planned.charged == {"a": Backoff(10.0, 100.0)}


def test_second_crash_waits_out_the_back_off() -> None:
    observed = seen(run("a", 1, code=1, at=105.0), backoff={"a": Backoff(10.0, 100.0)})
    planned = plan(pod("a"), observed, 106.0)
    assert (planned.actions, planned.wake_at, planned.waiting) == ((), 115.0, {"a": 10.0})
    assert actions(pod("a"), observed, 115.0) == [("start", "a")]


def test_back_off_doubles_to_five_minutes_and_is_forgotten_after_ten() -> None:
    record, delays = None, []
    for number in range(8):
        record = back_off(record, 100.0 + number)
        delays.append(record.delay_s)
    assert delays == [10, 20, 40, 80, 160, 300, 300, 300]
    assert wait_until(record, 107.0 + 601) == 708.0
    assert back_off(record, 107.0 + 601).delay_s == 10


def test_on_failure_restarts_only_after_a_failure() -> None:
    made = pod("a", "b", restartPolicy="OnFailure")
    assert actions(made, seen(run("a", code=0), run("b", code=1))) == [("start", "b")]


def test_pod_that_has_finished_gives_up_its_sandbox_but_stays() -> None:
    assert actions(pod("a", restartPolicy="Never"), seen(run("a", code=0))) == [("RemoveSandbox", "")]


def test_finished_pod_is_not_run_again_by_an_agent_that_lost_its_records() -> None:
    made = pod("a", restartPolicy="Never")
    made.status.phase = "Succeeded"
    assert actions(made, Observed()) == []


def test_liveness_failure_terminates_and_then_kills() -> None:
    item = run("a")
    sick = seen(item, health={item.id: Health(True, False, "failed liveness probe")})
    assert actions(pod("a", terminationGracePeriodSeconds=5), sick) == [("term", "a")]
    stopping = {item.id: Stopping(100.0, 5.0)}
    later = seen(item, health={item.id: Health(True, False, "failed liveness probe")}, stopping=stopping)
    assert actions(pod("a"), later, 104.0) == []
    assert actions(pod("a"), later, 105.0) == [("kill", "a")]


DELETED = {"deletionTimestamp": "2026-01-01T00:00:00Z", "deletionGracePeriodSeconds": 7}


def test_deletion_terminates_mains_then_sidecars_then_removes_everything() -> None:
    made = pod("a", meta=DELETED, initContainers=[{"name": "side", "restartPolicy": "Always"}])
    assert actions(made, seen(run("a"), run("side"))) == [("term", "a")]
    assert actions(made, seen(run("a", code=143), run("side"))) == [("term", "side")]
    gone = seen(run("a", code=143), run("side", code=143))
    assert actions(made, gone) == [("RemoveSandbox", ""), ("DeleteObject", "")]


def test_deletion_kills_when_the_grace_period_is_over() -> None:
    item = run("a")
    observed = seen(item, stopping={item.id: Stopping(100.0, 7.0)})
    planned = plan(pod("a", meta=DELETED), observed, 101.0)
    assert (planned.actions, planned.wake_at) == ((), 107.0)
    assert actions(pod("a", meta=DELETED), observed, 107.0) == [("kill", "a")]


def test_deletion_without_grace_kills_at_once() -> None:
    made = pod("a", meta=DELETED | {"deletionGracePeriodSeconds": 0})
    assert actions(made, seen(run("a"))) == [("kill", "a")]


def test_pod_deleted_before_it_began_is_deleted_at_once() -> None:
    assert actions(pod("a", meta=DELETED), Observed()) == [("DeleteObject", "")]
