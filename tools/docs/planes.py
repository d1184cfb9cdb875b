"""The chains of each plane, as a mermaid diagram, and the way of packets through them, as the plane itself traces it.

The planes run on a kernel in memory, with two Services: `web` with Pods on both nodes, `empty` without any.
"""

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.fakeipvs import FakeKernel
from tests.relayworkers import FakeWorkers

from svcplane.base.net import Family
from svcplane.kernel.iptables.fake import FakeIptables
from svcplane.kernel.nft import objects as o
from svcplane.kernel.nft.fake import FakeNft
from svcplane.proxy.model import (
    DetectLocal,
    Endpoint,
    NodeConfig,
    NodeState,
    Origin,
    Packet,
    Protocol,
    ProxyState,
    ServicePort,
    ServicePortName,
)
from svcplane.proxy.plane import Plane
from svcplane.proxy.planes.iptables.plane import IptablesPlane
from svcplane.proxy.planes.ipvs.names import DEVICE
from svcplane.proxy.planes.ipvs.rules import JUMPS
from svcplane.proxy.planes.nftables.plane import NftablesPlane
from svcplane.proxy.planes.userspace.plane import UserspacePlane
from svcplane.proxy.planes.userspace.relaying import Relaying

CLUSTER_CIDR, SERVICE_CIDR = "10.244.0.0/16", "10.96.0.0/16"
NODE_IP, CLIENT, POD = "192.168.0.1", "203.0.113.9", "10.244.1.9"
WEB_IP, EMPTY_IP, LOCAL_IP = "10.96.0.10", "10.96.0.11", "10.96.0.12"


def _state() -> ProxyState:
    config = NodeConfig(
        "node1",
        Family.IPV4,
        detect_local=DetectLocal.CLUSTER_CIDR,
        local_cidrs=(CLUSTER_CIDR,),
        primary_ips=(NODE_IP,),
        service_cidrs=(SERVICE_CIDR,),
    )
    pods = [("10.244.1.5", "node1"), ("10.244.2.5", "node2")]
    both = tuple(Endpoint(ip, 8080, node, is_local=node == "node1", pod=f"default/web-{node}") for ip, node in pods)
    ports, endpoints = {}, {}
    services = (
        ("web", WEB_IP, both, {"node_port": 30080}),
        ("empty", EMPTY_IP, (), {}),
        ("local", LOCAL_IP, both[1:], {"node_port": 30081, "external_policy_local": True}),
        ("sticky", "10.96.0.13", both, {"affinity_timeout_s": 600}),
    )
    for service, ip, ends, more in services:
        name = ServicePortName("default", service, "http", Protocol.TCP)
        ports[name] = ServicePort(name, ip, 80, **more)  # type: ignore[arg-type]
        endpoints[name] = ends
    node = NodeState("node1", local_addresses=(NODE_IP, "10.244.1.1", "127.0.0.1"))
    return ProxyState(config, node, ports, endpoints)


#: What a reader wants to follow: words, and the packet.
WALKS = (
    ("A Pod of this node calls the ClusterIP of `web`", Packet(Origin.POD, POD, WEB_IP, Protocol.TCP, 80, "cni0")),
    ("A process of the node itself calls it", Packet(Origin.NODE, NODE_IP, WEB_IP, Protocol.TCP, 80)),
    ("Somebody outside calls the node port of `web`", Packet(Origin.OUTSIDE, CLIENT, NODE_IP, Protocol.TCP, 30080)),
    ("A Pod calls `empty`, which has no endpoint", Packet(Origin.POD, POD, EMPTY_IP, Protocol.TCP, 80, "cni0")),
    (
        "Somebody outside calls the node port of `local` (externalTrafficPolicy Local), whose only Pod is on node2",
        Packet(Origin.OUTSIDE, CLIENT, NODE_IP, Protocol.TCP, 30081),
    ),
)


@dataclass
class Graph:
    """Boxes by group, and arrows with what leads over them."""

    groups: dict[str, list[str]] = field(default_factory=dict)
    arrows: dict[tuple[str, str], list[str]] = field(default_factory=dict)

    def box(self, group: str, name: str) -> None:
        boxes = self.groups.setdefault(group, [])
        if name not in boxes:
            boxes.append(name)

    def arrow(self, start: str, end: str, why: str = "") -> None:
        words = self.arrows.setdefault((start, end), [])
        if why and why not in words:
            words.append(why)

    def mermaid(self) -> str:
        ids: dict[str, str] = {}
        lines = ["flowchart LR"]
        for group, boxes in self.groups.items():
            lines.append(f'  subgraph {_id(ids, "group " + group)}["{group}"]')
            lines += [f'    {_id(ids, box)}["{box}"]' for box in boxes]
            lines.append("  end")
        for (start, end), why in self.arrows.items():
            label = f'|"{"<br>".join(why)}"|' if why else ""
            lines.append(f"  {_id(ids, start)} -->{label} {_id(ids, end)}")
        return "\n".join(lines)


