"""Which address a Pod gets out of the node's Pod CIDRs.  Pure.

The first address of a CIDR names the network, the second is the node's gateway end, the last of an IPv4 CIDR is
the broadcast address; none is given to a Pod.  Addresses are given round robin, so that one just freed rests.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from svcplane.base.errors import SvcplaneError
from svcplane.base.net import address, network


class NoAddress(SvcplaneError):
    """The Pod CIDR is used up."""


def gateway(cidr: str) -> str:
    """The node's address on its side of every Pod's link."""
    return str(network(cidr).network_address + 1)


def next_address(cidr: str, used: Collection[str], last: str = "") -> str:
    """The free address after `last`, around the end if need be.  Raises NoAddress."""
    net = network(cidr)
    low = int(net.network_address) + 2
    high = int(net.broadcast_address) - (1 if net.version == 4 else 0)
    size = high - low + 1
    start = int(address(last)) + 1 - low if last else 0
    if size > 0:
        for step in range(min(size, len(used) + 1)):
            candidate = str(net.network_address + (start + step) % size + 2)
            if candidate not in used:
                return candidate
    raise NoAddress(f"no free address in the Pod CIDR {cidr}")


@dataclass(slots=True)
class AddressBook:
    """Who has which addresses.  `owners`: Pod uid -> its addresses, one a CIDR."""

    cidrs: Sequence[str]
    owners: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _last: dict[str, str] = field(default_factory=dict)

    def take(self, uid: str) -> tuple[str, ...]:
        """The Pod's addresses, the same when asked again.  Raises NoAddress."""
        if uid not in self.owners:
            used = {ip for ips in self.owners.values() for ip in ips}
            ips = tuple(next_address(cidr, used, self._last.get(cidr, "")) for cidr in self.cidrs)
            self._last |= dict(zip(self.cidrs, ips, strict=True))
            self.owners[uid] = ips
        return self.owners[uid]

    def adopt(self, owners: Mapping[str, Sequence[str]]) -> None:
        """Take over what was given out earlier."""
        self.owners |= {uid: tuple(ips) for uid, ips in owners.items()}

    def free(self, uid: str) -> None:
        self.owners.pop(uid, None)
