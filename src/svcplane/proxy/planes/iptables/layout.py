"""The chains that are always there, the dispatch trees, and the jumps into them from the built-in chains.  Pure."""

from dataclasses import dataclass

from svcplane.base.net import Family, contains
from svcplane.kernel.iptables.text import Rules
from svcplane.proxy.model import NodeConfig
from svcplane.proxy.planes.iptables import names as n
from svcplane.proxy.planes.iptables.compile import single
from svcplane.proxy.planes.iptables.tree import Shape

NEW = "-m conntrack --ctstate NEW"
PROTOCOLS = ("tcp", "udp", "sctp")
HOOKS: dict[str, tuple[tuple[str, str], ...]] = {
    "nat": (
        ("PREROUTING", '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'),
        ("OUTPUT", '-m comment --comment "kubernetes service portals" -j KUBE-SERVICES'),
        ("POSTROUTING", '-m comment --comment "kubernetes postrouting rules" -j KUBE-POSTROUTING'),
    ),
    "filter": (
        ("INPUT", f"{NEW} -j KUBE-PROXY-FIREWALL"),
        ("INPUT", "-j KUBE-NODEPORTS"),
        ("INPUT", f"{NEW} -j KUBE-EXTERNAL-SERVICES"),
        ("INPUT", "-j KUBE-PROXY-LOCALNET"),
        ("FORWARD", f"{NEW} -j KUBE-PROXY-FIREWALL"),
        ("FORWARD", "-j KUBE-FORWARD"),
        ("FORWARD", f"{NEW} -j KUBE-SERVICES"),
        ("FORWARD", f"{NEW} -j KUBE-EXTERNAL-SERVICES"),
        ("OUTPUT", f"{NEW} -j KUBE-PROXY-FIREWALL"),
        ("OUTPUT", f"{NEW} -j KUBE-SERVICES"),
        ("OUTPUT", "-j KUBE-PROXY-LOCALNET"),
    ),
}


@dataclass(frozen=True, slots=True)
class Place:
    """Where a tree is: the table, the chain of its root, and the kind in the names of its branches."""

    table: str
    root: str
    kind: str
    by: str  # dst, src, or a protocol for a tree of ports


TREES: dict[str, Place] = {
    "services": Place("nat", "KUBE-SERVICES", "NET", "dst"),
    "hairpin": Place("nat", "KUBE-HAIRPIN", "HP", "src"),
    "refuse-internal": Place("filter", "KUBE-SERVICES", "REJ", "dst"),
    "refuse-external": Place("filter", "KUBE-EXTERNAL-SERVICES", "XRJ", "dst"),
    "firewall": Place("filter", "KUBE-PROXY-FIREWALL", "FWL", "dst"),
    "health": Place("filter", "KUBE-NODEPORTS", "HC", "tcp"),
    **{f"nodeports-{p}": Place("nat", f"KUBE-NP-{p}", f"NP-{p}", p) for p in PROTOCOLS},
    **{f"refuse-nodeports-{p}": Place("filter", f"KUBE-XNP-{p}", f"XNP-{p}", p) for p in PROTOCOLS},
}


def shape(place: Place, family: Family) -> Shape:
    """How a tree branches: addresses by four bits where Services are dense, ports by four bits."""
    if place.by in PROTOCOLS:
        return _port_shape(place)
    option = "-s" if place.by == "src" else "-d"
    levels: tuple[int, ...] = (8, 12, 16, 20, 24, 28, 32)
    if family is Family.IPV6:
        levels = (16, 32, 48, 64, 80, 96, 104, 108, 112, 116, 120, 124, 128)

    def jump(length: int, value: int) -> str:
        return f"{option} {n.prefix(family, length, value)}"

    def chain(length: int, value: int) -> str:
        return n.branch_chain(place.kind, n.prefix(family, length, value))

    return Shape(place.root, levels, jump, chain)


