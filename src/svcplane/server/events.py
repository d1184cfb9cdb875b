"""Events that the server itself writes about objects.  Source: k8s.io/client-go/tools/events."""

import itertools
import logging
import socket
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from svcplane.api import codec
from svcplane.api.http import IN_PROCESS_USER, Request, Response
from svcplane.api.resources import EVENTS, Resource
from svcplane.api.strategy import Tree
from svcplane.base.clock import Clock, rfc3339_micro

log = logging.getLogger(__name__)
_numbers = itertools.count()


@dataclass(frozen=True, slots=True)
class Warning_:  # noqa: N801 - Warning is Python's own
    """What to say about an object; `controller` says it."""

    about: Tree
    resource: Resource
    reason: str
    action: str
    note: str
    controller: str


class Events:
    """`handle`: the server's own."""

    def __init__(self, handle: Callable[[Request], Awaitable[Response]], clock: Clock) -> None:
        self._handle, self._clock = handle, clock

    async def warn(self, warning: Warning_) -> None:
        """One that cannot be written is logged and forgotten."""
        meta = warning.about["metadata"]
        namespace = meta.get("namespace") or "default"
        now = self._clock.wall()
        involved = {
            "kind": warning.resource.kind,
            "apiVersion": warning.resource.api_version,
            "name": meta["name"],
            "namespace": meta.get("namespace", ""),
            "uid": meta.get("uid", ""),
            "resourceVersion": meta.get("resourceVersion", ""),
        }
        body = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"name": f"{meta['name']}.{int(now * 1e6):x}{next(_numbers):x}", "namespace": namespace},
            "involvedObject": {key: value for key, value in involved.items() if value},
            "reason": warning.reason,
            "action": warning.action,
            "message": warning.note,
            "type": "Warning",
            "eventTime": rfc3339_micro(now),
            "reportingComponent": warning.controller,
            "reportingInstance": f"{warning.controller}-{socket.gethostname()}",
        }
        headers = {"content-type": "application/json", "user-agent": "kube-apiserver/svcplane"}
        path = EVENTS.path(namespace)
        response = await self._handle(Request("POST", path, (), headers, codec.encode(body), IN_PROCESS_USER))
        if response.status >= 400:
            log.warning("an Event was lost: reason=%s answer=%s", warning.reason, response.body.decode())
