"""The iptables plane at 5,000 Services of 10 endpoints, by both variants of the tools, in namespaces of its own.

    python -m benchmarks proxy_iptables

Peers of the same run: the tools alone loading the same rules, and kube-proxy's layout (a chain for each endpoint, one
list of Services) loaded and changed by the same tools.  Loading that layout takes the nft tools minutes, so there only
what a new connection meets is loaded, and the time of one change is compared with the legacy tools'.
"""

import asyncio
import time
from collections.abc import Coroutine, Mapping
from dataclasses import replace
from typing import Any

from benchmarks.connections import POD, TURNS, Node, compare, node
from benchmarks.figures import Figure, Scale, percentile
from svcplane.base.net import Family
from svcplane.kernel.iptables.run import IptablesTools
from svcplane.kernel.iptables.text import Rules, TableChange, restore
from svcplane.kernel.links.run import inside
from svcplane.proxy.model import (
    DetectLocal,
    Endpoint,
    NodeConfig,
    NodeState,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
)
from svcplane.proxy.planes.iptables.names import endpoint_list, port_chain
from svcplane.proxy.planes.iptables.plane import IptablesPlane

TITLE = "iptables plane, 10 endpoints a Service"
ENDPOINTS = 10
CONFIG = NodeConfig("node1", Family.IPV4, DetectLocal.CLUSTER_CIDR, ("10.0.0.0/8",), primary_ips=("10.250.0.1",))


