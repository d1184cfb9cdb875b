"""The iptables plane on the kernel of this network namespace."""

from svcplane.kernel.iptables.run import IptablesTools
from svcplane.proxy.model import NodeConfig
from svcplane.proxy.plane import Plane
from svcplane.proxy.planes.iptables.plane import IptablesPlane


def make(config: NodeConfig) -> Plane:
    return IptablesPlane(config, IptablesTools(config.family, config.iptables_variant))
