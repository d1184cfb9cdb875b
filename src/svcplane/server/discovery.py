"""Discovery documents, version and OpenAPI.  Pure.

Source: k8s.io/apiserver/pkg/endpoints/discovery; KEP-3352 (aggregated discovery), KEP-2896 (OpenAPI v3).
"""

import functools
from typing import Any

from svcplane import __version__
from svcplane.api.resources import RESOURCES, REVIEWS, Resource
from svcplane.api.schema import Field, Type, description, fields_of, type_names
from svcplane.api.schema.merge import ATOMIC_STRUCTS

GROUPS: dict[str, list[Resource]] = {}
for _row in (*RESOURCES, *REVIEWS):
    GROUPS.setdefault(_row.group, []).append(_row)


def version() -> dict[str, str]:
    return {
        "major": "1",
        "minor": "36",
        "gitVersion": f"v1.36.2+svcplane.{__version__}",
        "gitCommit": "",
        "gitTreeState": "clean",
        "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "",
        "compiler": "python",
        "platform": "linux/amd64",
    }


def api_versions(address: str) -> dict[str, Any]:
    cidrs = [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}]
    return {"kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": cidrs}


def _group(name: str) -> dict[str, Any]:
    found = {"groupVersion": f"{name}/v1", "version": "v1"}
    return {"name": name, "versions": [found], "preferredVersion": found}


def api_group(name: str) -> dict[str, Any] | None:
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name)} if name and name in GROUPS else None


def api_groups() -> dict[str, Any]:
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": [_group(name) for name in GROUPS if name]}


def _entry(row: Resource) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": row.plural,
        "singularName": row.singular,
        "namespaced": row.namespaced,
        "kind": row.kind,
        "verbs": sorted(row.verbs),
    }
    if row.short_names:
        entry["shortNames"] = list(row.short_names)
    if row.categories:
        entry["categories"] = list(row.categories)
    return entry


def _kind(row: Resource, subresource: str) -> str:
    return "Binding" if subresource == "binding" else row.kind


def _verbs(subresource: str) -> list[str]:
    return {"binding": ["create"], "log": ["get"], "finalize": ["update"]}.get(subresource, ["get", "patch", "update"])


def api_resources(group: str) -> dict[str, Any] | None:
    if group not in GROUPS:
        return None
    found: list[dict[str, Any]] = []
    for row in sorted(GROUPS[group], key=lambda row: row.plural):
        found.append(_entry(row))
        found += [
            {
                "name": f"{row.plural}/{sub}",
                "singularName": "",
                "namespaced": row.namespaced,
                "kind": _kind(row, sub),
                "verbs": _verbs(sub),
            }
            for sub in row.subresources
        ]
    head: dict[str, Any] = {"kind": "APIResourceList", "groupVersion": f"{group}/v1" if group else "v1"}
    if group:
        head["apiVersion"] = "v1"
    return {**head, "resources": found}


def _here(kind: str) -> dict[str, str]:
    """A kind of the group and version in whose list it stands: upstream leaves both empty."""
    return {"group": "", "version": "", "kind": kind}


def _subresource(row: Resource, name: str) -> dict[str, Any]:
    return {"subresource": name, "responseKind": _here(_kind(row, name)), "verbs": _verbs(name)}


def aggregated(legacy: bool, form_version: str) -> dict[str, Any]:
    """All groups in one document: `/api` (legacy) or `/apis`."""
    items = []
    for name, rows in GROUPS.items():
        if bool(name) == legacy:
            continue
        resources = [
            {
                "resource": row.plural,
                "responseKind": _here(row.kind),
                "scope": "Namespaced" if row.namespaced else "Cluster",
                "singularResource": row.singular,
                "verbs": sorted(row.verbs),
                **({"shortNames": list(row.short_names)} if row.short_names else {}),
                **({"categories": list(row.categories)} if row.categories else {}),
                **({"subresources": [_subresource(row, sub) for sub in row.subresources]} if row.subresources else {}),
            }
            for row in sorted(rows, key=lambda row: row.plural)
        ]
        versions = [{"version": "v1", "resources": resources, "freshness": "Current"}]
        items.append({"metadata": {"name": name} if name else {}, "versions": versions})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{form_version}",
        "metadata": {},
        "items": items,
    }


# -- OpenAPI ----------------------------------------------------------------------------------------------------------

_SCALAR: dict[str, dict[str, Any]] = {
    "string": {"type": "string"},
    "int": {"type": "integer", "format": "int32"},
    "long": {"type": "integer", "format": "int64"},
    "bool": {"type": "boolean"},
    "float": {"type": "number", "format": "double"},
    "time": {"type": "string", "format": "date-time"},
    "microtime": {"type": "string", "format": "date-time"},
    "quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
    "intstr": {"format": "int-or-string", "oneOf": [{"type": "integer"}, {"type": "string"}]},
    "any": {"type": "object"},
}


