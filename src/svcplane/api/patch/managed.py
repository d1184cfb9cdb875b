"""Who owns which field: field sets and `metadata.managedFields`.  Pure.

A field set is a set of paths; a path is a tuple of FieldsV1 elements: `f:name`, `k:{...}` for an item of a keyed
list, `v:...` for a member of a set, and a last `.` for the item itself.
Source: KEP-555; sigs.k8s.io/structured-merge-diff fieldpath.
"""

import json
from collections.abc import Iterable
from typing import Any

import msgspec

from svcplane.api.schema import Field, Type, fields_of

Path = tuple[str, ...]
FieldSet = frozenset[Path]
#: Lists that even an object without anything has.
_ALWAYS_THERE = {("f:spec", "f:containers")}
MAX_UPDATERS, ANCIENT = 10, "ancient-changes"
_UNTRACKED = {
    ("f:apiVersion",),
    ("f:kind",),
    *(
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    ),
}


class Manager(msgspec.Struct, frozen=True, gc=False):
    """Identity of an entry.  `operation` is Apply or Update."""

    name: str
    operation: str
    subresource: str = ""


class Entry(msgspec.Struct, frozen=True, gc=False):
    """What one manager owns; `time` of its last change, "" where whoever wrote the entry told of none."""

    manager: Manager
    time: str
    fields: FieldSet


def item_key(item: Any, keys: tuple[str, ...]) -> str:
    """`k:{"port":80,"protocol":"TCP"}`; the protocol of a port defaults to TCP."""
    found = {key: item.get(key, "TCP" if key == "protocol" else None) for key in sorted(keys)}
    return "k:" + json.dumps({k: v for k, v in found.items() if v is not None}, separators=(",", ":"))


def leaves(
    value: Any, type_: Type, field: Field | None = None, prefix: Path = (), *, parents: bool = False
) -> dict[Path, Any]:
    """Owned paths of a value and what is there.  `parents`: with a `.` for each list, map and inner struct itself, as
    those have who set them other than by an apply."""
    if prefix in _UNTRACKED:
        return {}
    itself = parents and value and len(prefix) > 1 and prefix not in _ALWAYS_THERE
    found: dict[Path, Any] = {(*prefix, "."): True} if itself else {}
    if type_.is_granular and isinstance(value, dict) and (value or not prefix):
        fields = fields_of(type_.name)
        for key, inner in value.items():
            spec = fields.get(key)
            if spec is not None:
                found |= leaves(inner, spec.type, spec, (*prefix, f"f:{key}"), parents=parents)
        return found
    if type_.shape == "map" and isinstance(value, dict) and value and field is not None and not field.is_atomic:
        return found | {(*prefix, f"f:{key}"): inner for key, inner in value.items()}
    if type_.shape == "list" and isinstance(value, list) and field is not None:
        if field.list_keys and type_.item is not None:
            return found | _items(value, type_.item, field.list_keys, prefix, parents=parents)
        if field.is_set:
            return found | {(*prefix, f"v:{json.dumps(item)}"): item for item in value}
    return {prefix: value} if prefix else {}


def _items(value: list[Any], item_type: Type, keys: tuple[str, ...], prefix: Path, *, parents: bool) -> dict[Path, Any]:
    found: dict[Path, Any] = {}
    for item in value:
        if not isinstance(item, dict):
            continue
        place = (*prefix, item_key(item, keys))
        if not item_type.is_granular:
            found[(*place, ".")] = item
            continue
        found[(*place, ".")] = True
        found.update(leaves(item, item_type, None, place, parents=parents))
    return found


def object_leaves(tree: dict[str, Any], kind: str, *, parents: bool = False) -> dict[Path, Any]:
    """`leaves` of a whole object."""
    return leaves(tree, Type("struct", kind), parents=parents)


def differences(after: dict[str, Any], before: dict[str, Any], kind: str) -> tuple[set[Path], set[Path]]:
    """Owned paths of `after`, parents too, that are new or have another value, and those of `before` that are gone.

    What is equal is not walked: most writes change little of an object.
    """
    changed: set[Path] = set()
    removed: set[Path] = set()
    _differ(after, before, Type("struct", kind), None, (), changed, removed)
    return changed, removed


