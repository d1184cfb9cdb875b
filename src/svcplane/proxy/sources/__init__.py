"""Where Services and EndpointSlices come from: an API server (`api`) or files (`manifests`, `directory`).

A Source is four feeds; a feed is what an informer offers.  The agent does not know which it has.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from svcplane.api.core import Node, Service
from svcplane.api.discovery import EndpointSlice
from svcplane.api.networking import ServiceCIDR

T = TypeVar("T", covariant=True)


class Feed(Protocol[T]):
    """Objects of one kind, kept current.

    `synced`: all that was there at first has been handed on.  `tried`: that, or the first attempt failed.
    """

    synced: asyncio.Event
    tried: asyncio.Event

    @property
    def items(self) -> Mapping[str, T]: ...

    @property
    def version(self) -> str:
        """The resourceVersion that handlers have been told of; empty where the source has no such thing."""

    def on_change(self, handler: Callable[[Any, Any], None]) -> None:
        """`handler(old, new)`; add handlers before starting."""


class Source(Protocol):
    """`nodes` holds this node only, where it is known at all."""

    @property
    def services(self) -> Feed[Service]: ...

    @property
    def slices(self) -> Feed[EndpointSlice]: ...

    @property
    def nodes(self) -> Feed[Node]: ...

    @property
    def cidrs(self) -> Feed[ServiceCIDR]: ...

    def start(self) -> None: ...

    async def close(self) -> None: ...
