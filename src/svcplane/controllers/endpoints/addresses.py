"""The addresses of one Service by their ports, kept in order: a changed Pod costs its own place, not all others'.

Pure.  Source: pkg/api/v1/endpoints RepackSubsets, pkg/controller/endpoint truncateEndpoints.
"""

import heapq
import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from operator import itemgetter
from typing import Any

from sortedcontainers import SortedDict

from svcplane.api.core import Pod, Service
from svcplane.base.net import canonical_ip
from svcplane.controllers import pods as p

Tree = dict[str, Any]
Port = tuple[str, int, str, str | None]  # name, number, protocol, appProtocol
Ports = tuple[Port, ...]
Order = tuple[str, str]  # canonical address, the Pod's uid


@dataclass(frozen=True, slots=True)
class Place:
    """Where a Pod stands."""

    ports: Ports
    ready: bool
    order: Order
    ip: str


@dataclass(slots=True)
class _Group:
    """Those with the same ports."""

    ready: SortedDict = field(default_factory=SortedDict)
    unready: SortedDict = field(default_factory=SortedDict)

    def side(self, *, ready: bool) -> SortedDict:
        return self.ready if ready else self.unready


def place_of(service: Service, pod: Pod) -> Place | None:
    """Where a selected Pod stands; None: nowhere."""
    spec = service.spec
    if pod.status.phase in p.ENDED or (p.is_terminating(pod) and not spec.publish_not_ready_addresses):
        return None
    ip = p.pod_ip(pod, (spec.ip_families or ["IPv4"])[0])
    if not ip:
        return None
    found = [(port, p.target_port(pod, port)) for port in spec.ports]
    ports = {(port.name, number, port.protocol, port.app_protocol) for port, number in found if number is not None}
    if not ports and (spec.ports or not p.is_headless(service)):
        return None
    ready = spec.publish_not_ready_addresses or p.is_ready(pod)
    place = tuple(sorted(ports, key=lambda port: port[:3]))
    return Place(place, ready, (canonical_ip(ip) or ip, pod.metadata.uid), ip)


class Addresses:
    """Of one Service, as it is; another version of it needs another."""

    def __init__(self, service: Service) -> None:
        self.service = service
        self._places: dict[str, Place] = {}
        self._groups: dict[Ports, _Group] = {}

    def put(self, key: str, pod: Pod | None) -> None:
        """`key`: the Pod's; None where the Service has it no more."""
        new = place_of(self.service, pod) if pod is not None else None
        old = self._places.pop(key, None)
        if old is not None:
            group = self._groups[old.ports]
            group.side(ready=old.ready).pop(old.order, None)
            if not group.ready and not group.unready:
                del self._groups[old.ports]
        if new is not None and pod is not None:
            self._places[key] = new
            self._groups.setdefault(new.ports, _Group()).side(ready=new.ready)[new.order] = (new.ip, pod)

    def __len__(self) -> int:
        return len(self._places)

    def subsets(self, limit: int) -> tuple[list[Tree], bool]:
        """At most `limit` addresses, ready ones first, each subset giving up in proportion; and whether it had to."""
        merged = self._merged()
        ready = [sum(len(group.ready) for group in groups) for _, groups in merged]
        unready = [sum(len(group.unready) for group in groups) for _, groups in merged]
        room = min(sum(ready), limit)
        shares = zip(_shares(ready, room), _shares(unready, min(sum(unready), limit - room)), strict=True)
        subsets = []
        for (ports, groups), (some, others) in zip(merged, shares, strict=True):
            subset: Tree = {}
            if some:
                subset["addresses"] = list(self._trees([group.ready for group in groups], some))
            if others:
                subset["notReadyAddresses"] = list(self._trees([group.unready for group in groups], others))
            if subset and ports:
                subset["ports"] = [_port(*port) for port in ports]
            if subset:
                subsets.append(subset)
        return subsets, sum(ready) + sum(unready) > limit

    def _merged(self) -> list[tuple[Ports, list[_Group]]]:
        """Each port once, with all who have it; ports that the same Pods have stand together."""
        by_port: dict[Port | None, list[Ports]] = {}
        for ports in sorted(self._groups, key=str):
            for port in ports or (None,):
                by_port.setdefault(port, []).append(ports)
        together: dict[tuple[Ports, ...], list[Port]] = {}
        for port, places in sorted(by_port.items(), key=str):
            found = together.setdefault(tuple(places), [])
            if port is not None:
                found.append(port)
        return [(tuple(ports), [self._groups[place] for place in places]) for places, ports in together.items()]

    def _trees(self, sides: list[SortedDict], count: int) -> Iterator[Tree]:
        entries = sides[0].items() if len(sides) == 1 else heapq.merge(*(s.items() for s in sides), key=itemgetter(0))
        for _, (ip, pod) in islice(entries, count):
            yield _address(self.service, pod, ip)


def _shares(sizes: list[int], room: int) -> list[int]:
    """How many each may have: its proportion rounded up, so that the last may get a little less."""
    total, left = sum(sizes), room
    shares = []
    for size in sizes:
        shares.append(min(math.ceil(size / total * room) if total else 0, left, size))
        left -= shares[-1]
    return shares


def _port(name: str, number: int, protocol: str, app: str | None) -> Tree:
    tree: Tree = {"port": number, "protocol": protocol}
    if name:
        tree["name"] = name
    if app is not None:
        tree["appProtocol"] = app
    return tree


def _address(service: Service, pod: Pod, ip: str) -> Tree:
    meta = pod.metadata
    address: Tree = {"ip": ip}
    if pod.spec.node_name:
        address["nodeName"] = pod.spec.node_name
    address["targetRef"] = {"kind": "Pod", "namespace": meta.namespace, "name": meta.name, "uid": meta.uid}
    hostname = p.hostname_for(pod, service)
    if hostname:
        address["hostname"] = hostname
    return address
