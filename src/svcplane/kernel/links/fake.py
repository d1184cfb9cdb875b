"""An in-memory kernel for links with the contract of `objects.Links`.  Pure but for its own state."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import assert_never

from svcplane.base.errors import KernelError
from svcplane.kernel.links.objects import (
    AddAddress,
    AddLink,
    AddNamespace,
    Address,
    DeleteLink,
    DeleteNamespace,
    LinkState,
    Observed,
    Operation,
    ReplaceRoute,
    Route,
    SetSysctl,
    SetUp,
    Veth,
)


@dataclass(slots=True)
class _Space:
    links: dict[str, LinkState] = field(default_factory=lambda: {"lo": LinkState("lo")})
    addresses: set[Address] = field(default_factory=set)
    routes: set[Route] = field(default_factory=set)
    sysctls: dict[str, str] = field(default_factory=dict)
    peers: dict[str, tuple[str, str]] = field(default_factory=dict)  # device -> (namespace, device)


class FakeLinks:
    """Starts with the own namespace "" alone."""

    def __init__(self) -> None:
        self._spaces: dict[str, _Space] = {"": _Space()}

    def namespaces(self, prefix: str) -> Sequence[str]:
        return sorted(name for name in self._spaces if name and name.startswith(prefix))

    def observe(self, namespace: str, sysctls: Iterable[str] = ()) -> Observed | None:
        space = self._spaces.get(namespace)
        if space is None:
            return None
        known = {key: space.sysctls.get(key, "0") for key in sysctls}
        return Observed(dict(space.links), frozenset(space.addresses), frozenset(space.routes), known)

    def apply(self, operations: Sequence[Operation]) -> None:
        for operation in operations:
            self._one(operation)

    def _space(self, name: str) -> _Space:
        if name not in self._spaces:
            raise KernelError(f'Cannot open network namespace "{name}": No such file or directory')
        return self._spaces[name]

    def _device(self, namespace: str, name: str) -> tuple[_Space, LinkState]:
        space = self._space(namespace)
        if name not in space.links:
            raise KernelError(f'Cannot find device "{name}"')
        return space, space.links[name]

    def _one(self, operation: Operation) -> None:
        match operation:
            case AddNamespace(name):
                if name in self._spaces:
                    raise KernelError(f'Cannot create namespace file "/run/netns/{name}": File exists')
                self._spaces[name] = _Space()
            case DeleteNamespace(name):
                for device in list(self._space(name).links):
                    self._unlink(name, device)
                del self._spaces[name]
            case AddLink(namespace, link):
                self._add_link(namespace, link)
            case DeleteLink(namespace, name):
                self._device(namespace, name)
                self._unlink(namespace, name)
            case SetUp(namespace, name):
                space, state = self._device(namespace, name)
                space.links[name] = LinkState(name, True, state.alias, state.master)
            case AddAddress(namespace, address):
                self._device(namespace, address.device)[0].addresses.add(address)
            case ReplaceRoute(namespace, route):
                space, state = self._device(namespace, route.device)
                if not state.up:
                    raise KernelError("RTNETLINK answers: Network is down")
                space.routes = {
                    old for old in space.routes if (old.destination, old.family) != (route.destination, route.family)
                } | {route}
            case SetSysctl(namespace, key, value):
                self._space(namespace).sysctls[key] = value
            case _:
                assert_never(operation)

    def _add_link(self, namespace: str, link: object) -> None:
        space = self._space(namespace)
        name = getattr(link, "name", "")
        if name in space.links:
            raise KernelError("RTNETLINK answers: File exists")
        if isinstance(link, Veth):
            far = self._space(link.peer_namespace)
            if link.peer in far.links:
                raise KernelError("RTNETLINK answers: File exists")
            if link.master and link.master not in space.links:
                raise KernelError(f'Cannot find device "{link.master}"')
            far.links[link.peer] = LinkState(link.peer)
            far.peers[link.peer] = (namespace, name)
            space.peers[name] = (link.peer_namespace, link.peer)
        space.links[name] = LinkState(name, False, getattr(link, "mark", ""), getattr(link, "master", ""))

    def _unlink(self, namespace: str, device: str) -> None:
        space = self._spaces[namespace]
        if device not in space.links:
            return
        del space.links[device]
        space.addresses = {address for address in space.addresses if address.device != device}
        space.routes = {route for route in space.routes if route.device != device}
        peer = space.peers.pop(device, None)
        if peer is not None:
            self._unlink(*peer)
