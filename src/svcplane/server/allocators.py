"""Choosing numbers out of bands: cluster IPs and node ports.  Pure; the source of randomness is a parameter.

Each range has a static band at its low end, for numbers that clients ask for, and a dynamic one above it.
Automatic numbers come from the dynamic band while it has room, then from the static one (KEP-3070, KEP-3668).
"""

import ipaddress
from collections.abc import Callable, Container
from dataclasses import dataclass
from random import Random

from svcplane.base.errors import ConfigError
from svcplane.base.net import Family, IPNetwork


def static_band(size: int, divisor: int, least: int, most: int) -> int:
    """min(max(least, size/divisor), most); nothing where the range is too small to split."""
    if size < least:
        return 0
    return min(max(least, size // divisor), most)


def pick(first: int, last: int, used: Container[int], random: Random) -> int | None:
    """A free number in [first, last], from a random start on; None where all are used."""
    if last < first:
        return None
    span = last - first + 1
    start = random.randrange(span)
    for step in range(span):
        number = first + (start + step) % span
        if number not in used:
            return number
    return None


@dataclass(frozen=True, slots=True)
class PortRange:
    """Node ports, inclusive."""

    first: int
    last: int

    @classmethod
    def parse(cls, text: str) -> "PortRange":
        """`30000-32767` or `30000+2767`.  Raises ConfigError."""
        for separator in ("-", "+"):
            first, found, second = text.partition(separator)
            if found and first.isdigit() and second.isdigit():
                low = int(first)
                high = int(second) if separator == "-" else low + int(second)
                if 1 <= low <= high <= 65535:
                    return cls(low, high)
        raise ConfigError(f"--service-node-port-range {text}: must be FIRST-LAST within 1 to 65535")

    def __str__(self) -> str:
        return f"{self.first}-{self.last}"

    def __contains__(self, port: int) -> bool:
        return self.first <= port <= self.last

    @property
    def band(self) -> int:
        return static_band(self.last - self.first + 1, 32, 16, 128)

    def choose(self, used: Container[int], random: Random) -> int | None:
        split = self.first + self.band
        found = pick(split, self.last, used, random)
        return found if found is not None else pick(self.first, split - 1, used, random)


@dataclass(frozen=True, slots=True)
class _Numbers:
    """Used addresses, asked for by number."""

    text: Callable[[int], str]
    used: Container[str]

    def __contains__(self, number: object) -> bool:
        return isinstance(number, int) and self.text(number) in self.used


@dataclass(frozen=True, slots=True)
class AddressRange:
    """Cluster IPs of one CIDR: the network address (and IPv4 broadcast) are never given."""

    network: IPNetwork

    @classmethod
    def parse(cls, text: str) -> "AddressRange":
        """Raises ConfigError."""
        try:
            network = ipaddress.ip_network(text, strict=False)
        except ValueError as error:
            raise ConfigError(f"--service-cluster-ip-range {text}: {error}") from error
        if network.version == 6 and network.prefixlen < 64:
            raise ConfigError(f"--service-cluster-ip-range {text}: an IPv6 range must be /64 or smaller")
        if network.num_addresses < 8:
            raise ConfigError(f"--service-cluster-ip-range {text}: must hold at least 8 addresses")
        return cls(network)

    @property
    def family(self) -> Family:
        return Family(self.network.version)

    @property
    def _bounds(self) -> tuple[int, int]:
        first = int(self.network.network_address)
        last = first + self.network.num_addresses - 1
        return first + 1, last - 1 if self.network.version == 4 else last

    def __contains__(self, ip: str) -> bool:
        address = ipaddress.ip_address(ip)
        first, last = self._bounds
        return address.version == self.network.version and first <= int(address) <= last

    @property
    def first(self) -> str:
        return self._text(self._bounds[0])

    @property
    def network_address(self) -> str:
        return str(self.network.network_address)

    def _text(self, number: int) -> str:
        return str(ipaddress.IPv4Address(number) if self.network.version == 4 else ipaddress.IPv6Address(number))

    def choose(self, used: Container[str], random: Random) -> str | None:
        first, last = self._bounds
        band = static_band(self.network.num_addresses, 16, 16, 256)

        numbers = _Numbers(self._text, used)
        # the band is counted from the network address, which is never given itself
        split = first + band - 1
        found = pick(split, last, numbers, random)
        if found is None:
            found = pick(first, split - 1, numbers, random)
        return None if found is None else self._text(found)
