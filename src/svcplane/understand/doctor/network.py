"""Forwarding, reverse path filters, MTU, ports, connection tracking.  Pure.

Source: Linux Documentation/networking/ip-sysctl.rst, nf_conntrack-sysctl.rst; kube-proxy's own sysctls.
"""

from collections.abc import Iterable

from svcplane.base.net import Family, contains
from svcplane.kernel.host.objects import HostLink
from svcplane.understand.doctor.examined import Examined
from svcplane.understand.finding import Finding, Severity

#: What a tunnel takes of each packet, by kind, over IPv4.
OVERHEAD = {"vxlan": 50, "geneve": 50, "ipip": 20, "sit": 20, "gre": 24, "wireguard": 60}
POD_KINDS = ("veth", "bridge", *OVERHEAD)
NODE_PORTS = (30000, 32767)
FORWARDING = {Family.IPV4: "net.ipv4.ip_forward", Family.IPV6: "net.ipv6.conf.all.forwarding"}
FULL, NEARLY_FULL = 0.95, 0.8


def check(seen: Examined) -> Iterable[Finding]:
    for family in FORWARDING:
        yield from forwarding(seen, family)
    yield from _reverse_path(seen)
    yield from _bridges(seen)
    yield from _localnet(seen)
    yield from _mtu(seen.facts.links, _uplinks(seen))
    yield from _port_ranges(seen)
    yield from _listeners(seen)
    yield from _conntrack(seen)
    yield from _recent(seen)


def forwarding(seen: Examined, family: Family) -> Iterable[Finding]:
    state, name = seen.states.get(family), FORWARDING[family]
    used = family is Family.IPV4 or (state is not None and bool(state.endpoints))
    if used and seen.sysctl(name) == "0":
        text = f"is 0: this node forwards no {family.api_name} packet, so that Pods reach no other node, and nobody"
        text += " from outside reaches a Pod"
        remedy = f"sysctl -w {name}=1, and keep it in /etc/sysctl.d"
        yield Finding("forwarding-off", Severity.PROBLEM, f"sysctl {name}", text, remedy)


def _reverse_path(seen: Examined) -> Iterable[Finding]:
    everywhere = seen.sysctl("net.ipv4.conf.all.rp_filter")
    strict = []
    for link in seen.facts.links:
        own = seen.sysctl(f"net.ipv4.conf.{link.name}.rp_filter")
        if link.name != "lo" and max(everywhere or "0", own or "0") == "1":
            strict.append(link.name)
    if not strict:
        return
    defaults = {
        route.interface for route in seen.facts.routes if route.destination == "default" and ":" not in route.via
    }
    several = len(defaults) > 1
    text = f"is strict on {', '.join(strict[:5])}: a packet whose way back leaves by another interface is dropped"
    text += f"; this host has {len(defaults)} default routes" if several else ""
    severity = Severity.WARNING if several else Severity.NOTE
    remedy = "where routes are asymmetric (several uplinks, tunnels): sysctl -w net.ipv4.conf.all.rp_filter=2"
    yield Finding("rp-filter-strict", severity, "sysctl rp_filter", text, remedy)


def _bridges(seen: Examined) -> Iterable[Finding]:
    """Pods of one bridge that reach each other through a Service: the answer must pass the node's translation."""
    if seen.sysctl("net.bridge.bridge-nf-call-iptables") == "1":
        return
    cidrs = [cidr for state in seen.states.values() for cidr in state.config.local_cidrs]
    for link in seen.facts.links:
        holds_pods = any(contains(cidr, ip.split("/")[0]) for ip in link.addresses for cidr in cidrs)
        if link.kind == "bridge" and holds_pods:
            text = (
                f"is not 1, and Pods are on bridge {link.name}: answers between two Pods of it bypass the translation"
            )
            remedy = "modprobe br_netfilter; sysctl -w net.bridge.bridge-nf-call-iptables=1"
            yield Finding(
                "bridge-bypasses", Severity.WARNING, "sysctl net.bridge.bridge-nf-call-iptables", text, remedy
            )


def _localnet(seen: Examined) -> Iterable[Finding]:
    name = "net.ipv4.conf.all.route_localnet"
    state = seen.states.get(Family.IPV4)
    wants = seen.mode == "iptables" and state is not None and state.config.localhost_nodeports
    if wants and seen.sysctl(name) == "0" and seen.programmed is not None:
        text = "is 0: node ports do not answer on 127.0.0.1"
        remedy = f"sysctl -w {name}=1, or --iptables-localhost-nodeports=false"
        yield Finding("route-localnet", Severity.WARNING, f"sysctl {name}", text, remedy)
    if not wants and seen.sysctl(name) == "1":
        text = "is 1 and not needed: hosts of the same network may reach what listens on 127.0.0.1"
        yield Finding("route-localnet-open", Severity.NOTE, f"sysctl {name}", text, f"sysctl -w {name}=0")
    liberal = "net.netfilter.nf_conntrack_tcp_be_liberal"
    if seen.sysctl(liberal) == "0":
        text = "is 0: packets outside the TCP window are dropped as invalid; the rules see to that"
        remedy = f"nothing, or sysctl -w {liberal}=1 where transfers over long or lossy ways stall"
        yield Finding("conntrack-strict", Severity.NOTE, f"sysctl {liberal}", text, remedy)


def _uplinks(seen: Examined) -> list[HostLink]:
    names = {route.interface for route in seen.facts.routes if route.destination == "default"}
    return [link for link in seen.facts.links if link.name in names and link.kind not in OVERHEAD]


