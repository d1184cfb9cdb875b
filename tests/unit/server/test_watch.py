"""Watches: where they begin, what they show, when they end."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest

from svcplane.server import watching as watch_stream
from svcplane.store.contract import Event, Revision
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


async def test_quiet_watch_has_a_bookmark_shortly_before_its_timeout(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_stream, "BOOKMARK_BEFORE_END_S", 0.9)
    watch = await watching(admin, f"allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={await version(admin)}")
    event = await watch.next()
    assert (event["type"], event["object"]["metadata"]["resourceVersion"]) == ("BOOKMARK", await version(admin))
    with pytest.raises(StopAsyncIteration):
        await watch.next()


async def test_a_watch_that_is_over_too_soon_has_no_bookmark(admin: Caller) -> None:
    watch = await watching(admin, f"allowWatchBookmarks=true&timeoutSeconds=1&resourceVersion={await version(admin)}")
    with pytest.raises(StopAsyncIteration):
        await watch.next()


async def test_watch_whose_selector_hides_all_traffic_still_gets_bookmarks(
    admin: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_stream, "BOOKMARK_EVERY_S", 0.05)
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


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():
            await asyncio.sleep(0)


class Pipe:
    """A sink with room, or without."""

    def __init__(self) -> None:
        self.room, self.events = True, list[tuple[str, str]]()

    def has_room(self) -> bool:
        return self.room

    def write(self, chunk: bytes) -> None:
        events = [json.loads(line) for line in chunk.splitlines()]
        self.events += [(event["type"], event["object"]["metadata"]["name"]) for event in events]


async def test_what_happens_while_a_reader_waits_is_pushed_as_far_as_there_is_room(admin: Caller) -> None:
    response = await admin.send("GET", f"{SERVICES}?watch=1&resourceVersion={await version(admin)}")
    assert response.stream is not None
    assert response.push_to is not None
    pipe = Pipe()
    response.push_to(pipe)
    watch = Watching(response.stream)
    reading = asyncio.create_task(watch.next())
    await asyncio.sleep(0)
    for name in ("a", "b"):
        await admin.call("POST", SERVICES, service(name))
    await until(lambda: len(pipe.events) == 2)
    assert not reading.done()
    pipe.room = False
    await admin.call("POST", SERVICES, service("c"))
    assert (await reading)["object"]["metadata"]["name"] == "c"
    assert pipe.events == [("ADDED", "a"), ("ADDED", "b")]
    await watch.close()
    page = (await admin.send("GET", "/metrics")).body
    assert b'apiserver_watch_events_total{group="",resource="services",version="v1"} 3.0' in page


async def test_watchers_with_selectors_see_their_own_part_of_what_is_pushed(admin: Caller) -> None:
    start = await version(admin)
    pipes: dict[str, Pipe] = {"tier=web": Pipe(), "!tier": Pipe(), "": Pipe()}
    streams = []
    for selector, pipe in pipes.items():
        response = await admin.send("GET", f"{SERVICES}?watch=1&labelSelector={selector}&resourceVersion={start}")
        assert response.stream is not None
        assert response.push_to is not None
        response.push_to(pipe)
        streams.append(asyncio.create_task(Watching(response.stream).next()))
    await asyncio.sleep(0)
    await admin.call("POST", SERVICES, service("web", tier="web"))
    await admin.call("POST", SERVICES, service("bare"))
    merge = {"Content-Type": "application/merge-patch+json"}
    await admin.call("PATCH", f"{SERVICES}/web", {"metadata": {"labels": {"tier": None}}}, merge)
    await until(lambda: len(pipes[""].events) == 3)
    assert {selector: pipe.events for selector, pipe in pipes.items()} == {
        "tier=web": [("ADDED", "web"), ("DELETED", "web")],
        "!tier": [("ADDED", "bare"), ("ADDED", "web")],
        "": [("ADDED", "web"), ("ADDED", "bare"), ("MODIFIED", "web")],
    }
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*streams, return_exceptions=True)


async def test_a_pod_that_goes_at_once_is_seen_to_go_first(admin: Caller) -> None:
    pods = "/api/v1/namespaces/default/pods"
    spec = {"containers": [{"name": "c", "image": "i"}], "nodeName": "n"}
    await admin.call("POST", pods, {"metadata": {"name": "p"}, "spec": spec})
    watch = await watching(admin, "resourceVersion=0", pods)
    await admin.call("DELETE", f"{pods}/p")
    late = await admin.call("DELETE", f"{pods}/p", {"propagationPolicy": "Orphan"})
    assert "finalizers" not in late[1]["metadata"]
    await admin.call("DELETE", f"{pods}/p?gracePeriodSeconds=0")
    events = [await watch.next() for _ in range(4)]
    seen = [(e["type"], e["object"]["metadata"].get("deletionGracePeriodSeconds")) for e in events]
    assert seen == [("ADDED", None), ("MODIFIED", 30), ("MODIFIED", 0), ("DELETED", 0)]
    await watch.close()


def test_what_watchers_share_stays_within_its_bounds() -> None:
    made: list[Revision] = []

    def lines(events: Sequence[Event]) -> list[bytes]:
        made.extend(event.revision for event in events)
        return [b"x" * (watch_stream.MAX_ENCODED_BYTES // 2 + 1)]

    def represent(*_args: object, **_more: object) -> bytes:
        raise AssertionError

    shared = watch_stream.Shared(represent)
    first, second = ([Event("k", b"", None, Revision(at), Revision(at), Revision(0))] for at in (1, 2))
    for events in (first, first, second, second, first):
        assert shared.chunk(("view",), events, lines)[1] == 1
    assert made == [1, 2, 1]
