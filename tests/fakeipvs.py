"""A whole in-memory kernel for the ipvs plane."""

from collections.abc import Sequence

from svcplane.kernel.dummy.fake import FakeDummy
from svcplane.kernel.ipset.fake import FakeIpset
from svcplane.kernel.iptables.fake import FakeIptables
from svcplane.kernel.ipvs.fake import FakeIpvs
from svcplane.kernel.ipvs.objects import Change, Refusal
from svcplane.kernel.marked.fake import FakeIntake
from svcplane.proxy.model import NodeConfig
from svcplane.proxy.planes.ipvs import names
from svcplane.proxy.planes.ipvs.observe import Kernel
from svcplane.proxy.planes.ipvs.plane import IpvsPlane
from svcplane.proxy.planes.ipvs.rules import intake_mark


class IptablesOverSets(FakeIptables):
    """Knows which sets its rules refer to."""

    def __init__(self, ipset: FakeIpset) -> None:
        super().__init__()
        self._ipset = ipset

    async def restore(self, text: str, *, mark: bool = False) -> None:
        await super().restore(text, mark=mark)
        rules = " ".join(rule for chains in self.tables.values() for found in chains.values() for rule in found)
        self._ipset.in_use = {name for name in self._ipset.content if f"--match-set {name} " in rules}


class KilledIpvs(Exception):
    """The process ended here."""


class MortalIpvs(FakeIpvs):
    """Takes so many changes more, then its caller is dead."""

    _left: int | None = None

    def die_after(self, changes: int | None) -> None:
        self._left = changes

    async def commit(self, changes: Sequence[Change]) -> Sequence[Refusal]:
        if self._left is not None and len(changes) > self._left:
            await super().commit(changes[: self._left])
            raise KilledIpvs
        if self._left is not None:
            self._left -= len(changes)
        return await super().commit(changes)


class FakeSysctls:
    """Kernel parameters in memory."""

    def __init__(self, content: dict[str, str]) -> None:
        self.content = content

    def get(self, name: str) -> str | None:
        return self.content.get(name)

    def set(self, name: str, value: str) -> None:
        self.content[name] = value


class FakeKernel:
    """The parts by name; `plane` makes a plane over them, as a restarted proxy would."""

    def __init__(self, schedulers: tuple[str, ...] | None = None) -> None:
        self.ipvs = MortalIpvs(schedulers) if schedulers else MortalIpvs()
        self.ipset, self.device = FakeIpset(), FakeDummy()
        self.intake = FakeIntake()
        self.iptables = IptablesOverSets(self.ipset)
        self.sysctls = FakeSysctls({"net/ipv4/vs/conntrack": "0", "net/ipv4/ip_forward": "0"})

    def plane(self, config: NodeConfig) -> IpvsPlane:
        self.intake.use(intake_mark(config))
        return IpvsPlane(config, Kernel(self.ipvs, self.ipset, self.device, self.iptables, self.intake, self.sysctls))

    def entries(self, kind: names.Kind, config: NodeConfig) -> set[str]:
        return {str(entry) for entry in self.ipset.content[names.set_name(kind, config.family)][1]}
