"""The Pods of this node -> one worker each.  Knows all Pods; what one Pod needs is its worker's business.

A Pod bound to this node gets a worker, a Pod that vanished from the API is ended by its worker, a sandbox on disk
without a Pod is removed once the Pods have been listed (never before).
"""

import asyncio
import logging
import shutil
from collections.abc import Iterable
from pathlib import Path

from svcplane.api.core import Pod
from svcplane.base.tasks import cancel_and_wait
from svcplane.kernel.links.plan import removal, stray_links
from svcplane.node.network import MARK
from svcplane.node.sandbox import Identity, Sandbox, load_identity
from svcplane.node.surroundings import Surroundings
from svcplane.node.worker import Worker

log = logging.getLogger(__name__)

WORKER_RETRY_S = 5.0


class Agent:
    """Feed it Pods with `listed` once, then `changed` and `gone`; end with `close`."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._workers: dict[str, Worker] = {}  # uid ->
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._left_running: dict[str, Sandbox] = {}  # found at the start, not yet claimed by a Pod

    @property
    def workers(self) -> Iterable[Worker]:
        return self._workers.values()

    def find(self, namespace: str, name: str) -> Worker | None:
        """The worker of a Pod by name; where one is being replaced, the newer."""
        key = f"{namespace}/{name}"
        found = [worker for worker in self._workers.values() if worker.pod.key == key]
        return found[-1] if found else None

    # -- start -----------------------------------------------------------------------------------------------

    async def adopt(self) -> None:
        """Find the sandboxes an earlier agent left: running ones are kept, broken ones removed."""
        around = self._around
        root = around.state / "pods"
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
        for directory in sorted(root.iterdir()):
            identity = load_identity(directory)
            if identity is None:
                continue
            box = self._sandbox(identity, directory)
            if await box.adopt():
                around.addresses.adopt({identity.uid: identity.ips} if identity.network else {})
                self._left_running[identity.uid] = box
                log.info("sandbox adopted: pod=%s/%s", identity.namespace, identity.name)
            else:
                log.info("broken sandbox removed: pod=%s/%s", identity.namespace, identity.name)
                await box.remove(forget=False)
        await asyncio.to_thread(self._remove_strays)

    def _sandbox(self, identity: Identity, directory: Path) -> Sandbox:
        def wake() -> None:
            worker = self._workers.get(identity.uid)
            if worker is not None:
                worker.wake()

        return Sandbox(identity, directory, self._around.links, wake)

    def _remove_strays(self) -> None:
        """Namespaces and links of Pods no directory knows of (the state was lost)."""
        links, around = self._around.links, self._around
        known = [box.identity.network for box in self._left_running.values() if box.identity.network]
        names = {network.namespace for network in known}
        links.apply(removal(around.namespace_prefix, links.namespaces(around.namespace_prefix), names))
        seen = links.observe("")
        if seen is not None:
            links.apply(stray_links("", seen, MARK, {network.link for network in known}))

    # -- Pods ------------------------------------------------------------------------------------------------

    async def listed(self, pods: Iterable[Pod]) -> None:
        """The first complete list: also ends what has no Pod any more."""
        for pod in pods:
            self.changed(pod)
        orphans = list(self._left_running.values())
        self._left_running.clear()
        for box in orphans:
            log.info("sandbox without a Pod removed: pod=%s/%s", box.identity.namespace, box.identity.name)
            self._around.addresses.free(box.identity.uid)
            await box.end_all(5)
            await box.remove()
        await asyncio.to_thread(self._remove_leftovers)

    def _remove_leftovers(self) -> None:
        """Logs and volumes of Pods that went while nobody looked, or whose removal was cut short."""
        for directory in (self._around.state / "pods").iterdir():
            if directory.name not in self._workers and load_identity(directory) is None:
                shutil.rmtree(directory, ignore_errors=True)

    def changed(self, pod: Pod) -> None:
        """A Pod of this node, new or changed."""
        if pod.spec.node_name != self._around.node_name:
            return
        uid = pod.metadata.uid
        worker = self._workers.get(uid)
        if worker is not None:
            worker.update(pod)
            return
        worker = Worker(pod, self._around, self._left_running.pop(uid, None))
        self._workers[uid] = worker
        self._tasks[uid] = asyncio.create_task(self._keep(worker), name=f"pod {pod.key}")

    def gone(self, pod: Pod) -> None:
        """A Pod vanished from the API."""
        worker = self._workers.get(pod.metadata.uid)
        if worker is not None:
            worker.forget()

    async def _keep(self, worker: Worker) -> None:
        """Run a worker; an unforeseen failure of one Pod is not another's: it is logged and tried again."""
        while True:
            try:
                await worker.run()
                break
            except Exception:
                log.exception("worker failed, will be restarted: pod=%s", worker.pod.key)
                await self._around.clock.sleep(WORKER_RETRY_S)
                await worker.rejoin()
        self._around.addresses.free(worker.uid)
        self._workers.pop(worker.uid, None)
        self._tasks.pop(worker.uid, None)

    # -- end -------------------------------------------------------------------------------------------------

    async def close(self, *, stop_pods: bool, grace_s: float = 5.0) -> None:
        """Let go of all Pods (they go on running, to be adopted), or end their processes and networks too."""
        workers = list(self._workers.values())
        await cancel_and_wait(*self._tasks.values())
        if stop_pods:
            results = await asyncio.gather(*(worker.stop_now(grace_s) for worker in workers), return_exceptions=True)
            for worker, result in zip(workers, results, strict=True):
                if isinstance(result, BaseException):
                    log.error("Pod not stopped cleanly: pod=%s error=%s", worker.pod.key, result)
        for box in self._left_running.values():
            await box.disconnect()
        self._workers.clear()
        self._tasks.clear()
