"""What comes between a write's reading and its commit: another server, or another request."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from svcplane.api.resources import IP_ADDRESSES, PODS, SERVICES
from svcplane.server.in_use import PORT_PREFIX, ip_key, ip_record, port_key, port_record
from svcplane.store.contract import Put, Revision, Transaction
from svcplane.store.memory import MemoryStore
from svcplane.testing.server import Caller, in_process_server

PATH = "/api/v1/namespaces/{}/services"
MERGE = {"Content-Type": "application/merge-patch+json"}
Tree = dict[str, Any]


class Interrupted(MemoryStore):
    """Does something just before the next commit that writes below a prefix."""

    def __init__(self) -> None:
        super().__init__()
        self.prefix = ""
        self.before: Callable[[], Awaitable[Any]] | None = None
        self.wanted: list[str] = []  # what that commit is to write

    async def commit(self, transaction: Transaction) -> Revision:
        before, keys = self.before, [operation.key for operation in transaction.operations]
        if before is not None and any(key.startswith(self.prefix) for key in keys):
            self.before, self.wanted = None, keys
            await before()
        return await super().commit(transaction)

    def just_before(self, prefix: str, do: Callable[[], Awaitable[Any]]) -> None:
        self.prefix, self.before = prefix, do


class Place:
    def __init__(self, store: Interrupted, api: Caller) -> None:
        self.store, self.api = store, api

    async def make(self, name: str, **spec: Any) -> Tree:
        body = {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}
        status, made = await self.api.call("POST", PATH.format("default"), body)
        assert status == 201, made
        return dict(made)


@pytest.fixture
async def place() -> AsyncIterator[Place]:
    store = Interrupted()
    async with in_process_server(store=store) as server:
        yield Place(store, Caller(server.handle))


@pytest.mark.parametrize("whole", [True, False])
async def test_nothing_is_created_in_a_namespace_that_goes_meanwhile(place: Place, whole: bool) -> None:
    """`whole`: it is gone by then, else it is being emptied."""
    await place.api.call("POST", "/api/v1/namespaces", {"metadata": {"name": "team"}})

    async def delete() -> None:
        _, going = await place.api.call("DELETE", "/api/v1/namespaces/team")
        if whole:
            going["spec"]["finalizers"] = []
            assert (await place.api.call("PUT", "/api/v1/namespaces/team/finalize", going))[0] == 200

    place.store.just_before(SERVICES.key("team", "web"), delete)
    body = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}
    status, answer = await place.api.call("POST", PATH.format("team"), body)
    assert (status, answer["reason"]) == ((404, "NotFound") if whole else (403, "Forbidden"))
    assert not (await place.store.list(SERVICES.key("team", ""))).items


async def test_a_namespace_that_only_changes_is_no_obstacle(place: Place) -> None:
    async def label() -> None:
        await place.api.call("PATCH", "/api/v1/namespaces/default", {"metadata": {"labels": {"a": "b"}}}, MERGE)

    place.store.just_before(PODS.key("default", "p"), label)
    spec = {"containers": [{"name": "c", "image": "i"}]}
    status, _ = await place.api.call(
        "POST", "/api/v1/namespaces/default/pods", {"metadata": {"name": "p"}, "spec": spec}
    )
    assert status == 201


async def test_a_node_port_that_another_server_takes_meanwhile_is_not_called_a_conflict(place: Place) -> None:
    """The Service is as the client knows it: another number serves as well, and a number asked for is taken."""
    made = await place.make("web", type="NodePort")
    wanted = [*made["spec"]["ports"], {"name": "b", "port": 81, "nodePort": 30080, "protocol": "TCP"}]
    wanted[0]["name"] = "a"

    async def take() -> None:
        await place.store.commit(Transaction((Put(port_key(30080), port_record("default", "other")),)))

    place.store.just_before(SERVICES.key("default", "web"), take)
    body = {**made, "spec": {**made["spec"], "ports": wanted}}
    status, answer = await place.api.call("PUT", f"{PATH.format('default')}/web", body)
    assert (status, answer["reason"]) == (422, "Invalid")
    assert "already allocated" in answer["message"]


async def test_any_other_node_port_is_taken_where_the_chosen_one_is_gone_meanwhile(place: Place) -> None:
    made = await place.make("web")
    taken: list[str] = []

    async def take() -> None:
        (chosen,) = [key for key in place.store.wanted if key.startswith(PORT_PREFIX)]
        taken.append(chosen)
        await place.store.commit(Transaction((Put(chosen, port_record("default", "other")),)))

    place.store.just_before(SERVICES.key("default", "web"), take)
    body = {**made, "spec": {**made["spec"], "type": "NodePort"}}
    status, answer = await place.api.call("PUT", f"{PATH.format('default')}/web", body)
    assert status == 200
    assert port_key(answer["spec"]["ports"][0]["nodePort"]) not in taken
    assert len(taken) == 1


@pytest.mark.parametrize("verb", ["delete", "update"])
async def test_an_address_that_has_another_owner_meanwhile_is_not_freed(place: Place, verb: str) -> None:
    """Somebody deleted the IPAddress, and another Service has got it."""
    made = await place.make("web")
    ip = made["spec"]["clusterIP"]

    async def hand_over() -> None:
        await place.store.commit(Transaction((Put(ip_key(ip), ip_record(ip, "default", "other", "")),)))

    place.store.just_before(SERVICES.key("default", "web"), hand_over)
    if verb == "delete":
        status, _ = await place.api.call("DELETE", f"{PATH.format('default')}/web")
    else:
        patch = {"spec": {"type": "ExternalName", "externalName": "example.org", "clusterIP": None, "clusterIPs": None}}
        status, _ = await place.api.call("PATCH", f"{PATH.format('default')}/web", patch, MERGE)
    assert status == 200
    assert await place.store.get(IP_ADDRESSES.key("", ip)) is not None