def _mtu(links: tuple[HostLink, ...], uplinks: list[HostLink]) -> Iterable[Finding]:
    if not uplinks:
        return
    uplink = min(uplinks, key=lambda link: link.mtu)
    for link in links:
        if link.name == "lo" or link.name in {up.name for up in uplinks} or not link.up:
            continue
        room = uplink.mtu - OVERHEAD.get(link.kind, 0)
        if link.kind in OVERHEAD and link.mtu > room:
            text = f"has MTU {link.mtu}, but {uplink.name} leaves {room} for what a {link.kind} tunnel carries"
            text += ": large packets between nodes are lost"
            remedy = f"ip link set {link.name} mtu {room}, and the same for Pods"
            yield Finding("mtu", Severity.PROBLEM, f"interface {link.name}", text, remedy)
        elif link.kind in POD_KINDS and link.mtu > uplink.mtu:
            text = f"has MTU {link.mtu}, more than {uplink.mtu} of {uplink.name}: large packets depend on ICMP"
            remedy = f"ip link set {link.name} mtu {uplink.mtu}, and the same inside the Pods"
            yield Finding("mtu", Severity.WARNING, f"interface {link.name}", text, remedy)


def _node_ports(seen: Examined) -> dict[tuple[str, int], str]:
    return {
        (port.protocol.lower(), port.node_port): str(port.name)
        for state in seen.states.values()
        for port in state.services.values()
        if port.node_port
    }


def _port_ranges(seen: Examined) -> Iterable[Finding]:
    span = seen.sysctl("net.ipv4.ip_local_port_range").split()
    if len(span) != 2 or not all(word.isdigit() for word in span):
        return
    low, high = int(span[0]), int(span[1])
    first, last = max(low, NODE_PORTS[0]), min(high, NODE_PORTS[1])
    if first > last or _reserved(seen.sysctl("net.ipv4.ip_local_reserved_ports"), first, last):
        return
    text = f"is {low}-{high} and overlaps the node ports {NODE_PORTS[0]}-{NODE_PORTS[1]}: an outgoing connection of"
    text += " this host may take a port that a Service has, and its answers are then translated"
    remedy = f"sysctl -w net.ipv4.ip_local_reserved_ports={NODE_PORTS[0]}-{NODE_PORTS[1]}"
    used = [port for _, port in _node_ports(seen) if first <= port <= last]
    severity = Severity.PROBLEM if used else Severity.WARNING
    yield Finding("port-range-overlap", severity, "sysctl net.ipv4.ip_local_port_range", text, remedy)


def _reserved(text: str, first: int, last: int) -> bool:
    """Whether a list of ranges holds all of first to last."""
    for part in filter(None, text.split(",")):
        low, _, high = part.partition("-")
        if low.isdigit() and int(low) <= first and int(high or low) >= last:
            return True
    return False


def _listeners(seen: Examined) -> Iterable[Finding]:
    for (protocol, number), service in sorted(_node_ports(seen).items()):
        if (protocol, number) in seen.facts.listening and not _may_be_the_relays(seen, number):
            text = f"a program of this host listens on {number}/{protocol}, the node port of {service}: from outside it"
            text += " is never reached"
            remedy = f"ss -lnp '( sport = {number} )' tells the program; give one of both another port"
            yield Finding("node-port-taken", Severity.WARNING, f"port {number}/{protocol}", text, remedy)


def _may_be_the_relays(seen: Examined, number: int) -> bool:
    """Userspace mode listens on ports of its own, which the kernel chooses unless the operator does."""
    if seen.mode != "userspace":
        return False
    span = seen.sysctl("net.ipv4.ip_local_port_range").split()
    if len(span) != 2 or any(dict(state.config.mode_options).get("proxy-port-range") for state in seen.states.values()):
        return True
    return int(span[0]) <= number <= int(span[1])


def _conntrack(seen: Examined) -> Iterable[Finding]:
    count, limit = seen.facts.conntrack_count, seen.facts.conntrack_max
    if limit and count >= NEARLY_FULL * limit:
        full = count >= FULL * limit
        text = f"holds {count} of at most {limit} flows: {'new connections are dropped' if full else 'nearly full'}"
        severity = Severity.PROBLEM if full else Severity.WARNING
        remedy = f"sysctl -w net.netfilter.nf_conntrack_max={limit * 2}; svcplane top tells who opens so many"
        yield Finding("conntrack-full", severity, "connection tracking", text, remedy)
    if seen.facts.conntrack_dropped:
        text = f"has dropped {seen.facts.conntrack_dropped} packets since it began (full table, or clashes)"
        remedy = "compare later; where it grows, raise net.netfilter.nf_conntrack_max"
        yield Finding("conntrack-drops", Severity.NOTE, "connection tracking", text, remedy)


def _recent(seen: Examined) -> Iterable[Finding]:
    """Only iptables mode remembers clients in xt_recent."""
    limit = seen.facts.recent_limit
    if seen.mode != "iptables" or not limit:
        return
    sticky = sum(1 for s in seen.states.values() for port in s.services.values() if port.affinity_timeout_s)
    fullest = max(seen.facts.recent_used.items(), key=lambda item: item[1], default=("", 0))
    if fullest[1] >= limit:
        text = f"remembers {limit} clients for one endpoint, and list {fullest[0]} is full: older clients are forgotten"
        remedy = "reload xt_recent with ip_list_tot=4096, or use --proxy-mode nftables, which has no such limit"
        yield Finding("recent-full", Severity.PROBLEM, "xt_recent", text, remedy)
    elif sticky and limit < 1000:
        text = f"remembers at most {limit} clients for one endpoint; {sticky} service ports have session affinity"
        remedy = "options xt_recent ip_list_tot=4096 in /etc/modprobe.d, or --proxy-mode nftables"
        yield Finding("recent-small", Severity.NOTE, "xt_recent", text, remedy)
