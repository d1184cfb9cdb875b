"""The ipvs plane on the kernel of this network namespace."""

from svcplane.kernel.dummy.run import DummyDevice
from svcplane.kernel.ipset.run import IpsetSocket
from svcplane.kernel.iptables.run import IptablesTools
from svcplane.kernel.ipvs.run import IpvsSocket
from svcplane.kernel.marked.run import MarkIntake
from svcplane.kernel.sysctl import Sysctls
from svcplane.proxy.model import NodeConfig
from svcplane.proxy.plane import Plane
from svcplane.proxy.planes.ipvs.names import DEVICE
from svcplane.proxy.planes.ipvs.observe import Kernel
from svcplane.proxy.planes.ipvs.plane import IpvsPlane
from svcplane.proxy.planes.ipvs.rules import intake_mark


def make(config: NodeConfig) -> Plane:
    device = DummyDevice(DEVICE, config.family)
    intake = MarkIntake(config.family, intake_mark(config))
    tools = IptablesTools(config.family, config.iptables_variant)
    return IpvsPlane(config, Kernel(IpvsSocket(), IpsetSocket(), device, tools, intake, Sysctls()))
