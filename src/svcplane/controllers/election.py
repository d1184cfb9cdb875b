"""One leader among several: who holds a Lease works, the others wait.

A holder that has not renewed for the Lease's duration, by the observer's own clock from when it saw the last
renewal, has lost it; so clocks need not agree.  A leader that cannot renew in time stops its work before that.
Source: k8s.io/client-go/tools/leaderelection.
"""

import asyncio
import logging
import math
import socket
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from svcplane.api.resources import LEASES
from svcplane.api.status import StatusError
from svcplane.base.clock import SYSTEM_CLOCK, Clock, rfc3339_micro
from svcplane.base.errors import ConfigError, SvcplaneError, TransportError
from svcplane.base.tasks import cancel_and_wait
from svcplane.client import metrics
from svcplane.client.api import ApiClient
from svcplane.client.transport import Transport

log = logging.getLogger(__name__)
JITTER = 1.2
Tree = dict[str, Any]


class LeadershipLost(SvcplaneError):
    """The Lease could not be renewed in time; another may lead now."""


def default_identity() -> str:
    return f"{socket.gethostname()}_{uuid.uuid4()}"


@dataclass(frozen=True, slots=True)
class ElectionConfig:
    """Times in seconds.  Raises ConfigError where they cannot work."""

    name: str = "svcplane-controllers"
    namespace: str = "kube-system"
    identity: str = ""
    lease_duration_s: float = 15.0
    renew_deadline_s: float = 10.0
    retry_period_s: float = 2.0

    def __post_init__(self) -> None:
        if not self.name or not self.namespace:
            raise ConfigError("--leader-elect-resource-name, --leader-elect-resource-namespace: must not be empty")
        if self.lease_duration_s < 1:
            raise ConfigError("--leader-elect-lease-duration: must be at least 1s")
        if self.lease_duration_s <= self.renew_deadline_s:
            raise ConfigError("--leader-elect-lease-duration: must be greater than --leader-elect-renew-deadline")
        if self.retry_period_s <= 0 or self.renew_deadline_s <= self.retry_period_s * JITTER:
            raise ConfigError("--leader-elect-renew-deadline: must be greater than 1.2 times the retry period")


def claim(spec: Tree, identity: str, now: str, duration_s: float) -> Tree:
    """The Lease's spec once `identity` holds it, renewed at `now`.  Pure."""
    mine = spec.get("holderIdentity") == identity
    return {
        "holderIdentity": identity,
        "leaseDurationSeconds": math.ceil(duration_s),
        "acquireTime": spec.get("acquireTime", now) if mine else now,
        "renewTime": now,
        "leaseTransitions": spec.get("leaseTransitions", 0) + (not mine and bool(spec)),
    }


class Election:
    """Runs work while this process leads."""

    def __init__(
        self, transport: Transport, config: ElectionConfig, *, clock: Clock = SYSTEM_CLOCK, random: Random | None = None
    ) -> None:
        self._client = ApiClient(transport, "leader-election")
        self._config, self._clock = config, clock
        self._random = random or Random()
        self.identity = config.identity or default_identity()
        self._lease: Tree | None = None
        self._seen_at = 0.0  # when `_lease` was first seen, monotonic

    async def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Wait for the Lease, then run `work` until it ends or this is cancelled; the Lease is given back then.

        Raises LeadershipLost where the Lease could not be renewed; `work` has been stopped by then.
        """
        config = self._config
        metrics.leads(config.name, now=False)
        log.info("waiting for the lease: lease=%s/%s identity=%s", config.namespace, config.name, self.identity)
        while not await self._try():
            await self._clock.sleep(config.retry_period_s * self._random.uniform(1, JITTER))
        log.info("leading: identity=%s", self.identity)
        metrics.leads(config.name, now=True)
        working = asyncio.ensure_future(work())
        renewing = asyncio.create_task(self._renew(), name="lease")
        try:
            await asyncio.wait((working, renewing), return_when=asyncio.FIRST_COMPLETED)
        finally:
            metrics.leads(config.name, now=False)
            lost = renewing.done() and not renewing.cancelled()
            finished = working.done()
            await cancel_and_wait(renewing, None if finished else working)
            if not lost:
                await self._give_back()
        if finished:
            working.result()
        elif lost:
            raise LeadershipLost(
                f"leader election lost: lease {config.namespace}/{config.name} was not renewed in time"
            )

    async def _renew(self) -> None:
        """Returns when the Lease is lost."""
        config, renewed = self._config, self._clock.now()
        while True:
            await self._clock.sleep(config.retry_period_s)
            left = renewed + config.renew_deadline_s - self._clock.now()
            try:
                async with asyncio.timeout(max(left, 0)):
                    held = await self._try()
            except TimeoutError:
                held = False
            if held:
                renewed = self._clock.now()
            elif self._held_by_other() or self._clock.now() - renewed >= config.renew_deadline_s:
                return

    def _held_by_other(self) -> bool:
        holder = (self._lease or {}).get("spec", {}).get("holderIdentity", "")
        return bool(holder) and holder != self.identity

    async def _try(self) -> bool:
        """Acquire or renew; False where another holds it or the API is out of reach."""
        try:
            return await self._acquire()
        except (StatusError, TransportError) as error:
            if not (isinstance(error, StatusError) and error.code in (404, 409)):
                log.warning("lease: %s", error)
            return False

    async def _acquire(self) -> bool:
        config, client = self._config, self._client
        now = rfc3339_micro(self._clock.wall())
        try:
            lease = await client.get(LEASES, config.namespace, config.name)
        except StatusError as error:
            if error.code != 404:
                raise
            meta = {"name": config.name, "namespace": config.namespace}
            spec = claim({}, self.identity, now, config.lease_duration_s)
            body = {"apiVersion": LEASES.api_version, "kind": LEASES.kind, "metadata": meta, "spec": spec}
            self._observe(await client.create(LEASES, config.namespace, body))
            return True
        self._observe(lease)
        spec = lease.get("spec", {})
        if self._held_by_other():
            if self._clock.now() < self._seen_at + spec.get("leaseDurationSeconds", 0):
                return False
        lease["spec"] = claim(spec, self.identity, now, config.lease_duration_s)
        self._observe(await client.update(LEASES, config.namespace, config.name, lease))
        return True

    def _observe(self, lease: Tree) -> None:
        if self._lease is None or self._lease.get("spec") != lease.get("spec"):
            self._lease, self._seen_at = lease, self._clock.now()

    async def _give_back(self) -> None:
        """Let the next one in at once; one who cannot say so is simply waited out."""
        config = self._config
        try:
            async with asyncio.timeout(config.renew_deadline_s):
                lease = await self._client.get(LEASES, config.namespace, config.name)
                if lease.get("spec", {}).get("holderIdentity") != self.identity:
                    return
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self._client.update(LEASES, config.namespace, config.name, lease)
        except (StatusError, TransportError, TimeoutError) as error:
            log.warning("the lease was not given back: %s", error)
