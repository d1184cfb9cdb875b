"""The iptables rules of ipvs mode: a fixed handful, whatever the Services; the sets hold what changes.  Pure.

Rules are spelled as `iptables-save` prints them, so that what is there can be compared with what is wanted.

Packets for a neighbour's address are marked by INTAKE, so that they are taken in (see `kernel.marked`).

A new flow meets GUARD (mangle, before IPVS takes it: from outside in PREROUTING, from this node in OUTPUT), SERVICES
(nat, marks what is to be masqueraded), then IPVS, then POSTROUTING (nat, masquerades what is marked).  What no
virtual server takes of an address on the device ends in INPUT.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from svcplane.base.net import Family
from svcplane.kernel.iptables.text import Rules, TableChange, Tables
from svcplane.kernel.iptables.text import restore as restore_text
from svcplane.proxy.model import DetectLocal, NodeConfig
from svcplane.proxy.planes.ipvs import names as n
from svcplane.proxy.planes.ipvs.names import Kind

NEW = "-m conntrack --ctstate NEW"
#: (table, chain of the kernel, our chain) of every jump.
JUMPS = (
    ("mangle", "PREROUTING", n.GUARD),
    ("mangle", "PREROUTING", n.INTAKE),
    ("mangle", "INPUT", n.TAKEN),
    ("mangle", "OUTPUT", n.GUARD),
    ("nat", "PREROUTING", n.SERVICES),
    ("nat", "OUTPUT", n.SERVICES),
    ("nat", "POSTROUTING", n.POSTROUTING),
    ("filter", "INPUT", n.INPUT),
    ("filter", "FORWARD", n.FORWARD),
)


@dataclass(frozen=True, slots=True)
class Change:
    """Input of iptables-restore, and what it is about."""

    verb: str
    object: str
    text: str


def _match(kind: Kind, family: Family, where: str = "dst,dst", *, inverted: bool = False) -> str:
    return f"-m set {'! ' if inverted else ''}--match-set {n.set_name(kind, family)} {where}"


def intake_mark(config: NodeConfig) -> int:
    """The bit below the one for masquerading; the one above makes older kubelets' rules drop a packet."""
    bit = config.masquerade_bit
    return 1 << (bit - 1 if bit else 1)


def _intake(config: NodeConfig) -> dict[str, tuple[str, ...]]:
    """Mark what is to be taken in, and unmark it before IPVS sends it on, or it would be taken in again."""
    mark = f"{intake_mark(config):#x}"
    return {
        n.INTAKE: (f"{_match(Kind.NEIGHBOUR, config.family)} -j MARK --set-xmark {mark}/{mark}",),
        n.TAKEN: (f"-m mark --mark {mark}/{mark} -j MARK --set-xmark {mark}/0x0",),
    }


def local_matches(config: NodeConfig) -> list[str]:
    """Matches of packets from Pods, one rule each; none where nobody can tell."""
    match config.detect_local:
        case DetectLocal.CLUSTER_CIDR | DetectLocal.NODE_CIDR:
            return [f"-s {cidr}" for cidr in config.local_cidrs]
        case DetectLocal.BRIDGE_INTERFACE if config.local_interface:
            return [f"-i {config.local_interface}"]
        case DetectLocal.INTERFACE_NAME_PREFIX if config.local_interface:
            return [f"-i {config.local_interface}+"]
        case _:
            return []