def state(count: int) -> ProxyState:
    """`count` Services; the one in the middle of kube-proxy's list leads to POD alone, to measure connections."""
    services, behind = {}, {}
    for number in range(count):
        name = ServicePortName("default", f"svc-{number}", "http", Protocol.TCP)
        services[name] = ServicePort(name, f"10.96.{number // 256}.{number % 256}", 80)
        ips = (number * ENDPOINTS + k for k in range(ENDPOINTS))
        behind[name] = tuple(Endpoint(f"10.{1 + ip // 62500}.{ip // 250 % 250}.{ip % 250 + 1}", 8080) for ip in ips)
    behind[list(services)[count // 2]] = (Endpoint(*POD),)
    return ProxyState(CONFIG, NodeState("node1"), services, behind)


def _measured(wanted: ProxyState) -> ServicePortName:
    return list(wanted.services)[len(wanted.services) // 2]


def kube_proxy_layout(wanted: ProxyState) -> dict[str, TableChange]:
    """The same Services as kube-proxy lays them out in table nat."""
    nat = TableChange({"KUBE-MARK-MASQ": ("-j MARK --set-xmark 0x4000/0x4000",)})
    dispatch = []
    for name, port in wanted.services.items():
        chain = port_chain("SVC", name)
        at = f'-d {port.cluster_ip}/32 -p tcp -m comment --comment "{name} cluster IP" -m tcp --dport {port.port}'
        dispatch.append(f"{at} -j {chain}")
        rules = [f"! -s 10.0.0.0/8 {at} -j KUBE-MARK-MASQ"]
        endpoints = wanted.endpoints[name]
        for index, endpoint in enumerate(endpoints):
            left, one = len(endpoints) - index, endpoint_list(name, str(endpoint))
            text = f'-m comment --comment "{name} -> {endpoint}"'
            odds = f"-m statistic --mode random --probability {1 / left:.10f} " if left > 1 else ""
            rules.append(f"{text} {odds}-j {one}")
            nat.write[one] = (
                f'-s {endpoint.ip}/32 -m comment --comment "{name}" -j KUBE-MARK-MASQ',
                f'-p tcp -m comment --comment "{name}" -m tcp -j DNAT --to-destination {endpoint}',
            )
        nat.write[chain] = tuple(rules)
    nat.write["KUBE-POSTROUTING"] = (
        "-m mark ! --mark 0x4000/0x4000 -j RETURN",
        "-j MARK --set-xmark 0x4000/0x0",
        "-j MASQUERADE --random-fully",
    )
    dispatch.append("-m addrtype --dst-type LOCAL -j KUBE-NODEPORTS")
    nat.write["KUBE-NODEPORTS"] = ()
    nat.write["KUBE-SERVICES"] = tuple(dispatch)
    nat.lines = [f"-I {hook} -j KUBE-SERVICES" for hook in ("OUTPUT", "PREROUTING")]
    nat.lines.append("-I POSTROUTING -j KUBE-POSTROUTING")
    return {"nat": nat, "filter": _filter()}


def _filter() -> TableChange:
    """Table filter where every Service has endpoints."""
    new, empty = "-m conntrack --ctstate NEW -j", ("KUBE-PROXY-FIREWALL", "KUBE-EXTERNAL-SERVICES", "KUBE-SERVICES")
    forward = ("-m conntrack --ctstate INVALID -j DROP", "-m mark --mark 0x4000/0x4000 -j ACCEPT")
    related = "-m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"
    chains = {**dict.fromkeys((*empty, "KUBE-NODEPORTS"), ()), "KUBE-FORWARD": (*forward, related)}
    lines = [f"-A {hook} {new} {chain}" for hook in ("INPUT", "FORWARD", "OUTPUT") for chain in empty]
    return TableChange(dict(chains), [*lines, "-A INPUT -j KUBE-NODEPORTS", "-A FORWARD -j KUBE-FORWARD"])


def dispatch_only(wanted: ProxyState) -> dict[str, TableChange]:
    """What a new connection meets in kube-proxy's layout, without the chains of other Services' endpoints."""
    layout = kube_proxy_layout(wanted)
    full, one = layout["nat"], _measured(wanted)
    used = {port_chain("SVC", one), *(endpoint_list(one, str(endpoint)) for endpoint in wanted.endpoints[one])}
    services: dict[str, Rules | None] = {port_chain("SVC", name): () for name in wanted.services}
    kept = {name: rules for name, rules in full.write.items() if name in used or not name.startswith(("KUBE-S",))}
    nat = TableChange({**services, **kept, "KUBE-SERVICES": full.write["KUBE-SERVICES"]}, full.lines)
    return {**layout, "nat": nat}


def timed(where: Node, work: Coroutine[Any, Any, object]) -> float:
    """Seconds that a coroutine takes in a node."""
    with inside(where.name):
        began = time.perf_counter()
        asyncio.run(work)
        return time.perf_counter() - began


async def _changes(plane: IptablesPlane, wanted: ProxyState, rounds: int) -> list[float]:
    """Seconds of single endpoint changes."""
    taken = []
    names = [name for name in wanted.services if name != _measured(wanted)]
    for number in range(rounds):
        name = names[number * 7 % len(names)]
        changed = (*wanted.endpoints[name][:-1], Endpoint(f"10.200.0.{number + 1}", 8080))
        after = replace(wanted, endpoints={**wanted.endpoints, name: changed})
        began = time.perf_counter()
        await plane.sync(after, frozenset({name}), now=0.0)
        taken.append(time.perf_counter() - began)
    return taken


async def run(scale: Scale) -> list[Figure]:
    return await asyncio.to_thread(_measure, scale)  # a thread of its own may enter namespaces


def _measure(scale: Scale) -> list[Figure]:
    wanted = state(scale.of(5000, 50))
    with node("peer") as peer:
        loaded, changed = _peer(peer, wanted, scale)
        found = [
            Figure("kube-proxy's layout, legacy tools: loading", loaded, "s"),
            *_variant("legacy", wanted, scale, peer, changed),
        ]
    with node("peer") as peer:
        timed(peer, IptablesTools(Family.IPV4, "nft").restore(restore(dispatch_only(wanted))))
        return [*found, *_variant("nft", wanted, scale, peer, changed)]


def _peer(peer: Node, wanted: ProxyState, scale: Scale) -> tuple[float, float]:
    """Seconds that the legacy tools take for kube-proxy's layout, and for one change in it."""
    tools = IptablesTools(Family.IPV4, "legacy")
    layout = kube_proxy_layout(wanted)
    loaded = timed(peer, tools.restore(restore(layout)))
    chain = port_chain("SVC", next(iter(wanted.services)))
    one = restore({"nat": TableChange({chain: layout["nat"].write[chain]})})
    return loaded, percentile([timed(peer, tools.restore(one)) for _ in range(scale.of(5, 1))], 0.5)


def _variant(variant: str, wanted: ProxyState, scale: Scale, peer: Node, peer_change: float) -> list[Figure]:
    async def cold(plane: IptablesPlane) -> None:
        await plane.sync(wanted, None, now=0.0)

    address = wanted.services[_measured(wanted)].cluster_ip
    with node() as here:
        tools = IptablesTools(Family.IPV4, variant)
        plane = IptablesPlane(wanted.config, tools)
        full = timed(here, cold(plane))
        again = timed(here, cold(IptablesPlane(wanted.config, IptablesTools(Family.IPV4, variant))))
        with inside(here.name):
            changes = asyncio.run(_changes(plane, wanted, scale.of(15, 2)))
        speed = compare(here, peer, address, *TURNS[scale.tiny])
        with inside(here.name):
            saved = asyncio.run(tools.save())
    with node() as here:
        alone = {table: _with_jumps(chains) for table, chains in saved.items() if table in ("nat", "filter")}
        floor = timed(here, IptablesTools(Family.IPV4, variant).restore(restore(alone)))
    change = percentile(changes, 0.5)
    layout = "kube-proxy's layout, legacy tools"
    return [
        Figure(f"{variant}: first full sync", full, "s", floor + 1.0, floor=floor, floor_name="the tools alone"),
        Figure(f"{variant}: full sync that finds nothing to do", again, "s"),
        Figure(f"{variant}: one endpoint changes, median", change, "s", 0.49, floor=peer_change, floor_name=layout),
        *speed.figures(f"{variant}: new connections", 1.5, f"kube-proxy's layout, {variant} tools"),
    ]


def _with_jumps(chains: Mapping[str, Rules]) -> TableChange:
    """Our chains, and the jumps to them from the built-in ones."""
    ours = {name: rules for name, rules in chains.items() if name.startswith("KUBE-")}
    jumps = [f"-A {name} {rule}" for name, rules in chains.items() if name not in ours for rule in rules]
    return TableChange(dict(ours), jumps)
