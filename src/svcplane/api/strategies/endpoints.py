"""Endpoints and EndpointSlices.  Pure.

Source: pkg/apis/core/validation ValidateEndpoints, pkg/apis/discovery/validation, pkg/registry/discovery.
"""

from itertools import zip_longest
from typing import Any

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Strategy, Tree
from svcplane.api.validation import meta
from svcplane.api.validation import ports as port_rules
from svcplane.api.validation.names import dns1123_label, dns1123_subdomain, label_value, port_number
from svcplane.api.validation.values import fqdn, ip_warnings, special_ip, strict_ip
from svcplane.base.net import canonical_ip, family_of

DEPRECATED = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
MAX_ENDPOINTS, MAX_ADDRESSES, MAX_PORTS, MAX_HINTS, MAX_TOPOLOGY = 1000, 100, 20_000, 8, 16
ENDPOINTS_MANAGED_BY, ENDPOINTS_CONTROLLER = "endpoints.kubernetes.io/managed-by", "endpoint-controller"
#: Who writes slices without needing to be warned of addresses.
SLICE_CONTROLLERS = ("endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io")
SLICE_MANAGED_BY = "endpointslice.kubernetes.io/managed-by"


class EndpointsStrategy(Strategy):
    allow_create_on_update = True
    metadata_again = True

    def default(self, obj: Tree) -> None:
        for subset in obj.get("subsets", []):
            for port in subset.get("ports", []):
                port.setdefault("port", 0)
                port["protocol"] = port.get("protocol") or "TCP"
                if not port.get("name"):  # no pointer, as it is in slices
                    port.pop("name", None)

    def validate_create(self, obj: Tree) -> list[FieldError]:
        return self._subsets(obj.get("subsets", []))

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        # what was stored by older servers may stay as it is
        unchanged = obj.get("subsets", []) == old.get("subsets", [])
        return [] if unchanged else self._subsets(obj.get("subsets", []))

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        if obj["metadata"].get("labels", {}).get(ENDPOINTS_MANAGED_BY) == ENDPOINTS_CONTROLLER:
            return []
        return [
            text
            for index, subset in enumerate(obj.get("subsets", []))
            for kind in ("addresses", "notReadyAddresses")
            for number, address in enumerate(subset.get(kind, []))
            for text in ip_warnings(f"subsets[{index}].{kind}[{number}].ip", address.get("ip", ""))
        ]

    def _subsets(self, subsets: list[Tree]) -> list[FieldError]:
        errors: list[FieldError] = []
        for index, subset in enumerate(subsets):
            path = f"subsets[{index}]"
            if not subset.get("addresses") and not subset.get("notReadyAddresses"):
                errors.append(f.required(path, "must specify `addresses` or `notReadyAddresses`"))
            for kind in ("addresses", "notReadyAddresses"):
                for number, address in enumerate(subset.get(kind, [])):
                    errors += _address(address, f"{path}.{kind}[{number}]")
            ports = subset.get("ports", [])
            for number, port in enumerate(ports):
                errors += _port(port, f"{path}.ports[{number}]", name_required=len(ports) > 1)
        return errors


def _address(address: Tree, path: str) -> list[FieldError]:
    ip = address.get("ip", "")
    errors = strict_ip(f"{path}.ip", ip)
    if address.get("hostname"):
        errors += [f.invalid(f"{path}.hostname", address["hostname"], t) for t in dns1123_label(address["hostname"])]
    if address.get("nodeName") is not None:
        name = address["nodeName"]
        errors += [f.invalid(f"{path}.nodeName", name, text) for text in dns1123_subdomain(name)]
    if canonical_ip(ip) is None:
        errors.append(f.invalid(f"{path}.ip", ip, "must be a valid IP address"))
    else:
        errors += special_ip(f"{path}.ip", ip)
    return errors


