"""One Pod's loop: observe -> plan -> act -> report.  The only code that changes this Pod's sandbox.

Runs as one task; `update` and the sandbox's changes wake it.  It ends when the Pod is gone from the API and from
this node.
"""

import asyncio
import contextlib
import logging
import signal
from collections.abc import Coroutine
from dataclasses import replace
from typing import Any

import msgspec

from svcplane.api.core import Container, Pod
from svcplane.api.resources import PODS
from svcplane.api.status import StatusError
from svcplane.base.errors import EnvironmentProblem, KernelError, TransportError
from svcplane.base.tasks import cancel_and_wait, to_the_end
from svcplane.node import checks, model, probes
from svcplane.node.addresses import NoAddress
from svcplane.node.health import PodHealth
from svcplane.node.hooks import Hook, post_start_of, pre_stop_of, run_hook
from svcplane.node.model import Backoff, Observed, Plan, Run, Stopping
from svcplane.node.network import pod_network
from svcplane.node.plan import grace_of, plan
from svcplane.node.reporting import RETRY_FIRST_S, RETRY_MAX_S, Reporter
from svcplane.node.sandbox import Book, Identity, Sandbox, load_records, pod_directory
from svcplane.node.spec import CannotRun, Process, hostname_of, process_of
from svcplane.node.status import pod_status
from svcplane.node.surroundings import Surroundings
from svcplane.node.users import own_user
from svcplane.node.volumefiles import PodVolumes
from svcplane.node.volumes import in_memory

log = logging.getLogger(__name__)
HOOK_LIMIT_S = 86400.0  # postStart may take its time
STOPPED_REPORT_S = 2.0
HOOK_FAILED = "FailedPostStartHook"
OWN_USER = own_user()