def _port_shape(place: Place) -> Shape:
    def ports(length: int, value: int) -> str:
        first = value << (16 - length)
        last = first + (1 << (16 - length)) - 1
        return f"{first}:{last}" if last > first else str(first)

    def jump(length: int, value: int) -> str:
        return f"-p {place.by} -m {place.by} --dport {ports(length, value)}"

    return Shape(place.root, (4, 8, 12, 16), jump, lambda length, value: f"KUBE-{place.kind}-{ports(length, value)}")


def nodeport_jumps(config: NodeConfig) -> Rules:
    """From an address on which node ports answer to the chain of ports."""
    loopback = "127.0.0.0/8" if config.family is Family.IPV4 else "::1/128"
    localhost = config.family is Family.IPV4 and config.localhost_nodeports
    local = "-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS"
    if not config.nodeport_primary_only and not config.nodeport_addresses:
        return (local,) if localhost else (f"! -d {loopback} {local}",)
    chosen = [single(ip) for ip in config.primary_ips] if config.nodeport_primary_only else config.nodeport_addresses
    allowed = [cidr for cidr in chosen if localhost or not contains(loopback, cidr.split("/")[0])]
    return tuple(f"-d {cidr} {local}" for cidr in allowed)


def tails(config: NodeConfig) -> dict[tuple[str, str], Rules]:
    """Rules that follow those of a tree's root, by table and chain."""
    return {
        ("nat", "KUBE-SERVICES"): nodeport_jumps(config),
        # as kube-proxy has it, whatever the addresses of node ports: only translation depends on these
        ("filter", "KUBE-EXTERNAL-SERVICES"): ("-m addrtype --dst-type LOCAL -j KUBE-EXTERNAL-PORTS",),
    }


def fixed(config: NodeConfig, *, tcp_be_liberal: bool) -> dict[tuple[str, str], Rules]:
    """Chains that follow from the configuration alone, by table and name."""
    mark = f"{1 << config.masquerade_bit:#x}"
    forward = () if tcp_be_liberal else ("-m conntrack --ctstate INVALID -j DROP",)
    localnet: Rules = ()
    if config.family is Family.IPV4 and config.localhost_nodeports:
        # route_localnet lets packets for 127.0.0.0/8 in from outside: CVE-2020-8558
        localnet = ("! -s 127.0.0.0/8 -d 127.0.0.0/8 -m conntrack ! --ctstate RELATED,ESTABLISHED,DNAT -j DROP",)
    return {
        ("nat", "KUBE-MARK-MASQ"): (f"-j MARK --set-xmark {mark}/{mark}",),
        ("nat", "KUBE-NODEPORTS"): tuple(f"-p {p} -j KUBE-NP-{p}" for p in PROTOCOLS),
        ("nat", "KUBE-POSTROUTING"): (
            "-j KUBE-HAIRPIN",
            f"-m mark ! --mark {mark}/{mark} -j RETURN",
            f"-j MARK --set-xmark {mark}/0x0",
            '-m comment --comment "kubernetes service traffic requiring SNAT" -j MASQUERADE --random-fully',
        ),
        # nothing jumps here: the list of this name tells the kernel's clock (`xt_recent` counts in jiffies)
        ("nat", "KUBE-PROXY-CLOCK"): (f"-m recent --rcheck --name {n.CLOCK} --mask {_mask(config)} --rsource",),
        ("filter", "KUBE-FORWARD"): (
            *forward,
            f'-m comment --comment "kubernetes forwarding rules" -m mark --mark {mark}/{mark} -j ACCEPT',
            "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT",
        ),
        ("filter", "KUBE-EXTERNAL-PORTS"): tuple(f"-p {p} -j KUBE-XNP-{p}" for p in PROTOCOLS),
        ("filter", "KUBE-PROXY-LOCALNET"): localnet,
    }


def _mask(config: NodeConfig) -> str:
    return "255.255.255.255" if config.family is Family.IPV4 else "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"