def _differ(
    now: Any, then: Any, type_: Type, field: Field | None, prefix: Path, changed: set[Path], removed: set[Path]
) -> None:
    if now == then:
        return
    both = type_.is_granular and isinstance(now, dict) and isinstance(then, dict)
    if not both or prefix in _UNTRACKED or (prefix and not (now and then)):
        present = leaves(now, type_, field, prefix, parents=True)
        past = leaves(then, type_, field, prefix, parents=True)
        changed.update(path for path, value in present.items() if path not in past or past[path] != value)
        changed.difference_update((*path, ".") for path in past)  # what was empty is not new
        removed.update(past.keys() - present.keys())
        return
    fields = fields_of(type_.name)
    for key in now.keys() | then.keys():
        spec = fields.get(key)
        if spec is None:
            continue
        place = (*prefix, f"f:{key}")
        if key not in then:
            changed.update(leaves(now[key], spec.type, spec, place, parents=True))
        elif key not in now:
            removed.update(leaves(then[key], spec.type, spec, place, parents=True))
        else:
            _differ(now[key], then[key], spec.type, spec, place, changed, removed)


def to_fields_v1(fields: Iterable[Path]) -> dict[str, Any]:
    """Paths as FieldsV1 has them: nested objects by element, empty where a path ends."""
    root: dict[str, Any] = {}
    for path in sorted(fields):
        node = root
        for element in path:
            node = node.setdefault(element, {})
    return _without_lone_dots(root)


def _without_lone_dots(node: dict[str, Any]) -> dict[str, Any]:
    """An item that is owned as one value has nothing below it."""
    return {
        element: {} if element[:2] == "k:" and inner.keys() == {"."} else _without_lone_dots(inner)
        for element, inner in node.items()
    }


def from_fields_v1(value: Any) -> FieldSet:
    """The paths of FieldsV1; what is no object ends a path."""
    found: set[Path] = set()
    _add_paths(value, (), found)
    return frozenset(found)


def _add_paths(node: Any, path: Path, found: set[Path]) -> None:
    if not isinstance(node, dict) or not node:
        if path:
            found.add((*path, ".") if path[-1][:2] == "k:" else path)
        return
    for element, inner in node.items():
        if element == ".":
            found.add((*path, "."))
        else:
            _add_paths(inner, (*path, element), found)


def holds(value: Any, path: Path) -> bool:
    """Whether a set of fields, as FieldsV1 has it, holds a path."""
    for element in path:
        if element == "." and value == {}:
            return True  # an item that is owned as one value
        value = value.get(element) if isinstance(value, dict) else None
        if value is None:
            return False
    return not value


def _manager_of(raw: dict[str, Any]) -> Manager:
    return Manager(raw.get("manager", ""), raw.get("operation", ""), raw.get("subresource", ""))


def _read(raw: dict[str, Any]) -> Entry:
    return Entry(_manager_of(raw), raw.get("time", ""), from_fields_v1(raw.get("fieldsV1")))


def read_entries(tree: dict[str, Any]) -> list[Entry]:
    """The entries of an object, in its order."""
    return [_read(raw) for raw in tree.get("metadata", {}).get("managedFields", [])]


def write_entries(tree: dict[str, Any], entries: Iterable[Entry], api_version: str) -> None:
    """Replace `metadata.managedFields` of the tree; entries without fields are dropped."""
    _put(tree, [_raw(entry, api_version) for entry in entries if entry.fields])


def _raw(entry: Entry, api_version: str) -> dict[str, Any]:
    item: dict[str, Any] = {
        "manager": entry.manager.name,
        "operation": entry.manager.operation,
        "apiVersion": api_version,
        **({"time": entry.time} if entry.time else {}),  # clients give entries without; "" is no time
        "fieldsType": "FieldsV1",
        "fieldsV1": to_fields_v1(entry.fields),
    }
    if entry.manager.subresource:
        item["subresource"] = entry.manager.subresource
    return item


def _put(tree: dict[str, Any], raw: list[dict[str, Any]]) -> None:
    raw.sort(key=lambda e: (e["operation"] != "Apply", e.get("time", ""), e["manager"], e.get("subresource", "")))
    if raw:
        tree["metadata"]["managedFields"] = raw
    else:
        tree["metadata"].pop("managedFields", None)


