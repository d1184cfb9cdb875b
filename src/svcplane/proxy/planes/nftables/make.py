"""The nftables plane on the kernel of this network namespace."""

from svcplane.kernel.nft.run import NftSocket
from svcplane.proxy.model import NodeConfig
from svcplane.proxy.plane import Plane
from svcplane.proxy.planes.nftables.plane import NftablesPlane


def make(config: NodeConfig) -> Plane:
    return NftablesPlane(config, NftSocket())
