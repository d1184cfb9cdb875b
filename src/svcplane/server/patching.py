"""Patches of every kind, and server-side apply: a patch and the object make a new object, which is then written.

Source: k8s.io/apiserver/pkg/endpoints/handlers/patch.go.
"""

from typing import Any

from svcplane.api import codec, go_json
from svcplane.api import status as st
from svcplane.api.http import Request
from svcplane.api.patch import json as json_patch
from svcplane.api.patch import merge as merge_patch
from svcplane.api.patch import strategic as strategic_patch
from svcplane.api.patch import typed
from svcplane.api.patch.apply import apply as server_side_apply
from svcplane.api.patch.apply import with_last_applied
from svcplane.api.patch.managed import Manager
from svcplane.api.resources import Resource
from svcplane.api.strategy import Tree
from svcplane.server.negotiation import YAML
from svcplane.server.options import WriteOptions, write_options
from svcplane.server.owners import drop_duplicate_owners
from svcplane.server.routes import Route
from svcplane.server.writing import Writer
from svcplane.server.written import CHANGED, TRIES, Written, given_version, match_name, match_namespace
from svcplane.store.contract import KeyValue, Store

_PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


class Patcher:
    """Implements patch."""

    def __init__(self, store: Store, writer: Writer) -> None:
        self._store, self._writer = store, writer

    async def patch(self, route: Route, request: Request) -> Written:
        media = request.headers.get("content-type", "").partition(";")[0].strip()
        kind = _PATCH_TYPES.get(media)
        if kind is None:
            # upstream's routes know the types of patches: the handler, which would name them, is not asked
            raise st.StatusError(415, "UnsupportedMediaType", "415: Unsupported Media Type", {})
        options = write_options(request, "PatchOptions")
        try:
            media = YAML if kind == "apply" else "application/json"
            patch, duplicates = codec.parse_body(request.body, media, written=kind != "strategic")
        except ValueError as error:
            what = {"strategic": "", "apply": "error decoding YAML: error converting YAML to JSON: "}
            raise st.bad_request(what.get(kind, "error decoding patch: ") + str(error)) from error
        resource = route.resource
        for _ in range(TRIES):
            item = await self._store.get(resource.key(route.namespace, route.name))
            if kind == "apply":
                found = await self._apply(route, patch, duplicates, item, options)
            elif item is None:
                raise st.not_found(resource.plural, route.name, resource.group)
            else:
                found = await self._patch(route, kind, patch, duplicates, item, options)
            if found is not None:
                return found
        raise st.conflict(resource.plural, route.name, CHANGED, resource.group)

    async def _patch(
        self, route: Route, kind: str, patch: Any, duplicates: list[str], item: KeyValue, options: WriteOptions
    ) -> Written | None:
        resource = route.resource
        current = codec.load(item.value, item.revision, resource)
        patched, problems = _patched(kind, patch, duplicates, current, resource)
        strategic = patch if kind == "strategic" else None
        if strategic is None:
            codec.check_patched_kind(patched, resource)
        decoded = codec.convert_patched(patched, resource, strategic, current)
        problems += decoded.problems
        if problems and options.field_validation == "Strict":
            raise codec.unfit(patched, strategic, f"strict decoding error: {', '.join(problems)}")
        match_namespace(decoded.tree, route)
        match_name(decoded.tree, route)
        self._writer.check_version(decoded.tree, item, route)
        warnings = problems if options.field_validation == "Warn" else []
        warnings += drop_duplicate_owners(decoded.tree, patched=True)
        manager = Manager(options.field_manager, "Update", route.subresource)
        written = await self._writer.replace(route, decoded.tree, item, options, manager)
        if written is not None:
            written.warnings = warnings + written.warnings
        return written

    async def _apply(
        self, route: Route, patch: object, repeated: list[str], item: KeyValue | None, options: WriteOptions
    ) -> Written | None:
        resource = route.resource
        tree = _applied(patch, route)
        if item is not None:
            tree["metadata"].setdefault("name", route.name)
        match_namespace(tree, route)
        match_name(tree, route)
        live = codec.load(item.value, item.revision, resource) if item else None
        if given_version(tree) and item is not None:
            self._writer.check_version(tree, item, route)
        tree["metadata"].pop("resourceVersion", None)
        if item is None and route.subresource:
            raise st.not_found(resource.plural, route.name, resource.group)
        uid = tree["metadata"].get("uid")
        if item is None and uid:
            why = f"uid mismatch: the provided object specified uid {uid}, and no existing object was found"
            raise st.conflict(resource.plural, route.name, why, resource.group)
        manager = Manager(options.field_manager, "Apply", route.subresource)
        merged = server_side_apply(
            live,
            tree,
            manager,
            force=options.force,
            now=self._writer.now(),
            kind=resource.kind,
            api_version=resource.api_version,
        )
        if isinstance(patch, dict):
            with_last_applied(merged, patch, manager)
        if repeated and options.field_validation == "Strict":
            raise st.bad_request(f"error strict decoding YAML: error converting YAML to JSON: {repeated[0]}")
        written: Written | None
        if item is None:
            home = await self._writer.check_namespace(route, route.name)
            written = await self._writer.create_object(route, merged, home, options, None)
        else:
            written = await self._writer.replace(route, merged, item, options, None)
        if written is not None and options.field_validation == "Warn":
            written.warnings = codec.warnings_of(repeated) + written.warnings
        return written


