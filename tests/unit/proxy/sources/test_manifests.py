"""Manifest files: what is read, and that each mistake is told with object and field."""

import pytest

from svcplane.api.core import Service
from svcplane.api.discovery import EndpointSlice
from svcplane.base.errors import ConfigError
from svcplane.proxy.sources.manifests import read

SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  clusterIP: 10.96.0.10
  ports: [{port: 80, targetPort: 8080}]
"""
SLICE = """
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 8080}]
endpoints: [{addresses: [192.0.2.7]}]
"""


def test_objects_come_out_defaulted_as_from_a_server() -> None:
    manifest = read(f"{SERVICE}---{SLICE}")
    service, slice_ = manifest.objects["Service", "default/web"], manifest.objects["EndpointSlice", "default/web-1"]
    assert isinstance(service, Service)
    assert service.spec.cluster_ips == ["10.96.0.10"]
    assert service.spec.internal_traffic_policy == "Cluster"
    assert service.spec.ports[0].protocol == "TCP"
    assert isinstance(slice_, EndpointSlice)
    assert slice_.endpoints is not None
    assert slice_.endpoints[0].addresses == ["192.0.2.7"]
    assert slice_.ports is not None
    assert slice_.ports[0].protocol == "TCP"


def test_a_list_and_json_are_read_too() -> None:
    text = '{"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Service", '
    text += '"metadata": {"name": "a", "namespace": "x"}, "spec": {"clusterIP": "None"}}]}'
    assert list(read(text).objects) == [("Service", "x/a")]


def test_status_of_a_load_balancer_is_kept() -> None:
    text = SERVICE.replace("spec:", "status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}\nspec:\n  type: LoadBalancer")
    text = text.replace("targetPort: 8080", "nodePort: 30080")
    service = read(text).objects["Service", "default/web"]
    assert isinstance(service, Service)
    assert [(item.ip, item.ip_mode) for item in service.status.load_balancer.ingress] == [("192.0.2.1", "VIP")]


def test_a_load_balancer_may_do_without_node_ports() -> None:
    fields = "spec:\n  type: LoadBalancer\n  allocateLoadBalancerNodePorts: false"
    service = read(SERVICE.replace("spec:", fields)).objects["Service", "default/web"]
    assert isinstance(service, Service)
    assert not service.spec.ports[0].node_port


def test_other_kinds_are_named_and_passed_over() -> None:
    manifest = read(SERVICE + "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {name: d}\n")
    assert list(manifest.objects) == [("Service", "default/web")]
    assert manifest.passed_over == ("Deployment (apps/v1)",)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (SERVICE.replace("port: 80,", "port: 80a,"), "Service web: spec.ports.port: must be int32, is string"),
        (
            SERVICE.replace("port: 80,", "port: 0,"),
            "Service web: spec.ports[0].port: Invalid value: 0: must be between",
        ),
        (SERVICE.replace("ports:", "prots:"), 'Service web: unknown field "spec.prots"'),
        (SERVICE.replace("  clusterIP: 10.96.0.10\n", ""), "Service web: spec.clusterIP: must be given"),
        (SERVICE.replace("10.96.0.10", "10.96.0.300"), "Service web: spec.clusterIPs[0]: Invalid value"),
        (SERVICE.replace("spec:", "spec:\n  type: NodePort"), "Service web: spec.ports[0].nodePort: must be given"),
        (SERVICE.replace("{name: web}", "{name: Web}"), "Service Web: metadata.name: Invalid value"),
        (SERVICE.replace("{name: web}", "{}"), "document 1 (Service): metadata.name: Required value"),
        (SERVICE + SERVICE, "line 9: apiVersion is given twice"),
        (SERVICE + "---" + SERVICE, "Service default/web: is in this file twice"),
        (SERVICE + "  - broken: [", "is no YAML"),
        (SLICE.replace("192.0.2.7", "192.0.2"), "EndpointSlice web-1: endpoints[0].addresses[0]: Invalid value"),
        ("kind: Service\n", "document 1: apiVersion: must be given"),
        ("- 1\n", "document 1: must be an object"),
        ("", "holds no object"),
    ],
)
def test_a_mistake_is_told_in_one_line(text: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(text)
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
