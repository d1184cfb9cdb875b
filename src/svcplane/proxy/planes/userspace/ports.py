"""Where the relay listens, and where node ports answer.  Pure."""

import ipaddress
import re
from collections.abc import Iterable, Mapping

from svcplane.base.errors import ConfigError
from svcplane.base.net import Family
from svcplane.kernel.nft import objects as o
from svcplane.proxy.model import NodeConfig, ProxyState
from svcplane.proxy.planes.userspace import names as n
from svcplane.proxy.planes.userspace.compile import Fragment

PORT_RANGE = "proxy-port-range"
Elements = Mapping[str, Mapping[bytes, o.Element]]


def relay_ports(options: Iterable[tuple[str, str]]) -> range:
    """The ports the relay may listen on; empty: any.  Raises ConfigError.

    Source: Kubernetes' PortRange: `BEGIN-END`, `BEGIN+MORE` or one port; nothing, 0 or `0-0` for any.
    """
    text = dict(options).get(PORT_RANGE, "").strip()
    found = re.fullmatch(r"(\d{1,5})(?:([-+])(\d{1,5}))?", text or "0")
    if found is not None:
        first, sign, number = int(found[1]), found[2], int(found[3] or 0)
        last = {"-": number, "+": first + number}.get(sign, first)
        if first == last == 0:
            return range(0)
        if 0 < first <= last <= 65535:
            return range(first, last + 1)
    raise ConfigError(f"--{PORT_RANGE} {text}: must be BEGIN-END, with ports from 1 to 65535")


def relay_address(state: ProxyState) -> str:
    """An address of this node that packets from everywhere can be translated to.

    The primary one where it is there; else any that is neither loopback nor link-local; on a node without, loopback
    serves the node itself.
    """
    local = state.node.local_addresses
    for ip in state.config.primary_ips:
        if ip in local:
            return ip
    for ip in local:
        parsed = ipaddress.ip_address(ip)
        if not parsed.is_loopback and not parsed.is_link_local:
            return ip
    return "127.0.0.1" if state.config.family is Family.IPV4 else "::1"


def recovered_port(fragment: Fragment, local: bool, elements: Elements) -> int:
    """The relay's port that the table has for a pool, or 0."""
    for capture in fragment.captures:
        if capture.local is local:
            name, key = capture.place
            element = elements.get(name, {}).get(key)
            if element is not None and isinstance(element.data, bytes):
                return n.read_target(element.data)[1]
    return 0


def nodeport_ips(config: NodeConfig, local_addresses: Iterable[str]) -> tuple[str, ...]:
    """Addresses on which node ports answer; empty where the rule itself asks for any local address."""
    if config.nodeport_primary_only:
        return config.primary_ips
    networks = [ipaddress.ip_network(cidr) for cidr in config.nodeport_addresses]
    found = []
    for text in local_addresses:
        address = ipaddress.ip_address(text)
        if address.is_loopback and (address.version == 6 or not config.localhost_nodeports):
            continue
        if any(address.version == net.version and address in net for net in networks):
            found.append(text)
    return tuple(found)