def _id(ids: dict[str, str], name: str) -> str:
    return ids.setdefault(name, f"n{len(ids)}")


@dataclass(frozen=True)
class Page:
    """What a mode's page shows: a diagram, the constant tables in words, and the ways of packets."""

    diagram: str
    chains: str
    walks: str


def page(mode: str) -> Page:
    return asyncio.run(_page(mode))


async def _page(mode: str) -> Page:
    state = _state()
    plane: Plane
    if mode in ("nftables", "userspace"):
        nft = FakeNft()
        plane = (
            NftablesPlane(state.config, nft)
            if mode == "nftables"
            else UserspacePlane(state.config, nft, Relaying(FakeWorkers()))
        )
        await plane.sync(state, None, now=0.0)
        [content] = nft.content.values()
        graph, chains = _nft_graph(content, "an endpoint" if mode == "nftables" else "the relay"), _nft_chains(content)
    elif mode == "iptables":
        tools = FakeIptables()
        plane = IptablesPlane(state.config, tools)
        await plane.sync(state, None, now=0.0)
        graph, chains = _xtables_graph(tools.tables), ""
    else:
        kernel = FakeKernel()
        plane = kernel.plane(state.config)
        await plane.sync(state, None, now=0.0)
        graph, chains = _ipvs_graph(kernel.iptables.tables), _rules(kernel.iptables.tables)
    walks = [await _walk(plane, state, words, packet) for words, packet in WALKS]
    return Page(graph.mermaid(), chains, "\n\n".join(walks))


async def _walk(plane: Plane, state: ProxyState, words: str, packet: Packet) -> str:
    outcomes, ways = await plane.trace(state, packet)
    head = f"{words}: `{packet.src}` to `{packet.dst}:{packet.dport}`"
    seen = sorted({f"{outcome.verdict}{', masqueraded' if outcome.masqueraded else ''}" for outcome in outcomes})
    stations = [_stations(way) for way in ways]
    if len(stations) > 1 and " => " in ways[0]:
        # the ways differ in the endpoint that was chosen
        lines = [*stations[0], *(f"  or {other[-1].strip()}" for other in stations[1:])]
    else:
        lines = [line for way in stations for line in way]
    text = "\n".join(lines)
    return f"**{head}**: {'; '.join(seen)}.\n\n```text\n{text}\n```"


def _stations(way: str) -> list[str]:
    """One a line, without those that only say that a rule without a remark was met."""
    parts = re.split(r" (->|=>) ", re.sub(r'-m comment --comment "[^"]*" ', "", way))
    pairs = zip(parts[1::2], parts[2::2], strict=True)
    return [parts[0], *(f"  {arrow} {text}" for arrow, text in pairs if not re.search(r" rule \d+$", text))]


# -- nf_tables ---------------------------------------------------------------------------------------------------------

HOOKS = {hook: hook.name.lower() for hook in o.Hook}


def _nft_graph(content: o.TableContent, target: str) -> Graph:
    graph = Graph()
    for chain in sorted(content.chains.values(), key=lambda one: (one.hook is None, one.hook or 0, one.priority)):
        graph.box(_nft_group(chain), _class(chain.name))
    for name in content.chains:
        for rule in content.rules.get(name, ()):
            for end, why in _nft_targets(rule, content, f"(translated to {target})"):
                if end.startswith("("):
                    graph.box("what becomes of it", end)
                graph.arrow(_class(name), _class(end), why or rule.comment)
    return graph


def _class(chain: str) -> str:
    """Chains that differ in a number only are one box."""
    return re.sub(r"-sticky-\d+s$", "-sticky-Ts", re.sub(r"-pick-\d+", "-pick-N", chain))


def _nft_group(chain: o.Chain) -> str:
    return f"{HOOKS[chain.hook]}" if chain.hook is not None else "chains"