def _schema(type_: Type, base: str) -> dict[str, Any]:
    if type_.shape == "struct":
        return {"$ref": f"{base}{definition(type_.name)}"}
    if type_.shape == "list" and type_.item is not None:
        return {"type": "array", "items": _schema(type_.item, base)}
    if type_.shape == "map" and type_.item is not None:
        return {"type": "object", "additionalProperties": _schema(type_.item, base)}
    return dict(_SCALAR[type_.name])


_BY_KIND = {row.kind: row for row in (*RESOURCES, *REVIEWS)}


def definition(name: str) -> str:
    """The schema's name as upstream's documents have it."""
    row = _BY_KIND.get(name)
    if row is not None and row.group:
        return f"io.k8s.api.{row.group.split('.')[0]}.v1.{name}"
    if name in ("ObjectMeta", "OwnerReference", "ManagedFieldsEntry", "DeleteOptions", "Preconditions", "Condition"):
        return f"io.k8s.apimachinery.pkg.apis.meta.v1.{name}"
    return f"io.k8s.api.core.v1.{name}"


def _property(field: Field, base: str) -> dict[str, Any]:
    found = _schema(field.type, base)
    if "$ref" in found and "components" in base:
        found = {"allOf": [found], "default": {}}
    if field.list_keys:
        found |= {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(field.list_keys)}
    elif field.is_set:
        found["x-kubernetes-list-type"] = "set"
    elif field.type.shape == "list":
        found["x-kubernetes-list-type"] = "atomic"
    if field.is_atomic:
        found["x-kubernetes-map-type"] = "atomic"
    if field.strategic_key:
        found["x-kubernetes-patch-strategy"] = "merge"
        if field.strategic_key != "$scalar":
            found["x-kubernetes-patch-merge-key"] = field.strategic_key
    return found


@functools.cache
def definitions(base: str) -> dict[str, Any]:
    """Every type as a schema; `base` is the prefix of references."""
    found = {}
    for name in type_names():
        fields = fields_of(name)
        schema: dict[str, Any] = {
            "description": description(name),
            "type": "object",
            "properties": {
                field.name: {"description": description(name, field.name), **_property(field, base)}
                for field in fields.values()
            },
        }
        required = [field.name for field in fields.values() if field.required]
        if required:
            schema["required"] = required
        if name in ATOMIC_STRUCTS:
            schema["x-kubernetes-map-type"] = "atomic"
        row = _BY_KIND.get(name)
        if row is not None:
            kind = {"group": row.group, "kind": row.kind, "version": row.version}
            schema["x-kubernetes-group-version-kind"] = [kind]
        found[definition(name)] = schema
    return found


_INFO = {"title": "Kubernetes", "version": "v1.36.2"}


def _paths(rows: list[Resource]) -> dict[str, Any]:
    paths: dict[str, Any] = {}
    for row in rows:
        kind = {"group": row.group, "kind": row.kind, "version": row.version}
        collection = row.path("{namespace}" if row.namespaced else "")
        for path, verbs in (
            (collection, ("get", "post")),
            (f"{collection}/{{name}}", ("get", "put", "patch", "delete")),
        ):
            paths[path] = {
                verb: {
                    "operationId": f"{verb}{row.kind}",
                    "x-kubernetes-group-version-kind": kind,
                    "x-kubernetes-action": verb,
                    "parameters": [
                        {"name": name, "in": "query", "schema": {"type": "string"}}
                        for name in (() if verb == "get" else ("dryRun", "fieldManager", "fieldValidation"))
                    ],
                    "responses": {"200": {"description": "OK"}},
                }
                for verb in verbs
            }
    return paths


def openapi_v3_index() -> dict[str, Any]:
    places = ["api/v1" if not name else f"apis/{name}/v1" for name in dict.fromkeys(r.group for r in RESOURCES)]
    return {"paths": {place: {"serverRelativeURL": f"/openapi/v3/{place}?hash={__version__}"} for place in places}}


@functools.cache
def openapi_v3(place: str) -> dict[str, Any] | None:
    for name, rows in GROUPS.items():
        rows = [row for row in rows if row in RESOURCES]
        if rows and place == ("api/v1" if not name else f"apis/{name}/v1"):
            schemas = definitions("#/components/schemas/")
            return {"openapi": "3.0.0", "info": _INFO, "paths": _paths(rows), "components": {"schemas": schemas}}
    return None


@functools.cache
def openapi_v2() -> dict[str, Any]:
    return {
        "swagger": "2.0",
        "info": _INFO,
        "paths": _paths(list(RESOURCES)),
        "definitions": definitions("#/definitions/"),
    }
