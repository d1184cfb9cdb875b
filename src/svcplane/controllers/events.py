"""Events about objects, one for each reason and text; a repeat raises its count.

Source: k8s.io/client-go/tools/record.  An Event that cannot be written is logged and forgotten.
"""

import logging
import time

from svcplane.api.meta import Object
from svcplane.api.resources import EVENTS
from svcplane.api.status import StatusError
from svcplane.base.clock import SYSTEM_CLOCK, Clock, rfc3339
from svcplane.base.errors import TransportError
from svcplane.client.api import ApiClient

log = logging.getLogger(__name__)
#: Events remembered so that a repeat updates them.
REMEMBERED = 4096


def worth_telling(error: Exception) -> bool:
    """Whether people should hear that the API refused a write: not where somebody was quicker, nor where the
    namespace goes."""
    if not isinstance(error, StatusError) or error.code in (404, 409):
        return False
    return not is_terminating(error)


def is_terminating(error: Exception) -> bool:
    """Whether a creation was refused since its namespace is being deleted."""
    if not isinstance(error, StatusError) or error.code != 403:
        return False
    causes = (error.details or {}).get("causes", [])
    return any(cause.get("reason") == "NamespaceTerminating" for cause in causes)


class EventRecorder:
    """`component` is the Events' source."""

    def __init__(self, client: ApiClient, component: str, clock: Clock = SYSTEM_CLOCK) -> None:
        self._client, self._component, self._clock = client, component, clock
        self._known: dict[tuple[str, str, str, str], tuple[str, int]] = {}  # -> name, count

    async def warn(self, about: Object, kind: str, api_version: str, reason: str, message: str) -> None:
        await self._write(about, kind, api_version, "Warning", reason, message)

    async def tell(self, about: Object, kind: str, api_version: str, reason: str, message: str) -> None:
        """An Event of the type Normal."""
        await self._write(about, kind, api_version, "Normal", reason, message)

    async def _write(self, about: Object, kind: str, api_version: str, type_: str, reason: str, message: str) -> None:
        meta = about.metadata
        namespace = meta.namespace or "default"
        key = (meta.uid, type_, reason, message)
        now = rfc3339(self._clock.wall())
        name, count = self._known.get(key, ("", 0))
        try:
            if name:
                try:
                    await self._client.patch(EVENTS, namespace, name, {"count": count + 1, "lastTimestamp": now})
                    self._remember(key, name, count + 1)
                    return
                except StatusError as error:
                    if error.code != 404:
                        raise
            name = f"{meta.name}.{time.time_ns():x}"
            involved = {"kind": kind, "apiVersion": api_version, "name": meta.name, "namespace": meta.namespace}
            body = {
                "apiVersion": "v1",
                "kind": "Event",
                "metadata": {"name": name, "namespace": namespace},
                "involvedObject": {**involved, "uid": meta.uid, "resourceVersion": meta.resource_version},
                "reason": reason,
                "message": message,
                "source": {"component": self._component},
                "reportingComponent": self._component,
                "type": type_,
                "count": 1,
                "firstTimestamp": now,
                "lastTimestamp": now,
            }
            await self._client.create(EVENTS, namespace, body)
            self._remember(key, name, 1)
        except (StatusError, TransportError) as error:
            log.warning("an Event was lost: object=%s/%s reason=%s error=%s", kind, about.key, reason, error)

    def _remember(self, key: tuple[str, str, str, str], name: str, count: int) -> None:
        self._known.pop(key, None)
        self._known[key] = (name, count)
        if len(self._known) > REMEMBERED:
            del self._known[next(iter(self._known))]
