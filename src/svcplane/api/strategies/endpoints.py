"""Endpoints and EndpointSlices.  Pure.

Source: pkg/apis/core/validation ValidateEndpoints, pkg/apis/discovery/validation, pkg/registry/discovery.
"""

from typing import Any

from svcplane.api import fields as f
from svcplane.api.fields import FieldError
from svcplane.api.strategy import Strategy, Tree
from svcplane.api.validation import ports as port_rules
from svcplane.api.validation.names import dns1123_label, dns1123_subdomain, fqdn, port_number
from svcplane.api.validation.values import special_ip, strict_ip
from svcplane.base.net import canonical_ip, family_of

DEPRECATED = "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"
MAX_ENDPOINTS, MAX_ADDRESSES, MAX_PORTS, MAX_HINTS = 1000, 100, 20_000, 8


class EndpointsStrategy(Strategy):
    allow_create_on_update = True

    def default(self, obj: Tree) -> None:
        for subset in obj.get("subsets", []):
            for port in subset.get("ports", []):
                port.setdefault("port", 0)
                port.setdefault("protocol", "TCP")

    def validate_create(self, obj: Tree) -> list[FieldError]:
        return self._subsets(obj.get("subsets", []), set())

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        if obj.get("subsets", []) == old.get("subsets", []):
            return []
        known = {
            address.get("ip", "")
            for subset in old.get("subsets", [])
            for kind in ("addresses", "notReadyAddresses")
            for address in subset.get(kind, [])
        }
        return self._subsets(obj.get("subsets", []), known)

    def _subsets(self, subsets: list[Tree], known: set[str]) -> list[FieldError]:
        errors: list[FieldError] = []
        for index, subset in enumerate(subsets):
            path = f"subsets[{index}]"
            if not subset.get("addresses") and not subset.get("notReadyAddresses"):
                errors.append(f.required(path, "must specify `addresses` or `notReadyAddresses`"))
            for kind in ("addresses", "notReadyAddresses"):
                for number, address in enumerate(subset.get(kind, [])):
                    errors += _address(address, f"{path}.{kind}[{number}]", known)
            ports = subset.get("ports", [])
            for number, port in enumerate(ports):
                errors += _port(port, f"{path}.ports[{number}]", name_required=len(ports) > 1)
        return errors


def _address(address: Tree, path: str, known: set[str]) -> list[FieldError]:
    ip = address.get("ip", "")
    errors = strict_ip(f"{path}.ip", ip, known)
    if canonical_ip(ip) is None:
        if ip not in known:
            errors.append(f.invalid(f"{path}.ip", ip, "must be a valid IP address"))
    else:
        errors += special_ip(f"{path}.ip", ip)
    if address.get("hostname"):
        errors += [f.invalid(f"{path}.hostname", address["hostname"], t) for t in dns1123_label(address["hostname"])]
    if address.get("nodeName"):
        name = address["nodeName"]
        errors += [f.invalid(f"{path}.nodeName", name, text) for text in dns1123_subdomain(name)]
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

    def default(self, obj: Tree) -> None:
        obj["endpoints"] = obj.get("endpoints") or None
        obj["ports"] = obj.get("ports") or None
        for endpoint in obj["endpoints"] or ():
            endpoint.setdefault("addresses", [])
            endpoint.setdefault("conditions", {})
        for port in obj["ports"] or ():
            port.setdefault("name", "")
            port.setdefault("protocol", "TCP")

    def validate_create(self, obj: Tree) -> list[FieldError]:
        return self._validate(obj, set())

    def validate_update(self, obj: Tree, old: Tree) -> list[FieldError]:
        known = {address for endpoint in old.get("endpoints") or () for address in endpoint.get("addresses", [])}
        errors = self._validate(obj, known)
        if obj.get("addressType") != old.get("addressType"):
            errors.append(f.invalid("addressType", obj.get("addressType", ""), "field is immutable"))
        return errors

    def _validate(self, obj: Tree, known: set[str]) -> list[FieldError]:
        kind, errors = obj.get("addressType", ""), []
        if not kind:
            errors.append(f.required("addressType"))
        elif kind not in ("IPv4", "IPv6", "FQDN"):
            errors.append(f.not_supported("addressType", kind, ("IPv4", "IPv6", "FQDN")))
        endpoints = obj.get("endpoints") or []
        if len(endpoints) > MAX_ENDPOINTS:
            errors.append(f.too_many("endpoints", len(endpoints), MAX_ENDPOINTS))
        else:
            for index, endpoint in enumerate(endpoints):
                errors += _endpoint(endpoint, f"endpoints[{index}]", kind, known)
        return errors + _slice_ports(obj.get("ports") or [])


def _endpoint(endpoint: Tree, path: str, kind: str, known: set[str]) -> list[FieldError]:
    addresses, place = endpoint.get("addresses", []), f"{path}.addresses"
    errors: list[FieldError] = []
    if not addresses:
        errors.append(f.required(place, "must contain at least 1 address"))
    elif len(addresses) > MAX_ADDRESSES:
        errors.append(f.too_many(place, len(addresses), MAX_ADDRESSES))
    for index, address in enumerate(addresses[:MAX_ADDRESSES]):
        where = f"{place}[{index}]"
        if kind == "FQDN":
            errors += [f.invalid(where, address, text) for text in fqdn(address)]
        elif kind in ("IPv4", "IPv6"):
            found = strict_ip(where, address, known)
            if canonical_ip(address) is not None:
                if family_of(address).api_name != kind:
                    errors.append(f.invalid(place, address, f"must be an {kind} address"))
                found += special_ip(where, address)
            errors += found
    if endpoint.get("hostname") is not None:
        name = endpoint["hostname"]
        errors += [f.invalid(f"{path}.hostname", name, text) for text in dns1123_label(name)]
    if endpoint.get("nodeName") is not None:
        name = endpoint["nodeName"]
        errors += [f.invalid(f"{path}.nodeName", name, text) for text in dns1123_subdomain(name)]
    return errors + _hints(endpoint.get("hints") or {}, f"{path}.hints")


def _hints(hints: Tree, path: str) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in ("forZones", "forNodes"):
        values = hints.get(field, [])
        if len(values) > MAX_HINTS:
            errors.append(f.too_many(f"{path}.{field}", len(values), MAX_HINTS))
            continue
        seen: set[str] = set()
        for index, value in enumerate(values):
            name, where = value.get("name", ""), f"{path}.{field}[{index}].name"
            if name in seen:
                errors.append(f.duplicate(where, name))
            seen.add(name)
            errors += [f.invalid(where, name, text) for text in dns1123_subdomain(name)]
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
