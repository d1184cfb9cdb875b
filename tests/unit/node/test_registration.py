"""The Node and its Lease: made, renewed, and made again when somebody deletes them."""

import asyncio
from typing import Any

from svcplane.api.resources import NODES, Resource
from svcplane.api.status import not_found
from svcplane.node.registration import RENEW_S, NodeFacts, Registration

Tree = dict[str, Any]
FACTS = NodeFacts("n1", ("192.0.2.1",), ("10.1.0.0/24",))


class MemoryApi:
    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Tree] = {}

    async def get(self, resource: Resource, namespace: str, name: str) -> Tree:
        return self._found(resource, name)

    def _found(self, resource: Resource, name: str) -> Tree:
        if (resource.plural, name) not in self.objects:
            raise not_found(resource.plural, name)
        return self.objects[resource.plural, name]

    async def create(self, resource: Resource, namespace: str, obj: Tree) -> Tree:
        self.objects[resource.plural, obj["metadata"]["name"]] = obj
        return obj

    async def patch(self, resource: Resource, namespace: str, name: str, patch: Tree, *, subresource: str = "") -> Tree:
        found = self._found(resource, name)
        found |= {key: value for key, value in patch.items() if key != "metadata"}
        return found

    async def delete(
        self, resource: Resource, namespace: str, name: str, *, uid: str = "", grace_s: int | None = None
    ) -> None:
        del self.objects[resource.plural, name]


class Steps:
    """A clock that goes on when it is told to."""

    def __init__(self) -> None:
        self.time = 0.0
        self.slept: list[float] = []
        self.go = asyncio.Event()

    def now(self) -> float:
        return self.time

    def wall(self) -> float:
        return 1e9 + self.time

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        await self.go.wait()
        self.go.clear()
        self.time += seconds


async def test_node_that_was_deleted_is_there_again_at_the_next_heartbeat() -> None:
    api, clock = MemoryApi(), Steps()
    registration = Registration(FACTS, api, clock)
    assert await registration.register() == ("10.1.0.0/24",)
    heart = asyncio.create_task(registration.run())
    del api.objects[NODES.plural, "n1"]
    clock.go.set()
    while clock.slept != [RENEW_S, RENEW_S]:
        await asyncio.sleep(0)
    made = api.objects[NODES.plural, "n1"]
    assert made["spec"]["podCIDR"] == "10.1.0.0/24"
    assert made["status"]["conditions"][0]["status"] == "True"
    assert api.objects["leases", "n1"]["spec"]["holderIdentity"] == "n1"
    heart.cancel()
    await asyncio.gather(heart, return_exceptions=True)
