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
