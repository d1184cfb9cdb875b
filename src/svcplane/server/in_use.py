"""Which numbers of Services are in use, and from which ranges more may come, followed by watch."""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

from svcplane.api import codec
from svcplane.api.resources import IP_ADDRESSES, SERVICE_CIDRS
from svcplane.api.strategy import Tree
from svcplane.base.clock import SYSTEM_CLOCK, Clock
from svcplane.base.errors import ConfigError, StoreError
from svcplane.base.tasks import cancel_and_wait
from svcplane.base.uids import new_uid
from svcplane.server.allocators import AddressRange
from svcplane.store.contract import KeyValue, Revision, Store, Watch

log = logging.getLogger(__name__)
CIDR_PREFIX = SERVICE_CIDRS.key_prefix()
PORT_PREFIX = "/registry/ranges/nodeports/"
RETRY_S = 0.5
MANAGED_BY = "ipallocator.k8s.io"


def port_key(port: int) -> str:
    return f"{PORT_PREFIX}{port}"


def ip_key(ip: str) -> str:
    return IP_ADDRESSES.key("", ip)


def port_record(namespace: str, name: str) -> bytes:
    """What is stored for a node port of a Service."""
    return codec.encode({"service": f"{namespace}/{name}"})


def ip_labels(ip: str) -> dict[str, str]:
    family = "IPv6" if ":" in ip else "IPv4"
    return {"ipaddress.kubernetes.io/ip-family": family, "ipaddress.kubernetes.io/managed-by": MANAGED_BY}


def ip_record(ip: str, namespace: str, name: str, now: str) -> bytes:
    """The IPAddress object of a Service's cluster IP, as stored."""
    meta = {"name": ip, "uid": new_uid(), "creationTimestamp": now, "labels": ip_labels(ip)}
    parent = {"resource": "services", "namespace": namespace, "name": name}
    return codec.encode_stored({"metadata": meta, "spec": {"parentRef": parent}})


def ready_ranges(cidr: Tree) -> tuple[AddressRange, ...]:
    """What may be given out of a ServiceCIDR: nothing before it is ready, nothing more when it goes."""
    conditions = cidr.get("status", {}).get("conditions", [])
    ready = any(condition.get("type") == "Ready" and condition.get("status") == "True" for condition in conditions)
    if not ready or cidr["metadata"].get("deletionTimestamp"):
        return ()
    found = []
    for text in cidr.get("spec", {}).get("cidrs", []):
        with contextlib.suppress(ConfigError):  # too small, or too big, to give from
            found.append(AddressRange.parse(text))
    return tuple(found)


class InUse:
    """Numbers in use, followed by watch, and those of commits under way."""

    def __init__(self, store: Store, ranges: Sequence[AddressRange], clock: Clock = SYSTEM_CLOCK) -> None:
        self._store, self._clock = store, clock
        self.own_ranges = tuple(ranges)
        self._more: dict[str, tuple[AddressRange, ...]] = {}  # of other ServiceCIDRs, by key
        self._tasks: list[asyncio.Task[None]] = []
        self.ips: set[str] = set()
        self.ports: set[int] = set()
        self.held: dict[str | int, int] = {}

    @property
    def ranges(self) -> Sequence[AddressRange]:
        """Our own first."""
        more = [span for _, spans in sorted(self._more.items()) for span in spans]
        return (*self.own_ranges, *[span for span in more if span not in self.own_ranges])

    def hold(self, number: str | int) -> None:
        self.held[number] = self.held.get(number, 0) + 1

    def let_go(self, numbers: Sequence[str | int]) -> None:
        for number in numbers:
            self.held[number] -= 1
            if not self.held[number]:
                del self.held[number]

    def replace(self, prefix: str, items: Sequence[KeyValue]) -> None:
        """These are all records of the prefix."""
        if prefix == PORT_PREFIX:
            self.ports.clear()
        elif prefix == CIDR_PREFIX:
            self._more.clear()
        else:
            self.ips.clear()
        for item in items:
            self.note(item.key, item.value)

    def note(self, key: str, value: bytes | None) -> None:
        """A record came, changed or went."""
        present = value is not None
        if key.startswith(CIDR_PREFIX):
            self._more.pop(key, None)
            if value is not None:
                self._more[key] = ready_ranges(codec.load(value, 0, SERVICE_CIDRS))
        elif key.startswith(PORT_PREFIX):
            port = int(key.removeprefix(PORT_PREFIX))
            self.ports.add(port) if present else self.ports.discard(port)
        else:
            ip = key.removeprefix(IP_ADDRESSES.key_prefix())
            self.ips.add(ip) if present else self.ips.discard(ip)

    async def start(self) -> None:
        """Load what is in use and follow it."""
        for prefix in (PORT_PREFIX, IP_ADDRESSES.key_prefix(), CIDR_PREFIX):
            watch = await self._store.watch(prefix, await self._load(prefix))
            self._tasks.append(asyncio.create_task(self._follow(prefix, watch), name=f"allocation {prefix}"))

    async def close(self) -> None:
        await cancel_and_wait(*self._tasks)

    async def _load(self, prefix: str) -> Revision:
        page = await self._store.list(prefix)
        self.replace(prefix, page.items)
        return page.revision

    async def _follow(self, prefix: str, watch: Watch) -> None:
        """Note what comes and goes; list again where the watch breaks."""
        while True:
            try:
                async for events in watch:
                    for event in events:
                        self.note(event.key, event.value)
            except StoreError as error:
                log.warning("what is allocated is listed anew: prefix=%s error=%s", prefix, error)
            finally:
                await watch.aclose()
            await self._clock.sleep(RETRY_S)
            with contextlib.suppress(StoreError):  # then the ended watch ends again, and this is tried again
                watch = await self._store.watch(prefix, await self._load(prefix))
