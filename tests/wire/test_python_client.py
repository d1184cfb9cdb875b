"""The official Python client against the API server, its watch too."""

import json
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from svcplane.testing.process import ApiServerProcess

kubernetes = pytest.importorskip("kubernetes")


@pytest.fixture
def client(svcplane_api: ApiServerProcess) -> Iterator[Any]:
    made = kubernetes.config.new_client_from_config(str(svcplane_api.kubeconfig))
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def core(client: Any) -> Any:
    return kubernetes.client.CoreV1Api(client)


def service(name: str, **spec: Any) -> Any:
    ports = [kubernetes.client.V1ServicePort(name="http", port=80, target_port="web")]
    return kubernetes.client.V1Service(
        metadata=kubernetes.client.V1ObjectMeta(name=name, labels={"app": name}),
        spec=kubernetes.client.V1ServiceSpec(ports=ports, selector={"app": name}, **spec),
    )


def test_create_read_replace_patch_and_delete(core: Any, svcplane_namespace: str) -> None:
    made = core.create_namespaced_service(svcplane_namespace, service("web", type="NodePort"))
    assert made.spec.cluster_ip == made.spec.cluster_ips[0]
    assert 30000 <= made.spec.ports[0].node_port <= 32767
    made.spec.session_affinity = "ClientIP"
    replaced = core.replace_namespaced_service("web", svcplane_namespace, made)
    assert replaced.spec.session_affinity_config.client_ip.timeout_seconds == 10800
    with pytest.raises(kubernetes.client.ApiException) as stale:
        core.replace_namespaced_service("web", svcplane_namespace, made)
    assert (stale.value.status, json.loads(stale.value.body)["reason"]) == (409, "Conflict")
    patched = core.patch_namespaced_service("web", svcplane_namespace, {"metadata": {"labels": {"tier": "front"}}})
    assert patched.metadata.labels == {"app": "web", "tier": "front"}
    assert core.read_namespaced_service("web", svcplane_namespace).metadata.uid == made.metadata.uid
    core.delete_namespaced_service("web", svcplane_namespace)
    with pytest.raises(kubernetes.client.ApiException) as gone:
        core.read_namespaced_service("web", svcplane_namespace)
    assert gone.value.status == 404


def test_lists_in_pages_and_by_selector(core: Any, svcplane_namespace: str) -> None:
    for name in ("a", "b", "c"):
        core.create_namespaced_service(svcplane_namespace, service(name))
    first = core.list_namespaced_service(svcplane_namespace, limit=2)
    assert [item.metadata.name for item in first.items] == ["a", "b"]
    assert first.metadata.remaining_item_count == 1
    rest = core.list_namespaced_service(svcplane_namespace, limit=2, _continue=first.metadata._continue)
    assert [item.metadata.name for item in rest.items] == ["c"]
    chosen = core.list_namespaced_service(svcplane_namespace, label_selector="app in (a, c)")
    assert [item.metadata.name for item in chosen.items] == ["a", "c"]
    core.delete_collection_namespaced_service(svcplane_namespace, label_selector="app=a")
    assert [item.metadata.name for item in core.list_namespaced_service(svcplane_namespace).items] == ["b", "c"]


def test_watch_goes_on_from_a_version_and_ends_by_its_timeout(core: Any, svcplane_namespace: str) -> None:
    core.create_namespaced_service(svcplane_namespace, service("before"))
    version = core.list_namespaced_service(svcplane_namespace).metadata.resource_version
    seen: list[tuple[str, str]] = []
    watching = threading.Event()

    def follow() -> None:
        watch = kubernetes.watch.Watch()
        stream = watch.stream(
            core.list_namespaced_service, svcplane_namespace, resource_version=version, timeout_seconds=20
        )
        watching.set()
        for event in stream:
            seen.append((event["type"], event["object"].metadata.name))
            if event["type"] == "DELETED":
                watch.stop()

    thread = threading.Thread(target=follow)
    thread.start()
    watching.wait()
    core.create_namespaced_service(svcplane_namespace, service("web"))
    core.patch_namespaced_service("web", svcplane_namespace, {"spec": {"type": "NodePort"}})
    core.delete_namespaced_service("web", svcplane_namespace)
    thread.join(30)
    assert seen == [("ADDED", "web"), ("MODIFIED", "web"), ("DELETED", "web")]
    quiet = kubernetes.watch.Watch().stream(core.list_namespaced_service, svcplane_namespace, timeout_seconds=1)
    assert [(event["type"], event["object"].metadata.name) for event in quiet] == [("ADDED", "before")]


def test_watch_of_a_version_from_the_future_or_past_is_an_error(core: Any, svcplane_namespace: str) -> None:
    watch = kubernetes.watch.Watch()
    stream = watch.stream(core.list_namespaced_service, svcplane_namespace, resource_version="999999999")
    with pytest.raises(kubernetes.client.ApiException):
        next(iter(stream))


def test_server_side_apply_by_the_dynamic_client(client: Any, svcplane_namespace: str) -> None:
    dynamic = kubernetes.dynamic.DynamicClient(client)
    services = dynamic.resources.get(api_version="v1", kind="Service")
    body = {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web"},
        "spec": {"ports": [{"port": 80, "protocol": "TCP"}], "selector": {"app": "web"}},
    }
    services.server_side_apply(body, name="web", namespace=svcplane_namespace, field_manager="one")
    body["spec"]["selector"] = {"app": "other"}  # type: ignore[index]
    with pytest.raises(kubernetes.dynamic.exceptions.ConflictError):
        services.server_side_apply(body, name="web", namespace=svcplane_namespace, field_manager="two")
    forced = services.server_side_apply(
        body, name="web", namespace=svcplane_namespace, field_manager="two", force_conflicts=True
    )
    assert forced.spec.selector.app == "other"
    assert services.get(name="web", namespace=svcplane_namespace).spec.selector.to_dict() == {"app": "other"}


def test_slices_leases_and_other_groups(client: Any, svcplane_namespace: str) -> None:
    discovery = kubernetes.client.DiscoveryV1Api(client)
    body = kubernetes.client.V1EndpointSlice(
        address_type="IPv4",
        metadata=kubernetes.client.V1ObjectMeta(generate_name="web-", labels={"kubernetes.io/service-name": "web"}),
        endpoints=[kubernetes.client.V1Endpoint(addresses=["10.1.2.3"])],
        ports=[kubernetes.client.DiscoveryV1EndpointPort(port=80)],
    )
    made = discovery.create_namespaced_endpoint_slice(svcplane_namespace, body)
    assert made.metadata.name.startswith("web-")
    assert discovery.list_endpoint_slice_for_all_namespaces(field_selector=f"metadata.name={made.metadata.name}").items[
        0
    ].endpoints[0].addresses == ["10.1.2.3"]
    leases = kubernetes.client.CoordinationV1Api(client)
    lease = leases.create_namespaced_lease(
        svcplane_namespace,
        kubernetes.client.V1Lease(
            metadata=kubernetes.client.V1ObjectMeta(name="leader"),
            spec=kubernetes.client.V1LeaseSpec(holder_identity="me", lease_duration_seconds=15),
        ),
    )
    assert lease.spec.holder_identity == "me"
    assert kubernetes.client.VersionApi(client).get_code().major == "1"
    assert "services" in {row.name for row in kubernetes.client.CoreV1Api(client).get_api_resources().resources}