def _port(port: Tree, path: str, *, name_required: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    name = port.get("name", "")
    if not name and name_required:
        errors.append(f.required(f"{path}.name"))
    elif name:
        errors += [f.invalid(f"{path}.name", name, text) for text in dns1123_label(name)]
    number = port.get("port", 0)
    errors += [f.invalid(f"{path}.port", number, text) for text in port_number(number)]
    return errors + port_rules.protocol(port, path) + port_rules.app_protocol(port, path)


class EndpointSliceStrategy(Strategy):
    has_generation = True
    allow_create_on_update = False
    metadata_changes_again = False
    metadata_again = True

    def default(self, obj: Tree) -> None:
        obj["endpoints"] = obj.get("endpoints") or None
        obj["ports"] = obj.get("ports") or None
        for endpoint in obj["endpoints"] or ():
            endpoint.setdefault("addresses", [])
            endpoint.setdefault("conditions", {})
        for port in obj["ports"] or ():
            port.setdefault("name", "")
            port.setdefault("protocol", "TCP")

    def prepare_create(self, obj: Tree) -> None:
        _drop_topology(obj)

    def prepare_update(self, obj: Tree, old: Tree) -> None:
        if obj["endpoints"] != old.get("endpoints"):
            _drop_topology(obj)

    def warnings(self, obj: Tree, old: Tree | None) -> list[str]:
        fresh_fqdn = old is None and obj.get("addressType") == "FQDN"
        found = ["spec.addressType: FQDN endpoints are deprecated"] if fresh_fqdn else []
        if obj["metadata"].get("labels", {}).get(SLICE_MANAGED_BY) in SLICE_CONTROLLERS:
            return found
        for index, endpoint in enumerate(obj.get("endpoints") or ()):
            for number, address in enumerate(endpoint.get("addresses", [])):
                found += ip_warnings(f"endpoints[{index}].addresses[{number}]", address)
        return found

    def validate_create(self, obj: Tree) -> list[FieldError]:
        return self._validate(obj, {}, set())

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        known = {address for endpoint in old.get("endpoints") or () for address in endpoint.get("addresses", [])}
        errors = self._validate(obj, old, known)
        if obj.get("addressType") != old.get("addressType"):
            errors.append(f.invalid("addressType", obj.get("addressType", ""), "field is immutable"))
        return errors

    def _validate(self, obj: Tree, old: Tree, known: set[str]) -> list[FieldError]:
        """Endpoints that are as they were stored, in the same place, are not looked at again."""
        kind, errors = obj.get("addressType", ""), []
        before = (old.get("endpoints") or []) if kind == old.get("addressType") else []
        if not kind:
            errors.append(f.required("addressType"))
        elif kind not in ("IPv4", "IPv6", "FQDN"):
            errors.append(f.not_supported("addressType", kind, ("IPv4", "IPv6", "FQDN")))
        endpoints = obj.get("endpoints") or []
        if len(endpoints) > MAX_ENDPOINTS:
            errors.append(f.too_many("endpoints", len(endpoints), MAX_ENDPOINTS))
        else:
            for index, (endpoint, was) in enumerate(zip_longest(endpoints, before[: len(endpoints)])):
                errors += [] if endpoint == was else _endpoint(endpoint, f"endpoints[{index}]", kind, known)
        return errors + _slice_ports(obj.get("ports") or [])


def _endpoint(endpoint: Tree, path: str, kind: str, known: set[str]) -> list[FieldError]:
    addresses, place = endpoint.get("addresses", []), f"{path}.addresses"
    errors: list[FieldError] = []
    if not addresses:
        errors.append(f.required(place, "must contain at least 1 address"))
    elif len(addresses) > MAX_ADDRESSES:
        errors.append(f.too_many(place, len(addresses), MAX_ADDRESSES))
    for index, address in enumerate(addresses):
        where = f"{place}[{index}]"
        if kind == "FQDN":
            errors += fqdn(where, address)
        elif kind in ("IPv4", "IPv6"):
            found = strict_ip(where, address, known)
            if not found and canonical_ip(address) is not None:
                if family_of(address).api_name != kind:
                    found.append(f.invalid(place, address, f"must be an {kind} address"))
                found += special_ip(where, address)
            errors += found
    if endpoint.get("nodeName") is not None:
        name = endpoint["nodeName"]
        errors += [f.invalid(f"{path}.nodeName", name, text) for text in dns1123_subdomain(name)]
    errors += _topology(endpoint.get("deprecatedTopology", {}), f"{path}.deprecatedTopology")
    if endpoint.get("hostname") is not None:
        name = endpoint["hostname"]
        errors += [f.invalid(f"{path}.hostname", name, text) for text in dns1123_label(name)]
    return errors + _hints(endpoint.get("hints") or {}, f"{path}.hints")


def _drop_topology(obj: Tree) -> None:
    """Topology is of an older version of the API, and not of this one."""
    for endpoint in obj["endpoints"] or ():
        endpoint.pop("deprecatedTopology", None)


def _topology(topology: dict[str, str], path: str) -> list[FieldError]:
    errors = [f.too_many(path, len(topology), MAX_TOPOLOGY)] if len(topology) > MAX_TOPOLOGY else []
    return errors + meta.labels(topology, path)


def _hints(hints: Tree, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for field, rule in (("forZones", label_value), ("forNodes", dns1123_subdomain)):
        values = hints.get(field, [])
        if len(values) > MAX_HINTS:
            return [*errors, f.too_many(f"{path}.{field}", len(values), MAX_HINTS)]
        seen: set[str] = set()
        for index, value in enumerate(values):
            name, where = value.get("name", ""), f"{path}.{field}[{index}].name"
            if name in seen:
                errors.append(f.duplicate(where, name))
            seen.add(name)
            errors += [f.invalid(where, name, text) for text in rule(name)]
    return errors


def _slice_ports(ports: list[Tree]) -> list[FieldError]:
    errors: list[FieldError] = []
    if len(ports) > MAX_PORTS:
        return [f.too_many("ports", len(ports), MAX_PORTS)]
    seen: set[Any] = set()
    for index, port in enumerate(ports):
        path, name = f"ports[{index}]", port.get("name", "")
        if name:
            errors += [f.invalid(f"{path}.name", name, text) for text in dns1123_label(name)]
        if name in seen:
            errors.append(f.duplicate(f"{path}.name", name))
        seen.add(name)
        errors += port_rules.protocol(port, path) + port_rules.app_protocol(port, path)
    return errors
