"""Creating, changing and deleting objects: the generic registry.

One flow for every kind; what is particular is in `api.strategies`, what is allocated in `allocation`.  Writes
are optimistic: each commit demands that what it is based on has not changed.
Source: k8s.io/apiserver/pkg/registry/generic/registry/store.go, pkg/endpoints/handlers.
"""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from random import Random

from svcplane.api import codec
from svcplane.api import status as st
from svcplane.api.http import Request
from svcplane.api.patch import json as json_patch
from svcplane.api.patch import merge as merge_patch
from svcplane.api.patch import strategic as strategic_patch
from svcplane.api.patch.apply import apply as server_side_apply
from svcplane.api.patch.managed import Manager, record_update
from svcplane.api.resources import ENDPOINTS, NAMESPACES, SERVICES, Resource
from svcplane.api.strategy import Strategy, Tree
from svcplane.api.validation import meta as meta_rules
from svcplane.base.clock import Clock, rfc3339
from svcplane.server.allocation import Allocated, ServiceAllocation
from svcplane.server.negotiation import YAML, body_type
from svcplane.server.options import DeleteOptions, WriteOptions, delete_options, write_options
from svcplane.server.routes import Route
from svcplane.store.contract import Delete, KeyValue, PreconditionFailed, Put, Revision, Store, Transaction, Unchanged

SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"
CHANGED = "the object has been modified; please apply your changes to the latest version and try again"
PROTECTED_NAMESPACES = frozenset({"default", "kube-system", "kube-public"})
#: Kinds whose DELETE answers with the object instead of a Status.
RETURNS_DELETED = frozenset({"Service", "Pod"})
_TRIES = 50
_PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


@dataclass(slots=True)
class Written:
    """`stored` and `revision` of what to answer; revision 0: a dry run, which shows no resourceVersion.
    `body` instead, where a Status is the answer."""

    status: int
    stored: bytes = b""
    revision: int = 0
    warnings: list[str] = field(default_factory=list)
    body: Tree | None = None


