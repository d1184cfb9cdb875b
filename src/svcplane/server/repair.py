"""Finds what does not fit between Services and the numbers they hold, puts it right and says so by Events.

A Service and its numbers are written in one transaction, so nothing can leak by itself; a restored back-up or
somebody who deletes or edits an IPAddress can still part them.  Each repair demands that what it is based on has
not changed.  Source: pkg/registry/core/service/ipallocator/controller/repairip.go, portallocator/controller/repair.go.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from svcplane.api import codec
from svcplane.api.resources import IP_ADDRESSES, SERVICES, Resource
from svcplane.api.strategy import Tree
from svcplane.base.clock import Clock, rfc3339
from svcplane.base.errors import StoreError
from svcplane.base.net import canonical_ip
from svcplane.server.allocation import ServiceAllocation, node_ports
from svcplane.server.events import Events, Warning_
from svcplane.server.in_use import MANAGED_BY, PORT_PREFIX, ip_key, ip_labels, ip_record, port_key, port_record
from svcplane.store.contract import Delete, KeyValue, PreconditionFailed, Put, Revision, Store, Transaction, Unchanged

log = logging.getLogger(__name__)
_Told = Callable[[str, str], Warning_]  # reason, note
EVERY_S = 180.0
BREATH = 200
IP_CONTROLLER, PORT_CONTROLLER = "ipallocator-repair-controller", "portallocator-repair-controller"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong: the Event about it, and what puts it right (nothing: only the owner of the Service can)."""

    warning: Warning_ | None
    operations: tuple[Put | Delete, ...] = ()
    conditions: tuple[Unchanged, ...] = ()


@dataclass(slots=True)
class Records:
    """All Services and numbers, as stored."""

    services: dict[str, KeyValue] = field(default_factory=dict)
    ips: dict[str, KeyValue] = field(default_factory=dict)
    ports: dict[str, KeyValue] = field(default_factory=dict)

    def service(self, namespace: str, name: str) -> Tree | None:
        item = self.services.get(SERVICES.key(namespace, name))
        return codec.load(item.value, item.revision, SERVICES) if item is not None else None


def cluster_ips(service: Tree) -> list[str]:
    """Canonical; none of a headless or ExternalName Service."""
    ips = service.get("spec", {}).get("clusterIPs", [])
    return [canonical_ip(ip) or ip for ip in ips if ip and ip != "None"]


def same(item: KeyValue | None, key: str) -> Unchanged:
    return Unchanged(key, item.revision if item is not None else Revision(0))


