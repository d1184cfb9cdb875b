"""Says when a ServiceCIDR is ready, and holds back its deletion while addresses need it.

Source: pkg/controller/servicecidrs.
"""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from svcplane.api.networking import IPAddress, ServiceCIDR
from svcplane.api.resources import SERVICE_CIDRS
from svcplane.base.clock import SYSTEM_CLOCK, Clock, rfc3339
from svcplane.base.net import canonical_cidr, canonical_ip, contains
from svcplane.client.workqueue import WorkQueue
from svcplane.controllers.cluster import Cluster

FINALIZER = "networking.k8s.io/service-cidr-finalizer"
#: How long a ServiceCIDR that nothing needs stays, so that every API server has ceased to give addresses from it.
GRACE_S = 10.0
READY = {"status": "True", "reason": "", "message": "Kubernetes Service CIDR is ready"}
BLOCKED = {
    "status": "False",
    "reason": "Terminating",
    "message": "There are still IPAddresses referencing the ServiceCIDR, "
    "please remove them or create a new ServiceCIDR",
}


def is_needed(cidr: ServiceCIDR, others: Iterable[ServiceCIDR], addresses: Iterable[IPAddress]) -> bool:
    """Whether an address would be in no ServiceCIDR without this one."""
    mine = _networks(cidr)
    rest = [network for other in others if other.key != cidr.key and _stays(other) for network in _networks(other)]
    for address in addresses:
        ip = canonical_ip(address.metadata.name)
        if ip is None or not any(contains(network, ip) for network in mine):
            continue
        if not any(contains(network, ip) for network in rest):
            return True
    return False


def _stays(cidr: ServiceCIDR) -> bool:
    return cidr.metadata.deletion_timestamp is None


def _networks(cidr: ServiceCIDR) -> list[str]:
    return [network for text in cidr.spec.cidrs if (network := canonical_cidr(text)) is not None]


class ServiceCIDRController:
    """One key for each ServiceCIDR."""

    name = "service-cidr"

    def __init__(self, cluster: Cluster, clock: Clock = SYSTEM_CLOCK) -> None:
        cluster.follow_addresses = True
        self._cluster, self._clock = cluster, clock
        self.queue: WorkQueue[str] = WorkQueue(first_s=0.005, max_s=1000.0)
        cluster.service_cidrs.on_change(self._cidr_changed)
        cluster.ip_addresses.on_change(self._address_changed)

    def _cidr_changed(self, old: ServiceCIDR | None, new: ServiceCIDR | None) -> None:
        if new is not None:
            self.queue.add(new.key)
        self._wake_those_that_wait()

    def _address_changed(self, old: IPAddress | None, new: IPAddress | None) -> None:
        if new is None:
            self._wake_those_that_wait()

    def _wake_those_that_wait(self) -> None:
        for key, cidr in self._cluster.service_cidrs.items.items():
            if not _stays(cidr):
                self.queue.add(key)

    async def sync(self, key: str) -> bool:
        """False: try again later."""
        cluster = self._cluster
        cidr = cluster.service_cidrs.items.get(key)
        if cidr is None:
            return True
        meta = cidr.metadata
        if _stays(cidr):
            if FINALIZER not in meta.finalizers:
                await self._set_finalizers(cidr, [*meta.finalizers, FINALIZER])
            await self._set_condition(cidr, READY)
            return True
        if FINALIZER not in meta.finalizers:
            return True
        if is_needed(cidr, cluster.service_cidrs.items.values(), cluster.ip_addresses.items.values()):
            await self._set_condition(cidr, BLOCKED)
            return True
        since = datetime.fromisoformat(meta.deletion_timestamp or "").timestamp()
        left = since + GRACE_S - self._clock.wall()
        if left > 0:
            self.queue.add_after(key, left)
            return True
        await self._set_finalizers(cidr, [name for name in meta.finalizers if name != FINALIZER])
        return True

    async def _set_finalizers(self, cidr: ServiceCIDR, finalizers: list[str]) -> None:
        meta = {"finalizers": finalizers or None, "resourceVersion": cidr.metadata.resource_version}
        await self._cluster.client.patch(SERVICE_CIDRS, "", cidr.key, {"metadata": meta})

    async def _set_condition(self, cidr: ServiceCIDR, wanted: dict[str, str]) -> None:
        found = next((c for c in cidr.status.conditions if c.type == "Ready"), None)
        if found is not None and found.status == wanted["status"] and found.reason == wanted["reason"]:
            return
        condition: dict[str, Any] = {"type": "Ready", **wanted}
        condition["lastTransitionTime"] = rfc3339(self._clock.wall())
        body = {
            "apiVersion": SERVICE_CIDRS.api_version,
            "kind": SERVICE_CIDRS.kind,
            "status": {"conditions": [condition]},
        }
        query = {"fieldManager": "service-cidr-controller", "force": "true"}
        await self._cluster.client.patch(
            SERVICE_CIDRS, "", cidr.key, body, subresource="status", kind="apply", query=query
        )

    def failed(self, key: str) -> None:
        """Nothing of ours to forget."""
