"""The userspace plane on the kernel of this network namespace."""

from svcplane.kernel.nft.run import NftSocket
from svcplane.proxy.model import NodeConfig
from svcplane.proxy.plane import Plane
from svcplane.proxy.planes.userspace.plane import UserspacePlane
from svcplane.proxy.planes.userspace.ports import relay_ports
from svcplane.proxy.planes.userspace.relaying import Relaying
from svcplane.proxy.planes.userspace.workers import Workers

_relaying: Relaying | None = None


def make(config: NodeConfig) -> Plane:
    """Planes of one process share their relay workers.  Raises ConfigError."""
    global _relaying
    if _relaying is None:
        _relaying = Relaying(Workers(ports=relay_ports(config.mode_options)))
    return UserspacePlane(config, NftSocket(), _relaying)
