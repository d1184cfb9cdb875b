"""The text of a manifest file -> the objects in it, checked as an API server checks them.  Pure.

Services, EndpointSlices, Nodes and ServiceCIDRs, several to a file (`---`) or in a List; other kinds are named and
passed over.  Nobody allocates here: a Service says its clusterIP, and its node ports where its type has them.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from svcplane.api.codec import convert
from svcplane.api.core import Node, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.api.meta import Object
from svcplane.api.networking import ServiceCIDR
from svcplane.api.resources import ENDPOINT_SLICES, NODES, SERVICE_CIDRS, SERVICES, Resource
from svcplane.api.status import StatusError
from svcplane.api.strategies import STRATEGIES
from svcplane.api.strategies.service import needs_cluster_ip, needs_node_port, normalize_cluster_ips
from svcplane.api.strategy import Tree
from svcplane.api.validation import meta
from svcplane.base.errors import ConfigError
from svcplane.base.yamltext import documents

READ: dict[tuple[str, str], tuple[Resource, type[Object]]] = {
    (resource.api_version, resource.kind): (resource, struct)
    for resource, struct in (
        (SERVICES, Service),
        (ENDPOINT_SLICES, EndpointSlice),
        (NODES, Node),
        (SERVICE_CIDRS, ServiceCIDR),
    )
}
SUFFIXES = (".yaml", ".yml", ".json")
ObjectKey = tuple[str, str]  # kind, `namespace/name`


@dataclass(frozen=True, slots=True)
class Manifest:
    """What one file holds; `passed_over`: kinds in it that a proxy does not read."""

    objects: Mapping[ObjectKey, Object] = field(default_factory=dict)
    passed_over: tuple[str, ...] = ()


def read(text: str) -> Manifest:
    """The objects of one file.  Raises ConfigError naming the object and the field."""
    objects: dict[ObjectKey, Object] = {}
    passed_over: dict[str, None] = {}
    for number, tree in enumerate(_flat(documents(text)), 1):
        if not isinstance(tree, dict):
            raise ConfigError(f"document {number}: must be an object, with apiVersion and kind")
        kind = str(tree.get("kind", "")), str(tree.get("apiVersion", ""))
        if not all(kind):
            raise ConfigError(f"document {number}: {'kind' if not kind[0] else 'apiVersion'}: must be given")
        known = READ.get((kind[1], kind[0]))
        if known is None:
            passed_over[f"{kind[0]} ({kind[1]})"] = None
            continue
        item = _object(tree, *known, number)
        key = kind[0], item.key
        if key in objects:
            raise ConfigError(f"{kind[0]} {item.key}: is in this file twice")
        objects[key] = item
    if not objects and not passed_over:
        raise ConfigError("holds no object; remove the file to remove its objects")
    return Manifest(objects, tuple(passed_over))


def _flat(values: list[Any]) -> Iterator[Any]:
    """A List stands for its items."""
    for value in values:
        if isinstance(value, dict) and value.get("kind") == "List" and isinstance(value.get("items"), list):
            yield from value["items"]
        else:
            yield value


def _object(raw: Tree, resource: Resource, struct: type[Object], number: int) -> Object:
    name = raw["metadata"].get("name") if isinstance(raw.get("metadata"), dict) else None
    shown = f"{resource.kind} {name}" if name else f"document {number} ({resource.kind})"
    try:
        decoded = convert(raw, resource)
    except StatusError as error:
        raise ConfigError(f"{shown}: {_type_error(str(error))}") from error
    if decoded.problems:
        raise ConfigError(f"{shown}: {decoded.problems[0]}")
    tree = decoded.tree
    if resource.namespaced:
        tree["metadata"].setdefault("namespace", "default")
    strategy = STRATEGIES[resource]
    strategy.default(tree)
    if resource is SERVICES:
        normalize_cluster_ips(tree["spec"], None)
    errors = meta.validate_create(tree["metadata"], namespaced=resource.namespaced, name_rule=strategy.validate_name)
    errors += strategy.validate_create(tree) + strategy.validate_status_update(tree, {})
    if errors:
        more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
        raise ConfigError(f"{shown}: {errors[0]}{more}")
    if resource is SERVICES:
        _nothing_to_allocate(tree["spec"], shown)
    return msgspec.convert(tree, struct)


def _type_error(message: str) -> str:
    """`spec.ports.port: must be int32, is string` from the API's words."""
    match = re.search(r"cannot unmarshal (\S+) into Go struct field \w+\.(\S+) of type (\S+?)(:.*)?$", message)
    return f"{match[2]}: must be {match[3]}, is {match[1]}" if match else message


def _nothing_to_allocate(spec: Tree, shown: str) -> None:
    """What an API server would have filled in must be there."""
    if needs_cluster_ip(spec) and not spec.get("clusterIP"):
        raise ConfigError(f"{shown}: spec.clusterIP: must be given, for nobody allocates one (or `None`)")
    if needs_node_port(spec) and spec.get("allocateLoadBalancerNodePorts") is not False:
        for index, port in enumerate(spec.get("ports", [])):
            if not port.get("nodePort"):
                hint = "" if spec["type"] == "NodePort" else ", or spec.allocateLoadBalancerNodePorts be false"
                where = f"spec.ports[{index}].nodePort"
                raise ConfigError(f"{shown}: {where}: must be given, for nobody allocates one{hint}")
