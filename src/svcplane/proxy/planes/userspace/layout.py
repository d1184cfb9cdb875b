"""The constant part of the capture table: sets, chains and rules.  Pure.

Traffic to a Service's addresses is translated to a port of the relay on this node; what has no endpoints is rejected
or dropped as in the other modes.  Nothing is masqueraded: the relay itself connects to the Pods.  What the relay
sends carries a mark and is never captured, so that an endpoint that is a Service's address makes no loop.
"""

import ipaddress
import sys
from collections.abc import Iterable

from svcplane.base.net import Family
from svcplane.kernel.nft import objects as o
from svcplane.proxy.model import DetectLocal, NodeConfig
from svcplane.proxy.planes.userspace import names as n

PRIORITY_DSTNAT, PRIORITY_FILTER = -100, 0
Expressions = tuple[o.Expression, ...]
CAPTURE_MAPS = ("service-ips", "service-nodeports", "short-cut-ips", "short-cut-nodeports")
CONFIGURED_SETS = ("local-sources", "service-cidrs")  # ranges, from the configuration


def word(number: int) -> bytes:
    return number.to_bytes(4, sys.byteorder)


def sets(family: Family) -> dict[str, o.Set]:
    """All constant sets by name."""
    addr = n.ADDRESS_TYPE[family]
    proto, port = o.DataType.INET_PROTO, o.DataType.INET_SERVICE
    vip, node, relay = (addr, proto, port), (proto, port), (addr, port)
    found = [
        o.Set("cluster-ips", (addr,)),
        o.Set("nodeport-ips", (addr,)),
        o.Set("relay-ports", node),
        o.Set("firewall-ips", vip, (o.DataType.VERDICT,)),
    ]
    found += [o.Set(name, (addr,), interval=True) for name in CONFIGURED_SETS]
    found += [o.Set(name, node if name.endswith("nodeports") else vip, relay) for name in CAPTURE_MAPS]
    for refusal in ("reject", "drop"):
        found += [o.Set(f"{refusal}-ips", vip), o.Set(f"{refusal}-nodeports", node)]
    return {spec.name: spec for spec in found}