class Repair:
    """`events` tells people."""

    def __init__(self, store: Store, allocation: ServiceAllocation, events: Events, clock: Clock) -> None:
        self._store, self._allocation, self._events, self._clock = store, allocation, events, clock

    async def run(self) -> None:
        """Until cancelled: everything every three minutes, and at once an IPAddress that somebody deletes."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._all_again(), name="repair")
            group.create_task(self._follow_ips(), name="repair of IPAddresses")

    async def _all_again(self) -> None:
        while True:
            try:
                await self.check_all()
            except StoreError as error:
                log.warning("allocations were not checked: %s", error)
            await self._clock.sleep(EVERY_S)

    async def check_all(self) -> int:
        """How many faults were found."""
        records = await self._load()
        count = 0
        for number, fault in enumerate(self._faults(records)):
            if fault is not None:
                count += 1
                await self._deal_with(fault)
            if number % BREATH == 0:
                await asyncio.sleep(0)  # others go on meanwhile
        return count

    async def _load(self) -> Records:
        """All of one revision: what is read a moment apart can contradict itself though nothing is wrong."""
        services = await self._store.list(SERVICES.key_prefix())
        ips = await self._store.list(IP_ADDRESSES.key_prefix(), revision=services.revision)
        ports = await self._store.list(PORT_PREFIX, revision=services.revision)
        return Records(*({item.key: item for item in page.items} for page in (services, ips, ports)))

    async def _follow_ips(self) -> None:
        while True:
            try:
                watch = await self._store.watch(IP_ADDRESSES.key_prefix(), await self._store.revision())
                try:
                    async for events in watch:
                        for event in events:
                            if event.value is None and event.previous is not None:
                                await self._ip_deleted(codec.load(event.previous, 0, IP_ADDRESSES))
                finally:
                    await watch.aclose()
            except StoreError as error:
                log.warning("IPAddresses are followed anew: %s", error)
            await self._clock.sleep(1)

    async def _ip_deleted(self, record: Tree) -> None:
        """The Service it was for usually went with it."""
        parent = record.get("spec", {}).get("parentRef", {})
        item = await self._store.get(SERVICES.key(parent.get("namespace", ""), parent.get("name", "")))
        if item is None:
            return
        ip = record["metadata"]["name"]
        service = codec.load(item.value, item.revision, SERVICES)
        if ip in cluster_ips(service) and await self._store.get(ip_key(ip)) is None:
            for fault in self._service_ips(service, item, Records()):
                if fault is not None and any(condition.key == ip_key(ip) for condition in fault.conditions):
                    await self._deal_with(fault)

    async def _deal_with(self, fault: Fault) -> None:
        try:
            if fault.operations:
                await self._store.commit(Transaction(fault.operations, fault.conditions))
        except PreconditionFailed:
            return  # somebody else was quicker; the next round looks again
        if fault.warning is not None:
            log.warning("allocation: %s", fault.warning.note)
            await self._events.warn(fault.warning)

    # -- what is wrong; pure but for the ranges ------------------------------------------------------------------------

    def _faults(self, records: Records) -> Iterator[Fault | None]:
        """None for each thing that is right."""
        holders: dict[int, str] = {}
        for item in records.services.values():
            service = codec.load(item.value, item.revision, SERVICES)
            yield from self._service_ips(service, item, records)
            yield from self._service_ports(service, item, records, holders)
        for item in records.ips.values():
            yield self._ip_fault(codec.load(item.value, item.revision, IP_ADDRESSES), item, records)
        for key, item in records.ports.items():
            port = int(key.removeprefix(PORT_PREFIX))
            if port not in holders:
                log.warning("the node port %d appears to have leaked: cleaning up", port)
                # its Service must still be what it was when listed
                owner = _owner_key(item)
                conditions = (same(item, key), *([same(records.services.get(owner), owner)] if owner else []))
                yield Fault(None, (Delete(key),), conditions)

    def _service_ips(self, service: Tree, item: KeyValue, records: Records) -> Iterator[Fault | None]:
        meta = service["metadata"]
        namespace, name = meta["namespace"], meta["name"]
        for ip in cluster_ips(service):
            head = f"Cluster IP [{'IPv6' if ':' in ip else 'IPv4'}]: {ip}"
            key = ip_key(ip)
            record = records.ips.get(key)
            put = (Put(key, ip_record(ip, namespace, name, rfc3339(self._clock.wall()))),)
            conditions = (same(item, item.key), same(record, key))

            def told(reason: str, note: str) -> Warning_:
                return _about(service, SERVICES, reason, "ClusterIPAllocation", note, IP_CONTROLLER)

            if canonical_ip(ip) is None:
                note = f"Cluster IP {ip} is not a valid IP; please recreate service"
                yield Fault(_about(service, SERVICES, "ClusterIPNotValid", "ClusterIPValidation", note, IP_CONTROLLER))
            elif not any(ip in span for span in self._allocation.ranges):
                note = f"{head} is not within any configured Service CIDR; please recreate service"
                yield Fault(told("ClusterIPOutOfRange", note))
            elif record is None:
                yield Fault(told("ClusterIPNotAllocated", f"{head} is not allocated; repairing"), put, conditions)
            else:
                yield self._reference_fault(ip, (namespace, name), record, records, told, put, conditions)

    def _reference_fault(
        self,
        ip: str,
        owner: tuple[str, str],
        record: KeyValue,
        records: Records,
        told: _Told,
        put: tuple[Put | Delete, ...],
        conditions: tuple[Unchanged, ...],
    ) -> Fault | None:
        """An IPAddress must refer to the Service that has its address."""
        head = f"Cluster IP [{'IPv6' if ':' in ip else 'IPv4'}]: {ip}"
        tree = codec.load(record.value, record.revision, IP_ADDRESSES)
        parent = tree.get("spec", {}).get("parentRef", {})
        if parent.get("group") or parent.get("resource") != "services":
            return Fault(told("ClusterIPNotAllocated", f"{head} has a wrong reference; repairing"), put, conditions)
        if (parent.get("namespace"), parent.get("name")) != owner:
            other = records.service(parent.get("namespace", ""), parent.get("name", ""))
            if other is not None and ip in cluster_ips(other):
                note = f"{head} was assigned to multiple services; please recreate service"
                return Fault(told("ClusterIPAlreadyAllocated", note))
            return Fault(told("ClusterIPNotAllocated", f"{head} has a wrong reference; repairing"), put, conditions)
        labels = tree["metadata"].get("labels", {})
        if any(labels.get(key) != value for key, value in ip_labels(ip).items()):
            return Fault(told("ClusterIPNotAllocated", f"{head} has wrong labels; repairing"), put, conditions)
        return None

    def _service_ports(
        self, service: Tree, item: KeyValue, records: Records, holders: dict[int, str]
    ) -> Iterator[Fault | None]:
        meta = service["metadata"]
        name = f"{meta['namespace']}/{meta['name']}"
        for port in node_ports(service.get("spec", {})):
            key = port_key(port)
            record, wanted = records.ports.get(key), port_record(meta["namespace"], meta["name"])
            holder = holders.setdefault(port, self._recorded_holder(port, record, records) or name)

            def told(reason: str, note: str) -> Warning_:
                return _about(service, SERVICES, reason, "PortAllocation", note, PORT_CONTROLLER)

            if port not in self._allocation.ports:
                note = f"Port {port} is not within the port range {self._allocation.ports}; please recreate service"
                yield Fault(told("PortOutOfRange", note))
            elif holder != name:
                note = f"Port {port} was assigned to multiple services; please recreate service"
                yield Fault(told("PortAlreadyAllocated", note))
            elif record is None or record.value != wanted:
                conditions = (same(item, item.key), same(record, key))
                warning = told("PortNotAllocated", f"Port {port} is not allocated; repairing")
                yield Fault(warning, (Put(key, wanted),), conditions)
            else:
                yield None

    @staticmethod
    def _recorded_holder(port: int, record: KeyValue | None, records: Records) -> str:
        """The Service that the record names, where it has the port."""
        name = _recorded_name(record) if record is not None else ""
        service = records.service(*name.split("/", 1)) if name else None
        return name if service is not None and port in node_ports(service.get("spec", {})) else ""

    def _ip_fault(self, record: Tree, item: KeyValue, records: Records) -> Fault | None:
        """One that the allocation made, of which no Service knows."""
        meta, parent = record["metadata"], record.get("spec", {}).get("parentRef", {})
        ip = meta["name"]
        if meta.get("labels", {}).get("ipaddress.kubernetes.io/managed-by") != MANAGED_BY:
            return None
        place = f"{parent.get('namespace', '')}/{parent.get('name', '')}"
        gone = (Delete(item.key),)

        def told(reason: str, note: str) -> Warning_:
            return _about(record, IP_ADDRESSES, reason, "IPAddressAllocation", note, IP_CONTROLLER)

        if parent.get("group") or parent.get("resource") != "services":
            note = f"IPAddress {ip} appears to have been modified, not referencing a Service: cleaning up"
            return Fault(told("IPAddressNotAllocated", note), gone, (same(item, item.key),))
        key = SERVICES.key(parent.get("namespace", ""), parent.get("name", ""))
        owner = records.services.get(key)
        conditions = (same(item, item.key), same(owner, key))
        service = records.service(parent.get("namespace", ""), parent.get("name", ""))
        if service is None:
            note = f"IPAddress: {ip} for Service {place} appears to have leaked: cleaning up"
            return Fault(told("IPAddressNotAllocated", note), gone, conditions)
        if ip not in cluster_ips(service):
            note = f"IPAddress: {ip} for Service {place} has a wrong reference; cleaning up"
            return Fault(told("IPAddressWrongReference", note), gone, conditions)
        return None


def _recorded_name(record: KeyValue) -> str:
    """NAMESPACE/NAME of the Service that a node port's record names; empty where it names none."""
    name = str(codec.parse_body(record.value, "application/json")[0].get("service", ""))
    return name if name.count("/") == 1 else ""


def _owner_key(record: KeyValue) -> str:
    name = _recorded_name(record)
    return SERVICES.key(*name.split("/")) if name else ""


def _about(tree: Tree, resource: Resource, reason: str, action: str, note: str, controller: str) -> Warning_:
    return Warning_(tree, resource, reason, action, note, controller)
