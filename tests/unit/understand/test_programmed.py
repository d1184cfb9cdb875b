"""What nodes tell of themselves: current, behind, stopped, or nothing."""

from typing import Any

import pytest

from svcplane.proxy.programmed import ANNOTATION, LEASE_PREFIX, Programmed, to_text
from svcplane.understand.explain import explain
from svcplane.understand.programmed import is_done, progress, progress_findings
from svcplane.understand.view import ClusterView, from_trees

NOW, RECENT, OLD = 1_800_000_000.0, "2027-01-15T07:59:50.000000Z", "2027-01-15T07:50:00.000000Z"


def view(**leases: tuple[Programmed, str]) -> ClusterView:
    service: dict[str, Any] = {
        "kind": "Service",
        "metadata": {"name": "web", "resourceVersion": "10"},
        "spec": {"clusterIP": "10.96.0.10"},
    }
    slice_ = {
        "kind": "EndpointSlice",
        "metadata": {"name": "web-1", "resourceVersion": "20", "labels": {"kubernetes.io/service-name": "web"}},
    }
    trees = [service, slice_, *({"kind": "Node", "metadata": {"name": f"node{n}"}} for n in (1, 2))]
    for node, (told, renewed) in leases.items():
        meta = {"name": LEASE_PREFIX + node, "annotations": {ANNOTATION: to_text(told)}}
        spec = {"holderIdentity": node, "renewTime": renewed, "leaseDurationSeconds": 40}
        trees.append({"kind": "Lease", "metadata": meta, "spec": spec})
    return from_trees(trees, live=True, now_s=NOW)


def states(found: ClusterView) -> list[str]:
    return [node.state for node in progress(found.services[0], found.slices, found)]


FRESH, PAST = Programmed("10", "20", "nftables"), Programmed("10", "19", "nftables")


@pytest.mark.parametrize(
    ("leases", "expected", "done"),
    [
        ({}, ["unknown", "unknown"], False),
        ({"node1": (FRESH, RECENT)}, ["current", "unknown"], True),
        ({"node1": (FRESH, RECENT), "node2": (PAST, RECENT)}, ["current", "behind"], False),
        ({"node1": (Programmed("9", "20"), RECENT), "node2": (FRESH, OLD)}, ["behind", "stopped"], False),
        ({"node1": (FRESH, RECENT), "node2": (FRESH, RECENT)}, ["current", "current"], True),
    ],
)
def test_progress(leases: dict[str, tuple[Programmed, str]], expected: list[str], done: bool) -> None:
    found = view(**leases)
    assert states(found) == expected
    assert is_done(progress(found.services[0], found.slices, found)) is done


def test_a_stopped_proxy_is_a_problem_of_the_service() -> None:
    found = view(node1=(FRESH, RECENT), node2=(FRESH, OLD))
    findings = progress_findings(found.services[0], progress(found.services[0], found.slices, found))
    assert [(f.code, f.subject) for f in findings] == [("proxy-stopped", "node/node2")]
    assert "last heard of 10m ago" in findings[0].text
    story = explain(found, "default", "web")
    assert "proxy-stopped" in {finding.code for finding in story.findings}
    assert story.nodes[0].programmed == "current, mode nftables"


def test_a_service_no_proxy_serves_is_not_waited_for() -> None:
    found = view(node2=(FRESH, OLD))
    found.services[0].spec.cluster_ip = "None"
    assert progress_findings(found.services[0], progress(found.services[0], found.slices, found)) == ()
