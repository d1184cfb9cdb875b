"""Creating and changing objects: the generic registry.

One flow for every kind; what is particular is in `api.strategies`, what is allocated in `allocation`.  Writes
are optimistic: each commit demands that what it is based on has not changed.
Source: k8s.io/apiserver/pkg/registry/generic/registry/store.go, pkg/endpoints/handlers.
"""

from collections.abc import Mapping
from random import Random

from svcplane.api import codec
from svcplane.api import status as st
from svcplane.api.fields import FieldError
from svcplane.api.http import Request
from svcplane.api.patch.managed import Manager, record_update
from svcplane.api.resources import NAMESPACES, PODS, SERVICES, Resource
from svcplane.api.strategy import Strategy, Tree
from svcplane.api.validation import meta as meta_rules
from svcplane.base.clock import Clock, rfc3339
from svcplane.base.uids import new_uid
from svcplane.server.allocation import Allocated, ServiceAllocation
from svcplane.server.deleting import Deleter, is_finished
from svcplane.server.negotiation import body_type
from svcplane.server.options import WriteOptions, write_options
from svcplane.server.owners import drop_duplicate_owners
from svcplane.server.routes import Route
from svcplane.server.written import (
    CHANGED,
    TRIES,
    Written,
    attempts,
    check_uid,
    check_version,
    commit,
    copied,
    given_version,
    keep_system_fields,
    match_name,
    match_namespace,
    node_topology,
    says_version,
)
from svcplane.store.contract import KeyValue, PreconditionFailed, Revision, Store, Unchanged

SUFFIX_ALPHABET = "bcdfghjklmnpqrstvwxz2456789"


