"""What the node agent and the scheduler ask of an API client, and events about Pods."""

import contextlib
import hashlib
import logging
from collections import OrderedDict
from typing import Any, Protocol

from svcplane.api.core import Pod
from svcplane.api.resources import EVENTS, Resource
from svcplane.api.status import StatusError
from svcplane.base.clock import Clock, rfc3339
from svcplane.base.errors import TransportError

log = logging.getLogger(__name__)

Tree = dict[str, Any]
REMEMBERED_EVENTS = 1000


class Api(Protocol):
    """Objects as JSON trees.  Raises StatusError for a failure Status, TransportError when out of reach."""

    async def get(self, resource: Resource, namespace: str, name: str) -> Tree: ...

    async def create(self, resource: Resource, namespace: str, obj: Tree) -> Tree: ...

    async def patch(self, resource: Resource, namespace: str, name: str, patch: Tree, *, subresource: str = "") -> Tree:
        """A JSON merge patch."""

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str = "", grace_s: int | None = None
    ) -> None: ...


class Recorder:
    """Writes events; the same event again raises its count.  Best effort: a failure is logged, never raised."""

    def __init__(self, api: Api, clock: Clock, component: str, host: str) -> None:
        self._api, self._clock, self._component, self._host = api, clock, component, host
        self._seen: OrderedDict[str, int] = OrderedDict()

    async def event(self, pod: Pod, kind: str, reason: str, message: str) -> None:
        """`kind` is Normal or Warning."""
        meta = pod.metadata
        digest = hashlib.sha256(f"{meta.uid}/{kind}/{reason}/{message}".encode()).hexdigest()[:16]
        name = f"{meta.name}.{digest}"
        count = self._seen.get(name, 0) + 1
        now = rfc3339(self._clock.wall())
        with contextlib.suppress(TransportError):
            try:
                if count > 1:
                    await self._api.patch(EVENTS, meta.namespace, name, {"count": count, "lastTimestamp": now})
                else:
                    await self._api.create(EVENTS, meta.namespace, self._tree(pod, name, kind, reason, message, now))
            except StatusError as error:
                if error.code not in (404, 409):
                    log.warning("event not written: pod=%s reason=%s error=%s", pod.key, reason, error)
        self._seen[name] = count
        self._seen.move_to_end(name)
        while len(self._seen) > REMEMBERED_EVENTS:
            self._seen.popitem(last=False)

    def _tree(self, pod: Pod, name: str, kind: str, reason: str, message: str, now: str) -> Tree:
        meta = pod.metadata
        about = {"kind": "Pod", "apiVersion": "v1", "namespace": meta.namespace, "name": meta.name, "uid": meta.uid}
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": name, "namespace": meta.namespace},
            "involvedObject": about | {"resourceVersion": meta.resource_version},
            "type": kind,
            "reason": reason,
            "message": message[:1024],
            "count": 1,
            "firstTimestamp": now,
            "lastTimestamp": now,
            "source": {"component": self._component, "host": self._host},
            "reportingComponent": self._component,
            "reportingInstance": self._host,
        }
