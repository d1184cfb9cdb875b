"""The oracle against every recorded cell that one new connection decides: two nodes of the recordings' topology.

Cells of conntrack's memory (`flow_send`), of the health pages and of which Pod a remembered client moved to are for
the tests with real packets.
"""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest

from svcplane.api.core import Service
from svcplane.api.discovery import EndpointSlice
from svcplane.api.patch import merge
from svcplane.base.net import Family, family_of
from svcplane.proxy.model import DetectLocal, NodeConfig, Origin, Packet, Protocol, Verdict
from svcplane.proxy.oracle import IPTABLES, NFTABLES, ModeTraits, decide
from svcplane.proxy.settings import Facts, Settings, node_configs
from svcplane.proxy.tracker import Tracker

DATA = sorted((Path(__file__).parent / "data").glob("*.json"))
TRAITS = {"iptables": IPTABLES, "nftables": NFTABLES}
NODES = {"node1": ("172.30.0.11", "fd30::11"), "node2": ("172.30.0.12", "fd30::12")}
GATEWAYS = {f"node{n}": (f"10.244.{n}.1", f"fd00:10:244:{n}::1") for n in (1, 2)}
PODS = {f"p{n}{i}": (f"10.244.{n}.1{i}", f"fd00:10:244:{n}::1{i}") for n in (1, 2) for i in (1, 2, 3)}
OUTSIDERS = {
    "ext": ("172.30.0.100", "fd30::100"),
    "ext2": ("172.30.0.101", "fd30::101"),
    "ext-many": ("172.30.0.130", ""),
    "nat1": ("172.30.0.103", "fd30::103"),
    "nat2": ("172.30.0.103", "fd30::103"),
}
OPEN_PORTS = (8080, 8081, 9090)  # every box answers on these
NAMES = {ip: name for boxes in (PODS, NODES) for name, ips in boxes.items() for ip in ips}
BELONGS = {ip: node for boxes in (NODES, GATEWAYS) for node, ips in boxes.items() for ip in ips}
Cell = set[tuple[str, str]]  # (who answered, whom it saw), or (word, "")


@dataclass
class World:
    """The trackers of both nodes, fed with the same objects."""

    traits: ModeTraits
    trackers: dict[tuple[str, Family], Tracker]
    objects: dict[tuple[str, str], dict[str, Any]]

    def apply(self, changed: dict[str, Any]) -> None:
        key = (changed["kind"], changed["metadata"]["name"])
        before = self.objects.get(key)
        after = merge.apply(before or {}, changed)
        self.objects[key] = after
        self._fold(key[0], before, after)

    def delete(self, kind: str, name: str) -> None:
        self._fold(kind, self.objects.pop((kind, name)), None)

    def _fold(self, kind: str, before: dict[str, Any] | None, after: dict[str, Any] | None) -> None:
        for (node, _), tracker in self.trackers.items():
            if kind == "Service":
                tracker.service_changed(as_service(before), as_service(after))
            elif kind == "EndpointSlice":
                old, new = (msgspec.convert(o, EndpointSlice) if o else None for o in (before, after))
                tracker.slice_changed(old, new)
            else:
                assert kind == "Node", (kind, node)

    def send(self, client: str, dst: str, protocol: str, port: int) -> Cell:
        family = family_of(dst)
        source, node, origin = whence(client, dst, family)
        return self._at(node, Packet(origin, source, dst, Protocol(protocol.upper()), port), client, family)

    def _at(self, node: str, packet: Packet, client: str, family: Family) -> Cell:
        cell: Cell = set()
        for outcome in decide(self.trackers[node, family].state, packet, self.traits):
            if outcome.verdict is Verdict.REJECT:
                cell.add(("refused", ""))
            elif outcome.verdict is Verdict.DROP:
                cell.add(("timeout", ""))
            elif outcome.verdict is Verdict.PASS:
                cell |= self._onward(node, packet, client, family)
            else:
                cell.add(seen(node, packet, outcome.endpoint, outcome.masqueraded, client, family))
        return cell

    def _onward(self, node: str, packet: Packet, client: str, family: Family) -> Cell:
        here = self.trackers[node, family].state.node.local_addresses
        other = BELONGS.get(packet.dst, node)
        if other != node:
            further = Packet(Origin.OUTSIDE, packet.src, packet.dst, packet.protocol, packet.dport)
            return self._at(other, further, client, family)
        if packet.dst in NAMES:
            if packet.dport not in OPEN_PORTS:
                return {("refused", "")}
            return {(answered(NAMES[packet.dst], str(packet.dport)), "nat" if client.startswith("nat") else "client")}
        return {("refused" if packet.dst in here else "timeout", "")}


def as_service(wire: dict[str, Any] | None) -> Service | None:
    return msgspec.convert(wire, Service) if wire else None


def whence(client: str, dst: str, family: Family) -> tuple[str, str, Origin]:
    """The source address, the first node on the way, and how the packet comes to it."""
    side = 0 if family is Family.IPV4 else 1
    if client in PODS:
        return PODS[client][side], f"node{client[1]}", Origin.POD
    if client in NODES:
        own = {*NODES[client], *GATEWAYS[client], "127.0.0.1", "::1"}
        return (dst if dst in own else NODES[client][side]), client, Origin.NODE
    box = NAMES.get(dst, "node1")
    node = f"node{box[1]}" if box in PODS else box
    return OUTSIDERS[client][side], node, Origin.OUTSIDE


