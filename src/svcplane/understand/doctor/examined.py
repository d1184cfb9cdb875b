"""Everything the checks look at.  Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from svcplane.base.net import Family
from svcplane.kernel.host.objects import HostFacts
from svcplane.kernel.ruleset.objects import ForeignChain, Ruleset
from svcplane.proxy.conntrack import Flow
from svcplane.proxy.model import ProxyState
from svcplane.proxy.ours import CHAINS, TABLES
from svcplane.understand.view import ClusterView

#: The table of kube-proxy's nftables mode.
KUBE_PROXYS = "kube-proxy"


@dataclass(frozen=True, slots=True)
class Examined:
    """`states`: what is desired on this node; `programmed`: what the running proxy wants, None where none runs.

    `cluster`: the API's objects, None where no API was asked.  `clock_ahead_s`: of this host before the API server.
    """

    node: str
    mode: str
    facts: HostFacts
    rules: Ruleset = Ruleset()
    states: Mapping[Family, ProxyState] = field(default_factory=dict)
    programmed: Mapping[Family, ProxyState] | None = None
    cluster: ClusterView | None = None
    unreachable: str = ""
    udp_flows: tuple[Flow, ...] = ()
    clock_ahead_s: float | None = None

    def sysctl(self, name: str) -> str:
        return self.facts.sysctls.get(name, "")

    def is_ours(self, chain: ForeignChain) -> bool:
        """Whether a chain belongs to the proxy of this node."""
        if chain.table in TABLES:
            return True
        return self.mode in ("iptables", "ipvs") and chain.name.startswith(CHAINS)
