"""The endpoint controllers together with a server: what comes and goes, restarts, events."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from svcplane.api.core import Service
from svcplane.base.tasks import cancel_and_wait
from svcplane.client.transport import InProcessTransport
from svcplane.controllers.run import run_controllers
from svcplane.controllers.slices import controller as slices_controller
from svcplane.server.app import ApiServer
from svcplane.testing.server import Caller, in_process_server
from svcplane.testing.waiting import until

CORE = "/api/v1/namespaces/default"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
MERGE = {"Content-Type": "application/merge-patch+json"}
Tree = dict[str, Any]


@asynccontextmanager
async def controllers(server: ApiServer) -> AsyncIterator[None]:
    task = asyncio.create_task(run_controllers(InProcessTransport(server.handle)))
    try:
        yield
    finally:
        await cancel_and_wait(task)


def a_service(name: str = "web", **spec: Any) -> Tree:
    wanted = {"ports": [{"port": 80}], "selector": {"app": "web"}, **spec}
    return {"metadata": {"name": name, "finalizers": []}, "spec": wanted}


async def a_node(api: Caller, name: str, zone: str = "", cpu: str = "4") -> None:
    labels = {"topology.kubernetes.io/zone": zone} if zone else {}
    assert (await api.call("POST", "/api/v1/nodes", {"metadata": {"name": name, "labels": labels}}))[0] == 201
    status = {"allocatable": {"cpu": cpu}, "conditions": [{"type": "Ready", "status": "True"}]}
    assert (await api.call("PATCH", f"/api/v1/nodes/{name}/status", {"status": status}, MERGE))[0] == 200


async def a_pod(api: Caller, name: str, ip: str, node: str = "n1") -> None:
    spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": node}
    pod = {"metadata": {"name": name, "labels": {"app": "web"}}, "spec": spec}
    assert (await api.call("POST", f"{CORE}/pods", pod))[0] == 201
    await turn(api, name, ip=ip)


async def turn(api: Caller, name: str, *, ready: bool = True, ip: str = "") -> None:
    status: Tree = {"phase": "Running", "conditions": [{"type": "Ready", "status": str(ready)}]}
    if ip:
        status |= {"podIP": ip, "podIPs": [{"ip": ip}]}
    assert (await api.call("PATCH", f"{CORE}/pods/{name}/status", {"status": status}, MERGE))[0] == 200


async def slices(api: Caller, name: str = "web") -> list[Tree]:
    _, found = await api.call("GET", f"{SLICES}?labelSelector=kubernetes.io/service-name={name}")
    return list(found["items"])


async def ready_addresses(api: Caller, name: str = "web") -> list[str]:
    endpoints = [endpoint for slice_ in await slices(api, name) for endpoint in slice_["endpoints"] or ()]
    return sorted(endpoint["addresses"][0] for endpoint in endpoints if endpoint["conditions"]["ready"])


async def become(api: Caller, *addresses: str, name: str = "web") -> None:
    async def so() -> bool:
        return await ready_addresses(api, name) == list(addresses)

    await until(so)


async def versions(api: Caller) -> dict[str, str]:
    found: dict[str, str] = {}
    for path in (SLICES, f"{CORE}/endpoints", f"{CORE}/events"):
        _, items = await api.call("GET", path)
        found |= {f"{path}/{i['metadata']['name']}": i["metadata"]["resourceVersion"] for i in items["items"]}
    return found


async def test_a_restart_writes_nothing_that_is_right_already() -> None:
    async with in_process_server() as server:
        api = Caller(server.handle)
        await a_node(api, "n1", "a")
        await a_node(api, "n2", "b")
        async with controllers(server):
            auto = a_service("auto")
            auto["metadata"]["annotations"] = {"service.kubernetes.io/topology-mode": "Auto"}
            for one in (a_service(), a_service("empty", selector={"app": "none"}), auto):
                assert (await api.call("POST", f"{CORE}/services", one))[0] == 201
            manual = {"metadata": {"name": "by-hand"}, "spec": {"ports": [{"port": 80}]}}
            assert (await api.call("POST", f"{CORE}/services", manual))[0] == 201
            subsets = [{"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}]}]
            await api.call("POST", f"{CORE}/endpoints", {"metadata": {"name": "by-hand"}, "subsets": subsets})
            await a_pod(api, "p1", "10.1.0.1")
            await a_pod(api, "p2", "10.1.0.2", "n2")
            for name in ("web", "auto"):
                await become(api, "10.1.0.1", "10.1.0.2", name=name)
            await become(api, "192.0.2.1", name="by-hand")
            await become(api, name="empty")

            async def hinted() -> bool:
                endpoints = [e for s in await slices(api, "auto") for e in s["endpoints"]]
                _, events = await api.call("GET", f"{CORE}/events")
                enabled = [e for e in events["items"] if e["reason"] == "TopologyAwareHintsEnabled"]
                return all("hints" in e for e in endpoints) and bool(enabled)

            await until(hinted)
        before = await versions(api)
        async with controllers(server):
            assert (await api.call("POST", f"{CORE}/services", a_service("last")))[0] == 201
            await become(api, "10.1.0.1", "10.1.0.2", name="last")
        after = await versions(api)
        assert {key: version for key, version in after.items() if key in before} == before


async def test_endpoints_whose_service_went_while_nobody_looked_go_too() -> None:
    async with in_process_server() as server:
        api = Caller(server.handle)
        ours = {"endpoints.kubernetes.io/managed-by": "endpoint-controller"}
        for name, labels in (("gone", ours), ("by-hand", {})):
            body = {"metadata": {"name": name, "labels": labels}}
            assert (await api.call("POST", f"{CORE}/endpoints", body))[0] == 201

        async def gone() -> bool:
            return (await api.call("GET", f"{CORE}/endpoints/gone"))[0] == 404

        async with controllers(server):
            await until(gone)
            assert (await api.call("GET", f"{CORE}/endpoints/by-hand"))[0] == 200


async def test_a_service_that_waits_for_its_finalizer_is_kept_up_to_date(cluster: Caller) -> None:
    await a_node(cluster, "n1")
    await a_pod(cluster, "p1", "10.1.0.1")
    await a_pod(cluster, "p2", "10.1.0.2")
    held = a_service()
    held["metadata"]["finalizers"] = ["example.org/load-balancer"]
    assert (await cluster.call("POST", f"{CORE}/services", held))[0] == 201
    await become(cluster, "10.1.0.1", "10.1.0.2")
    _, deleted = await cluster.call("DELETE", f"{CORE}/services/web")
    assert deleted["metadata"]["deletionTimestamp"]
    await turn(cluster, "p1", ready=False)
    await become(cluster, "10.1.0.2")
    await cluster.call("PATCH", f"{CORE}/services/web", {"metadata": {"finalizers": None}}, MERGE)

    async def none_left() -> bool:
        return not await slices(cluster)

    await until(none_left)


async def test_a_service_made_again_at_once_has_slices_of_its_own(cluster: Caller) -> None:
    await a_node(cluster, "n1")
    await a_pod(cluster, "p1", "10.1.0.1")
    uid = ""
    for _ in range(10):
        status, made = await cluster.call("POST", f"{CORE}/services", a_service())
        assert status == 201
        uid = made["metadata"]["uid"]
        await become(cluster, "10.1.0.1")
        if _ < 9:
            assert (await cluster.call("DELETE", f"{CORE}/services/web"))[0] == 200

    async def its_own() -> bool:
        owners = [owner["uid"] for one in await slices(cluster) for owner in one["metadata"]["ownerReferences"]]
        return owners == [uid] and await ready_addresses(cluster) == ["10.1.0.1"]

    await until(its_own)


async def test_a_pod_waits_for_its_node(cluster: Caller) -> None:
    assert (await cluster.call("POST", f"{CORE}/services", a_service()))[0] == 201
    await a_pod(cluster, "p1", "10.1.0.1", "late")
    await until(lambda: slices(cluster))
    assert await ready_addresses(cluster) == []

    async def told() -> list[str]:
        _, found = await cluster.call("GET", f"{CORE}/events?fieldSelector=reason=FailedToUpdateEndpointSlices")
        return [event["message"] for event in found["items"]]

    assert await until(told) == [
        "Error updating Endpoint Slices for Service default/web: "
        "skipping Pod p1 for Service default/web: Node late Not Found"
    ]
    await a_node(cluster, "late")
    await become(cluster, "10.1.0.1")


async def test_endpoints_on_a_node_that_went_stay_until_their_service_is_looked_at(cluster: Caller) -> None:
    for name, ip in (("n1", "10.1.0.1"), ("n2", "10.1.0.2")):
        await a_node(cluster, name)
        await a_pod(cluster, f"p-{name}", ip, name)
    # last: a Pod that was seen before its node would have the Service looked at once more, later
    assert (await cluster.call("POST", f"{CORE}/services", a_service()))[0] == 201
    await become(cluster, "10.1.0.1", "10.1.0.2")
    await cluster.call("DELETE", "/api/v1/nodes/n1")
    await a_node(cluster, "n3")
    assert (await cluster.call("POST", f"{CORE}/services", a_service("other")))[0] == 201
    await until(lambda: slices(cluster, "other"))
    assert await ready_addresses(cluster) == ["10.1.0.1", "10.1.0.2"]
    await turn(cluster, "p-n2", ready=False)
    await become(cluster)


async def test_a_slice_that_names_no_service_any_more_is_replaced_and_stays(cluster: Caller) -> None:
    await a_node(cluster, "n1")
    await a_pod(cluster, "p1", "10.1.0.1")
    assert (await cluster.call("POST", f"{CORE}/services", a_service()))[0] == 201
    await become(cluster, "10.1.0.1")
    (first,) = await slices(cluster)
    path = f"{SLICES}/{first['metadata']['name']}"
    await cluster.call("PATCH", path, {"metadata": {"labels": {"kubernetes.io/service-name": None}}}, MERGE)
    await become(cluster, "10.1.0.1")
    (second,) = await slices(cluster)
    assert second["metadata"]["uid"] != first["metadata"]["uid"]
    await turn(cluster, "p1", ready=False)
    await become(cluster)
    assert (await cluster.call("GET", path))[1]["endpoints"] == first["endpoints"]


async def test_ports_and_labels_of_the_service_follow(cluster: Caller) -> None:
    await a_node(cluster, "n1")
    await a_pod(cluster, "p1", "10.1.0.1")
    two = [{"name": "a", "port": 80, "targetPort": 8080}, {"name": "b", "port": 81, "targetPort": 8081}]
    assert (await cluster.call("POST", f"{CORE}/services", a_service(ports=two)))[0] == 201
    await become(cluster, "10.1.0.1")
    (first,) = await slices(cluster)
    patch = {"metadata": {"labels": {"tier": "front"}}, "spec": {"ports": two[1:]}}
    assert (await cluster.call("PATCH", f"{CORE}/services/web", patch, MERGE))[0] == 200

    async def followed() -> bool:
        (one,) = await slices(cluster)
        _, endpoints = await cluster.call("GET", f"{CORE}/endpoints/web")
        return (
            one["metadata"]["name"] == first["metadata"]["name"]
            and [port["port"] for port in one["ports"]] == [8081]
            and one["metadata"]["labels"].get("tier") == "front"
            and [port["port"] for subset in endpoints["subsets"] for port in subset["ports"]] == [8081]
            and endpoints["metadata"]["labels"].get("tier") == "front"
        )

    await until(followed)


async def test_events_say_why_there_are_no_hints(cluster: Caller) -> None:
    await a_node(cluster, "n1", "a")
    await a_pod(cluster, "p1", "10.1.0.1")
    auto = a_service()
    auto["metadata"]["annotations"] = {"service.kubernetes.io/topology-mode": "Auto"}
    assert (await cluster.call("POST", f"{CORE}/services", auto))[0] == 201

    async def told() -> list[str]:
        _, found = await cluster.call("GET", f"{CORE}/events?fieldSelector=involvedObject.name=web")
        return [f"{event['type']} {event['reason']}: {event['message']}" for event in found["items"]]

    (text,) = await until(told)
    assert text.startswith("Warning TopologyAwareHintsDisabled: Insufficient Node information")
    assert text.endswith(", addressType: IPv4")


async def test_one_object_that_breaks_a_sync_does_not_stop_the_others(
    cluster: Caller, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    await a_node(cluster, "n1")
    await a_pod(cluster, "p1", "10.1.0.1")
    whole = slices_controller.plan

    def breaking(service: Service, *rest: Any, **more: Any) -> Any:
        if service.metadata.name == "odd":
            raise KeyError("odd")
        return whole(service, *rest, **more)

    monkeypatch.setattr(slices_controller, "plan", breaking)
    for name in ("odd", "web"):
        assert (await cluster.call("POST", f"{CORE}/services", a_service(name)))[0] == 201
    await become(cluster, "10.1.0.1")
    assert "sync failed: controller=endpointslice key=default/odd" in caplog.text
    monkeypatch.undo()
    await become(cluster, "10.1.0.1", name="odd")


async def test_events_say_why_endpoints_were_refused(cluster: Caller) -> None:
    await a_node(cluster, "n1")
    await a_pod(cluster, "p1", "127.0.0.1")
    assert (await cluster.call("POST", f"{CORE}/services", a_service()))[0] == 201

    async def told() -> dict[str, str]:
        _, found = await cluster.call("GET", f"{CORE}/events?fieldSelector=involvedObject.name=web")
        texts = {f"{event['involvedObject']['kind']} {event['reason']}": event["message"] for event in found["items"]}
        return texts if len(texts) == 2 else {}

    texts = await until(told)
    why = 'Invalid value: "127.0.0.1": may not be in the loopback range (127.0.0.0/8, ::1/128)'
    assert texts["Endpoints FailedToCreateEndpoint"] == (
        "Failed to create endpoint for service default/web: "
        f'Endpoints "web" is invalid: subsets[0].addresses[0].ip: {why}'
    )
    text = texts["Service FailedToUpdateEndpointSlices"]
    begin = (
        "Error updating Endpoint Slices for Service default/web: failed to create EndpointSlice for Service default/web"
    )
    assert text.startswith(f'{begin}: EndpointSlice.discovery.k8s.io "web-')
    assert text.endswith(f"is invalid: endpoints[0].addresses[0]: {why}")