def seen(node: str, packet: Packet, endpoint: str, masqueraded: bool, client: str, family: Family) -> tuple[str, str]:
    """Who answers and whom it sees; nobody where the answer cannot find its way back."""
    ip, _, port = endpoint.rpartition(":")
    who, side = NAMES[ip.strip("[]")], 0 if family is Family.IPV4 else 1
    where = f"node{who[1]}" if who in PODS else who
    if masqueraded:
        whom = f"gw{node[4:]}" if where == node and who in PODS else node
        address = (GATEWAYS[node] if whom.startswith("gw") else NODES[node])[side]
        return answered(who, port), "client" if address == packet.src else whom
    if packet.src == PODS.get(who, ("", ""))[side]:
        return "timeout", ""
    if packet.origin is Origin.OUTSIDE and where != node:
        return "timeout", ""  # the answer goes past the node that translated
    return answered(who, port), "nat" if client.startswith("nat") else "client"


def answered(who: str, port: str) -> str:
    return who if port == "8080" else f"{who}:{port}"


def world(scenario: dict[str, Any], mode: str) -> World:
    trackers = {}
    arguments = dict(argument.lstrip("-").split("=") if "=" in argument else (argument.lstrip("-"), "true")
                     for argument in scenario.get("proxy_args", ()))  # fmt: skip
    for node, ips in NODES.items():
        settings = Settings(
            node,
            mode,
            DetectLocal.CLUSTER_CIDR,
            ("10.244.0.0/16", "fd00:10:244::/56"),
            masquerade_all=arguments.pop("masquerade-all", "") == "true" or scenario["name"] == "masquerade-all",
            nodeport_addresses=("172.30.0.0/24",) if "nodeport-addresses" in arguments else (),
        )
        facts = Facts(ips, (), ("10.96.0.0/16", "fd00:10:96::/112"))
        configs: dict[Family, NodeConfig] = node_configs(settings, facts)
        for family, config in configs.items():
            side = 0 if family is Family.IPV4 else 1
            local = (("127.0.0.1", "::1")[side], ips[side], GATEWAYS[node][side])
            tracker = trackers[node, family] = Tracker(config, local)
            labels = {"topology.kubernetes.io/zone": "zone-" + "ab"[int(node[4:]) - 1]}
            tracker.node_changed(node_object(node, labels))
    made = World(TRAITS[mode], trackers, {})
    for wire in scenario["objects"]:
        made.apply(wire)
    return made


def node_object(name: str, labels: dict[str, str]) -> Any:
    from svcplane.api.core import Node

    return msgspec.convert({"metadata": {"name": name, "labels": labels}}, Node)


def cells(scenario: dict[str, Any], mode: str) -> Iterator[tuple[str, Cell, Any]]:
    """Key, what the oracle says, and what was recorded, of each cell that one new connection decides."""
    expected = {**scenario.get("expect", {}), **scenario.get("expect_by_mode", {}).get(mode, {})}
    made = world(scenario, mode)
    for step in scenario["steps"]:
        for change in step.get("apply", ()):
            made.apply(change)
        for gone in step.get("delete", ()):
            made.delete(*gone.split("/"))
        for key, ask in connections(step, made):
            if key in expected:
                yield key, ask(), expected[key]


def connections(step: dict[str, Any], made: World) -> Iterator[tuple[str, Any]]:
    if "flow_open" in step:
        yield f"{step['flow_open']}@open", partial(ask, made, step["client"], step["dest"], step["proto"])
    if "probe" not in step:
        return
    for name, dest in (step.get("dests") or {"": step["dest"]}).items():
        for protocol in step["proto"]:
            for client in step["clients"]:
                at = f"{step['probe']}>{name}" if name else step["probe"]
                yield f"{at}/{protocol}/{client}", partial(ask, made, client, dest, protocol)


def ask(made: World, client: str, dest: str, protocol: str) -> Cell:
    host, _, port = dest.rpartition(":")
    return made.send(client, host.strip("[]"), protocol, int(port))


def recorded(cell: Any) -> Cell:
    if isinstance(cell, str):
        return {(cell, "")}
    return {(who, "" if saw is True else one) for who, saw in cell.items() for one in str(saw).split(",")}


@pytest.mark.parametrize("mode", list(TRAITS))
@pytest.mark.parametrize("path", DATA, ids=lambda path: path.stem)
def test_the_oracle_says_what_was_recorded(path: Path, mode: str) -> None:
    scenario = json.loads(path.read_text())
    if mode not in scenario["modes"]:
        return
    wrong = []
    for key, said, cell in cells(scenario, mode):
        if isinstance(cell, dict) and "src" in cell:  # one client many times: whom the Pod sees, and which may answer
            masked = any(saw not in ("client", "nat") for _, saw in said)
            fits = masked == (cell["src"] == "masq") and set(cell.get("pods", ())) <= {who for who, _ in said}
        elif "@" in key:  # one connection: one of the choices
            fits = recorded(cell) <= said
        else:
            fits = recorded(cell) == said
        if not fits:
            wrong.append(f"{key}: recorded {cell}, oracle {sorted(said)}")
    assert not wrong, "\n".join(wrong)


def test_enough_cells_are_compared() -> None:
    """The comparison is not empty by mistake."""
    count = sum(1 for path in DATA for mode in TRAITS for _ in cells(json.loads(path.read_text()), mode))
    assert count > 1000
