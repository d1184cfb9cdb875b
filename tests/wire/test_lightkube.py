"""lightkube, a client of its own making (httpx, dataclasses), against the API server."""

from collections.abc import Iterator

import pytest

from svcplane.testing.process import ApiServerProcess

lightkube = pytest.importorskip("lightkube")

from lightkube.core.exceptions import ApiError  # noqa: E402
from lightkube.models.core_v1 import ServicePort, ServiceSpec  # noqa: E402
from lightkube.models.meta_v1 import ObjectMeta  # noqa: E402
from lightkube.resources.core_v1 import Service  # noqa: E402
from lightkube.types import PatchType  # noqa: E402


@pytest.fixture
def client(svcplane_api: ApiServerProcess, svcplane_namespace: str) -> Iterator["lightkube.Client"]:
    config = lightkube.KubeConfig.from_file(svcplane_api.kubeconfig)
    made = lightkube.Client(config=config, namespace=svcplane_namespace, field_manager="lightkube", trust_env=False)
    yield made
    made._client._client.close()


def service(name: str, port: int = 80) -> Service:
    spec = ServiceSpec(ports=[ServicePort(port=port)], selector={"app": name})
    return Service(apiVersion="v1", kind="Service", metadata=ObjectMeta(name=name), spec=spec)


def test_create_get_patch_list_and_delete(client: "lightkube.Client") -> None:
    made = client.create(service("web"))
    assert client.get(Service, "web").spec.clusterIP == made.spec.clusterIP
    labels = {"metadata": {"labels": {"tier": "front"}}}
    assert client.patch(Service, "web", labels, patch_type=PatchType.MERGE).metadata.labels == {"tier": "front"}
    for name in ("a", "b", "c"):
        client.create(service(name))
    assert [item.metadata.name for item in client.list(Service, chunk_size=2)] == ["a", "b", "c", "web"]
    assert [item.metadata.name for item in client.list(Service, labels={"tier": "front"})] == ["web"]
    client.delete(Service, "web")
    with pytest.raises(ApiError) as gone:
        client.get(Service, "web")
    assert (gone.value.status.code, gone.value.status.reason) == (404, "NotFound")


def test_apply_takes_ownership_only_by_force(client: "lightkube.Client") -> None:
    client.apply(service("web"))
    other = service("web")
    other.spec.selector = {"app": "other"}
    with pytest.raises(ApiError) as conflict:
        client.apply(other, field_manager="somebody")
    assert conflict.value.status.reason == "Conflict"
    assert client.apply(other, field_manager="somebody", force=True).spec.selector == {"app": "other"}


def test_watch_yields_what_happens(client: "lightkube.Client") -> None:
    version = client.create(service("a")).metadata.resourceVersion
    client.create(service("b"))
    client.delete(Service, "b")
    seen = []
    for kind, obj in client.watch(Service, resource_version=version, server_timeout=20):
        seen.append((kind, obj.metadata.name))
        if kind == "DELETED":
            break
    assert seen == [("ADDED", "b"), ("DELETED", "b")]
