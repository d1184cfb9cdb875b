"""Watches: where they begin, what they show, when they end."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from svcplane.server import reading
from svcplane.testing.server import Caller

SERVICES = "/api/v1/namespaces/default/services"


def service(name: str, **labels: str) -> dict[str, Any]:
    meta = {"name": name, "labels": labels}
    return {"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": {"ports": [{"port": 80}]}}


class Watching:
    def __init__(self, stream: AsyncIterator[bytes]) -> None:
        self._stream, self._ready = stream, list[dict[str, Any]]()

    async def next(self) -> dict[str, Any]:
        async with asyncio.timeout(10):
            while not self._ready:
                self._ready += [json.loads(line) for line in (await anext(self._stream)).splitlines()]
        return self._ready.pop(0)

    async def close(self) -> None:
        await self._stream.aclose()  # type: ignore[attr-defined]


async def watching(admin: Caller, query: str, path: str = SERVICES) -> Watching:
    response = await admin.send("GET", f"{path}?watch=1&{query}")
    assert response.stream is not None, response.body
    return Watching(response.stream)


async def version(admin: Caller) -> str:
    return str((await admin.call("GET", SERVICES))[1]["metadata"]["resourceVersion"])


async def test_watch_from_a_version_shows_what_came_after_in_order(admin: Caller) -> None:
    start = await version(admin)
    for name in ("a", "b"):
        await admin.call("POST", SERVICES, service(name))
    await admin.call("DELETE", f"{SERVICES}/a")
    watch = await watching(admin, f"resourceVersion={start}")
    events = [await watch.next() for _ in range(3)]
    assert [(e["type"], e["object"]["metadata"]["name"]) for e in events] == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("DELETED", "a"),
    ]
    versions = [int(e["object"]["metadata"]["resourceVersion"]) for e in events]
    assert versions == sorted(set(versions))
    await watch.close()


async def test_object_that_begins_or_ceases_to_match_comes_and_goes(admin: Caller) -> None:
    await admin.call("POST", SERVICES, service("a"))
    watch = await watching(admin, f"labelSelector=tier%3Dweb&resourceVersion={await version(admin)}")
    merge = {"Content-Type": "application/merge-patch+json"}
    for tier in ("web", "web2", None):
        await admin.call("PATCH", f"{SERVICES}/a", {"metadata": {"labels": {"tier": tier}}}, merge)
    assert [(await watch.next())["type"] for _ in range(2)] == ["ADDED", "DELETED"]
    await watch.close()


async def test_initial_events_end_with_an_annotated_bookmark(admin: Caller) -> None:
    await admin.call("POST", SERVICES, service("a"))
    query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
    watch = await watching(admin, query)
    events = [await watch.next() for _ in range(3)]
    assert [e["type"] for e in events] == ["ADDED", "ADDED", "BOOKMARK"]
    assert events[2]["object"]["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}
    assert events[2]["object"]["metadata"]["resourceVersion"] == await version(admin)
    await watch.close()


@pytest.mark.parametrize("since", ["", "&resourceVersion=0"])
async def test_watch_that_declines_initial_events_begins_now(admin: Caller, since: str) -> None:
    await admin.call("POST", SERVICES, service("a"))
    watch = await watching(admin, f"sendInitialEvents=false&resourceVersionMatch=NotOlderThan{since}")
    await admin.call("POST", SERVICES, service("b"))
    event = await watch.next()
    assert (event["type"], event["object"]["metadata"]["name"]) == ("ADDED", "b")
    await watch.close()


async def test_initial_events_without_their_match_rule_are_refused(admin: Caller) -> None:
    status, body = await admin.call("GET", f"{SERVICES}?watch=1&sendInitialEvents=true")
    assert (status, body["reason"]) == (422, "Invalid")


async def test_version_in_the_future_is_told_to_wait(admin: Caller) -> None:
    status, body = await admin.call("GET", f"{SERVICES}?watch=1&resourceVersion=99999999")
    assert status == 504
    assert body["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"


async def test_forgotten_version_is_gone_in_an_error_event(admin: Caller) -> None:
    watch = await watching(admin, "resourceVersion=1")
    event = await watch.next()
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


async def test_quiet_watch_ends_at_its_timeout_with_a_bookmark(admin: Caller) -> None:
    watch = await watching(admin, f"allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={await version(admin)}")
    event = await watch.next()
    assert (event["type"], event["object"]["metadata"]["resourceVersion"]) == ("BOOKMARK", await version(admin))
    with pytest.raises(StopAsyncIteration):
        await watch.next()


async def test_watch_whose_selector_hides_all_traffic_still_gets_bookmarks(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BOOKMARK_EVERY_S", 0.05)
    start = await version(admin)
    watch = await watching(admin, f"allowWatchBookmarks=true&labelSelector=no%3Dmatch&resourceVersion={start}")
    stop = asyncio.Event()

    async def traffic() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            await admin.call("POST", SERVICES, service(f"t{number}"))
            await asyncio.sleep(0.001)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(traffic())
        seen = [await watch.next() for _ in range(3)]
        stop.set()
    assert [event["type"] for event in seen] == ["BOOKMARK"] * 3
    assert int(seen[-1]["object"]["metadata"]["resourceVersion"]) > int(start)
    await watch.close()
