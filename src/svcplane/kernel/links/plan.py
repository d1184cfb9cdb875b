"""Desired and observed network -> operations.  Pure.

Only what is missing is added; what is there already is adopted.  Of links, those that carry the owner's mark
and are no longer wanted are deleted.  Foreign links, addresses and routes are never looked at twice.
"""

from collections.abc import Iterable, Mapping, Sequence

from svcplane.kernel.links.objects import (
    AddAddress,
    AddLink,
    AddNamespace,
    DeleteLink,
    DeleteNamespace,
    NetworkSpace,
    Observed,
    Operation,
    ReplaceRoute,
    SetSysctl,
    SetUp,
    Veth,
)


def plan(desired: Sequence[NetworkSpace], observed: Mapping[str, Observed | None]) -> list[Operation]:
    """Operations that make every desired namespace hold at least what it should.

    Order: namespaces, links, addresses, sysctls, links up, routes; each across all namespaces, since a veth
    needs both of its namespaces and a route its device up with an address.  Deletes nothing.
    """
    names: list[Operation] = [
        AddNamespace(space.name) for space in desired if space.name and observed.get(space.name) is None
    ]
    links: list[Operation] = []
    addresses: list[Operation] = []
    sysctls: list[Operation] = []
    ups: list[Operation] = []
    routes: list[Operation] = []
    for space in desired:
        seen = observed.get(space.name) or Observed()
        links += [AddLink(space.name, link) for link in space.links if link.name not in seen.links]
        addresses += [AddAddress(space.name, wanted) for wanted in space.addresses if wanted not in seen.addresses]
        sysctls += [
            SetSysctl(space.name, key, value) for key, value in space.sysctls.items() if seen.sysctls.get(key) != value
        ]
        wanted_up = ("lo",) * bool(space.name) + tuple(link.name for link in space.links) + space.up
        ups += [SetUp(space.name, device) for device in wanted_up if not _is_up(seen, device)]
        routes += [ReplaceRoute(space.name, route) for route in space.routes if route not in seen.routes]
    # Bridges before the veths that join them, whatever the order they were named in.
    links.sort(key=lambda op: isinstance(op, AddLink) and isinstance(op.link, Veth))
    return names + links + addresses + sysctls + ups + routes


def _is_up(seen: Observed, device: str) -> bool:
    state = seen.links.get(device)
    return state is not None and state.up


def removal(prefix: str, existing: Iterable[str], keep: Iterable[str] = ()) -> list[Operation]:
    """Delete the namespaces of ours that are not in `keep`; their veths vanish with them."""
    kept = set(keep)
    return [DeleteNamespace(name) for name in existing if name.startswith(prefix) and name not in kept]


def stray_links(namespace: str, seen: Observed, mark: str, keep: Iterable[str] = ()) -> list[Operation]:
    """Delete the links in a namespace whose alias begins with `mark` and that are not in `keep`."""
    kept = set(keep)
    return [
        DeleteLink(namespace, link.name)
        for link in seen.links.values()
        if link.alias.startswith(mark) and link.name not in kept
    ]
