"""Operations as lines of `ip -batch`, and `ip -json` output as Observed.  Pure.

Source: ip-link(8), ip-address(8), ip-route(8), ip-netns(8).
"""

from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import Any, assert_never

from svcplane.base.net import Family, canonical_cidr, family_of
from svcplane.kernel.links.objects import (
    DEFAULT,
    AddAddress,
    AddLink,
    AddNamespace,
    Address,
    Bridge,
    DeleteLink,
    DeleteNamespace,
    LinkState,
    Observed,
    Operation,
    ReplaceRoute,
    Route,
    SetSysctl,
    SetUp,
    Veth,
)


def _family_flag(family: Family) -> str:
    return "-6 " if family is Family.IPV6 else ""


def _link_lines(link: Veth | Bridge) -> list[str]:
    match link:
        case Bridge():
            lines = [f"link add name {link.name} type bridge stp_state 0 forward_delay 0"]
        case Veth():
            mac = f" address {link.mac}" if link.mac else ""
            peer_mac = f" address {link.peer_mac}" if link.peer_mac else ""
            where = f" netns {link.peer_namespace}" if link.peer_namespace else ""
            lines = [f"link add name {link.name}{mac} type veth peer name {link.peer}{peer_mac}{where}"]
            if link.master:
                lines.append(f"link set dev {link.name} master {link.master}")
        case _:
            assert_never(link)
    return [*lines, f'link set dev {link.name} alias "{link.mark}"']


def lines(operation: Operation) -> list[str]:
    """The batch lines of one operation; none for sysctls, which are files."""
    match operation:
        case AddNamespace(name):
            return [f"netns add {name}"]
        case DeleteNamespace(name):
            return [f"netns delete {name}"]
        case AddLink(_, link):
            return _link_lines(link)
        case DeleteLink(_, name):
            return [f"link delete dev {name}"]
        case SetUp(_, device):
            return [f"link set dev {device} up"]
        case AddAddress(_, Address(device, cidr)):
            if family_of(cidr) is Family.IPV6:
                return [f"address replace {cidr} dev {device} nodad"]
            return [f"address replace {cidr} dev {device}"]
        case ReplaceRoute(_, route):
            via = f" via {route.via} onlink" if route.via else ""
            source = f" src {route.source}" if route.source else ""
            return [f"route replace {route.destination}{via} dev {route.device}{source}"]
        case SetSysctl():
            return []
        case _:
            assert_never(operation)


def _where(operation: Operation) -> tuple[str, ...]:
    """The command that takes an operation's lines: operations with the same one share a process."""
    match operation:
        case AddNamespace() | DeleteNamespace():
            return ("ip",)
        case ReplaceRoute(namespace, Route(family=Family.IPV6)):
            return ("ip", "-6", *_in(namespace))
        case SetSysctl():
            return ()
        case AddLink() | DeleteLink() | SetUp() | AddAddress() | ReplaceRoute():
            return ("ip", *_in(operation.namespace))
        case _:
            assert_never(operation)


def _in(namespace: str) -> tuple[str, ...]:
    return ("-n", namespace) if namespace else ()


def batches(operations: Sequence[Operation]) -> Iterator[tuple[tuple[str, ...], Sequence[Operation]]]:
    """Operations in order, grouped into runs of one command; the empty command stands for sysctls."""
    for command, group in groupby(operations, key=_where):
        yield command, list(group)


def observed(
    links: Sequence[Mapping[str, Any]], routes: Sequence[Mapping[str, Any]], sysctls: Mapping[str, str]
) -> Observed:
    """From `ip -json address show`, with each link's `ifalias`, and `ip -json route show`.

    Routes are of both families, each entry with `family`.
    """
    states, addresses = {}, set()
    for link in links:
        name = link.get("ifname", "")
        if not name:
            continue
        states[name] = LinkState(name, "UP" in link.get("flags", ()), link.get("ifalias", ""), link.get("master", ""))
        for info in link.get("addr_info", ()):
            if "local" in info:
                addresses.add(Address(name, f"{info['local']}/{info['prefixlen']}"))
    found = set()
    for route in routes:
        family = route["family"]
        destination, source = _destination(route["dst"], family), route.get("prefsrc", "")
        found.add(Route(destination, route.get("dev", ""), route.get("gateway", ""), source, family))
    return Observed(states, frozenset(addresses), frozenset(found), sysctls)


def _destination(text: str, family: Family) -> str:
    """`ip` leaves out the length of a host route."""
    if text == DEFAULT:
        return DEFAULT
    if "/" not in text:
        return f"{text}/{32 if family is Family.IPV4 else 128}"
    return canonical_cidr(text) or text
