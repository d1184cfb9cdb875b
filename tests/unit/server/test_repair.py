"""What does not fit between Services and their numbers is put right, and said."""

from collections.abc import AsyncIterator
from typing import Any

import pytest

from svcplane.api import codec
from svcplane.api.resources import IP_ADDRESSES, PODS, SERVICES
from svcplane.base.clock import SYSTEM_CLOCK
from svcplane.server.app import ApiServer
from svcplane.server.events import Events
from svcplane.server.in_use import port_key
from svcplane.server.repair import Repair
from svcplane.store.contract import Delete, Page, Put, Transaction
from svcplane.store.memory import MemoryStore
from svcplane.testing.server import Caller, in_process_server
from svcplane.testing.waiting import until

PATH = "/api/v1/namespaces/default/services"
IPS = "/apis/networking.k8s.io/v1/ipaddresses"


class Place:
    """A server, its store and one repair of our own."""

    def __init__(self, server: ApiServer, store: MemoryStore) -> None:
        self.store, self.admin = store, Caller(server.handle)
        allocation = server._allocation
        assert allocation is not None
        self.allocation, self.events = allocation, Events(server.handle, SYSTEM_CLOCK)
        self.repair = Repair(store, allocation, self.events, SYSTEM_CLOCK)

    async def service(self, name: str = "web") -> dict[str, Any]:
        body = {"metadata": {"name": name}, "spec": {"type": "NodePort", "ports": [{"port": 80}]}}
        status, made = await self.admin.call("POST", PATH, body)
        assert status == 201
        return dict(made)

    async def reasons(self) -> set[str]:
        _, found = await self.admin.call("GET", "/api/v1/namespaces/default/events")
        return {event["reason"] for event in found["items"]}


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    store = MemoryStore()
    async with in_process_server(store=store) as server:
        made = Place(server, store)
        assert await made.repair.check_all() == 0
        yield made


async def test_where_all_is_well_nothing_is_done(place: Place) -> None:
    await place.service()
    before = await place.store.revision()
    assert await place.repair.check_all() == 0
    assert await place.store.revision() == before


async def test_numbers_of_a_service_that_is_gone_are_freed(place: Place) -> None:
    made = await place.service()
    ip, port = made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]
    await place.store.commit(Transaction((Delete(SERVICES.key("default", "web")),)))
    assert await place.repair.check_all() == 2
    assert await place.store.get(IP_ADDRESSES.key("", ip)) is None
    assert await place.store.get(port_key(port)) is None
    assert await place.reasons() == {"IPAddressNotAllocated"}


async def test_lost_records_are_made_again(place: Place) -> None:
    made = await place.service()
    ip, port = made["spec"]["clusterIP"], made["spec"]["ports"][0]["nodePort"]
    await place.store.commit(Transaction((Delete(port_key(port)),)))
    assert await place.repair.check_all() == 1
    assert await place.store.get(port_key(port)) is not None
    assert await place.reasons() == {"PortNotAllocated"}
    body = {"metadata": {"name": "other"}, "spec": {"clusterIP": ip, "ports": [{"port": 80}]}}
    assert (await place.admin.call("POST", PATH, body))[0] == 422


async def test_an_ipaddress_that_somebody_deletes_comes_back_at_once(place: Place) -> None:
    ip = (await place.service())["spec"]["clusterIP"]
    await place.admin.call("DELETE", f"{IPS}/{ip}")

    async def back() -> bool:
        status, found = await place.admin.call("GET", f"{IPS}/{ip}")
        return status == 200 and found["spec"]["parentRef"]["name"] == "web"

    await until(back)

    async def told() -> bool:
        return "ClusterIPNotAllocated" in await place.reasons()

    await until(told)


