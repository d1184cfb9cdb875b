"""Services and EndpointSlices as they change -> what the planes compile from, and which service ports to look at.

Pure: objects in, names of touched service ports out, no I/O.  One Tracker is of one IP family.  A change costs
what the changed Service has, never what exists.  `state` shows the present; it is valid until the next change.
Source: kube-proxy 1.36 ServiceChangeTracker, EndpointsChangeTracker.
"""

from dataclasses import replace
from sys import intern

from svcplane.api.core import Node, Service
from svcplane.api.core import ServicePort as WirePort
from svcplane.api.discovery import Endpoint as WireEndpoint
from svcplane.api.discovery import EndpointSlice
from svcplane.base.net import canonical_cidr, canonical_ip, family_of
from svcplane.proxy.model import (
    Endpoint,
    NodeConfig,
    NodeState,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
)

PROXY_NAME_LABEL = "service.kubernetes.io/service-proxy-name"
HEADLESS_LABEL = "service.kubernetes.io/headless"
SERVICE_NAME_LABEL = "kubernetes.io/service-name"
TRIGGER_TIME = "endpoints.kubernetes.io/last-change-trigger-time"
ZONE_LABEL = "topology.kubernetes.io/zone"
ANNOTATION_PREFIX = "svcplane.dev/"
DEFAULT_TIMEOUT_S = 10800
ServiceKey = tuple[str, str]
Touched = frozenset[ServicePortName]
Held = dict[tuple[str, Protocol], tuple[Endpoint, ...]]  # one slice's endpoints by port name and protocol


def is_ours(service: Service) -> bool:
    """Whether a proxy without a name of its own serves this Service at all."""
    labels, spec = service.metadata.labels, service.spec
    if PROXY_NAME_LABEL in labels or HEADLESS_LABEL in labels:
        return False
    return spec.type != "ExternalName" and spec.cluster_ip not in ("", "None")


