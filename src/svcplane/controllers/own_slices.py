"""The EndpointSlices one controller writes, by Service, as of its own last write.

An answer to a write is taken over at once, so that the next plan is made on it and not on a cache that has not
heard of it; the watch's echo of that write then changes nothing and is not reported.
Resource versions of one collection are compared as numbers (KEP-5504).
"""

from collections.abc import Callable

from svcplane.api.discovery import MANAGED_BY, SERVICE_NAME, EndpointSlice
from svcplane.client.informer import Informer

Group = dict[str, EndpointSlice]  # by name


def version(slice_: EndpointSlice) -> int:
    return int(slice_.metadata.resource_version or "0")


def service_key(slice_: EndpointSlice) -> str:
    return f"{slice_.metadata.namespace}/{slice_.metadata.labels.get(SERVICE_NAME, '')}"


class OwnSlices:
    """`manager`: the value of the managed-by label.  `on_foreign(service key)` is called where somebody else
    changed, made or deleted one."""

    def __init__(self, informer: Informer[EndpointSlice], manager: str, on_foreign: Callable[[str], None]) -> None:
        self._informer, self._manager, self._on_foreign = informer, manager, on_foreign
        self._groups: dict[str, Group] = {}
        self._doomed: set[str] = set()  # uids of what we deleted and still see
        informer.on_change(self._changed)

    def of(self, key: str) -> Group:
        """By name; not to be changed."""
        return self._groups.get(key, {})

    def wrote(self, key: str, slice_: EndpointSlice) -> None:
        """What the server answered to a create or an update.

        The watch may have shown by then what somebody else did to it: that stays, and is dealt with.
        """
        known = self.of(key).get(slice_.metadata.name)
        if known is not None and version(known) > version(slice_):
            return
        if slice_.key not in self._informer.items and int(self._informer.version or "0") >= version(slice_):
            self._drop(key, slice_.metadata.name)
            self._on_foreign(key)
            return
        self._groups.setdefault(key, {})[slice_.metadata.name] = slice_

    def deleted(self, key: str, name: str) -> None:
        slice_ = self._drop(key, name)
        seen = self._informer.items.get(slice_.key) if slice_ else None
        if slice_ is not None and seen is not None and seen.metadata.uid == slice_.metadata.uid:
            self._doomed.add(slice_.metadata.uid)

    def distrust(self, key: str) -> None:
        """A write met something unexpected: go back to what the watch has shown."""
        group = {
            slice_.metadata.name: slice_
            for slice_ in self._informer.items.values()
            if self._mine(slice_) and service_key(slice_) == key
        }
        if group:
            self._groups[key] = group
        else:
            self._groups.pop(key, None)

    def _mine(self, slice_: EndpointSlice) -> bool:
        """One that names no Service is nobody's: it stays as somebody left it."""
        labels = slice_.metadata.labels
        return labels.get(MANAGED_BY) == self._manager and bool(labels.get(SERVICE_NAME))

    def _drop(self, key: str, name: str) -> EndpointSlice | None:
        group = self._groups.get(key, {})
        found = group.pop(name, None)
        if not group:
            self._groups.pop(key, None)
        return found

    def _changed(self, old: EndpointSlice | None, new: EndpointSlice | None) -> None:
        if old is not None and self._mine(old):
            if new is None:
                self._gone(old)
            elif not self._mine(new) or service_key(new) != service_key(old):
                self._drop(service_key(old), old.metadata.name)
                self._on_foreign(service_key(old))
        if new is not None and self._mine(new):
            self._seen(new)

    def _gone(self, old: EndpointSlice) -> None:
        if old.metadata.uid in self._doomed:
            self._doomed.discard(old.metadata.uid)
            return
        key, name = service_key(old), old.metadata.name
        known = self.of(key).get(name)
        if known is not None and known.metadata.uid == old.metadata.uid:
            self._drop(key, name)
            self._on_foreign(key)

    def _seen(self, new: EndpointSlice) -> None:
        if new.metadata.uid in self._doomed:
            return
        key, name = service_key(new), new.metadata.name
        known = self.of(key).get(name)
        if known is not None and version(known) >= version(new):
            return
        self._groups.setdefault(key, {})[name] = new
        self._on_foreign(key)