async def test_two_services_with_one_address_are_told_and_left(place: Place) -> None:
    made = await place.service()
    twin = {**made, "metadata": {**made["metadata"], "name": "twin", "uid": "other"}}
    await place.store.commit(Transaction((Put(SERVICES.key("default", "twin"), codec.encode_stored(twin)),)))
    assert await place.repair.check_all() == 2
    assert await place.reasons() == {"ClusterIPAlreadyAllocated", "PortAlreadyAllocated"}
    parent = (await place.admin.call("GET", f"{IPS}/{made['spec']['clusterIP']}"))[1]["spec"]["parentRef"]
    assert parent["name"] in ("web", "twin")


async def test_an_address_outside_all_ranges_is_told(place: Place) -> None:
    made = await place.service()
    spec = {**made["spec"], "clusterIP": "192.0.2.1", "clusterIPs": ["192.0.2.1"]}
    odd = {**made, "spec": spec}
    await place.store.commit(Transaction((Put(SERVICES.key("default", "web"), codec.encode_stored(odd)),)))
    await place.repair.check_all()
    assert "ClusterIPOutOfRange" in await place.reasons()


async def test_a_foreign_ipaddress_is_left_alone(place: Place) -> None:
    body = {"metadata": {"name": "10.96.3.3"}, "spec": {"parentRef": {"resource": "services", "name": "mine"}}}
    assert (await place.admin.call("POST", IPS, body))[0] == 201
    assert await place.repair.check_all() == 0


class LateService:
    """A store in which a Service comes to be just after the Services were listed."""

    def __init__(self, store: MemoryStore, place: Place) -> None:
        self._store, self._place = store, place

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def list(self, prefix: str, **how: Any) -> Page:
        page = await self._store.list(prefix, **how)
        if prefix == SERVICES.key_prefix():
            await self._place.service("late")
        return page


async def test_numbers_given_while_the_repair_reads_stay_given(place: Place) -> None:
    store: Any = LateService(place.store, place)
    repair = Repair(store, place.allocation, place.events, SYSTEM_CLOCK)
    await repair.check_all()
    spec = (await place.admin.call("GET", f"{PATH}/late"))[1]["spec"]
    assert await place.store.get(port_key(spec["ports"][0]["nodePort"])) is not None
    assert await place.store.get(IP_ADDRESSES.key("", spec["clusterIP"])) is not None


async def test_a_number_that_changes_hands_while_the_repair_reads_is_no_fault(place: Place) -> None:
    """All is read as of one revision: what came later is not held against what was there."""
    made = await place.service("first")
    port = made["spec"]["ports"][0]["nodePort"]

    class Trading(LateService):
        async def list(self, prefix: str, **how: Any) -> Page:
            page = await self._store.list(prefix, **how)
            if prefix == SERVICES.key_prefix():
                assert (await place.admin.call("DELETE", f"{PATH}/first"))[0] == 200
                spec = {"type": "NodePort", "clusterIP": made["spec"]["clusterIP"]}
                body = {"metadata": {"name": "second"}, "spec": {**spec, "ports": [{"port": 80, "nodePort": port}]}}
                assert (await place.admin.call("POST", PATH, body))[0] == 201
            return page

    store: Any = Trading(place.store, place)
    assert await Repair(store, place.allocation, place.events, SYSTEM_CLOCK).check_all() == 0
    assert await place.reasons() == set()
    assert await place.repair.check_all() == 0


async def test_a_pod_of_an_earlier_version_without_its_qos_class_takes_a_status(place: Place) -> None:
    spec = {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}
    tree = {
        "metadata": {"name": "old", "namespace": "default", "uid": "u"},
        "spec": spec,
        "status": {"phase": "Running"},
    }
    await place.store.commit(Transaction((Put(PODS.key("default", "old"), codec.encode_stored(tree)),)))
    merge = {"Content-Type": "application/merge-patch+json"}
    path = "/api/v1/namespaces/default/pods/old/status"
    status, answer = await place.admin.call("PATCH", path, {"status": {"message": "here"}}, merge)
    assert (status, answer.get("status", {}).get("qosClass")) == (200, "BestEffort"), answer
