"""Health of one Pod's running containers, and the probes that keep it."""

import asyncio
from collections.abc import Callable, Iterable

from svcplane.api.core import Container, Pod
from svcplane.base.clock import Clock
from svcplane.base.tasks import cancel_and_wait
from svcplane.node import checks, probes
from svcplane.node.model import Health, Run
from svcplane.node.sandbox import Sandbox
from svcplane.node.spec import Process
from svcplane.node.status import ID_SCHEME


class PodHealth:
    """`values`: run id -> health.  `changed` is called when one changes, `tell` with what is no plain success."""

    def __init__(
        self, clock: Clock, changed: Callable[[], None], tell: Callable[[probes.Kind, checks.Result], None]
    ) -> None:
        self.values: dict[str, Health] = {}
        self._clock, self._changed, self._tell = clock, changed, tell
        self._probers: dict[str, tuple[probes.Prober, asyncio.Task[None]]] = {}

    def watch(
        self,
        pod: Pod,
        running: Iterable[Run],
        sandbox: Sandbox | None,
        process: Callable[[Container], Process],
        *,
        terminating: bool,
    ) -> None:
        """Start probes of new runs, stop those of ended ones."""
        runs = {run.id: run for run in running}
        for run_id in [name for name in self._probers if name not in runs]:
            self._probers.pop(run_id)[1].cancel()
        for run_id in [name for name in self.values if name not in runs]:
            del self.values[run_id]
        containers = {c.name: c for c in [*pod.spec.containers, *pod.spec.init_containers]}
        for run in runs.values():
            container = containers.get(run.container)
            if run.id not in self.values and container is not None:
                self.values[run.id] = _known_health(pod, run, container)
                if sandbox is not None and probes.probes_of(container):
                    self._begin(run, container, sandbox, process(container), pod.key)
        for prober, _ in self._probers.values():
            prober.terminating = terminating

    def fail(self, run_id: str, why: str) -> None:
        """The run must be ended, whatever its probes say."""
        self.values[run_id] = Health(failed=why)
        self._changed()

    def _begin(self, run: Run, container: Container, sandbox: Sandbox, process: Process, key: str) -> None:
        async def execute(argv: list[str], timeout_s: float) -> tuple[int, str]:
            return await sandbox.exec(run, process, argv, timeout_s)

        def changed(new: Health) -> None:
            self.values[run.id] = new
            self._changed()

        ip = sandbox.identity.ips[0] if sandbox.identity.ips else "127.0.0.1"
        target = checks.Target(container, sandbox.namespace, ip, execute)
        prober = probes.Prober(target, self.values[run.id], self._clock.sleep, changed, self._tell)
        task = asyncio.create_task(prober.run(), name=f"probes of {key} {container.name}")
        self._probers[run.id] = (prober, task)

    async def close(self) -> None:
        """Stop all probes and forget what they found."""
        await cancel_and_wait(*(task for _, task in self._probers.values()))
        self._probers.clear()
        self.values.clear()


def _known_health(pod: Pod, run: Run, container: Container) -> Health:
    """A run adopted from an earlier agent keeps the health it was last reported with."""
    for status in pod.status.container_statuses + pod.status.init_container_statuses:
        if status.name == container.name and status.container_id == ID_SCHEME + run.id and status.ready:
            return Health(started=True, ready=True)
    return probes.health_at_start(container)
