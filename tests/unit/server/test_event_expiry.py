"""Events go some time after they were last written."""

from typing import Any

from svcplane.base.clock import SYSTEM_CLOCK
from svcplane.server.event_expiry import EventExpiry, written_at
from svcplane.store.contract import PreconditionFailed, Revision, Transaction
from svcplane.store.memory import MemoryStore
from svcplane.testing.server import Caller, in_process_server

PATH = "/api/v1/namespaces/default/events"


class Later:
    """A clock that shows another time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def now(self) -> float:
        return SYSTEM_CLOCK.now() + self.seconds

    def wall(self) -> float:
        return SYSTEM_CLOCK.wall() + self.seconds

    async def sleep(self, seconds: float) -> None:
        await SYSTEM_CLOCK.sleep(seconds)


def event(name: str, **more: Any) -> dict[str, Any]:
    involved = {"kind": "Service", "namespace": "default", "name": "web"}
    return {"metadata": {"name": name}, "involvedObject": involved, **more}


async def names(admin: Caller) -> list[str]:
    _, found = await admin.call("GET", PATH)
    return [item["metadata"]["name"] for item in found["items"]]


def test_the_last_write_counts_and_not_what_the_client_says() -> None:
    meta = {
        "creationTimestamp": "2026-01-01T00:00:00Z",
        "managedFields": [{"time": "2026-01-01T00:30:00Z"}, {"time": "2026-01-01T00:10:00Z"}, {}],
    }
    assert written_at({"metadata": meta, "lastTimestamp": "2027-01-01T00:00:00Z"}) == 1767227400
    assert written_at({"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}}) == 1767225600


async def test_old_events_go_and_others_stay() -> None:
    store = MemoryStore()
    async with in_process_server(store=store) as server:
        admin = Caller(server.handle)
        for number in range(450):
            assert (await admin.call("POST", PATH, event(f"old-{number}")))[0] == 201
        assert await EventExpiry(store, Later(3590)).expire() == 0
        watch = await store.watch("", await store.revision())
        assert await EventExpiry(store, Later(3602)).expire() == 450
        assert await names(admin) == []
        assert len(await watch.read(1) or ()) == 450
        await watch.aclose()
        assert (await admin.call("POST", PATH, event("young")))[0] == 201
        assert await EventExpiry(store, Later(60)).expire() == 0
        assert await names(admin) == ["young"]


class WrittenAgain(MemoryStore):
    """Another writer is quicker than each deletion."""

    async def commit(self, transaction: Transaction) -> Revision:
        if transaction.preconditions and not hasattr(transaction.operations[0], "value"):
            raise PreconditionFailed(transaction.operations[0].key, None)
        return await super().commit(transaction)


async def test_an_event_that_is_written_meanwhile_stays() -> None:
    store = WrittenAgain()
    async with in_process_server(store=store) as server:
        admin = Caller(server.handle)
        assert (await admin.call("POST", PATH, event("again")))[0] == 201
        assert await EventExpiry(store, Later(3700)).expire() == 0
        assert await names(admin) == ["again"]
