"""The controllers put together: informers in, plans, writes out.  `run_controllers` is the library entry."""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol

from svcplane.api.resources import SERVICE_CIDRS
from svcplane.api.status import StatusError
from svcplane.base.errors import TransportError
from svcplane.client.api import ApiClient
from svcplane.client.transport import Transport
from svcplane.client.workqueue import WorkQueue
from svcplane.controllers.cluster import Cluster
from svcplane.controllers.endpoints.controller import EndpointsController
from svcplane.controllers.events import is_terminating
from svcplane.controllers.garbage import GarbageCollector
from svcplane.controllers.mirror.controller import MirrorController
from svcplane.controllers.namespaces import NamespaceController
from svcplane.controllers.servicecidrs import ServiceCIDRController
from svcplane.controllers.slices.controller import SlicesController

log = logging.getLogger(__name__)
WORKERS = 5
RETRY_S = 1.0


class Controller(Protocol):
    """Its constructor takes the Cluster and registers what it wants to hear of; `sync` brings one key right."""

    name: str
    queue: WorkQueue[str]

    async def sync(self, key: str) -> bool: ...

    def failed(self, key: str) -> None:
        """The API refused a write of this key's sync."""


CONTROLLERS: Mapping[str, Callable[[Cluster], Controller]] = {
    "endpoints": EndpointsController,
    "endpointslice": SlicesController,
    "endpointslicemirroring": MirrorController,
    "garbage-collector": GarbageCollector,
    "namespace": NamespaceController,
    "service-cidr": ServiceCIDRController,
}
NAMES = tuple(CONTROLLERS)


def _guarded(controller: Controller) -> Callable[[str], Awaitable[bool]]:
    async def sync(key: str) -> bool:
        try:
            return await controller.sync(key)
        except (StatusError, TransportError) as error:
            controller.failed(key)
            if is_terminating(error):
                return True  # nothing can be made there any more, and what is there goes
            if not (isinstance(error, StatusError) and error.code in (404, 409)):
                log.warning("sync failed: controller=%s key=%s error=%s", controller.name, key, error)
            return False
        except Exception:
            # one object that we cannot deal with must not keep all others waiting
            log.exception("sync failed: controller=%s key=%s", controller.name, key)
            controller.failed(key)
            return False

    return sync


async def _has_service_cidrs(client: ApiClient) -> bool:
    """Kubernetes before 1.33 does not.  Waits for a server out of reach."""
    while True:
        try:
            await client.call("GET", SERVICE_CIDRS.path(), query={"limit": "1"})
            return True
        except StatusError as error:
            return error.code != 404
        except TransportError as error:
            log.warning("waiting for the API server: %s", error)
            await asyncio.sleep(RETRY_S)


async def run_controllers(
    transport: Transport, names: tuple[str, ...] = NAMES, *, listed: Callable[[], None] = lambda: None
) -> None:
    """Run the named controllers until cancelled; `listed` is called when they have seen everything once."""
    cluster = Cluster(transport)
    if ServiceCIDRController.name in names and not await _has_service_cidrs(cluster.client):
        log.info("this API server has no ServiceCIDRs: controller=%s stays off", ServiceCIDRController.name)
        names = tuple(name for name in names if name != ServiceCIDRController.name)
    controllers = [CONTROLLERS[name](cluster) for name in names]
    for controller in controllers:
        controller.queue.measured(controller.name)
    try:
        await cluster.start()
        listed()
        async with asyncio.TaskGroup() as group:
            for controller in controllers:
                for _ in range(WORKERS):
                    group.create_task(controller.queue.work(_guarded(controller)), name=controller.name)
    finally:
        await cluster.close()
