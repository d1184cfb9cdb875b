"""Cluster IPs and node ports of Services, allocated in the transaction that writes the Service.

Each cluster IP is an IPAddress object, each node port a small record naming its owner.  A transaction creates
them on condition that they are absent, so that several API servers over one store never give a number twice.
What is in use is followed by watch for choosing; the store's condition decides.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from random import Random

from svcplane.api import codec
from svcplane.api import fields as f
from svcplane.api.resources import IP_ADDRESSES
from svcplane.api.status import StatusError, internal_error, invalid
from svcplane.api.strategies.service import normalize_cluster_ips, patch_allocated_values
from svcplane.api.strategy import Tree
from svcplane.api.validation.service import needs_health_check
from svcplane.base.clock import SYSTEM_CLOCK, Clock, rfc3339
from svcplane.base.net import canonical_ip
from svcplane.server.allocators import AddressRange, PortRange
from svcplane.server.families import settle_families, wanted_ips
from svcplane.server.in_use import PORT_PREFIX, InUse, ip_key, ip_record, port_key, port_record
from svcplane.store.contract import Delete, Put, Revision, Store, Unchanged

log = logging.getLogger(__name__)
#: Automatic node ports of a dry run follow it.
DRY_RUN_PORT = 32768


@dataclass(slots=True)
class Allocated:
    """What to commit with the object.  `release` must be called when the commit is over, whatever its end."""

    operations: list[Put | Delete] = field(default_factory=list)
    preconditions: list[Unchanged] = field(default_factory=list)
    release: Callable[[], None] = lambda: None


class ServiceAllocation:
    """See the module's text.  `ranges`: Service CIDRs, the default family first."""

    def __init__(
        self,
        store: Store,
        ranges: Sequence[AddressRange],
        ports: PortRange,
        *,
        random: Random,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self._store, self.ports = store, ports
        self._random, self._clock = random, clock
        self._used = InUse(store, ranges, clock)
        #: Of the server's own ranges, the default first.
        self.families = list(dict.fromkeys(span.family.api_name for span in ranges))

    @property
    def ranges(self) -> Sequence[AddressRange]:
        """The server's own, then those of other ServiceCIDRs that are ready."""
        return self._used.ranges

    async def start(self) -> None:
        """Load what is in use and follow it."""
        await self._used.start()

    async def close(self) -> None:
        await self._used.close()

    # -- what the registry calls -----------------------------------------------------------------------------------

    async def on_create(self, obj: Tree, *, dry_run: bool) -> Allocated:
        """Settle families, then allocate.  Fills the object in.  Raises StatusError."""
        normalize_cluster_ips(obj["spec"], None)
        settle_families(obj, None, self.families)
        session = _Session(self, obj, dry_run)
        try:
            await session.cluster_ips(None)
            await session.new_node_ports()
            if needs_health_check(obj["spec"]):
                await session.health_check_port()
        except BaseException:
            session.release()
            raise
        return session.result()

    async def on_update(self, obj: Tree, old: Tree, *, dry_run: bool) -> Allocated:
        """Keep what was left out, allocate what is new, release what is no longer needed."""
        spec, before = obj["spec"], old["spec"]
        patch_allocated_values(spec, before)
        normalize_cluster_ips(spec, before)
        settle_families(obj, old, self.families)
        session = _Session(self, obj, dry_run)
        try:
            await session.cluster_ips(before)
            await session.changed_node_ports(before)
            await session.changed_health_check_port(before)
        except BaseException:
            session.release()
            raise
        return session.result()

    async def on_delete(self, obj: Tree) -> Allocated:
        """Release everything the Service holds."""
        session = _Session(self, obj, dry_run=False)
        spec = obj.get("spec", {})
        for ip in spec.get("clusterIPs", []):
            if ip != "None":
                await session.free(ip_key(canonical_ip(ip) or ip))
        for port in node_ports(spec):
            await session.free(port_key(port))
        return session.result()

    # -- for sessions ------------------------------------------------------------------------------------------------

    def choose_ip(self, family: str) -> str | None:
        used = self._used
        for span in self.ranges:
            if span.family.api_name == family:
                found = span.choose(_Either(used.ips, used.held), self._random)
                if found is not None:
                    return found
        return None

    def choose_port(self, own: set[int]) -> int | None:
        return self.ports.choose(_Either(self._used.ports, self._used.held, own), self._random)

    @property
    def used(self) -> InUse:
        return self._used

    @property
    def store(self) -> Store:
        return self._store

    def now(self) -> str:
        return rfc3339(self._clock.wall())


class _Either:
    """In any of several containers."""

    def __init__(self, *parts: object) -> None:
        self._parts = parts

    def __contains__(self, item: object) -> bool:
        return any(item in part for part in self._parts)  # type: ignore[operator]


def node_ports(spec: Tree) -> list[int]:
    """Node ports a Service holds, its health check's included, each once."""
    found = [port["nodePort"] for port in spec.get("ports", []) if port.get("nodePort")]
    if spec.get("healthCheckNodePort"):
        found.append(spec["healthCheckNodePort"])
    return list(dict.fromkeys(found))


def _nameless(ip: str) -> str:
    """What the address's own object is refused for where the Service has no name."""
    return f'IPAddress.networking.k8s.io "{ip}" is invalid: spec.parentRef.name: Required value'


class _Session:
    """The allocation of one write."""

    def __init__(self, parent: ServiceAllocation, obj: Tree, dry_run: bool) -> None:
        self._parent, self._obj, self._spec, self._dry_run = parent, obj, obj["spec"], dry_run
        meta = obj["metadata"]
        self._namespace, self._name = meta.get("namespace", ""), meta.get("name", "")
        self._allocated = Allocated()
        self._held: list[str | int] = []
        self._own_ports: set[int] = set()

    def release(self) -> None:
        self._parent.used.let_go(self._held)
        self._held = []

    def result(self) -> Allocated:
        # not a method of this session: each would keep the other alive until a collection
        self._allocated.release = partial(self._parent.used.let_go, self._held)
        if self._dry_run:
            self._allocated.operations, self._allocated.preconditions = [], []
        return self._allocated

    async def free(self, key: str) -> None:
        """Release a record, if it is this Service's."""
        item = await self._parent.store.get(key)
        if item is None:
            return
        if key.startswith(PORT_PREFIX):
            mine = item.value == self._port_record()
        else:
            parent = codec.load(item.value, item.revision, IP_ADDRESSES).get("spec", {}).get("parentRef", {})
            mine = (parent.get("namespace"), parent.get("name")) == (self._namespace, self._name)
        if mine:
            self._allocated.operations.append(Delete(key))
            self._allocated.preconditions.append(Unchanged(key, item.revision))

    def _port_record(self) -> bytes:
        return port_record(self._namespace, self._name)

    # -- cluster IPs ---------------------------------------------------------------------------------------------------

    async def cluster_ips(self, old: Tree | None) -> None:
        wanted, released = wanted_ips(self._spec, old)
        for ip in released:
            if ip != "None":
                await self.free(ip_key(ip))
        if not wanted:
            return
        ips = list(self._spec.get("clusterIPs", []))
        ips += [""] * (wanted[-1][0] + 1 - len(ips))  # messages show a mark for each address that is yet to come
        self._spec["clusterIPs"] = ips
        for index, family, asked in wanted:
            ips[index] = await self._ask_ip(family, asked) if asked else self._next_ip(family)
        self._spec["clusterIP"] = ips[0]

    def _fail_ip(self, detail: str) -> StatusError:
        return invalid("Service", self._name, [f.invalid("spec.clusterIPs", self._spec["clusterIPs"], detail)])

    async def _ask_ip(self, family: str, asked: str) -> str:
        ip = canonical_ip(asked) or asked
        if why := await self._not_given(family, ip):
            raise self._fail_ip(f"failed to allocate IP {asked}: {why}")
        if not self._dry_run:
            self._take_ip(ip)
        return asked

    async def _not_given(self, family: str, ip: str) -> str:
        """Why an address that was asked for cannot be had.  A dry run looks at the range alone, as upstream does."""
        if self._dry_run:
            span = self._range_of(family)
            if ip in span:
                return ""
            return f"the provided IP ({ip}) is not in the valid range. The range of valid IPs is {span.network}"
        if not any(ip in span for span in self._parent.ranges):
            return "the provided network does not match the current range"
        if not self._name:
            return _nameless(ip)
        return "provided IP is already allocated" if await self._parent.store.get(ip_key(ip)) is not None else ""

    def _range_of(self, family: str) -> AddressRange:
        return next(span for span in self._parent.ranges if span.family.api_name == family)

    def _next_ip(self, family: str) -> str:
        if self._dry_run:
            return self._range_of(family).network_address
        ip = self._parent.choose_ip(family)
        if ip is None:
            raise internal_error("failed to allocate a serviceIP: range is full")
        if not self._name:
            raise self._fail_ip(f"failed to allocate IP: {_nameless(ip)}")
        self._take_ip(ip)
        return ip

    def _take_ip(self, ip: str) -> None:
        self._parent.used.hold(ip)
        self._held.append(ip)
        record = ip_record(ip, self._namespace, self._name, self._parent.now())
        self._allocated.operations.append(Put(ip_key(ip), record))
        self._allocated.preconditions.append(Unchanged(ip_key(ip), Revision(0)))

    # -- node ports ------------------------------------------------------------------------------------------

    def _allocates(self) -> bool:
        if self._spec.get("type") == "NodePort":
            return True
        return self._spec.get("allocateLoadBalancerNodePorts") is not False

    async def _ask_port(self, port: int) -> str:
        """Take a port; an error text where that cannot be."""
        if port in self._own_ports:
            return "provided port is already allocated"
        # a dry run does not look at the range
        if port not in self._parent.ports and not self._dry_run:
            return f"provided port is not in the valid range. The range of valid ports is {self._parent.ports}"
        if await self._parent.store.get(port_key(port)) is not None:
            return "provided port is already allocated"
        self._take_port(port)
        return ""

    def _next_port(self, what: str) -> int:
        if self._dry_run:
            # any number will do; this is upstream's
            port: int | None = max(self._own_ports, default=DRY_RUN_PORT) + 1
        else:
            port = self._parent.choose_port(self._own_ports)
        if port is None:
            raise internal_error(f"failed to allocate a {what}: range is full")
        self._take_port(port)
        return port

    def _take_port(self, port: int) -> None:
        self._own_ports.add(port)
        self._parent.used.hold(port)
        self._held.append(port)
        self._allocated.operations.append(Put(port_key(port), self._port_record()))
        self._allocated.preconditions.append(Unchanged(port_key(port), Revision(0)))

    def _bad_port(self, index: int, port: int, text: str) -> StatusError:
        return invalid("Service", self._name, [f.invalid(f"spec.ports[{index}].nodePort", port, text)])

    async def new_node_ports(self) -> None:
        """One number serves all protocols of a port; what the user asked for comes first."""
        if self._spec.get("type") not in ("NodePort", "LoadBalancer"):
            return
        given: dict[int, int] = {}
        ports = self._spec.get("ports", [])
        explicit: dict[int, int] = {}
        for port in ports:
            if port.get("nodePort"):
                explicit.setdefault(port["port"], port["nodePort"])
        for index, port in enumerate(ports):
            asked = port.get("nodePort", 0)
            if not asked and not self._allocates():
                continue
            known = given.get(port["port"], 0)
            if not known:
                asked = explicit.get(port["port"], 0)
                if asked:
                    if error := await self._ask_port(asked):
                        raise self._bad_port(index, asked, error)
                given[port["port"]] = port["nodePort"] = asked or self._next_port("nodePort")
            elif not asked:
                port["nodePort"] = known
            elif asked != known:
                if error := await self._ask_port(asked):
                    raise self._bad_port(index, asked, error)

    async def health_check_port(self) -> None:
        asked = self._spec.get("healthCheckNodePort", 0)
        if not asked:
            self._spec["healthCheckNodePort"] = self._next_port("HealthCheck NodePort 0")
        elif error := await self._ask_port(asked):
            raise internal_error(f"failed to allocate requested HealthCheck NodePort {asked}: {error}")

    async def changed_node_ports(self, old: Tree) -> None:
        external = ("NodePort", "LoadBalancer")
        spec = self._spec
        before = node_ports(old)
        if old.get("type") in external and spec.get("type") not in external:
            for number in [port["nodePort"] for port in old.get("ports", []) if port.get("nodePort")]:
                await self.free(port_key(number))
            return
        if spec.get("type") not in external:
            return
        seen: set[tuple[str, int]] = set()
        for index, port in enumerate(spec.get("ports", [])):
            asked = port.get("nodePort", 0)
            if not asked and not self._allocates():
                continue
            if asked:
                if asked not in before and asked not in self._own_ports:
                    if error := await self._ask_port(asked):
                        raise self._bad_port(index, asked, error)
            else:
                asked = port["nodePort"] = self._next_port("nodePort")
            key = port.get("protocol", "TCP"), asked
            if key in seen:
                raise StatusError(500, "", f"duplicate nodePort: {{{key[0]} {key[1]}}}")
            seen.add(key)
        kept = set(node_ports(spec))
        for number in before:
            if number not in kept and number != old.get("healthCheckNodePort"):
                await self.free(port_key(number))

    async def changed_health_check_port(self, old: Tree) -> None:
        needed, needs = needs_health_check(old), needs_health_check(self._spec)
        if not needed and needs:
            await self.health_check_port()
        elif needed and not needs and old.get("healthCheckNodePort"):
            await self.free(port_key(old["healthCheckNodePort"]))