class Layout:
    """Chains and rules for one node's configuration."""

    def __init__(self, config: NodeConfig) -> None:
        self.config, self.family = config, config.family
        self.words = 1 if config.family is Family.IPV4 else 4

    # -- pieces of rules ---------------------------------------------------------------------------------------------

    def saddr(self, dreg: int) -> o.Payload:
        offset, length = (12, 4) if self.family is Family.IPV4 else (8, 16)
        return o.Payload(dreg, o.Base.NETWORK, offset, length)

    def daddr(self, dreg: int) -> o.Payload:
        offset, length = (16, 4) if self.family is Family.IPV4 else (24, 16)
        return o.Payload(dreg, o.Base.NETWORK, offset, length)

    @staticmethod
    def port(first: int = 0) -> Expressions:
        """`proto . dport` from a register on."""
        return o.Meta(first, o.MetaKey.L4PROTO), o.Payload(first + 1, o.Base.TRANSPORT, 2, 2)

    def address(self) -> Expressions:
        """`daddr . proto . dport` from register 0 on."""
        return self.daddr(0), *self.port(self.words)

    def capture(self, name: str) -> Expressions:
        """To the relay's port, where the map has the packet's destination."""
        key = self.port() if name.endswith("nodeports") else self.address()
        return *key, o.Lookup(name, 0, 0), o.Dnat(self.family, 0, self.words)

    def from_pod(self) -> Expressions | None:
        """Matches what this node's Pods send (or all Pods, by cluster CIDR); None where nobody can tell."""
        interface = self.config.local_interface.encode()
        match self.config.detect_local:
            case DetectLocal.CLUSTER_CIDR | DetectLocal.NODE_CIDR if self.config.local_cidrs:
                return self.saddr(0), o.Lookup("local-sources", 0)
            case DetectLocal.BRIDGE_INTERFACE if interface:
                return o.Meta(0, o.MetaKey.IIFNAME), o.Cmp(0, o.Op.EQ, interface.ljust(16, b"\0"))
            case DetectLocal.INTERFACE_NAME_PREFIX if interface:
                return o.Meta(0, o.MetaKey.IIFNAME), o.Cmp(0, o.Op.EQ, interface)
            case _:
                return None

    def to_nodeport_address(self) -> Expressions:
        """Matches where node ports answer: chosen addresses, or every local one (loopback as configured)."""
        if self.config.nodeport_addresses or self.config.nodeport_primary_only:
            return self.daddr(0), o.Lookup("nodeport-ips", 0)
        local = o.FibType(0, o.FIB_DADDR), o.Cmp(0, o.Op.EQ, word(o.ADDRTYPE_LOCAL))
        if self.family is Family.IPV6:
            return self.daddr(0), o.Cmp(0, o.Op.NEQ, b"\0" * 15 + b"\1"), *local
        if self.config.localhost_nodeports:
            return local
        loopback = o.Bitwise(0, 0, b"\xff\0\0\0", b"\0" * 4), o.Cmp(0, o.Op.NEQ, b"\x7f\0\0\0")
        return self.daddr(0), *loopback, *local

    # -- chains --------------------------------------------------------------------------------------------------------

    def chains(self) -> list[tuple[o.Chain, list[o.Rule]]]:
        """Regular chains before those that jump to them."""
        return [*self._regular_chains(), *self._base_chains()]

    def _base_chains(self) -> list[tuple[o.Chain, list[o.Rule]]]:
        nat, filter_ = o.ChainType.NAT, o.ChainType.FILTER
        firewall = [o.Rule((*_new(), _jump("firewall-check")))]
        services = o.Rule((_jump("services"),))
        to_services = o.Rule((*_new(), _jump("service-endpoints-check")))
        to_nodeports = o.Rule((*_new(), *self.to_nodeport_address(), _jump("nodeport-endpoints-check")))
        onward = [to_services, o.Rule((*_new(), _jump("cluster-ips-check")))]
        return [
            (o.Chain("filter-prerouting-pre-dnat", o.Hook.PREROUTING, filter_, PRIORITY_DSTNAT - 10), firewall),
            (o.Chain("filter-output-pre-dnat", o.Hook.OUTPUT, filter_, PRIORITY_DSTNAT - 10), firewall),
            (o.Chain("nat-prerouting", o.Hook.PREROUTING, nat, PRIORITY_DSTNAT), [services]),
            (o.Chain("nat-output", o.Hook.OUTPUT, nat, PRIORITY_DSTNAT), [self._relays_own(), services]),
            (
                o.Chain("filter-input", o.Hook.INPUT, filter_, PRIORITY_FILTER),
                [self._guard(), to_nodeports, to_services],
            ),
            (o.Chain("filter-forward", o.Hook.FORWARD, filter_, PRIORITY_FILTER), onward),
            (o.Chain("filter-output", o.Hook.OUTPUT, filter_, PRIORITY_FILTER), onward),
        ]

    def _relays_own(self) -> o.Rule:
        bit = word(1 << self.config.masquerade_bit)
        marked = o.Meta(0, o.MetaKey.MARK), o.Bitwise(0, 0, bit, word(0)), o.Cmp(0, o.Op.NEQ, word(0))
        return o.Rule((*marked, o.Immediate(o.Verdict(o.Code.ACCEPT))), "what the relay sends to endpoints")

    def _guard(self) -> o.Rule:
        not_captured = (
            o.Ct(0, o.CtKey.STATUS),
            o.Bitwise(0, 0, word(o.CT_STATUS_DNAT), word(0)),
            o.Cmp(0, o.Op.EQ, word(0)),
        )
        ours = *self.port(), o.Lookup("relay-ports", 0)
        return o.Rule(
            (*_new(), *not_captured, *ours, o.Reject(self.family)), "the relay is reached through Services only"
        )

    def _regular_chains(self) -> list[tuple[o.Chain, list[o.Rule]]]:
        drop, reject = o.Immediate(o.Verdict(o.Code.DROP)), o.Reject(self.family)
        address, port = self.address(), self.port()
        firewall = (*address, o.Lookup("firewall-ips", 0, verdict=True))
        to_cluster_ip = (self.daddr(0), o.Lookup("cluster-ips", 0))
        in_cidr = (self.daddr(0), o.Lookup("service-cidrs", 0))
        elsewhere, nowhere = "policy Local, endpoints on other nodes only", "no endpoints"
        return [
            (o.Chain("firewall-check"), [o.Rule(firewall, "load-balancer addresses with source ranges")]),
            (
                o.Chain("service-endpoints-check"),
                [
                    o.Rule((*address, o.Lookup("drop-ips", 0), drop), elsewhere),
                    o.Rule((*address, o.Lookup("reject-ips", 0), reject), nowhere),
                ],
            ),
            (
                o.Chain("nodeport-endpoints-check"),
                [
                    o.Rule((*port, o.Lookup("drop-nodeports", 0), drop), elsewhere),
                    o.Rule((*port, o.Lookup("reject-nodeports", 0), reject), nowhere),
                ],
            ),
            (
                o.Chain("cluster-ips-check"),
                [
                    o.Rule((*to_cluster_ip, reject), "undefined port of a ClusterIP"),
                    o.Rule((*in_cidr, drop), "ClusterIP that no Service has"),
                ],
            ),
            (o.Chain("services"), self._services()),
        ]

    def _services(self) -> list[o.Rule]:
        here = self.to_nodeport_address()
        rules = []
        own = o.FibType(0, o.FIB_SADDR), o.Cmp(0, o.Op.EQ, word(o.ADDRTYPE_LOCAL))
        for matches, who in ((self.from_pod(), "Pods"), (own, "this node")):
            if matches is not None:
                why = f"policy Local: every endpoint serves {who}"
                rules.append(o.Rule((*matches, *self.capture("short-cut-ips")), why))
                rules.append(o.Rule((*matches, *here, *self.capture("short-cut-nodeports")), why))
        rules.append(o.Rule(self.capture("service-ips"), "cluster, external and load-balancer addresses"))
        rules.append(o.Rule((*here, *self.capture("service-nodeports")), "node ports"))
        return rules