class Worker:
    """See the module's text."""

    def __init__(self, pod: Pod, around: Surroundings, adopted: Sandbox | None = None) -> None:
        self.pod = pod
        self.uid = pod.metadata.uid
        self.gone_from_api = False
        self._around = around
        self._event = asyncio.Event()
        self._sandbox = adopted
        self._book = adopted.book if adopted else load_records(pod_directory(around.state, self.uid))
        self._health = PodHealth(around.clock, self.wake, self._probed)
        self._stopping: dict[str, Stopping] = {}
        self._backoff: dict[str, Backoff] = {}
        self._first_attempt = self._attempts_so_far()
        self._hooked: set[str] = set()  # runs whose postStart hook goes on
        self._problems: dict[str, tuple[str, str]] = {}
        self._sandbox_problem = ""
        self._tasks: set[asyncio.Task[None]] = set()
        self._reporter = Reporter(around.api)
        self._volumes = PodVolumes(around.api, pod_directory(around.state, self.uid) / "volumes")
        self._waiting_told: set[str] = set()
        self._retry_s = RETRY_FIRST_S
        self._done = False

    # -- what the agent tells --------------------------------------------------------------------------------

    def wake(self) -> None:
        self._event.set()

    def update(self, pod: Pod) -> None:
        """A newer version of the Pod; older ones (late watch events) are ignored."""
        new, now = pod.metadata.resource_version, self.pod.metadata.resource_version
        if new.isdigit() and now.isdigit() and int(new) < int(now):
            return
        self.pod = pod
        self.wake()

    def forget(self) -> None:
        """The Pod is gone from the API: end its processes as if it were being deleted, write nothing more."""
        self.gone_from_api = True
        self.wake()

    @property
    def sandbox(self) -> Sandbox | None:
        return self._sandbox

    def find_run(self, container: str, *, previous: bool) -> Run | None:
        runs = self._book.previous if previous else self._book.newest
        return runs.get(container)

    # -- the loop --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Until the Pod is gone.  Cancelling leaves its processes alone."""
        try:
            while not self._done:
                self._event.clear()
                wake_at = await self._step()
                if not self._done:
                    await self._wait(wake_at)
        finally:
            await cancel_and_wait(*self._tasks)
            await self._health.close()
            if self._sandbox is not None:
                await self._sandbox.disconnect()  # its processes go on, to be adopted or stopped

    async def _wait(self, wake_at: float | None) -> None:
        with contextlib.suppress(TimeoutError):
            delay = None if wake_at is None else max(0.0, wake_at - self._around.clock.wall())
            async with asyncio.timeout(delay):
                await self._event.wait()

    async def _step(self) -> float | None:
        """Plan, act, report; returns when to look again."""
        now = self._around.clock.wall()
        await self._notice_loss(now)
        self._watch_health()
        pod = self._effective_pod()
        if self._sandbox is not None and pod.metadata.deletion_timestamp is None:
            await self._keep_volumes(now)
        planned = plan(pod, self._observed(), now)
        for name in planned.waiting.keys() - self._waiting_told:
            await self._event_of(
                "Warning", "BackOff", f"Back-off restarting failed container {name} in pod {self._pod_text()}"
            )
        retry_at = None
        for action in planned.actions:
            retry_at = await self._perform(action)
            if retry_at is not None:
                break
        else:
            if planned.actions:
                self.wake()
        self._backoff |= planned.charged
        self._waiting_told = set(planned.waiting)
        failed_at = await self._report(planned)
        volumes_at = self._volumes.due if self._sandbox is not None else None
        times = [at for at in (planned.wake_at, retry_at, failed_at, volumes_at) if at is not None]
        return min(times, default=None)

    def _effective_pod(self) -> Pod:
        """The Pod; one that vanished from the API counts as being deleted."""
        if not self.gone_from_api or self.pod.metadata.deletion_timestamp is not None:
            return self.pod
        meta = msgspec.structs.replace(
            self.pod.metadata,
            deletion_timestamp="1970-01-01T00:00:00Z",
            deletion_grace_period_seconds=int(grace_of(self.pod)),
        )
        return msgspec.structs.replace(self.pod, metadata=meta)

    def _observed(self) -> Observed:
        alive = self._sandbox is not None
        ips = self._sandbox.identity.ips if self._sandbox is not None else ()
        return Observed(
            sandbox=alive,
            ips=ips,
            runs=self._book.newest,
            previous=self._book.previous,
            health=self._health.values,
            stopping=self._stopping,
            backoff=self._backoff,
            first_attempt=self._first_attempt,
            problem=self._sandbox_problem,
            hooked=self._hooked,
            user=OWN_USER,
        )

    def _attempts_so_far(self) -> dict[str, int]:
        """Starts that happened in sandboxes this node no longer knows, from the Pod's own status."""
        statuses = self.pod.status.container_statuses + self.pod.status.init_container_statuses
        return {status.name: status.restart_count + 1 for status in statuses if status.container_id}

    async def _notice_loss(self, now: float) -> None:
        """The supervisor was killed: clean up after it; the plan then makes a new sandbox."""
        if self._sandbox is None or self._sandbox.alive:
            return
        log.warning("the Pod's supervisor is gone: pod=%s", self.pod.key)
        self._book.lost(now)
        await to_the_end(self._sandbox.remove(forget=False))
        self._sandbox = None
        await self._event_of("Normal", "SandboxChanged", "Pod sandbox changed, it will be killed and re-created.")
        for name, run in self._book.newest.items():
            self._first_attempt[name] = run.attempt + 1
            self._book.previous[name] = run
        self._book.newest.clear()

    def _watch_health(self) -> None:
        """Start probes of new runs, stop those of ended ones."""
        running = {run.id: run for run in self._book.newest.values() if run.running}
        for run_id in [name for name in self._stopping if name not in running]:
            del self._stopping[run_id]
        self._hooked &= running.keys()
        begun = [run for run_id, run in running.items() if run_id not in self._hooked]
        terminating = self._effective_pod().metadata.deletion_timestamp is not None
        self._health.watch(self.pod, begun, self._sandbox, self._process, terminating=terminating)

    def _probed(self, kind: probes.Kind, result: checks.Result) -> None:
        """Tell of a probe that was no plain success."""
        what = "errored and resulted in unknown state" if result.unknown else "warning" if result.warning else "failed"
        reason = "ProbeWarning" if result.warning else "Unhealthy"
        self._spawn(self._event_of("Warning", reason, f"{kind} probe {what}: {result.text}"))

    # -- actions ---------------------------------------------------------------------------------------------

    async def _perform(self, action: model.Action) -> float | None:
        """Do one action; returns when to try again if it failed."""
        log.info("pod=%s action=%s reason=%s", self.pod.key, type(action).__name__, action.reason)
        match action:
            case model.CreateSandbox():
                return await self._create_sandbox()
            case model.Start(name, attempt):
                return await self._start(name, attempt)
            case model.Terminate(run, grace_s, reason):
                self._stopping[run.id] = Stopping(self._around.clock.wall(), grace_s)
                self._spawn(self._terminate(run, grace_s, reason))
            case model.Kill(run):
                told = self._stopping.get(run.id) or Stopping(self._around.clock.wall(), 0)
                self._stopping[run.id] = replace(told, killed=True)
                if self._sandbox is not None:
                    self._sandbox.signal(run, signal.SIGKILL)
            case model.RemoveSandbox():
                await self._remove_sandbox()
            case model.DeleteObject():
                return await self._delete_object()
        return None

    async def _keep_volumes(self, now: float) -> bool:
        before = self._volumes.due
        problem = await self._volumes.keep(self.pod, now)
        if problem and self._volumes.due != before:
            await self._event_of("Warning", "FailedMount", problem)
        return not problem

    def _retry_later(self) -> float:
        self._retry_s = min(self._retry_s * 2, RETRY_MAX_S)
        return self._around.clock.wall() + self._retry_s

    async def _create_sandbox(self) -> float | None:
        around, pod = self._around, self.pod
        if not await self._keep_volumes(around.clock.wall()):
            return self._retry_later()
        try:
            identity = self._identity()
            made = Sandbox(identity, pod_directory(around.state, self.uid), around.links, self.wake)
            made.book = Book(self._book.newest, self._book.previous)
            await made.create([(self._volumes.paths[name], size) for name, size in in_memory(pod)])
        except (KernelError, EnvironmentProblem, NoAddress, OSError, TimeoutError) as error:
            around.addresses.free(self.uid)
            self._sandbox_problem = f"Failed to create pod sandbox: {error}"
            log.error("sandbox not made: pod=%s error=%s", pod.key, error)
            await self._event_of("Warning", "FailedCreatePodSandBox", self._sandbox_problem)
            return self._retry_later()
        self._sandbox, self._book = made, made.book
        self._sandbox_problem, self._retry_s = "", RETRY_FIRST_S
        return None

    def _identity(self) -> Identity:
        around, pod = self._around, self.pod
        meta = pod.metadata
        names = (self.uid, meta.namespace, meta.name, hostname_of(pod))
        if pod.spec.host_network:
            return Identity(*names, around.host_ips, None)
        ips = around.addresses.take(self.uid)
        network = pod_network(around.namespace_prefix, self.uid, meta.namespace, meta.name, ips, around.pod_cidrs)
        return Identity(*names, ips, network)

    def _container(self, name: str) -> Container | None:
        spec = self.pod.spec
        return next((c for c in [*spec.containers, *spec.init_containers] if c.name == name), None)

    def _process(self, container: Container) -> Process:
        ips = self._sandbox.identity.ips if self._sandbox is not None else ()
        around = self._around
        volumes = self._volumes.paths
        return process_of(self.pod, container, ips, around.host_ips, around.python, around.services(), volumes)

    async def _start(self, name: str, attempt: int) -> float | None:
        container = self._container(name)
        if container is None or self._sandbox is None:
            return None
        try:
            process = self._process(container)
        except CannotRun as error:
            if self._problems.get(name) != ("CreateContainerConfigError", str(error)):
                await self._event_of("Warning", "Failed", f"Error: {error}")
            self._problems[name] = ("CreateContainerConfigError", str(error))
            return self._around.clock.wall() + RETRY_MAX_S
        self._problems.pop(name, None)
        await self._sandbox.start(name, attempt, process)
        run = self._book.newest.get(name)
        if run is not None and run.exit is not None and run.exit.reason == "StartError":
            await self._event_of("Warning", "Failed", f"Error: {run.exit.message}")
        else:
            self._spawn(self._event_of("Normal", "Started", f"Started container {name}"))
        if run is not None and run.running and post_start_of(container) is not None:
            self._hooked.add(run.id)
            self._spawn(self._post_start(run, container))
        return None

    def _hook(self, run: Run, container: Container) -> Hook:
        assert self._sandbox is not None
        return Hook(run, container, self._sandbox, self._process(container), self._around.clock)

    async def _post_start(self, run: Run, container: Container) -> None:
        """The hook; until it has ended the container counts as not started, and one whose hook fails is ended."""
        handler = post_start_of(container)
        assert handler is not None
        problem = await run_hook(handler, self._hook(run, container), HOOK_LIMIT_S)
        self._hooked.discard(run.id)
        if problem:
            await self._event_of("Warning", HOOK_FAILED, f"PostStartHook failed: {problem}")
            self._health.fail(run.id, HOOK_FAILED)
        self.wake()

    async def _terminate(self, run: Run, grace_s: float, reason: str) -> None:
        """preStop, then TERM.  The plan sends KILL when the grace period is over."""
        container = self._container(run.container)
        text = reason if "probe" in reason or reason == HOOK_FAILED else f"Stopping container {run.container}"
        self._spawn(self._event_of("Normal", "Killing", text))
        if container is not None and self._sandbox is not None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(grace_s):
                    handler = pre_stop_of(container)
                    problem = await run_hook(handler, self._hook(run, container), grace_s) if handler else ""
                    if problem:
                        await self._event_of("Warning", "FailedPreStopHook", f"PreStopHook failed: {problem}")
        if self._sandbox is not None:
            self._sandbox.signal(run, signal.SIGTERM)

    async def _remove_sandbox(self) -> None:
        """The processes have ended; release the network.  Records and logs stay until the Pod is gone."""
        if self._sandbox is not None:
            await to_the_end(self._sandbox.remove(forget=False))
            self._sandbox = None
        self._around.addresses.free(self.uid)

    async def _delete_object(self) -> float | None:
        if not self.gone_from_api:
            await self._report(Plan(()))
            meta = self.pod.metadata
            try:
                await self._around.api.delete(PODS, meta.namespace, meta.name, uid=self.uid, grace_s=0)
            except StatusError as error:
                if error.code not in (404, 409):
                    log.error("Pod not deleted: pod=%s error=%s", self.pod.key, error)
                    return self._around.clock.wall() + RETRY_MAX_S
            except TransportError:
                return self._around.clock.wall() + RETRY_FIRST_S
            if self.pod.metadata.finalizers:
                return self._around.clock.wall() + RETRY_MAX_S  # others have work to do; the watch will tell
        self._done = True
        box = Sandbox(
            self._identity_for_removal(), pod_directory(self._around.state, self.uid), self._around.links, self.wake
        )
        await box.remove()
        return None

    def _identity_for_removal(self) -> Identity:
        meta = self.pod.metadata
        return Identity(self.uid, meta.namespace, meta.name, "", (), None)

    async def rejoin(self) -> None:
        """Connect to the sandbox again after `run` ended with an error; a lost one is replaced by `run`."""
        if self._sandbox is not None and not self._sandbox.alive:
            await self._sandbox.adopt()

    async def stop_now(self, grace_s: float) -> None:
        """End the Pod's processes and remove its sandbox, but keep the Pod: the node is shut down.

        Only after `run` has ended.  What became of it is written to its status, if the API still answers.
        """
        box, self._sandbox = self._sandbox, None
        if box is None:
            return
        if await box.adopt():
            await box.end_all(min(grace_s, grace_of(self.pod)))
        await box.remove(forget=False)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(STOPPED_REPORT_S):
                await self._report(Plan(()))

    # -- reporting -------------------------------------------------------------------------------------------

    async def _report(self, planned: Plan) -> float | None:
        """Write the status if it changed; returns when to try again."""
        if self.gone_from_api or self._done:
            return None
        around = self._around
        status = pod_status(
            self.pod,
            self._observed(),
            now=around.clock.wall(),
            host_ips=around.host_ips,
            waiting=planned.waiting,
            problems=self._problems,
        )
        written, again_s = await self._reporter.write(self.pod, status)
        self.pod = written or self.pod
        return None if again_s is None else around.clock.wall() + again_s

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"work for {self.pod.key}")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _event_of(self, kind: str, reason: str, message: str) -> None:
        await self._around.recorder.event(self.pod, kind, reason, message)

    def _pod_text(self) -> str:
        meta = self.pod.metadata
        return f"{meta.name}_{meta.namespace}({meta.uid})"
