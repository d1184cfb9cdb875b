"""The story of a Service names the cause, whatever it is."""

from typing import Any

import pytest

from svcplane.base.errors import ConfigError
from svcplane.understand.explain import Story, explain
from svcplane.understand.view import from_trees

NOW = 1_800_000_000.0
SINCE = "2027-01-15T07:55:00Z"  # five minutes before NOW
Tree = dict[str, Any]


def service(**spec: Any) -> Tree:
    ports = [{"name": "http", "port": 80, "targetPort": "http", "protocol": "TCP"}]
    whole = {"selector": {"app": "web"}, "clusterIP": "10.96.0.10", "ports": ports, "type": "ClusterIP", **spec}
    return {"kind": "Service", "metadata": {"name": "web", "namespace": "shop"}, "spec": whole}


def pod(name: str = "web-1", *, labels: Tree | None = None, namespace: str = "shop", **status: Any) -> Tree:
    container = {
        "name": "c",
        "image": "web",
        "ports": [{"name": "http", "containerPort": 8080}],
        "readinessProbe": {"httpGet": {"path": "/ready", "port": 8080}},
    }
    whole = {
        "phase": "Running",
        "podIP": "10.244.1.5",
        "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": SINCE}],
        "containerStatuses": [{"name": "c", "ready": True, "state": {"running": {}}}],
        **status,
    }
    meta = {"name": name, "namespace": namespace, "labels": labels or {"app": "web"}}
    return {"kind": "Pod", "metadata": meta, "spec": {"nodeName": "node1", "containers": [container]}, "status": whole}


def unready(**container: Any) -> Tree:
    ready = {"type": "Ready", "status": "False", "lastTransitionTime": SINCE, "reason": "ContainersNotReady"}
    status = {"name": "c", "ready": False, "state": {"running": {}}, **container}
    return {"conditions": [ready], "containerStatuses": [status]}


def node(name: str = "node1", **labels: str) -> Tree:
    ready = {"conditions": [{"type": "Ready", "status": "True"}]}
    return {"kind": "Node", "metadata": {"name": name, "labels": labels}, "status": ready}


def slice_(*addresses: str, on: str = "node1", ready: bool = True) -> Tree:
    meta = {"name": "web-abc", "namespace": "shop", "labels": {"kubernetes.io/service-name": "web"}}
    endpoints = [{"addresses": [ip], "nodeName": on, "conditions": {"ready": ready}} for ip in addresses]
    ports = [{"name": "http", "port": 8080, "protocol": "TCP"}]
    return {"kind": "EndpointSlice", "metadata": meta, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}


def story(*trees: Tree, live: bool = False) -> Story:
    return explain(from_trees(trees, live=live, now_s=NOW), "shop", "web")


def told(found: Story, code: str) -> str:
    """The text and remedy of the one finding with a code."""
    matching = [finding for finding in found.findings if finding.code == code]
    assert len(matching) == 1, found.findings
    return f"{matching[0].subject}: {matching[0].text} | {matching[0].remedy}"


def codes(found: Story) -> list[str]:
    return [finding.code for finding in found.findings]


def test_a_healthy_service_has_no_finding() -> None:
    found = story(service(), pod(), slice_("10.244.1.5"), node(), live=True)
    assert found.findings == ()
    assert [(p.name, p.state, p.why) for p in found.pods] == [("web-1", "endpoint", "ready")]
    assert found.nodes[0].local == 1


def test_a_misspelt_label_is_named_with_both_values() -> None:
    text = told(story(service(), pod(labels={"app": "wbe"})), "selector-matches-nothing")
    assert "app=web matches no Pod" in text
    assert "pod/web-1: the selector wants app=web, the Pod has app=wbe" in text


def test_a_misspelt_key_is_named() -> None:
    assert "the Pod has apps=web" in told(story(service(), pod(labels={"apps": "web"})), "selector-matches-nothing")


def test_one_wrong_pair_of_two_is_a_near_miss_and_a_stranger_is_none() -> None:
    wants = service(selector={"app": "web", "tier": "front"})
    near = pod(labels={"app": "web", "tier": "back"})
    far = pod("db-1", labels={"app": "db", "tier": "back"})
    found = story(wants, near, far)
    assert [miss.pod for miss in found.near_misses] == ["shop/web-1"]
    assert "wants tier=front, the Pod has tier=back" in told(found, "selector-matches-nothing")


def test_pods_of_another_namespace_are_pointed_out() -> None:
    text = told(story(service(), pod(namespace="default")), "selector-matches-nothing")
    assert "it is in namespace default, the Service in shop" in text


def test_an_unready_pod_names_since_when_which_probe_and_what_it_said() -> None:
    event = {
        "kind": "Event",
        "metadata": {"name": "e", "namespace": "shop"},
        "involvedObject": {"kind": "Pod", "name": "web-1"},
        "reason": "Unhealthy",
        "message": "Readiness probe failed: HTTP probe failed with statuscode: 503",
        "lastTimestamp": SINCE,
    }
    found = story(service(), pod(**unready()), event)
    text = told(found, "pod-probe-fails")
    assert f"not ready since 5m ({SINCE}): the readiness probe of container c fails: HTTP GET :8080/ready" in text
    assert "statuscode: 503" in text
    assert "none is a ready endpoint" in told(found, "no-ready-endpoint")


