"""The desired state as JSON, for tools that look into a running proxy.  Pure."""

from collections.abc import Iterable

import msgspec

from svcplane.proxy.model import Endpoint, NodeConfig, NodeState, ProxyState, ServicePort, ServicePortName


class FamilySnapshot(msgspec.Struct, frozen=True, rename="camel"):
    """One family's ProxyState; mappings with structured keys as lists."""

    config: NodeConfig
    node: NodeState
    services: tuple[ServicePort, ...] = ()
    endpoints: tuple[tuple[ServicePortName, tuple[Endpoint, ...]], ...] = ()

    @classmethod
    def of(cls, state: ProxyState) -> "FamilySnapshot":
        return cls(state.config, state.node, tuple(state.services.values()), tuple(state.endpoints.items()))

    @property
    def state(self) -> ProxyState:
        services = {port.name: port for port in self.services}
        return ProxyState(self.config, self.node, services, dict(self.endpoints))


class Snapshot(msgspec.Struct, frozen=True, rename="camel"):
    """What a proxy is and wants.  `pid` is the proxy's."""

    node: str
    mode: str
    pid: int
    started_s: float
    families: tuple[FamilySnapshot, ...] = ()

    @property
    def states(self) -> Iterable[ProxyState]:
        return [family.state for family in self.families]


_decoder = msgspec.json.Decoder(Snapshot)


def encode(snapshot: Snapshot) -> bytes:
    return msgspec.json.encode(snapshot)


def decode(data: bytes) -> Snapshot:
    """Raises msgspec.ValidationError for what is no Snapshot."""
    return _decoder.decode(data)
