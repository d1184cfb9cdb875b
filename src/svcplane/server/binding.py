"""Putting a Pod on a node: `pods/NAME/binding`.  Source: pkg/registry/core/pod/storage BindingREST."""

from svcplane.api import codec
from svcplane.api import fields as f
from svcplane.api import status as st
from svcplane.api.fields import FieldError
from svcplane.api.http import Request
from svcplane.api.resources import BINDINGS, PODS
from svcplane.api.strategy import Tree
from svcplane.base.clock import Clock, rfc3339
from svcplane.server.allocation import Allocated
from svcplane.server.negotiation import body_type
from svcplane.server.options import write_options
from svcplane.server.routes import Route
from svcplane.server.written import TRIES, Written, commit, node_topology, unmet
from svcplane.store.contract import PreconditionFailed, Store


class Binder:
    """Implements create of a Pod's binding."""

    def __init__(self, store: Store, clock: Clock) -> None:
        self._store, self._clock = store, clock

    async def bind(self, route: Route, request: Request) -> Written:
        """Answers a Status, as upstream does.  Raises StatusError 409 where the Pod has a node already."""
        options = write_options(request, "CreateOptions")
        binding = self._decode(route, request)
        key = PODS.key(route.namespace, route.name)
        meta = binding["metadata"]
        if binding["target"].get("kind") == "Node":
            topology = await node_topology(self._store, binding["target"]["name"])
            meta["labels"] = {**meta.get("labels", {}), **topology}
        for _ in range(TRIES):
            item = await self._store.get(key)
            if item is None:
                raise st.not_found("pods", route.name)
            pod = codec.load(item.value, item.revision, PODS)
            self._assign(pod, binding, route)
            status = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}
            done = Written(201, body=status)
            if options.dry_run:
                return done
            try:
                await commit(self._store, key, codec.encode_stored(pod), item.revision, Allocated())
            except PreconditionFailed:
                continue
            return done
        raise st.conflict("pods/binding", route.name, "too many writers at once")

    @staticmethod
    def _decode(route: Route, request: Request) -> Tree:
        binding = codec.decode(request.body, body_type(request.headers.get("content-type", "")), BINDINGS).tree
        if binding["metadata"].get("name") != route.name:
            raise st.bad_request("name in URL does not match name in Binding object")
        target: Tree = binding.get("target", {})
        errors: list[FieldError] = []
        if target.get("kind") not in (None, "", "Node"):
            errors.append(f.not_supported("target.kind", target["kind"], ("Node", "<empty>"), keep_order=True))
        if not target.get("name"):
            errors.append(f.required("target.name"))
        if errors:  # no Invalid: upstream hands these on as they are
            texts = [str(error) for error in errors]
            raise st.StatusError(500, "", texts[0] if len(texts) == 1 else f"[{', '.join(texts)}]")
        return binding

    def _assign(self, pod: Tree, binding: Tree, route: Route) -> None:
        meta, spec, name = pod["metadata"], pod.setdefault("spec", {}), route.name
        for what, key in (("UID", "uid"), ("ResourceVersion", "resourceVersion")):
            wanted = binding["metadata"].get(key)
            if wanted and wanted != meta.get(key):
                raise unmet(route, what, wanted, meta.get(key, ""))
        if meta.get("deletionTimestamp"):
            raise st.conflict("pods/binding", name, f"pod {name} is being deleted, cannot be assigned to a host")
        if spec.get("nodeName"):
            raise st.conflict("pods/binding", name, f'pod {name} is already assigned to node "{spec["nodeName"]}"')
        if spec.get("schedulingGates"):
            raise st.conflict("pods/binding", name, f"pod {name} has non-empty .spec.schedulingGates")
        spec["nodeName"] = binding["target"]["name"]
        annotations = binding["metadata"].get("annotations", {})
        if annotations:
            meta["annotations"] = {**meta.get("annotations", {}), **annotations}
        if labels := binding["metadata"].get("labels"):
            meta["labels"] = {**meta.get("labels", {}), **labels}
        status = pod.setdefault("status", {})
        status.pop("nominatedNodeName", None)
        now = rfc3339(self._clock.wall())
        scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
        conditions = status.setdefault("conditions", [])
        types = [condition.get("type") for condition in conditions]
        place = types.index("PodScheduled") if "PodScheduled" in types else len(types)
        conditions[place : place + 1] = [scheduled]