def test_a_crashing_container_is_named() -> None:
    state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s restarting"}}
    last = {"terminated": {"exitCode": 137}}
    text = told(story(service(), pod(**unready(state=state, lastState=last, restartCount=4))), "pod-container-waits")
    assert "container c waits: CrashLoopBackOff" in text
    assert "status 137, 4 restarts" in text
    assert "kubectl logs web-1 -c c --previous" in text


def test_a_readiness_gate_is_named() -> None:
    made = pod(**unready(ready=True))
    made["spec"]["readinessGates"] = [{"conditionType": "lb/attached"}]
    assert "readiness gate lb/attached is not True" in told(story(service(), made), "pod-readiness-gate")


def test_a_pod_without_a_node_says_why() -> None:
    made = pod(
        podIP="",
        phase="Pending",
        conditions=[
            {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "0/2 nodes are available"}
        ],
        containerStatuses=[],
    )
    made["spec"]["nodeName"] = ""
    assert "0/2 nodes are available" in told(story(service(), made), "pod-unscheduled")


def test_a_cluster_without_nodes_is_told() -> None:
    made = pod("web-1", podIP="", phase="Pending", conditions=[], containerStatuses=[])
    made["spec"]["nodeName"] = ""
    found = story(service(), made, live=True)
    assert "this cluster shows no node that it could run on" in told(found, "pod-unscheduled")


def test_a_terminating_pod_is_no_reason_for_alarm_beside_a_ready_one() -> None:
    going = pod("web-0")
    going["metadata"]["deletionTimestamp"] = SINCE
    found = story(service(), going, pod(podIP="10.244.1.6"))
    assert "is terminating and still serves" in told(found, "pod-terminating")
    assert codes(found) == ["pod-terminating"]


def test_an_ended_pod_and_one_of_a_missing_node_are_no_endpoints() -> None:
    assert "phase Failed: Evicted" in told(story(service(), pod(phase="Failed", reason="Evicted")), "pod-ended")
    found = story(service(), pod(), node("node2"), live=True)
    assert "node node1, which does not exist" in told(found, "pod-node-missing")


def test_a_misspelt_port_name_is_corrected() -> None:
    ports = [{"name": "http", "port": 80, "targetPort": "htpt", "protocol": "TCP"}]
    found = story(service(ports=ports), pod())
    text = told(found, "port-name-missing")
    assert "no port named 'htpt'" in text
    assert "did you mean 'http'?" in text
    assert "set targetPort of web to 'http'" in text
    assert "no-ready-endpoint" in codes(found)


def test_a_port_of_another_protocol_is_named() -> None:
    ports = [{"name": "http", "port": 80, "targetPort": "http", "protocol": "UDP"}]
    assert "with protocol TCP" in told(story(service(ports=ports), pod()), "port-protocol")


def test_a_number_nobody_declares_is_a_warning_only() -> None:
    ports = [{"name": "http", "port": 80, "targetPort": 9090, "protocol": "TCP"}]
    found = story(service(ports=ports), pod())
    assert "declares port 8080, port http 80/TCP of the Service goes to 9090" in told(found, "port-undeclared")
    assert codes(found) == ["port-undeclared"]


@pytest.mark.parametrize("kind", ["internal", "external"])
def test_policy_local_names_the_nodes_without_an_endpoint(kind: str) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": "http", "nodePort": 30080, "protocol": "TCP"}]
    spec = {"type": "NodePort", "ports": ports, f"{kind}TrafficPolicy": "Local"}
    found = story(service(**spec), pod(), slice_("10.244.1.5"), node(), node("node2"), live=True)
    text = told(found, f"{kind}-local-without-endpoint")
    assert "on node node2 no endpoint is local" in text
    assert "its endpoints are on node node1" in text
    assert ("node port 30080" in text) == (kind == "external")


def test_policy_local_says_nothing_where_no_endpoint_is_ready_anywhere() -> None:
    found = story(
        service(internalTrafficPolicy="Local"), pod(**unready()), slice_("10.244.1.5", ready=False), node(), live=True
    )
    assert codes(found) == ["no-ready-endpoint", "pod-probe-fails"]


def test_slices_that_are_behind_are_told_and_only_of_a_live_cluster() -> None:
    assert "pod/web-1 is ready and not listed as ready" in told(
        story(service(), pod(), node(), live=True), "slices-behind"
    )
    ghost = story(service(), pod(), slice_("10.244.1.5", "10.244.9.9"), node(), live=True)
    assert "10.244.9.9 is listed and no Pod has it" in told(ghost, "slices-behind")
    assert story(service(), pod()).findings == ()


def test_services_that_no_proxy_serves_say_so() -> None:
    assert codes(story(service(type="ExternalName", externalName="db.example", selector={}))) == ["external-name"]
    assert codes(story(service(clusterIP="None"), pod())) == ["headless"]
    assert codes(story(service(selector={}))) == ["no-selector"]
    assert codes(story(service(type="LoadBalancer"), pod(), slice_("10.244.1.5"), node(), live=True)) == [
        "load-balancer-pending"
    ]


def test_affinity_and_ranges_are_part_of_the_story() -> None:
    config = {"clientIP": {"timeoutSeconds": 600}}
    found = story(service(sessionAffinity="ClientIP", sessionAffinityConfig=config), pod())
    assert "session affinity ClientIP, forgotten after 10m of silence" in found.policies


def test_an_unknown_service_suggests_the_nearest() -> None:
    view = from_trees([service()], live=False, now_s=NOW)
    with pytest.raises(ConfigError, match="did you mean 'web'"):
        explain(view, "shop", "wbe")
    with pytest.raises(ConfigError, match="there is one in shop"):
        explain(view, "default", "web")
