"""Slices that a controller holds for its own, when others touch them at the same time."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from svcplane.api.discovery import EndpointSlice
from svcplane.controllers.own_slices import OwnSlices

KEY, MANAGER = "default/web", "me"


class Watched:
    """What an informer has shown."""

    def __init__(self) -> None:
        self.items: dict[str, EndpointSlice] = {}
        self.version = "1"
        self._handler: Callable[[EndpointSlice | None, EndpointSlice | None], None]

    def on_change(self, handler: Callable[[EndpointSlice | None, EndpointSlice | None], None]) -> None:
        self._handler = handler

    def show(self, slice_: EndpointSlice, *, gone: bool = False) -> None:
        old = self.items.pop(slice_.key, None)
        if not gone:
            self.items[slice_.key] = slice_
        self.version = slice_.metadata.resource_version
        self._handler(old, None if gone else slice_)


def a_slice(version: int) -> EndpointSlice:
    labels = {"endpointslice.kubernetes.io/managed-by": MANAGER, "kubernetes.io/service-name": "web"}
    meta = {"name": "web-1", "namespace": "default", "uid": "u", "resourceVersion": str(version), "labels": labels}
    return msgspec.convert({"metadata": meta}, EndpointSlice)


@pytest.fixture
def place() -> Any:
    watched, foreign = Watched(), []
    own = OwnSlices(watched, MANAGER, foreign.append)  # type: ignore[arg-type]
    return SimpleNamespace(watched=watched, foreign=foreign, own=own)


def test_the_echo_of_our_own_write_is_no_news(place: Any) -> None:
    place.own.wrote(KEY, a_slice(5))
    place.watched.show(a_slice(5))
    assert place.foreign == []


def test_a_change_that_was_seen_before_the_answer_to_our_write_stays(place: Any) -> None:
    place.watched.show(a_slice(3))
    place.watched.show(a_slice(6))
    place.own.wrote(KEY, a_slice(5))
    assert place.own.of(KEY)["web-1"].metadata.resource_version == "6"
    assert place.foreign == [KEY, KEY]


def test_a_deletion_that_was_seen_before_the_answer_to_our_write_is_dealt_with(place: Any) -> None:
    place.watched.show(a_slice(3))
    place.watched.show(a_slice(6), gone=True)
    place.foreign.clear()
    place.own.wrote(KEY, a_slice(5))
    assert place.own.of(KEY) == {}
    assert place.foreign == [KEY]


def test_what_the_watch_has_not_shown_yet_is_taken_from_the_answer(place: Any) -> None:
    place.own.wrote(KEY, a_slice(5))
    assert place.own.of(KEY)["web-1"].metadata.resource_version == "5"
    assert place.foreign == []
