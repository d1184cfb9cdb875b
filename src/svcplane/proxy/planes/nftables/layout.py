"""The constant part of the table: sets, base chains, and the chain of each class.  Pure.

Everything about Services and endpoints is elements of these sets; nothing here depends on them but the list
of classes in use.  See README.md for the way of one packet.

*Launder*: a value loaded from a map may not be used as a key of another lookup directly, since the nft tool
(1.0.6 and 1.1.3) aborts when it lists such a rule, and then lists nothing at all.  Copying it through the
packet's mark and restoring the mark in the same rule has no effect but makes the rule listable.
"""

import ipaddress
from collections.abc import Iterable

from svcplane.base.net import Family, IPNetwork
from svcplane.kernel.nft import objects as o
from svcplane.proxy.model import DetectLocal, NodeConfig
from svcplane.proxy.planes.nftables import names as n

SAVED_MARK = 15  # the register that keeps the packet's mark while another value is laundered
AFFINITY_CAPACITY = 262_144
PRIORITY_DSTNAT, PRIORITY_DSTNAT_OUTPUT, PRIORITY_SRCNAT, PRIORITY_FILTER = -100, -100, 100, 0
Expressions = tuple[o.Expression, ...]
GUARDS = (
    o.Chain("filter-prerouting-pre-dnat", o.Hook.PREROUTING, o.ChainType.FILTER, PRIORITY_DSTNAT - 10),
    o.Chain("filter-output-pre-dnat", o.Hook.OUTPUT, o.ChainType.FILTER, PRIORITY_DSTNAT_OUTPUT - 10),
)

ADDRESS_KEY_SETS = ("reject-ips", "drop-ips")
NODEPORT_KEY_SETS = ("reject-nodeports", "drop-nodeports")


def sets(family: Family, affinity_capacity: int = AFFINITY_CAPACITY) -> dict[str, o.Set]:
    """All constant sets by name."""
    addr = n.ADDRESS_TYPE[family]
    proto, port, mark = o.DataType.INET_PROTO, o.DataType.INET_SERVICE, o.DataType.MARK
    vip, node = (addr, proto, port), (proto, port)
    found = [
        o.Set("cluster-ips", (addr,)),
        o.Set("nodeport-ips", (addr,)),
        o.Set("local-sources", (addr,), interval=True),
        o.Set("service-cidrs", (addr,), interval=True),
        o.Set("hairpin-connections", (addr, addr)),
        o.Set("firewall-ips", vip, (o.DataType.VERDICT,)),
        o.Set("endpoints", (mark, mark), (addr, port)),
        o.Set("endpoint-ids", (mark, mark), (mark,)),
        o.Set("endpoints-by-id", (mark, mark), (addr, port)),
        o.Set("affinity", (addr, mark), (mark,), timeout=True, size=affinity_capacity),
    ]
    found += [o.Set(name, vip) for name in ADDRESS_KEY_SETS]
    found += [o.Set(name, node) for name in NODEPORT_KEY_SETS]
    for context in n.Context:
        key = node if context.is_nodeport else vip
        found.append(o.Set(n.CLASS_MAP[context], key, (mark,)))
        found.append(o.Set(n.POOL_MAP[context], key, (mark,)))
        found.append(o.Set(n.CHAIN_MAP[context], (mark,), (o.DataType.VERDICT,)))
    return {spec.name: spec for spec in found}