class Tracker:
    """See the module's text."""

    def __init__(
        self, config: NodeConfig, local_addresses: tuple[str, ...] = (), networks: tuple[str, ...] = ()
    ) -> None:
        self._family = config.family
        self._services: dict[ServicePortName, ServicePort] = {}
        self._endpoints: dict[ServicePortName, tuple[Endpoint, ...]] = {}
        self._external_ips: dict[ServicePortName, tuple[str, ...]] = {}  # of those that have some, served or not
        self._ports_of: dict[ServiceKey, tuple[ServicePortName, ...]] = {}
        self._slices: dict[ServiceKey, dict[str, Held]] = {}  # by the slice's name
        node = NodeState(config.node_name, "", local_addresses, networks)
        self._state = ProxyState(config, node, self._services, self._endpoints)

    @property
    def state(self) -> ProxyState:
        return self._state

    # -- folding ---------------------------------------------------------------------------------------------------

    def service_changed(self, old: Service | None, new: Service | None) -> Touched:
        service = new or old
        if service is None:
            return frozenset()
        key = (intern(service.metadata.namespace), intern(service.metadata.name))
        before = self._ports_of.pop(key, ())
        for name in before:
            self._external_ips.pop(name, None)
        ports = {port.name: port for port in self._ports(new)} if new is not None and is_ours(new) else {}
        ports = {name: self._as_allowed(port) for name, port in ports.items()}
        touched = {name for name in before if self._services.get(name) != ports.get(name)}
        touched |= {name for name, port in ports.items() if self._services.get(name) != port}
        for name in before:
            if name not in ports:
                self._services.pop(name, None)
                self._endpoints.pop(name, None)
        self._services.update(ports)
        if ports:
            self._ports_of[key] = tuple(ports)
        return frozenset(touched) | self._refresh_endpoints(key)

    def slice_changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> Touched:
        """Of `old` only its place counts, so that a caller need not keep the rest."""
        before, after = self._place(old), self._place(new)
        touched: Touched = frozenset()
        if before is not None and before != after:
            key, name = before
            group = self._slices.get(key, {})
            group.pop(name, None)
            if not group:
                self._slices.pop(key, None)
            touched |= self._refresh_endpoints(key)
        if after is not None and new is not None:
            key, name = after
            self._slices.setdefault(key, {})[name] = self._held(new)
            touched |= self._refresh_endpoints(key)
        return touched

    def _place(self, slice_: EndpointSlice | None) -> tuple[ServiceKey, str] | None:
        """The Service a slice of this family belongs to, and the slice's name; headless Services' count nowhere."""
        if slice_ is None or slice_.address_type != self._family.api_name or HEADLESS_LABEL in slice_.metadata.labels:
            return None
        service = slice_.metadata.labels.get(SERVICE_NAME_LABEL, "")
        return ((intern(slice_.metadata.namespace), intern(service)), slice_.metadata.name) if service else None

    def node_changed(self, node: Node | None) -> Touched:
        """This node's own object: its zone counts for topology, also after the object is deleted."""
        if node is None:
            return frozenset()
        zone = node.metadata.labels.get(ZONE_LABEL, "")
        if zone == self._state.node.zone:
            return frozenset()
        self._state = replace(self._state, node=replace(self._state.node, zone=zone))
        return frozenset(self._services)

    def config_changed(self, config: NodeConfig) -> None:
        """What the operator chose or the cluster has; the node's name and the family stay."""
        self._state = replace(self._state, config=config)
        for name, ips in self._external_ips.items():
            self._services[name] = replace(self._services[name], external_ips=ips if config.external_ips else ())

    def _as_allowed(self, port: ServicePort) -> ServicePort:
        if not port.external_ips:
            return port
        self._external_ips[port.name] = port.external_ips
        return port if self._state.config.external_ips else replace(port, external_ips=())

    def addresses_changed(self, local_addresses: tuple[str, ...], networks: tuple[str, ...] = ()) -> bool:
        """Addresses of this host's interfaces, and the networks they are in; True where they differ from before."""
        before = self._state.node
        if (local_addresses, networks) == (before.local_addresses, before.networks):
            return False
        self._state = replace(self._state, node=replace(before, local_addresses=local_addresses, networks=networks))
        return True

    # -- Services ------------------------------------------------------------------------------------------------------

    def _mine(self, addresses: list[str]) -> tuple[str, ...]:
        found = (canonical_ip(address) for address in addresses)
        return tuple(dict.fromkeys(ip for ip in found if ip and family_of(ip) is self._family))

    def _ports(self, service: Service) -> list[ServicePort]:
        spec, meta = service.spec, service.metadata
        cluster_ips = self._mine(spec.cluster_ips or [spec.cluster_ip])
        if not cluster_ips:
            return []
        timeout = 0
        if spec.session_affinity == "ClientIP":
            config = spec.session_affinity_config
            timeout = (config.client_ip.timeout_seconds if config and config.client_ip else None) or DEFAULT_TIMEOUT_S
        ingress = [item.ip for item in service.status.load_balancer.ingress if item.ip and item.ip_mode != "Proxy"]
        ranges = [canonical_cidr(text) for text in spec.load_balancer_source_ranges]
        annotations = sorted((k, v) for k, v in meta.annotations.items() if k.startswith(ANNOTATION_PREFIX))
        return [
            ServicePort(
                name=self._name(service, port),
                cluster_ip=cluster_ips[0],
                port=port.port,
                node_port=port.node_port if spec.type in ("NodePort", "LoadBalancer") else 0,
                external_ips=self._mine(spec.external_ips),
                load_balancer_ips=self._mine(ingress) if spec.type == "LoadBalancer" else (),
                source_ranges=tuple(cidr for cidr in ranges if cidr and family_of(cidr) is self._family),
                affinity_timeout_s=timeout,
                internal_policy_local=spec.internal_traffic_policy == "Local",
                external_policy_local=spec.external_traffic_policy == "Local",
                health_check_node_port=spec.health_check_node_port,
                annotations=tuple(annotations),
            )
            for port in spec.ports
        ]

    @staticmethod
    def _name(service: Service, port: WirePort) -> ServicePortName:
        meta = service.metadata
        return ServicePortName(intern(meta.namespace), intern(meta.name), intern(port.name), Protocol(port.protocol))

    # -- endpoints -----------------------------------------------------------------------------------------------------

    def _refresh_endpoints(self, key: ServiceKey) -> Touched:
        """Endpoints of a Service's ports from its slices."""
        touched = set()
        slices = self._slices.get(key, {}).values()
        for name in self._ports_of.get(key, ()):
            wanted = name.port_name, name.protocol
            found: dict[tuple[str, int], Endpoint] = {}
            for held in slices:
                for endpoint in held.get(wanted, ()):
                    _fold(found, endpoint)
            ordered = tuple(sorted(found.values(), key=_place_of))
            if self._endpoints.get(name, ()) != ordered:
                touched.add(name)
                if ordered:
                    self._endpoints[name] = ordered
                else:
                    self._endpoints.pop(name, None)
        return frozenset(touched)

    def _held(self, slice_: EndpointSlice) -> Held:
        held: dict[tuple[str, Protocol], dict[tuple[str, int], Endpoint]] = {}
        for port in slice_.ports or ():
            try:
                protocol = Protocol(port.protocol or "TCP")
            except ValueError:
                continue
            if not port.port:
                continue
            found = held.setdefault((intern(port.name or ""), protocol), {})
            for wire in slice_.endpoints or ():
                ip = canonical_ip(wire.addresses[0]) if wire.addresses else None
                if ip is not None and family_of(ip) is self._family:
                    _fold(found, self._endpoint(intern(ip), port.port, wire))
        return {name: tuple(found.values()) for name, found in held.items()}

    def _endpoint(self, ip: str, port: int, wire: WireEndpoint) -> Endpoint:
        conditions, hints = wire.conditions, wire.hints
        node = wire.node_name or ""
        reference = wire.target_ref
        return Endpoint(
            ip=ip,
            port=port,
            node_name=intern(node),
            is_local=node == self._state.config.node_name,
            ready=conditions.ready is not False,
            serving=conditions.serving is not False,
            terminating=bool(conditions.terminating),
            zone=intern(wire.zone or ""),
            zone_hints=tuple(intern(zone.name) for zone in hints.for_zones) if hints else (),
            node_hints=tuple(intern(name.name) for name in hints.for_nodes) if hints else (),
            pod=f"{reference.namespace}/{reference.name}" if reference is not None else "",
        )


def _fold(found: dict[tuple[str, int], Endpoint], endpoint: Endpoint) -> None:
    """Of two with the same address, one that runs beats one that ends; else the first counts."""
    place = _place_of(endpoint)
    present = found.get(place)
    if present is None or (present.terminating and not endpoint.terminating):
        found[place] = endpoint


def _place_of(endpoint: Endpoint) -> tuple[str, int]:
    return endpoint.ip, endpoint.port
