"""Writing a Pod's status to the API: only when it differs from what was last written."""

import logging

import msgspec

from svcplane.api.core import Pod
from svcplane.api.resources import PODS
from svcplane.api.status import StatusError
from svcplane.base.errors import TransportError
from svcplane.node.api import Api, Tree

log = logging.getLogger(__name__)

RETRY_FIRST_S, RETRY_MAX_S = 1.0, 30.0


class Reporter:
    """Writes the status of one Pod."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self._sent: Tree | None = None

    async def write(self, pod: Pod, status: Tree) -> tuple[Pod | None, float | None]:
        """The Pod as the API has it now (None: nothing written), and in how many seconds to try again (None: done)."""
        if status == self._sent:
            return None, None
        meta = pod.metadata
        patch = {"metadata": {"uid": meta.uid}, "status": status}
        try:
            answer = await self._api.patch(PODS, meta.namespace, meta.name, patch, subresource="status")
        except StatusError as error:
            if error.code in (404, 409):
                return None, RETRY_FIRST_S  # gone or replaced: the watch will tell
            log.error("status not written: pod=%s error=%s", pod.key, error)
            return None, RETRY_MAX_S
        except TransportError as error:
            log.warning("status not written: pod=%s error=%s", pod.key, error)
            return None, RETRY_FIRST_S
        self._sent = status
        return msgspec.convert(answer, Pod), None