class Layout:
    """Chains and rules for one node's configuration."""

    def __init__(self, config: NodeConfig) -> None:
        self.config = config
        self.family = config.family
        self.words = 1 if config.family is Family.IPV4 else 4
        self.mark_bit = n.word(1 << config.masquerade_bit)
        self.mark_rest = n.word(~(1 << config.masquerade_bit) & 0xFFFFFFFF)

    # -- pieces of rules -------------------------------------------------------------------------------------

    def saddr(self, dreg: int) -> o.Payload:
        offset, length = (12, 4) if self.family is Family.IPV4 else (8, 16)
        return o.Payload(dreg, o.Base.NETWORK, offset, length)

    def daddr(self, dreg: int) -> o.Payload:
        offset, length = (16, 4) if self.family is Family.IPV4 else (24, 16)
        return o.Payload(dreg, o.Base.NETWORK, offset, length)

    def key(self, context: n.Context, first: int = 0) -> Expressions:
        """Load the frontend's key into registers from `first`."""
        if context.is_nodeport:
            return o.Meta(first, o.MetaKey.L4PROTO), o.Payload(first + 1, o.Base.TRANSPORT, 2, 2)
        after = first + self.words
        return self.daddr(first), o.Meta(after, o.MetaKey.L4PROTO), o.Payload(after + 1, o.Base.TRANSPORT, 2, 2)

    @staticmethod
    def launder(register: int) -> Expressions:
        mark = o.MetaKey.MARK
        return (
            o.Meta(SAVED_MARK, mark),
            o.MetaSet(register, mark),
            o.Meta(register, mark),
            o.MetaSet(SAVED_MARK, mark),
        )

    def load_pool(self, context: n.Context, register: int) -> Expressions:
        """The frontend's pool number into `register`; the key is built from the same register on."""
        return (
            *self.key(context, register),
            o.Lookup(n.POOL_MAP[context], register, register),
            *self.launder(register),
        )

    def dispatch(self, context: n.Context) -> Expressions:
        """Go to the chain of the frontend's class; no match where it is no frontend."""
        return (
            *self.key(context),
            o.Lookup(n.CLASS_MAP[context], 0, 0),
            *self.launder(0),
            o.Lookup(n.CHAIN_MAP[context], 0, verdict=True),
        )

    def dnat(self, addr: int) -> o.Dnat:
        return o.Dnat(self.family, addr, addr + self.words)

    def from_local_pod(self) -> Expressions | None:
        """Matches packets of this node's Pods (or of all Pods, by cluster CIDR); None where nobody can tell."""
        match self.config.detect_local:
            case DetectLocal.CLUSTER_CIDR | DetectLocal.NODE_CIDR if self.config.local_cidrs:
                return self.saddr(0), *self._within(self.config.local_cidrs, "local-sources")
            case DetectLocal.BRIDGE_INTERFACE | DetectLocal.INTERFACE_NAME_PREFIX if self.config.local_interface:
                return o.Meta(0, o.MetaKey.IIFNAME), o.Cmp(0, o.Op.EQ, self._interface())
            case _:
                return None

    def not_from_local_pod(self) -> Expressions | None:
        match self.from_local_pod():
            case (*load, o.Lookup(name, register)):
                return *load, o.Lookup(name, register, inverted=True)
            case (*load, o.Cmp(register, _, data)):
                return *load, o.Cmp(register, o.Op.NEQ, data)
            case _:
                return None

    def _within(self, cidrs: Iterable[str], set_name: str) -> Expressions:
        """Matches an address in register 0 that is in one of the networks.  One network is compared with, which costs
        a packet less than a look into the set that holds them."""
        networks = _merged(cidrs, self.family)
        if len(networks) != 1:
            return (o.Lookup(set_name, 0),)
        mask, first = networks[0].netmask.packed, networks[0].network_address.packed
        return o.Bitwise(0, 0, mask, bytes(len(mask))), o.Cmp(0, o.Op.EQ, first)

    def _interface(self) -> bytes:
        name = self.config.local_interface.encode()
        return name.ljust(16, b"\0") if self.config.detect_local is DetectLocal.BRIDGE_INTERFACE else name

    def to_nodeport_address(self) -> Expressions:
        """Matches where node ports answer: chosen addresses, or every local one that is no loopback."""
        if self.config.nodeport_addresses or self.config.nodeport_primary_only:
            return self.daddr(0), o.Lookup("nodeport-ips", 0)
        head: Expressions
        local = o.FibType(1 + self.words, o.FIB_DADDR), o.Cmp(1 + self.words, o.Op.EQ, n.word(o.ADDRTYPE_LOCAL))
        if self.family is Family.IPV4:
            head = (self.daddr(0), o.Bitwise(0, 0, b"\xff\0\0\0", b"\0" * 4), o.Cmp(0, o.Op.NEQ, b"\x7f\0\0\0"))
        else:
            head = (self.daddr(0), o.Cmp(0, o.Op.NEQ, b"\0" * 15 + b"\1"))
        return *head, *local

    # -- chains ------------------------------------------------------------------------------------------------

    def base_chains(self) -> list[tuple[o.Chain, list[o.Rule]]]:
        """One look at the state is all that a packet of a known connection costs in each."""
        nat, filter_ = o.ChainType.NAT, o.ChainType.FILTER
        services = [o.Rule((_jump("services"),))]
        arriving = [o.Rule((*self._new(), _jump("input-checks")))]
        onward = [o.Rule((*self._new(), _jump("onward-checks")))]
        return [
            (o.Chain("nat-prerouting", o.Hook.PREROUTING, nat, PRIORITY_DSTNAT), services),
            (o.Chain("nat-output", o.Hook.OUTPUT, nat, PRIORITY_DSTNAT_OUTPUT), services),
            (o.Chain("filter-input", o.Hook.INPUT, filter_, PRIORITY_FILTER), arriving),
            (o.Chain("filter-forward", o.Hook.FORWARD, filter_, PRIORITY_FILTER), onward),
            (o.Chain("filter-output", o.Hook.OUTPUT, filter_, PRIORITY_FILTER), onward),
            (o.Chain("nat-postrouting", o.Hook.POSTROUTING, nat, PRIORITY_SRCNAT), self._postrouting()),
        ]

    def guard_chains(self) -> list[tuple[o.Chain, list[o.Rule]]]:
        """Base chains that are there while some load balancer has source ranges, so that packets do not pay for
        what nobody asked for."""
        firewall = [o.Rule((*self._new(), _jump("firewall-check")))]
        return [(chain, firewall) for chain in GUARDS]

    @staticmethod
    def _new() -> Expressions:
        bit = n.word(o.CT_STATE_NEW)
        return o.Ct(0, o.CtKey.STATE), o.Bitwise(0, 0, bit, n.word(0)), o.Cmp(0, o.Op.NEQ, n.word(0))

    @staticmethod
    def _untranslated() -> Expressions:
        """Matches what no Service took: the usual connection, which one did, need not be looked for any further."""
        dnatted = n.word(o.CT_STATUS_DNAT)
        return o.Ct(0, o.CtKey.STATUS), o.Bitwise(0, 0, dnatted, n.word(0)), o.Cmp(0, o.Op.EQ, n.word(0))

    def _postrouting(self) -> list[o.Rule]:
        dnatted = n.word(o.CT_STATUS_DNAT)
        marked = (
            o.Meta(0, o.MetaKey.MARK),
            o.Bitwise(0, 0, self.mark_bit, n.word(0)),
            o.Cmp(0, o.Op.NEQ, n.word(0)),
            o.Meta(0, o.MetaKey.MARK),
            o.Bitwise(0, 0, n.word(0xFFFFFFFF), self.mark_bit),
            o.MetaSet(0, o.MetaKey.MARK),
            o.Masquerade(),
        )
        hairpin = (
            o.Ct(0, o.CtKey.STATUS),
            o.Bitwise(0, 0, dnatted, n.word(0)),
            o.Cmp(0, o.Op.NEQ, n.word(0)),
            self.saddr(0),
            self.daddr(self.words),
            o.Lookup("hairpin-connections", 0),
            o.Masquerade(),
        )
        return [
            o.Rule(marked, "masquerade what was marked, and take the mark away"),
            o.Rule(hairpin, "masquerade a Pod that reaches itself through a Service"),
        ]

    def regular_chains(self) -> list[tuple[o.Chain, list[o.Rule]]]:
        """Regular chains that no class has a part in, callees first."""
        mark = (
            o.Meta(0, o.MetaKey.MARK),
            o.Bitwise(0, 0, self.mark_rest, self.mark_bit),
            o.MetaSet(0, o.MetaKey.MARK),
        )
        address, nodeport = self.key(n.Context.ADDRESS), self.key(n.Context.NODEPORT)
        firewall = (*address, o.Lookup("firewall-ips", 0, verdict=True))
        drop = o.Immediate(o.Verdict(o.Code.DROP))
        unknown = []
        if _merged(self.config.service_cidrs, self.family):
            within = self._within(self.config.service_cidrs, "service-cidrs")
            unknown = [o.Rule((self.daddr(0), *within, drop), "ClusterIP that no Service has")]
        to_services = o.Rule((*self._untranslated(), _jump("service-endpoints-check")))
        to_nodeports = o.Rule((*self.to_nodeport_address(), _jump("nodeport-endpoints-check")))
        services = [
            o.Rule(self.dispatch(n.Context.ADDRESS), "cluster, external and load-balancer addresses"),
            o.Rule((*self.to_nodeport_address(), *self.dispatch(n.Context.NODEPORT)), "node ports"),
        ]
        return [
            (o.Chain("mark-for-masquerade"), [o.Rule(mark)]),
            (o.Chain("firewall-check"), [o.Rule(firewall, "load-balancer addresses with source ranges")]),
            (
                o.Chain("service-endpoints-check"),
                [
                    o.Rule((*address, o.Lookup("drop-ips", 0), drop), "policy Local, endpoints on other nodes only"),
                    o.Rule((*address, o.Lookup("reject-ips", 0), o.Reject(self.family)), "no endpoints"),
                ],
            ),
            (
                o.Chain("nodeport-endpoints-check"),
                [
                    o.Rule((*nodeport, o.Lookup("drop-nodeports", 0), drop), "policy Local, endpoints elsewhere only"),
                    o.Rule((*nodeport, o.Lookup("reject-nodeports", 0), o.Reject(self.family)), "no endpoints"),
                ],
            ),
            (
                o.Chain("cluster-ips-check"),
                [
                    o.Rule(
                        (self.daddr(0), o.Lookup("cluster-ips", 0), o.Reject(self.family)),
                        "undefined port of a ClusterIP",
                    ),
                    *unknown,
                ],
            ),
            (o.Chain("input-checks"), [to_nodeports, to_services]),
            (o.Chain("onward-checks"), [to_services, o.Rule((_jump("cluster-ips-check"),))]),
            (o.Chain("services"), services),
        ]

    def _masquerade_cluster_ip_rules(self) -> list[o.Rule]:
        if self.config.masquerade_all:
            return [o.Rule((_jump("mark-for-masquerade"),), "masquerade all traffic to ClusterIPs")]
        outside = self.not_from_local_pod()
        if outside is None:
            return []
        return [o.Rule((*outside, _jump("mark-for-masquerade")), "masquerade what comes from outside")]

    # -- classes -------------------------------------------------------------------------------------------------

    def class_chains(self, context: n.Context, class_: n.Class) -> list[tuple[o.Chain, list[o.Rule]]]:
        """Chains of a class in a context, callees first; those of its `pick` included."""
        if class_.kind is n.Kind.CLUSTER_IP:
            rules = [*self._masquerade_cluster_ip_rules(), *self._pick_rules(context, class_)]
            return [(o.Chain(class_.chain(context)), rules)]
        chains = [(o.Chain(class_.pick.chain(context)), self._pick_rules(context, class_))] if class_.slots else []
        name = class_.chain(context)
        goto_pick = [o.Rule((o.Immediate(o.Verdict(o.Code.GOTO, class_.pick.chain(context))),))] if class_.slots else []
        match class_.kind:
            case n.Kind.MASQUERADE:
                chains.append((o.Chain(name), [o.Rule((_jump("mark-for-masquerade"),)), *goto_pick]))
            case n.Kind.LOCAL:
                chains.append((o.Chain(name), [*self._short_cut_rules(context), *goto_pick]))
        return chains

    def _short_cut_rules(self, context: n.Context) -> list[o.Rule]:
        """External traffic policy Local, from inside: Pods to every endpoint, the node itself masqueraded."""
        rules = []
        pod = self.from_local_pod()
        if pod is not None:
            rules.append(o.Rule((*pod, *self.dispatch(context.short)), "short cut for Pods"))
        own = o.FibType(0, o.FIB_SADDR), o.Cmp(0, o.Op.EQ, n.word(o.ADDRTYPE_LOCAL))
        rules.append(o.Rule((*own, _jump("mark-for-masquerade"))))
        rules.append(o.Rule((*own, *self.dispatch(context.short)), "short cut for this node"))
        return rules

    def _pick_rules(self, context: n.Context, class_: n.Class) -> list[o.Rule]:
        if class_.affinity_timeout_s:
            return self._sticky_rules(context, class_)
        # a packet between two generations may see the old class with fewer slots: slot 0 is always there
        return [o.Rule(self._pick(context, slots)) for slots in dict.fromkeys((class_.slots, 1))]

    def _pick(self, context: n.Context, slots: int) -> Expressions:
        return (
            *self.load_pool(context, 0),
            o.NumgenRandom(1, slots),
            o.Lookup("endpoints", 0, 0),
            self.dnat(0),
        )

    def _sticky_rules(self, context: n.Context, class_: n.Class) -> list[o.Rule]:
        """Registers: source from 0, then the service port, pool, endpoint id, the endpoint's address and port.

        A client is remembered by service port, not by pool, so that it has one endpoint by whichever address it comes.
        """
        owner = self.words
        pool, ident, addr = owner + 1, owner + 2, owner + 3
        timeout_ms = class_.affinity_timeout_s * 1000
        whose = (*self.load_pool(context, pool), o.Bitwise(pool, owner, n.word(n.OWNER_MASK), n.word(0)))
        known = (
            *whose,
            self.saddr(0),
            o.Lookup("affinity", 0, ident),
            *self.launder(ident),
        )
        remembered = (
            *known,
            o.Lookup("endpoints-by-id", pool, addr),
            o.Dynset("affinity", o.DynsetOp.UPDATE, 0, ident, timeout_ms),
            self.dnat(addr),
        )
        stale = (*known, o.Dynset("affinity", o.DynsetOp.DELETE, 0, ident))
        rules = [
            o.Rule(remembered, "a client that is known goes where it was"),
            o.Rule(stale, "unless that endpoint is gone, or not for this address"),
        ]
        for slots in dict.fromkeys((class_.slots, 1)):
            choice = (
                *whose,
                o.NumgenRandom(ident, slots),
                o.Lookup("endpoint-ids", pool, ident),
                *self.launder(ident),
            )
            remember = (self.saddr(0), o.Dynset("affinity", o.DynsetOp.ADD, 0, ident, timeout_ms))
            deliver = (o.Lookup("endpoints-by-id", pool, addr), self.dnat(addr))
            rules.append(o.Rule((*choice, *remember, *deliver), "a new client"))
            rules.append(o.Rule((*choice, *deliver), "no room to remember it: served all the same"))
        return rules