def _jump(chain: str) -> o.Immediate:
    return o.Immediate(o.Verdict(o.Code.JUMP, chain))


def _new() -> Expressions:
    bit = word(o.CT_STATE_NEW)
    return o.Ct(0, o.CtKey.STATE), o.Bitwise(0, 0, bit, word(0)), o.Cmp(0, o.Op.NEQ, word(0))


def firewall_chain(config: NodeConfig, chain: str, allowed: str) -> tuple[o.Chain, o.Rule]:
    """The chain of one service port's source ranges."""
    outside = Layout(config).saddr(0), o.Lookup(allowed, 0, inverted=True)
    return o.Chain(chain), o.Rule((*outside, o.Immediate(o.Verdict(o.Code.DROP))), "source not allowed")


def ranges(cidrs: Iterable[str], family: Family) -> dict[bytes, o.Element]:
    """Start and end elements of the merged ranges, by key."""
    width = 4 if family is Family.IPV4 else 16
    of_family = [net for net in map(ipaddress.ip_network, cidrs) if net.version == family]
    elements: list[o.Element] = []
    for net in ipaddress.collapse_addresses(of_family):  # type: ignore[type-var]
        first, after = int(net.network_address), int(net.broadcast_address) + 1
        start = first.to_bytes(width, "big")
        if elements and elements[-1].interval_end and elements[-1].key == start:
            elements.pop()  # it goes on where the one before ends
        else:
            elements.append(o.Element(start))
        if after < 1 << width * 8:
            elements.append(o.Element(after.to_bytes(width, "big"), interval_end=True))
    if elements and elements[0].key != bytes(width):
        elements.insert(0, o.Element(bytes(width), interval_end=True))
    return {element.key: element for element in elements}