def is_reset(path: Path, manager: Manager) -> bool:
    """Whether a strategy sets a field back however it is written, so that its writer does not own it.

    Source: GetResetFields of the strategies.
    """
    if manager.subresource == "status":
        return path[0] == "f:spec" or path[:2] == ("f:metadata", "f:ownerReferences")
    return path[0] == "f:status"


def _entries_before(new: dict[str, Any], old: dict[str, Any] | None, manager: Manager) -> list[Entry]:
    given = new["metadata"].get("managedFields")
    if given is not None and not manager.subresource:
        if given in ([], [{}]):
            return []
        if given and all(map(_is_well_formed, given)):
            return read_entries(new)
    return read_entries(old) if old is not None else []


def _record_known(
    new: dict[str, Any], old: dict[str, Any] | None, manager: Manager, changed: set[Path], removed: set[Path]
) -> bool:
    """The usual write: its manager owned before what it changes, and nobody else did.  The entries stay as they are.

    False where it is another, and nothing is done.
    """
    before = old["metadata"].get("managedFields") if old is not None else None
    if not before or (new["metadata"].get("managedFields") not in (None, before) and not manager.subresource):
        return False
    is_known = False
    for raw in before:
        fields = raw.get("fieldsV1")
        if _manager_of(raw) == manager:
            if is_known or not all(holds(fields, path) for path in changed):
                return False
            is_known = True
            theirs: Iterable[Path] = removed
        else:
            theirs = (*changed, *removed)
        if any(holds(fields, path) for path in theirs):
            return False
    if is_known:
        new["metadata"]["managedFields"] = before
    return is_known


def _is_well_formed(raw: dict[str, Any]) -> bool:
    """Whether an entry tells what it should; entries of which one does not are not taken over."""
    return (
        raw.get("operation") in ("Apply", "Update")
        and bool(raw.get("apiVersion"))
        and raw.get("fieldsType") == "FieldsV1"
        and _are_elements(raw.get("fieldsV1") or {})
    )


def _are_elements(fields: Any) -> bool:
    return isinstance(fields, dict) and all(
        (element == "." or element[:2] in ("f:", "k:", "v:", "i:")) and _are_elements(inner)
        for element, inner in fields.items()
    )


def record_update(
    new: dict[str, Any], old: dict[str, Any] | None, manager: Manager, now: str, kind: str, api_version: str
) -> None:
    """After a write that is no apply: the manager owns what it changed, others lose that.

    Only what the write itself removes is disowned; a field that the server dropped by itself stays owned.
    A write may set the entries themselves, from which this then goes on; nothing or one empty entry resets them, and
    then nobody is noted until the next apply.
    Source: k8s.io/apimachinery structured-merge fieldmanager, decodeLiveOrNew, skipNonAppliedManager.
    """
    changed, removed = differences(new, old or {}, kind)
    changed = {path for path in changed if not is_reset(path, manager)}
    if _record_known(new, old, manager, changed, removed):
        return
    before = _entries_before(new, old, manager)
    if old is not None and not before:
        new["metadata"].pop("managedFields", None)
        return
    entries: list[Entry] = []
    own: FieldSet = frozenset()
    own_time = now
    for entry in before:
        if entry.manager == manager:
            own, own_time = entry.fields, entry.time
        else:
            entries.append(Entry(entry.manager, entry.time, entry.fields - changed - removed))
    fields = own - removed | changed
    entries.append(Entry(manager, now if fields != own else own_time, fields))
    write_entries(new, _capped([entry for entry in entries if entry.fields]), api_version)


def _capped(entries: list[Entry]) -> list[Entry]:
    """Of those that updated, so many are told apart; what older ones own is one entry.

    Source: k8s.io/apimachinery/pkg/util/managedfields/internal/capmanagers.go.
    """
    updated = [entry for entry in entries if entry.manager.operation == "Update"]
    excess = len(updated) - MAX_UPDATERS
    if excess <= 0:
        return entries
    ancient = [entry for entry in updated if entry.manager.name == ANCIENT]
    rest = [entry for entry in updated if entry not in ancient]
    rest.sort(key=lambda entry: (entry.time, entry.manager.name, entry.manager.subresource))
    oldest = rest[: excess + (not ancient)]
    merged = [*ancient, *oldest]
    fields = frozenset[Path]().union(*(entry.fields for entry in merged))
    return [
        *(entry for entry in entries if entry not in merged),
        Entry(Manager(ANCIENT, "Update"), oldest[-1].time, fields),
    ]