class Writer:
    """Implements the verbs that change something."""

    def __init__(
        self,
        store: Store,
        strategies: Mapping[Resource, Strategy],
        allocation: ServiceAllocation,
        *,
        clock: Clock,
        random: Random,
    ) -> None:
        self._store, self._strategies, self._allocation = store, strategies, allocation
        self._clock, self._random = clock, random

    def now(self) -> str:
        return rfc3339(self._clock.wall())

    # -- create ----------------------------------------------------------------------------------------------------

    async def create(self, route: Route, request: Request) -> Written:
        options = write_options(request, "CreateOptions")
        obj, warnings = self._decode(route.resource, request, options)
        _match_namespace(obj, route)
        await self._check_namespace(route, obj["metadata"].get("name", ""))
        if obj["metadata"].get("resourceVersion"):
            raise st.bad_request("resourceVersion should not be set on objects to be created")
        written = await self._create(route, obj, options, Manager(options.field_manager, "Update"))
        written.warnings = warnings + written.warnings
        return written

    def _decode(self, resource: Resource, request: Request, options: WriteOptions) -> tuple[Tree, list[str]]:
        decoded = codec.decode(request.body, body_type(request.headers.get("content-type", "")), resource)
        return decoded.tree, self._problems(resource, decoded.problems, options)

    @staticmethod
    def _problems(resource: Resource, problems: list[str], options: WriteOptions) -> list[str]:
        if problems and options.field_validation == "Strict":
            raise codec.strict_error(resource, problems)
        return problems if options.field_validation == "Warn" else []

    async def _check_namespace(self, route: Route, name: str) -> None:
        """The namespace must be there and not on its way out."""
        if not route.resource.namespaced:
            return
        item = await self._store.get(NAMESPACES.key("", route.namespace))
        if item is None:
            raise st.not_found("namespaces", route.namespace)
        if (
            b'"deletionTimestamp"' in item.value
            and "deletionTimestamp" in codec.load(item.value, 0, NAMESPACES)["metadata"]
        ):
            why = f"unable to create new content in namespace {route.namespace} because it is being terminated"
            error = st.forbidden(route.resource.plural, name, why, route.resource.group)
            cause = {"reason": "NamespaceTerminating", "message": f"namespace {route.namespace} is being terminated"}
            error.details = {**(error.details or {}), "causes": [{**cause, "field": "metadata.namespace"}]}
            raise error

    async def _create(self, route: Route, obj: Tree, options: WriteOptions, manager: Manager | None) -> Written:
        resource, strategy = route.resource, self._strategies[route.resource]
        meta = obj["metadata"]
        if resource.namespaced:
            meta["namespace"] = route.namespace
        generated = bool(meta.get("generateName")) and not meta.get("name")
        for key in ("resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"):
            meta.pop(key, None)
        meta["uid"], meta["creationTimestamp"] = str(uuid.uuid4()), self.now()
        if strategy.has_generation:
            meta["generation"] = 1
        strategy.default(obj)
        if manager is not None:
            self._record(obj, None, manager, resource)
        for _ in range(_TRIES):
            attempt = _copied(obj)
            if generated:
                suffix = "".join(self._random.choice(SUFFIX_ALPHABET) for _ in range(5))
                attempt["metadata"]["name"] = meta["generateName"][:58] + suffix
            key = resource.key(route.namespace, attempt["metadata"].get("name", ""))
            allocated = await self._allocate(attempt, None, resource, dry_run=options.dry_run)
            try:
                strategy.prepare_create(attempt)
                errors = meta_rules.validate_create(
                    attempt["metadata"], namespaced=resource.namespaced, name_rule=strategy.validate_name
                )
                errors += strategy.validate_create(attempt)
                if errors:
                    raise st.invalid(resource.kind, attempt["metadata"].get("name", ""), errors, resource.group)
                warnings = strategy.warnings(attempt, None)
                stored = codec.encode_stored(attempt)
                if options.dry_run:
                    if await self._store.get(key) is not None:
                        raise st.already_exists(resource.plural, attempt["metadata"]["name"], resource.group)
                    return Written(201, stored, 0, warnings)
                revision = await self._commit(key, stored, Revision(0), allocated)
                return Written(201, stored, revision, warnings)
            except PreconditionFailed as failed:
                if failed.key == key and not generated:
                    name = attempt["metadata"]["name"]
                    raise st.already_exists(resource.plural, name, resource.group) from failed
            finally:
                allocated.release()
        raise st.internal_error(f"no free number or name was found for {resource.kind} in {_TRIES} tries")

    def _record(self, new: Tree, old: Tree | None, manager: Manager, resource: Resource) -> None:
        """Note who set what.  Before the strategy and the allocation fill in theirs: nobody owns those fields.
        Status is not this request's to set, so it is left out."""
        given = new.pop("status", None)
        if old is not None and "status" in old:
            new["status"] = old["status"]
        record_update(new, old, manager, self.now(), resource.kind, resource.api_version)
        new.pop("status", None)
        if given is not None:
            new["status"] = given

    async def _allocate(self, obj: Tree, old: Tree | None, resource: Resource, *, dry_run: bool) -> Allocated:
        if resource is not SERVICES:
            return Allocated()
        if old is None:
            return await self._allocation.on_create(obj, dry_run=dry_run)
        return await self._allocation.on_update(obj, old, dry_run=dry_run)

    async def _commit(self, key: str, stored: bytes, based_on: Revision, allocated: Allocated) -> Revision:
        return await self._store.commit(
            Transaction((Put(key, stored), *allocated.operations), (Unchanged(key, based_on), *allocated.preconditions))
        )

    # -- update ----------------------------------------------------------------------------------------------------

    async def update(self, route: Route, request: Request) -> Written:
        options = write_options(request, "UpdateOptions")
        obj, warnings = self._decode(route.resource, request, options)
        _match_name(obj, route)
        _match_namespace(obj, route)
        resource, strategy = route.resource, self._strategies[route.resource]
        given = obj["metadata"].get("resourceVersion", "")
        manager = Manager(options.field_manager, "Update", route.subresource)
        for _ in range(_TRIES):
            item = await self._store.get(resource.key(route.namespace, route.name))
            if item is None:
                if not strategy.allow_create_on_update or route.subresource or given:
                    raise st.not_found(resource.plural, route.name, resource.group)
                await self._check_namespace(route, route.name)
                written = await self._create(route, obj, options, manager)
            else:
                if given and given != str(item.revision):
                    raise st.conflict(resource.plural, route.name, CHANGED, resource.group)
                found = await self._replace(route, _copied(obj), item, options, manager)
                if found is None:
                    if given:
                        raise st.conflict(resource.plural, route.name, CHANGED, resource.group)
                    continue
                written = found
            written.warnings = warnings + written.warnings
            return written
        raise st.conflict(resource.plural, route.name, CHANGED, resource.group)

    async def _replace(
        self, route: Route, new: Tree, item: KeyValue, options: WriteOptions, manager: Manager | None
    ) -> Written | None:
        """Put `new` in the place of `item`; None where somebody else was quicker."""
        resource, strategy = route.resource, self._strategies[route.resource]
        old = codec.load(item.value, item.revision, resource)
        _keep_system_fields(new, old, route, item)
        strategy.default(new)
        allocated = Allocated()
        if not route.subresource:
            if manager is not None:
                self._record(new, old, manager, resource)
            allocated = await self._allocate(new, old, resource, dry_run=options.dry_run)
        try:
            self._prepare(route.subresource, resource, strategy, new, old)
            errors = meta_rules.validate_update(new["metadata"], old["metadata"])
            check = strategy.validate_status_update if route.subresource == "status" else strategy.validate_update
            errors += check(new, old)
            if errors:
                raise st.invalid(resource.kind, route.name, errors, resource.group)
            warnings = strategy.warnings(new, old)
            if manager is not None and route.subresource:
                record_update(new, old, manager, self.now(), resource.kind, resource.api_version)
            stored = codec.encode_stored(new)
            if new == old:
                return Written(200, item.value, item.revision, warnings)
            if _is_finished(new, resource):
                if not options.dry_run:
                    await self._remove(resource, new, item, ())
                return Written(200, stored, item.revision, warnings)
            if options.dry_run:
                return Written(200, stored, item.revision, warnings)
            revision = await self._commit(item.key, stored, item.revision, allocated)
            return Written(200, stored, revision, warnings)
        except PreconditionFailed:
            return None
        finally:
            allocated.release()

    @staticmethod
    def _prepare(subresource: str, resource: Resource, strategy: Strategy, new: Tree, old: Tree) -> None:
        if subresource == "status":
            strategy.prepare_status_update(new, old)
        elif subresource == "finalize":
            finalizers = new.get("spec", {}).get("finalizers")
            rest = {key: value for key, value in old.items() if key not in ("metadata", "spec")}
            new.update(rest)
            new["spec"] = {"finalizers": finalizers} if finalizers else {}
        else:
            strategy.prepare_update(new, old)
        if strategy.has_generation and not subresource:
            before = {key: old.get(key) for key in old if key not in ("metadata", "status")}
            after = {key: new.get(key) for key in new if key not in ("metadata", "status")}
            labels = resource.kind == "EndpointSlice" and new["metadata"].get("labels") != old["metadata"].get("labels")
            changed = before != after or labels
            new["metadata"]["generation"] = old["metadata"].get("generation", 1) + changed

    # -- patch ------------------------------------------------------------------------------------------------------

    async def patch(self, route: Route, request: Request) -> Written:
        media = request.headers.get("content-type", "").partition(";")[0].strip()
        kind = _PATCH_TYPES.get(media)
        if kind is None:
            raise st.StatusError(
                415,
                "UnsupportedMediaType",
                "the body of the request was in an unknown format - accepted media types include: "
                + ", ".join(_PATCH_TYPES),
            )
        options = write_options(request, "PatchOptions")
        try:
            patch, duplicates = codec.parse_body(request.body, YAML if kind == "apply" else "application/json")
        except ValueError as error:
            raise st.bad_request(f"error decoding patch: {error}") from error
        resource = route.resource
        for _ in range(_TRIES):
            item = await self._store.get(resource.key(route.namespace, route.name))
            if kind == "apply":
                found = await self._apply(route, patch, item, options)
            elif item is None:
                raise st.not_found(resource.plural, route.name, resource.group)
            else:
                found = await self._patch(route, kind, patch, item, options)
            if found is not None:
                found.warnings = (duplicates if options.field_validation == "Warn" else []) + found.warnings
                return found
        raise st.conflict(resource.plural, route.name, CHANGED, resource.group)

    async def _patch(
        self, route: Route, kind: str, patch: object, item: KeyValue, options: WriteOptions
    ) -> Written | None:
        resource = route.resource
        current = codec.load(item.value, item.revision, resource)
        if kind == "json":
            patched = json_patch.apply(current, patch)
        elif kind == "merge":
            if not isinstance(patch, dict):
                raise st.bad_request("error decoding patch: json: cannot unmarshal into Go value of type map")
            patched = merge_patch.apply(current, patch)
        else:
            patched = strategic_patch.apply(current, patch, resource.kind)
        if not isinstance(patched, dict):
            raise st.bad_request("the patched object is no object")
        codec.check_kind(patched, resource)
        decoded = codec.convert(patched, resource)
        warnings = self._problems(resource, decoded.problems, options)
        _match_name(decoded.tree, route)
        _match_namespace(decoded.tree, route)
        version = decoded.tree["metadata"].get("resourceVersion", "")
        if version and version != str(item.revision):
            raise st.conflict(resource.plural, route.name, CHANGED, resource.group)
        manager = Manager(options.field_manager, "Update", route.subresource)
        written = await self._replace(route, decoded.tree, item, options, manager)
        if written is not None:
            written.warnings = warnings + written.warnings
        return written

    async def _apply(self, route: Route, patch: object, item: KeyValue | None, options: WriteOptions) -> Written | None:
        resource = route.resource
        if not isinstance(patch, dict):
            raise st.bad_request("error decoding YAML: the patch is no object")
        codec.check_kind(patch, resource)
        decoded = codec.convert(patch, resource)
        if decoded.problems:
            first = decoded.problems[0].replace('unknown field "', ".").rstrip('"')
            raise st.StatusError(
                500,
                "",
                "failed to create typed patch object "
                f"({route.namespace}/{route.name}; {resource.api_version}, Kind={resource.kind}): "
                f"{first}: field not declared in schema",
            )
        tree = decoded.tree
        tree["metadata"].setdefault("name", route.name)
        if resource.namespaced:
            tree["metadata"].setdefault("namespace", route.namespace)
        if "managedFields" in tree["metadata"]:
            raise st.bad_request("metadata.managedFields must be nil")
        _match_name(tree, route)
        _match_namespace(tree, route)
        version = tree["metadata"].pop("resourceVersion", "")
        live = codec.load(item.value, item.revision, resource) if item else None
        if version and item is not None and version != str(item.revision):
            raise st.conflict(resource.plural, route.name, CHANGED, resource.group)
        if item is None and route.subresource:
            raise st.not_found(resource.plural, route.name, resource.group)
        merged = server_side_apply(
            live,
            tree,
            Manager(options.field_manager, "Apply", route.subresource),
            force=options.force,
            now=self.now(),
            kind=resource.kind,
            api_version=resource.api_version,
        )
        if item is None:
            await self._check_namespace(route, route.name)
            return await self._create(route, merged, options, None)
        return await self._replace(route, merged, item, options, None)

    # -- delete -----------------------------------------------------------------------------------------------------

    async def delete(self, route: Route, request: Request) -> Written:
        return await self.delete_object(route, delete_options(request))

    async def delete_object(self, route: Route, options: DeleteOptions) -> Written:
        resource = route.resource
        if resource is NAMESPACES and route.name in PROTECTED_NAMESPACES:
            raise st.forbidden("namespaces", route.name, "this namespace may not be deleted")
        for _ in range(_TRIES):
            item = await self._store.get(resource.key(route.namespace, route.name))
            if item is None:
                raise st.not_found(resource.plural, route.name, resource.group)
            obj = codec.load(item.value, item.revision, resource)
            _check_preconditions(obj, options, resource)
            try:
                return await self._delete(resource, obj, item, options)
            except PreconditionFailed:
                continue
        raise st.conflict(resource.plural, route.name, CHANGED, resource.group)

    async def _delete(self, resource: Resource, obj: Tree, item: KeyValue, options: DeleteOptions) -> Written:
        strategy, meta = self._strategies[resource], obj["metadata"]
        grace = strategy.grace_period_on_delete(obj, options.grace_period_seconds)
        finalizers = _finalizers(obj, resource)
        waits = bool(grace) or bool(finalizers)
        if waits and meta.get("deletionTimestamp") and (grace or 0) >= meta.get("deletionGracePeriodSeconds", 0):
            return Written(200, item.value, item.revision)
        if waits or grace is not None:
            meta["deletionGracePeriodSeconds"] = grace or 0
            if not meta.get("deletionTimestamp") or grace:
                if strategy.has_generation and not meta.get("deletionTimestamp"):
                    meta["generation"] = meta.get("generation", 0) + 1
                meta["deletionTimestamp"] = rfc3339(self._clock.wall() + (grace or 0))
            if resource is NAMESPACES:
                obj.setdefault("status", {})["phase"] = "Terminating"
        if not waits:
            revision = item.revision if options.is_dry_run else await self._remove(resource, obj, item, ())
            if resource.kind in RETURNS_DELETED:
                return Written(200, codec.encode_stored(obj), revision)
            return Written(200, body=_deleted_status(resource, meta))
        stored = codec.encode_stored(obj)
        if options.is_dry_run:
            return Written(200, stored, item.revision)
        revision = await self._commit(item.key, stored, item.revision, Allocated())
        return Written(200, stored, revision)

    async def _remove(self, resource: Resource, obj: Tree, item: KeyValue, more: tuple[Put | Delete, ...]) -> Revision:
        operations: tuple[Put | Delete, ...] = (Delete(item.key), *more)
        if resource is SERVICES:
            meta = obj["metadata"]
            allocated = await self._allocation.on_delete(obj)
            operations += (*allocated.operations, Delete(ENDPOINTS.key(meta["namespace"], meta["name"])))
        return await self._store.commit(Transaction(operations, (Unchanged(item.key, item.revision),)))