def _nft_targets(rule: o.Rule, content: o.TableContent, target: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for expression in rule.expressions:
        match expression:
            case o.Immediate(o.Verdict(o.Code.JUMP | o.Code.GOTO, chain)):
                found.append((chain, ""))
            case o.Immediate(o.Verdict(o.Code.DROP, _)):
                found.append(("(dropped)", ""))
            case o.Reject():
                found.append(("(rejected)", ""))
            case o.Masquerade():
                found.append(("(masqueraded)", ""))
            case o.Dnat():
                found.append((target, _looked_up(rule)))
            case o.Lookup(name, verdict=True):
                chains = {
                    e.data.chain for e in content.elements.get(name, {}).values() if isinstance(e.data, o.Verdict)
                }
                found += [(chain, f"map {name}") for chain in sorted(chains)]
    return found


def _looked_up(rule: o.Rule) -> str:
    names = [expression.set for expression in rule.expressions if isinstance(expression, o.Lookup)]
    maps = [name for name in names if name != "local-sources"]
    return f"map{'s' if len(maps) > 1 else ''} {', '.join(maps)}" if maps else ""


def _nft_chains(content: o.TableContent) -> str:
    lines = ["| set or map | key | gives |", "|---|---|---|"]
    for spec in sorted(content.sets.values(), key=lambda one: one.name):
        key = " . ".join(part.name.lower() for part in spec.key)
        gives = "a verdict" if spec.is_verdict_map else " . ".join(part.name.lower() for part in spec.data)
        lines.append(f"| `{spec.name}` | {key} | {gives or 'membership'} |")
    return "\n".join(lines)


# -- iptables ----------------------------------------------------------------------------------------------------------

Tables = Mapping[str, Mapping[str, Sequence[str]]]
OF_A_SERVICE = re.compile(r"KUBE-(SVC|SVL|EXT|FW)-[A-Z2-7]{16}$")


def _short(chain: str) -> str:
    """All Services' chains of a kind are one box."""
    found = OF_A_SERVICE.match(chain)
    return f"KUBE-{found[1]}-x, one a Service port" if found else chain


def _xtables_graph(tables: Tables) -> Graph:
    graph = Graph()
    for table in ("nat", "filter"):
        for chain, rules in tables[table].items():
            for rule in rules:
                target = _target(rule)
                if not target.startswith(("KUBE-", "(")):
                    continue
                start = f"{table} {_short(chain)}"
                end = target if target.startswith("(") else f"{table} {_short(target)}"
                graph.box(table, start)
                graph.box("what becomes of it" if end == target else table, end)
                graph.arrow(start, end, _why(rule))
    return graph


REMARKS = {
    "--dst-type LOCAL": "to the node itself",
    "-m statistic": "one of them, at random",
    "--rcheck": "a client it knows",
    "--ctstate INVALID": "invalid packets",
}


def _target(rule: str) -> str:
    words = rule.split()
    target = words[words.index("-j") + 1] if "-j" in words else ""
    ends = {"DNAT": "(translated to an endpoint)", "REJECT": "(rejected)", "DROP": "(dropped)"}
    return ends.get(target, "(masqueraded)" if target == "MASQUERADE" else target)


def _why(rule: str) -> str:
    return next((words for sign, words in REMARKS.items() if sign in rule), "")


# -- ipvs --------------------------------------------------------------------------------------------------------------


def _ipvs_graph(tables: Tables) -> Graph:
    graph = Graph()
    for table, hook, chain in JUMPS:
        graph.box(hook.lower(), f"{hook.lower()}: {table}")
        graph.box("chains", chain)
        graph.arrow(f"{hook.lower()}: {table}", chain)
        for rule in tables[table].get(chain, ()):
            target = _target(rule)
            if target.startswith("("):
                graph.box("what becomes of it", target)
                sets = re.findall(r"(! )?--match-set (\S+)", rule)
                graph.arrow(chain, target, " and ".join(f"{'not ' if no else ''}in {name}" for no, name in sets))
    balancer, end = "a virtual server for each address and port", "(translated to an endpoint)"
    graph.box("IPVS", balancer)
    graph.box("what becomes of it", end)
    graph.arrow("input: filter", balancer, f"addresses of {DEVICE} are this node's own")
    graph.arrow(balancer, end, "the scheduler chooses")
    return graph


def _rules(tables: Tables) -> str:
    lines = []
    for table, chain in dict.fromkeys((table, chain) for table, _, chain in JUMPS):
        lines += [f"*{table} {chain}", *(f"  {rule}" for rule in tables[table].get(chain, ()))]
    return "```text\n" + "\n".join(lines) + "\n```"