class Writer:
    """Implements the verbs that change something."""

    def __init__(
        self,
        store: Store,
        strategies: Mapping[Resource, Strategy],
        allocation: ServiceAllocation,
        deleter: Deleter,
        *,
        clock: Clock,
        random: Random,
    ) -> None:
        self._store, self._strategies, self._allocation = store, strategies, allocation
        self._deleter = deleter
        self._clock, self._random = clock, random

    def now(self) -> str:
        return rfc3339(self._clock.wall())

    def check_version(self, obj: Tree, item: KeyValue, route: Route) -> None:
        """Raises StatusError where an object is not based on the newest version, and says that it is."""
        check_version(obj, item, route, self._strategies[route.resource])

    # -- create ----------------------------------------------------------------------------------------------------

    async def create(self, route: Route, request: Request) -> Written:
        options = write_options(request, "CreateOptions")
        obj, warnings = self._decode(route.resource, request, options)
        match_namespace(obj, route)
        home = await self.check_namespace(route, obj["metadata"].get("name", ""))
        manager = Manager(options.field_manager, "Update")
        written = await self.create_object(route, obj, home, options, manager, first=True)
        written.warnings = warnings + written.warnings
        return written

    def _decode(self, resource: Resource, request: Request, options: WriteOptions) -> tuple[Tree, list[str]]:
        decoded = codec.decode(request.body, body_type(request.headers.get("content-type", "")), resource)
        warnings = self.problems(resource, decoded.problems, options)
        return decoded.tree, warnings + drop_duplicate_owners(decoded.tree, patched=False)

    @staticmethod
    def problems(resource: Resource, problems: list[str], options: WriteOptions) -> list[str]:
        if problems and options.field_validation == "Strict":
            raise codec.strict_error(resource, problems)
        return codec.warnings_of(problems) if options.field_validation == "Warn" else []

    async def check_namespace(self, route: Route, name: str) -> tuple[Unchanged, ...]:
        """The namespace must be there and not on its way out; that it is still so is the condition of a creation."""
        if not route.resource.namespaced:
            return ()
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
        return (Unchanged(item.key, item.revision),)

    async def create_object(
        self,
        route: Route,
        obj: Tree,
        home: tuple[Unchanged, ...],
        options: WriteOptions,
        manager: Manager | None,
        *,
        first: bool = False,
    ) -> Written:
        """`home`: what `check_namespace` found.  `first`: the object must not say that it was stored before."""
        resource, strategy = route.resource, self._strategies[route.resource]
        meta = obj["metadata"]
        stored_before = first and says_version(meta)
        if resource.namespaced:
            meta["namespace"] = route.namespace
        generated = bool(meta.get("generateName")) and not meta.get("name")
        for key in ("resourceVersion", "selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"):
            meta.pop(key, None)
        meta["uid"], meta["creationTimestamp"] = new_uid(), self.now()
        if strategy.has_generation:
            meta["generation"] = 1
        strategy.default(obj)
        if manager is not None:
            self._record(obj, None, manager, resource)
        if resource is PODS and (node := obj.get("spec", {}).get("nodeName")):
            meta["labels"] = {**meta.get("labels", {}), **await node_topology(self._store, node)}
            if not meta["labels"]:
                del meta["labels"]
        # what is allocated or generated needs the original for another try
        for attempt in attempts(obj, anew=generated or resource is SERVICES):
            if generated:
                attempt["metadata"]["name"] = self._generated(meta["generateName"], strategy)
            key = resource.key(route.namespace, attempt["metadata"].get("name", ""))
            allocated = await self._allocate(attempt, None, resource, dry_run=options.dry_run)
            try:
                strategy.prepare_create(attempt)
                errors = meta_rules.validate_create(
                    attempt["metadata"], namespaced=resource.namespaced, name_rule=strategy.validate_name
                )
                errors += meta_rules.kube_finalizers(meta) if strategy.checks_finalizers else []
                errors += strategy.validate_create(attempt)
                if errors:
                    raise st.invalid(resource.kind, attempt["metadata"].get("name", ""), errors, resource.group)
                warnings = strategy.warnings(attempt, None)
                stored = codec.encode_stored(attempt)
                if options.dry_run:
                    if await self._store.get(key) is not None:
                        raise st.already_exists(resource.plural, attempt["metadata"]["name"], resource.group)
                    return Written(201, stored, 0, warnings)
                if stored_before:
                    raise st.StatusError(500, "", "resourceVersion should not be set on objects to be created")
                revision = await commit(self._store, key, stored, Revision(0), allocated, home)
                return Written(201, stored, revision, warnings)
            except PreconditionFailed as failed:
                if any(condition.key == failed.key for condition in home):
                    home = await self.check_namespace(route, attempt["metadata"]["name"])
                if failed.key == key and not (generated and strategy.adds_suffix):
                    name = attempt["metadata"]["name"]
                    raise st.already_exists(resource.plural, name, resource.group) from failed
            finally:
                allocated.release()
        raise st.internal_error(f"no free number or name was found for {resource.kind} in {TRIES} tries")

    def _generated(self, base: str, strategy: Strategy) -> str:
        if not strategy.adds_suffix:
            return base
        return base[:58] + "".join(self._random.choice(SUFFIX_ALPHABET) for _ in range(5))

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

    # -- update ----------------------------------------------------------------------------------------------------

    async def update(self, route: Route, request: Request) -> Written:
        options = write_options(request, "UpdateOptions")
        obj, warnings = self._decode(route.resource, request, options)
        match_name(obj, route)
        match_namespace(obj, route)
        resource, strategy = route.resource, self._strategies[route.resource]
        manager = Manager(options.field_manager, "Update", route.subresource)
        for _ in range(TRIES):
            item = await self._store.get(resource.key(route.namespace, route.name))
            check_uid(obj, item, route)
            version = given_version(obj)
            if item is None:
                if not strategy.allow_create_on_update or route.subresource:
                    raise st.not_found(resource.plural, route.name, resource.group)
                home = await self.check_namespace(route, route.name)
                written = await self.create_object(route, obj, home, options, manager)
            else:
                self.check_version(obj, item, route)
                found = await self.replace(route, obj if version else copied(obj), item, options, manager)
                if found is None:
                    if version:
                        raise st.conflict(resource.plural, route.name, CHANGED, resource.group)
                    continue
                written = found
            written.warnings = warnings + written.warnings
            return written
        raise st.conflict(resource.plural, route.name, CHANGED, resource.group)

    async def replace(
        self, route: Route, new: Tree, item: KeyValue, options: WriteOptions, manager: Manager | None
    ) -> Written | None:
        """Put `new` in the place of `item`; None where somebody else was quicker."""
        resource, strategy = route.resource, self._strategies[route.resource]
        old = codec.load(item.value, item.revision, resource)
        keep_system_fields(new, old, item)
        strategy.default(new)
        if manager is not None and not route.subresource:
            self._record(new, old, manager, resource)
        for attempt in attempts(new, anew=resource is SERVICES):
            try:
                return await self._replace_once(route, attempt, old, item, options, manager)
            except PreconditionFailed as failed:
                if failed.key == item.key or resource is not SERVICES:
                    return None
                # a number that it was to get or to give back has changed hands meanwhile
        raise st.internal_error(f"no free number was found for {resource.kind} in {TRIES} tries")

    async def _replace_once(
        self, route: Route, new: Tree, old: Tree, item: KeyValue, options: WriteOptions, manager: Manager | None
    ) -> Written:
        """Raises PreconditionFailed."""
        resource, strategy = route.resource, self._strategies[route.resource]
        allocated = Allocated()
        if not route.subresource:
            allocated = await self._allocate(new, old, resource, dry_run=options.dry_run)
        try:
            self._prepare(route.subresource, resource, strategy, new, old)
            errors = self._faults(route.subresource, strategy, new, old)
            if errors:
                raise st.invalid(resource.kind, route.name, errors, resource.group)
            warn = {"": strategy.warnings, "status": strategy.status_warnings}.get(route.subresource)
            warnings = warn(new, old) if warn else []
            if manager is not None and route.subresource:
                record_update(new, old, manager, self.now(), resource.kind, resource.api_version)
            stored = codec.encode_stored(new)
            if new == old:
                return Written(200, item.value, item.revision, warnings)
            if is_finished(new, resource):
                if not options.dry_run:
                    await self._deleter.remove(resource, new, item)
                return Written(200, stored, item.revision, warnings)
            if options.dry_run:
                return Written(200, stored, item.revision, warnings)
            revision = await commit(self._store, item.key, stored, item.revision, allocated)
            return Written(200, stored, revision, warnings)
        finally:
            allocated.release()

    @staticmethod
    def _faults(subresource: str, strategy: Strategy, new: Tree, old: Tree) -> list[FieldError]:
        """All that is wrong with an update, each cause as often as upstream counts it."""
        meta, before = new["metadata"], old["metadata"]
        errors = meta_rules.validate_update(meta, before)
        if subresource or strategy.metadata_changes_again:
            errors += list(errors)
            errors += meta_rules.kube_finalizers(meta) if strategy.checks_finalizers else []
        if not subresource and strategy.metadata_again:
            errors += meta_rules.validate_accessor(meta)
            errors += meta_rules.kube_finalizers(meta) if strategy.checks_finalizers else []
        checks = {"status": strategy.validate_status_update, "finalize": strategy.validate_finalize}
        return errors + checks.get(subresource, strategy.validate_update)(new, old)

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
