"""Telling the cluster what this node's proxy has programmed: one Lease, patched at most once a second.  I/O.

The cost is one small write each ten seconds, and one a second while Services change.  A cluster that does not let the
proxy write Leases is told about once in the log, and goes without.
"""

import asyncio
import logging
import time
from typing import Protocol

from svcplane.api.resources import LEASES
from svcplane.api.status import StatusError
from svcplane.base.clock import rfc3339_micro
from svcplane.base.errors import TransportError
from svcplane.client.api import ApiClient
from svcplane.client.transport import Transport
from svcplane.proxy import programmed as p

log = logging.getLogger(__name__)
AT_MOST_EVERY_S = 1.0
#: A proxy that is told to end does not wait longer for the API server.
RELEASE_S = 1.0


class Told(Protocol):
    """What the agent offers: the present value, and an event that is set when it may have changed."""

    changed: asyncio.Event

    def programmed(self) -> p.Programmed: ...


class LeaseReporter:
    """`run` until cancelled; the Lease is then given up, so that everybody sees at once that the proxy has ended."""

    def __init__(self, transport: Transport, node_name: str) -> None:
        self._client = ApiClient(transport, "svcplane-proxy")
        self._node = node_name
        self._refused = False

    async def run(self, told: Told) -> None:
        try:
            await self._run(told)
        except asyncio.CancelledError:
            await self._release()
            raise

    async def _release(self) -> None:
        """As client-go gives up a lead: no holder, the shortest duration."""
        name = p.LEASE_PREFIX + self._node
        spec = {"holderIdentity": None, "leaseDurationSeconds": 1, "renewTime": rfc3339_micro(time.time())}
        try:
            async with asyncio.timeout(RELEASE_S):
                await self._client.patch(LEASES, p.LEASE_NAMESPACE, name, {"spec": spec})
        except (TransportError, StatusError, TimeoutError) as error:
            log.debug("that this proxy ends was not told: %s", error or "no answer")

    async def _run(self, told: Told) -> None:
        last: p.Programmed | None = None
        due = 0.0
        while True:
            now = time.monotonic()
            value = told.programmed()
            if value != last or now >= due:
                if await self._write(value):
                    last, due = value, now + p.RENEW_S
                elif self._refused:
                    return
            told.changed.clear()
            await asyncio.sleep(AT_MOST_EVERY_S)
            if told.programmed() == last:
                try:
                    async with asyncio.timeout(max(0.0, due - time.monotonic())):
                        await told.changed.wait()
                except TimeoutError:
                    pass

    async def _write(self, value: p.Programmed) -> bool:
        name = p.LEASE_PREFIX + self._node
        spec = {
            "holderIdentity": self._node,
            "leaseDurationSeconds": p.DURATION_S,
            "renewTime": rfc3339_micro(time.time()),
        }
        meta = {"annotations": {p.ANNOTATION: p.to_text(value)}}
        try:
            try:
                await self._client.patch(LEASES, p.LEASE_NAMESPACE, name, {"metadata": meta, "spec": spec})
            except StatusError as error:
                if error.code != 404:
                    raise
                whole = {**meta, "name": name, "labels": {p.LABEL: "proxy"}}
                head = {"apiVersion": LEASES.api_version, "kind": LEASES.kind}
                await self._client.create(LEASES, p.LEASE_NAMESPACE, {**head, "metadata": whole, "spec": spec})
        except TransportError as error:
            log.debug("what is programmed was not told: %s", error)
            return False
        except StatusError as error:
            self._refused = error.code in (401, 403, 404)
            log.warning("cannot tell what is programmed by Lease %s/%s: %s", p.LEASE_NAMESPACE, name, error)
            return False
        return True