def _jump(chain: str) -> o.Immediate:
    return o.Immediate(o.Verdict(o.Code.JUMP, chain))


def firewall_chain(layout: Layout, chain: str, allowed: str) -> tuple[o.Chain, list[o.Rule]]:
    """The chain of one service port's source ranges."""
    drop = o.Immediate(o.Verdict(o.Code.DROP))
    rule = o.Rule((layout.saddr(0), o.Lookup(allowed, 0, inverted=True), drop), "source not allowed")
    return o.Chain(chain), [rule]


def _merged(cidrs: Iterable[str], family: Family) -> list[IPNetwork]:
    networks = [ipaddress.ip_network(cidr) for cidr in cidrs]
    of_family = (net for net in networks if net.version == family)
    return list(ipaddress.collapse_addresses(of_family))  # type: ignore[type-var]


def interval_elements(cidrs: Iterable[str], family: Family) -> tuple[o.Element, ...]:
    """Start and end elements of the merged ranges."""
    width = 4 if family is Family.IPV4 else 16
    ranges: list[list[int]] = []
    for net in _merged(cidrs, family):
        first, after = int(net.network_address), int(net.broadcast_address) + 1
        if ranges and ranges[-1][1] == first:
            ranges[-1][1] = after
        else:
            ranges.append([first, after])
    elements = []
    if ranges and ranges[0][0] > 0:
        elements.append(o.Element(bytes(width), interval_end=True))
    for first, after in ranges:
        elements.append(o.Element(first.to_bytes(width, "big")))
        if after < 1 << width * 8:
            elements.append(o.Element(after.to_bytes(width, "big"), interval_end=True))
    return tuple(elements)