def tables(config: NodeConfig) -> dict[str, dict[str, tuple[str, ...]]]:
    """table -> our chain -> rules."""
    family = config.family
    mark = f"0x{1 << config.masquerade_bit:x}"
    locals_ = local_matches(config)
    cluster, elsewhere = _match(Kind.CLUSTER_IP, family), _match(Kind.ELSEWHERE, family)
    to_mark = f"-j MARK --set-xmark {mark}/{mark}"
    from_node = "-m addrtype --src-type LOCAL"
    guard = [
        "-m conntrack ! --ctstate NEW -j RETURN",
        f"{_match(Kind.GUARDED, family)} {_match(Kind.ALLOWED, family, 'dst,dst,src', inverted=True)} -j DROP",
        *(f"{match} {elsewhere} -j RETURN" for match in locals_),
        f"{elsewhere} {from_node} -j RETURN",
        f"{elsewhere} -j DROP",
    ]
    # a process of this node has the address it calls as its source, and nobody can answer to that
    services = [f"{cluster} {_match(Kind.ADDRESSES, family, 'src')} {to_mark}"]
    if config.masquerade_all:
        services.append(f"{cluster} {to_mark}")
    elif locals_:
        services += [f"{match} {cluster} -j RETURN" for match in locals_]
        services.append(f"{cluster} {to_mark}")
    services.append(f"{_match(Kind.EXTERNAL, family)} {to_mark}")
    services += [f"{match} {elsewhere} -j RETURN" for match in locals_]
    services.append(f"{elsewhere} {to_mark}")
    postrouting = [
        f"{_match(Kind.LOOP_BACK, family, 'dst,dst,src')} -j MASQUERADE",
        f"-m mark ! --mark {mark}/{mark} -j RETURN",
        f"-j MARK --set-xmark {mark}/0x0",
        "-j MASQUERADE --random-fully",
    ]
    return {
        "mangle": {n.GUARD: tuple(guard), **_intake(config)},
        "nat": {n.SERVICES: tuple(services), n.POSTROUTING: tuple(postrouting)},
        "filter": {n.INPUT: _input(family), n.FORWARD: _forward(mark)},
    }


def _input(family: Family) -> tuple[str, ...]:
    """Refuse what no virtual server is for, but for echo requests, which show that the address is here.

    Health checks are let in, also where the host lets nothing in by default.
    """
    icmp, error = (
        ("icmp", "icmp-port-unreachable") if family is Family.IPV4 else ("ipv6-icmp", "icmp6-port-unreachable")
    )
    return (
        f"{_match(Kind.HEALTH_CHECK, family)} -j ACCEPT",
        f"-p {icmp} -j RETURN",
        *(f"{_match(kind, family)} -j RETURN" for kind in n.SERVER_KINDS),
        f"{NEW} {_match(Kind.ADDRESSES, family, 'dst')} -j REJECT --reject-with {error}",
    )


def _forward(mark: str) -> tuple[str, ...]:
    """Where the host forwards nothing by default, what belongs to Services is let through."""
    return (f"-m mark --mark {mark}/{mark} -j ACCEPT", "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT")


def diff(wanted: Mapping[str, Mapping[str, tuple[str, ...]]], found: Tables) -> list[Change]:
    """One change a table at most."""
    changes = []
    for table, chains in wanted.items():
        there = found.get(table, {})
        write: dict[str, Rules | None] = {chain: rules for chain, rules in chains.items() if there.get(chain) != rules}
        jumps = [
            f"-I {builtin} -j {chain}"
            for where, builtin, chain in JUMPS
            if where == table and f"-j {chain}" not in there.get(builtin, ())
        ]
        if write or jumps:
            what = ", ".join(write) or "jumps to our chains"
            changes.append(
                Change("replace", f"iptables {table}: {what}", restore_text({table: TableChange(write, jumps)}))
            )
    return changes


def removal(found: Tables) -> list[str]:
    """Input of iptables-restore, a table each, that takes away what is ours."""
    texts = []
    for table in ("mangle", "nat", "filter"):
        there = found.get(table, {})
        ours = [
            chain for chain in dict.fromkeys(chain for where, _, chain in JUMPS if where == table) if chain in there
        ]
        lines = [
            f"-D {builtin} -j {chain}"
            for where, builtin, chain in JUMPS
            if where == table
            for rule in there.get(builtin, ())
            if rule == f"-j {chain}"
        ]
        if ours:
            texts.append(restore_text({table: TableChange(dict.fromkeys(ours), lines)}))
    return texts