def _copied(tree: Tree) -> Tree:
    """A deep copy of what JSON can hold; several times faster than the general one."""
    return {key: _copied_value(value) for key, value in tree.items()}


def _copied_value(value: object) -> object:
    if isinstance(value, dict):
        return {key: _copied_value(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_copied_value(inner) for inner in value]
    return value


def _match_namespace(obj: Tree, route: Route) -> None:
    given = obj["metadata"].get("namespace", "")
    if given and given != route.namespace:
        raise st.bad_request("the namespace of the provided object does not match the namespace sent on the request")
    if route.resource.namespaced:
        obj["metadata"]["namespace"] = route.namespace


def _match_name(obj: Tree, route: Route) -> None:
    name = obj["metadata"].get("name", "")
    if not name:
        raise st.bad_request(
            f"the name of the object ({route.name} based on URL) was undeterminable: name must be provided"
        )
    if name != route.name:
        raise st.bad_request(f"the name of the object ({name}) does not match the name on the URL ({route.name})")


def _keep_system_fields(new: Tree, old: Tree, route: Route, item: KeyValue) -> None:
    meta, before = new["metadata"], old["metadata"]
    if meta.get("uid") and meta["uid"] != before.get("uid"):
        segment = "services/specs" if route.resource is SERVICES else route.resource.plural
        place = "/".join(part for part in ("/registry", segment, route.namespace, route.name) if part)
        raise st.conflict(
            route.resource.plural,
            route.name,
            f"StorageError: invalid object, Code: 4, Key: {place}, ResourceVersion: 0, AdditionalErrorMsg: "
            f"Precondition failed: UID in precondition: {meta['uid']}, UID in object meta: {before.get('uid')}",
            route.resource.group,
        )
    for key in (
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "selfLink",
    ):
        if key in before:
            meta[key] = before[key]
        else:
            meta.pop(key, None)
    meta["resourceVersion"] = str(item.revision)
    if not meta.get("managedFields") and before.get("managedFields"):
        meta["managedFields"] = before["managedFields"]


def _is_finished(obj: Tree, resource: Resource) -> bool:
    """Whether the last finalizer of an object that is being deleted has gone."""
    meta = obj["metadata"]
    if not meta.get("deletionTimestamp") or meta.get("finalizers") or meta.get("deletionGracePeriodSeconds"):
        return False
    return not (resource is NAMESPACES and obj.get("spec", {}).get("finalizers"))


def _finalizers(obj: Tree, resource: Resource) -> list[str]:
    meta = obj["metadata"]
    found = list(meta.get("finalizers", []))
    if resource is NAMESPACES:
        return found + list(obj.get("spec", {}).get("finalizers", []))
    return found


def _check_preconditions(obj: Tree, options: DeleteOptions, resource: Resource) -> None:
    wanted, meta = options.preconditions, obj["metadata"]
    if wanted is None:
        return
    if wanted.uid is not None and wanted.uid != meta.get("uid"):
        why = (
            f"the UID in the precondition ({wanted.uid}) does not match the UID in record ({meta.get('uid')}). "
            "The object might have been deleted and then recreated"
        )
        raise _precondition_conflict(resource, meta["name"], why)
    if wanted.resource_version is not None and wanted.resource_version != meta.get("resourceVersion"):
        why = (
            f"the ResourceVersion in the precondition ({wanted.resource_version}) does not match the ResourceVersion "
            f"in record ({meta.get('resourceVersion')}). The object might have been modified"
        )
        raise _precondition_conflict(resource, meta["name"], why)


def _precondition_conflict(resource: Resource, name: str, why: str) -> st.StatusError:
    return st.conflict(resource.kind, name, why, resource.group)


def _deleted_status(resource: Resource, meta: Tree) -> Tree:
    details = {"name": meta["name"], "group": resource.group, "kind": resource.plural, "uid": meta.get("uid", "")}
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Success",
        "details": {key: value for key, value in details.items() if value},
    }
