"""Endpoints and the slices that mirror them in, slices to write out.  Pure.

One slice for each set of ports and IP family.  Source: pkg/controller/endpointslicemirroring reconciler.go.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec

from svcplane.api.core import EndpointAddress, Endpoints, EndpointSubset
from svcplane.api.discovery import MANAGED_BY, SERVICE_NAME, EndpointSlice
from svcplane.base.net import canonical_ip, family_of
from svcplane.controllers.pods import TRIGGER_TIME

CONTROLLER = "endpointslicemirroring-controller.k8s.io"
SKIP_LABEL = "endpointslice.kubernetes.io/skip-mirror"
LEADER_ANNOTATION = "control-plane.alpha.kubernetes.io/leader"
NOT_COPIED = (TRIGGER_TIME, "kubectl.kubernetes.io/last-applied-configuration")
MAX_PER_SUBSET = 1000
Tree = dict[str, Any]
Port = tuple[str, str, int, str | None]  # name, protocol, port, appProtocol
Ports = tuple[Port, ...]
Place = tuple[str, Ports]  # family, ports


@dataclass(slots=True)
class Plan:
    """`updates` are whole slices under their old names.  `invalid`: addresses that are none; `over`: addresses
    beyond the limit of their subset."""

    creates: list[Tree] = field(default_factory=list)
    updates: list[Tree] = field(default_factory=list)
    deletes: list[str] = field(default_factory=list)
    invalid: int = 0
    over: int = 0


def is_mirrored(endpoints: Endpoints) -> bool:
    """Whether an Endpoints object asks for slices (where its Service has no selector)."""
    meta = endpoints.metadata
    return meta.labels.get(SKIP_LABEL) != "true" and LEADER_ANNOTATION not in meta.annotations


def plan(endpoints: Endpoints, existing: Sequence[EndpointSlice], *, max_per_subset: int = MAX_PER_SUBSET) -> Plan:
    """`existing`: the slices this controller made for these Endpoints."""
    result = Plan()
    wanted = _wanted(endpoints, max_per_subset, result)
    spare: list[EndpointSlice] = []
    for slice_ in sorted(existing, key=lambda s: s.metadata.name):
        place = _place_of(slice_)
        if place not in wanted:
            spare.append(slice_)
            continue
        tree = _slice(endpoints, place, list(wanted.pop(place).values()))
        if _differs(tree, slice_):
            result.updates.append(_in_place_of(slice_, tree))
    for place, addresses in sorted(wanted.items(), key=str):
        tree = _slice(endpoints, place, list(addresses.values()))
        tree["metadata"]["generateName"] = f"{endpoints.metadata.name}-"  # a slice used again is as a new one
        recycled = next((old for old in spare if old.address_type == place[0]), None)
        if recycled is not None:
            spare.remove(recycled)
            result.updates.append(_in_place_of(recycled, tree))
        elif endpoints.metadata.deletion_timestamp is None:
            result.creates.append(tree)
    result.deletes += [slice_.metadata.name for slice_ in spare]
    return result


def _wanted(endpoints: Endpoints, limit: int, result: Plan) -> dict[Place, dict[tuple[str, str], Tree]]:
    wanted: dict[Place, dict[tuple[str, str], Tree]] = {}
    for ports, states in repacked(endpoints.subsets):
        added = 0
        for index, (address, ready) in enumerate(states):
            if added >= limit:
                result.over += len(states) - index
                break
            ip = canonical_ip(address.ip)
            if ip is None:
                result.invalid += 1
                continue
            place = (family_of(ip).api_name, ports)
            wanted.setdefault(place, {})[_key(address)] = _endpoint(address, ip, ready=ready)
            added += 1
    return wanted


def repacked(subsets: Sequence[EndpointSubset]) -> list[tuple[Ports, list[tuple[EndpointAddress, bool]]]]:
    """(ports, (address, whether it is ready)), each port once and each address once a port, ready ones first.

    Subsets may overlap; an address that is said to be both is not ready.
    Source: pkg/api/v1/endpoints RepackSubsets.
    """
    addresses: dict[tuple[str, str], EndpointAddress] = {}
    by_port: dict[Port | None, dict[tuple[str, str], bool]] = {}
    for subset in subsets:
        ports: list[Port | None] = [(p.name, p.protocol, p.port, p.app_protocol) for p in subset.ports]
        for port in ports or [None]:
            places = by_port.setdefault(port, {})
            for address in subset.addresses:
                places.setdefault(_key(addresses.setdefault(_key(address), address)), True)
            for address in subset.not_ready_addresses:
                places[_key(addresses.setdefault(_key(address), address))] = False
    groups: dict[frozenset[tuple[tuple[str, str], bool]], list[Port]] = {}
    for port, places in by_port.items():
        group = groups.setdefault(frozenset(places.items()), [])
        if port is not None:
            group.append(port)
    return [
        (tuple(sorted(ports, key=str)), [(addresses[key], ready) for key, ready in sorted(states, key=_ready_first)])
        for states, ports in groups.items()
    ]


def _key(address: EndpointAddress) -> tuple[str, str]:
    return address.ip, address.target_ref.uid if address.target_ref else ""


def _ready_first(state: tuple[tuple[str, str], bool]) -> tuple[bool, tuple[str, str]]:
    return not state[1], state[0]


def _endpoint(address: EndpointAddress, ip: str, *, ready: bool) -> Tree:
    endpoint: Tree = {"addresses": [ip], "conditions": {"ready": ready}}
    if address.target_ref is not None:
        endpoint["targetRef"] = msgspec.to_builtins(address.target_ref)
    if address.node_name is not None:
        endpoint["nodeName"] = address.node_name
    if address.hostname:
        endpoint["hostname"] = address.hostname
    return endpoint


def _place_of(slice_: EndpointSlice) -> Place:
    ports = ((p.name or "", p.protocol or "TCP", p.port or 0, p.app_protocol) for p in slice_.ports or [])
    return slice_.address_type, tuple(sorted(ports, key=str))


def _slice(endpoints: Endpoints, place: Place, addresses: list[Tree]) -> Tree:
    family, ports = place
    meta = endpoints.metadata
    annotations = {key: value for key, value in meta.annotations.items() if key not in NOT_COPIED}
    owner = {"apiVersion": "v1", "kind": "Endpoints", "name": meta.name, "uid": meta.uid}
    tree: Tree = {
        "apiVersion": "discovery.k8s.io/v1",
        "kind": "EndpointSlice",
        "metadata": {
            "namespace": meta.namespace,
            "labels": {**meta.labels, SERVICE_NAME: meta.name, MANAGED_BY: CONTROLLER},
            "ownerReferences": [{**owner, "controller": True, "blockOwnerDeletion": True}],
        },
        "addressType": family,
        "endpoints": addresses,
        "ports": [_port(*port) for port in ports],
    }
    if annotations:
        tree["metadata"]["annotations"] = annotations
    return tree


def _port(name: str, protocol: str, port: int, app: str | None) -> Tree:
    tree: Tree = {"name": name, "protocol": protocol, "port": port}
    if app is not None:
        tree["appProtocol"] = app
    return tree


def _in_place_of(old: EndpointSlice, tree: Tree) -> Tree:
    meta = {**tree["metadata"], "name": old.metadata.name, "resourceVersion": old.metadata.resource_version}
    return {**tree, "metadata": meta}


def _differs(tree: Tree, old: EndpointSlice) -> bool:
    meta = tree["metadata"]
    if meta["labels"] != old.metadata.labels or meta.get("annotations", {}) != old.metadata.annotations:
        return True
    before = msgspec.to_builtins(old.endpoints or [])
    return sorted(before, key=_order) != sorted(tree["endpoints"], key=_order)


def _order(endpoint: Tree) -> tuple[str, str]:
    return endpoint["addresses"][0], endpoint.get("targetRef", {}).get("uid", "")
