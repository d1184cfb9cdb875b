"""Which endpoints a node may use."""

from dataclasses import replace

import msgspec
import pytest

from svcplane.proxy.model import Endpoint, NodeState, Protocol, ServicePort, ServicePortName
from svcplane.proxy.topology import categorize

PORT = ServicePort(ServicePortName("d", "s", "", Protocol.TCP), "10.96.0.1", 80)
NODE = NodeState("node1", "a")
HERE = Endpoint("10.244.1.1", 80, "node1", is_local=True)
AWAY = Endpoint("10.244.2.1", 80, "node2")


def ending(endpoint: Endpoint) -> Endpoint:
    return msgspec.structs.replace(endpoint, ready=False, terminating=True)


def test_policy_cluster_uses_every_ready_endpoint() -> None:
    choice = categorize(
        PORT, (HERE, AWAY, msgspec.structs.replace(AWAY, ip="10.244.2.2", ready=False, serving=False)), NODE
    )
    assert (choice.cluster, choice.local) == ((HERE, AWAY), ())


def test_endpoints_that_terminate_serve_only_while_none_is_ready() -> None:
    assert categorize(PORT, (HERE, ending(AWAY)), NODE).cluster == (HERE,)
    assert categorize(PORT, (ending(AWAY),), NODE).cluster == (ending(AWAY),)


def test_policy_local_falls_back_to_what_terminates_here_whatever_is_ready_elsewhere() -> None:
    port = replace(PORT, node_port=30000, external_policy_local=True)
    choice = categorize(port, (ending(HERE), AWAY), NODE)
    assert (choice.cluster, choice.local) == ((AWAY,), (ending(HERE),))


def test_policy_local_with_endpoints_elsewhere_only_knows_that_there_are_some() -> None:
    choice = categorize(replace(PORT, internal_policy_local=True), (AWAY,), NODE)
    assert choice.local == ()
    assert choice.has_any


@pytest.mark.parametrize(
    ("here", "away", "chosen"),
    [(("a",), ("b",), 1), (("a",), (), 2), (("b",), ("c",), 2)],
    ids=["all hinted", "one without a hint", "none for this zone"],
)
def test_zone_hints_count_only_where_all_have_one_and_one_names_this_zone(
    here: tuple[str, ...], away: tuple[str, ...], chosen: int
) -> None:
    endpoints = (msgspec.structs.replace(HERE, zone_hints=here), msgspec.structs.replace(AWAY, zone_hints=away))
    assert categorize(PORT, endpoints, NODE).cluster == endpoints[:chosen]


def test_node_hints_go_before_zone_hints() -> None:
    endpoints = (
        msgspec.structs.replace(HERE, node_hints=("node2",), zone_hints=("a",)),
        msgspec.structs.replace(AWAY, node_hints=("node1",), zone_hints=("b",)),
    )
    assert categorize(PORT, endpoints, NODE).cluster == endpoints[1:]


def several(*texts: str) -> tuple[Endpoint, ...]:
    """Endpoints 1, 2, ...: `h`ere or `a`way; `!` not ready, `~` ending but serving, `x` ending.

    After `@` the zones it is hinted for, after `#` the nodes.
    """
    found = []
    for number, text in enumerate(texts, 1):
        flags, _, nodes = text.partition("#")
        flags, _, zones = flags.partition("@")
        found.append(
            Endpoint(
                f"10.0.0.{number}",
                80,
                is_local="h" in flags,
                ready=not set(flags) & set("!~x"),
                serving=not set(flags) & set("!x"),
                terminating=bool(set(flags) & set("~x")),
                zone_hints=tuple(zones),
                node_hints=tuple(f"node{node}" for node in nodes),
            )
        )
    return tuple(found)


def chosen(endpoints: tuple[Endpoint, ...]) -> str:
    return "".join(endpoint.ip[-1] for endpoint in sorted(endpoints))


OUTWARD = replace(PORT, node_port=8080)
E_LOCAL = replace(OUTWARD, external_policy_local=True)
I_LOCAL = replace(OUTWARD, internal_policy_local=True)
BOTH_LOCAL = replace(E_LOCAL, internal_policy_local=True)
INWARD_LOCAL = replace(PORT, internal_policy_local=True)


@pytest.mark.parametrize(
    ("port", "endpoints", "cluster", "local", "reachable"),
    [
        (PORT, "a@a a@b a@c a@a", "14", "", "14"),
        (PORT, "a@a a@b a@c a!@a", "1", "", "1"),  # hints of what is not ready do not count
        (PORT, "a!@a a@b a@c a!@a", "23", "", "23"),
        (PORT, "a@a a@b a a@a", "1234", "", "1234"),  # one has no hint
        (PORT, "a@a a@b a! a@a", "14", "", "14"),  # nor must one that is not ready have one
        (PORT, "a@abc a@bc a@bd a@a", "14", "", "14"),
        (PORT, "a@b", "1", "", "1"),
        (PORT, "a~@a a~@b", "12", "", "12"),  # hints are for the ready
        (PORT, "a@a#1 a@b#2 a@a#3", "1", "", "1"),
        (PORT, "a@a#3 a@b#2 a@a#2", "13", "", "13"),  # none for this node, but for this zone
        (PORT, "a@b#3 a@b#2", "12", "", "12"),
        (PORT, "a@a#1 a@b a@a#2", "13", "", "13"),  # one lacks a node hint
        (PORT, "a#1 a#2", "1", "", "1"),
        (PORT, "a#12 a#2 a!#1", "1", "", "1"),
        (E_LOCAL, "h@a h@b a@c a@a", "14", "12", "124"),
        (I_LOCAL, "h@a h@b a@c a@a", "14", "12", "124"),
        (E_LOCAL, "h@b#2 a@a#1", "2", "1", "12"),
        (INWARD_LOCAL, "", "", "", ""),
        (INWARD_LOCAL, "a a", "", "", "12"),
        (INWARD_LOCAL, "h h", "", "12", "12"),
        (INWARD_LOCAL, "h a", "", "1", "1"),
        (INWARD_LOCAL, "a! a!", "", "", ""),
        (PORT, "a! a!", "", "", ""),
        (PORT, "a! a", "2", "", "2"),
        (PORT, "h~ a~", "12", "", "12"),
        (PORT, "hx ax", "", "", ""),
        (I_LOCAL, "h a", "12", "1", "12"),
        (E_LOCAL, "h a", "12", "1", "12"),
        (BOTH_LOCAL, "h a", "12", "1", "12"),
        (BOTH_LOCAL, "a a", "12", "", "12"),
        (BOTH_LOCAL, "a~ a~", "12", "", "12"),
        (E_LOCAL, "a h! h~ a~", "1", "3", "13"),
        (E_LOCAL, "a h h~ a~", "12", "2", "12"),
        (replace(PORT, external_policy_local=True), "a h", "12", "", "12"),  # nothing external
    ],
)
def test_each_policy_has_its_endpoints(
    port: ServicePort, endpoints: str, cluster: str, local: str, reachable: str
) -> None:
    choice = categorize(port, several(*endpoints.split()), NODE)
    assert (chosen(choice.cluster), chosen(choice.local), chosen(choice.reachable)) == (cluster, local, reachable)
    assert choice.has_any is bool(reachable)


def test_a_node_without_a_zone_heeds_no_zone_hints() -> None:
    for hints in ("a@a a@b", "a@a#2 a@b#3"):
        assert len(categorize(PORT, several(*hints.split()), NodeState("node1")).cluster) == 2