def _patched(kind: str, patch: Any, duplicates: list[str], current: Tree, resource: Resource) -> tuple[Tree, list[str]]:
    """The patched object and what was given twice or is unknown in the patch itself.  Raises StatusError."""
    if kind == "json":
        # to Go, null is a list or a struct without anything in it
        if patch is None or isinstance(patch, list):
            patch = [{} if operation is None else operation for operation in patch or []]
        json_patch.check(patch)
        found = [f"json patch {text}" for text in duplicates] + json_patch.unknown_fields(patch)
        return json_patch.apply(current, patch), found
    if kind == "strategic":
        return strategic_patch.apply(current, {} if patch is None else patch, resource.kind), duplicates
    if patch is None:
        raise st.bad_request("Invalid JSON Patch")
    if not isinstance(patch, dict):
        kind_of = go_json.type_name(patch)
        raise st.bad_request(
            f"error decoding patch: json: cannot unmarshal {kind_of} into Go value of type map[string]interface {{}}"
        )
    return merge_patch.apply(current, patch), duplicates


def _applied(patch: object, route: Route) -> Tree:
    """An applied object, checked as the schema sees it.  Raises StatusError."""
    resource = route.resource
    patch = {} if patch is None else patch
    if not isinstance(patch, dict):
        kind_of = go_json.type_name(patch)
        raise st.bad_request(
            "error decoding YAML: error unmarshaling JSON: while decoding JSON: json: cannot unmarshal "
            f"{kind_of} into Go value of type map[string]interface {{}}"
        )
    given, kind = str(patch.get("apiVersion") or ""), patch.get("kind") or ""
    known = f"{resource.group}/{resource.version}, Kind={resource.kind}"
    if (given, kind) != (resource.api_version, resource.kind):
        version = given if "/" in given else f"/{given}"
        raise st.bad_request(f"invalid object type: {version}, Kind={kind}")
    meta = patch.get("metadata")
    meta = meta if isinstance(meta, dict) else {}
    if meta.get("managedFields") is not None:
        raise st.bad_request("metadata.managedFields must be nil")
    if why := typed.faults(patch, resource.kind):
        name = f"{meta.get('namespace') or ''}/{meta.get('name') or ''}"
        raise st.StatusError(500, "", f"failed to create typed patch object ({name}; {known}): {why}")
    return codec.convert(patch, resource).tree
