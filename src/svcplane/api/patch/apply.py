"""Server-side apply: merge what a manager declares, refuse what others own, remove what it no longer declares.

Pure.  Source: KEP-555; sigs.k8s.io/structured-merge-diff/merge.
"""

import json
from collections.abc import Iterable
from typing import Any

from svcplane.api import go_json
from svcplane.api.patch.managed import (
    Entry,
    FieldSet,
    Manager,
    Path,
    differences,
    is_reset,
    item_key,
    object_leaves,
    read_entries,
    write_entries,
)
from svcplane.api.schema import Field, Type, fields_of
from svcplane.api.status import StatusError
from svcplane.api.validation.meta import MAX_ANNOTATIONS_BYTES, annotations_size

KUBECTL, LAST_APPLIED = "kubectl", "kubectl.kubernetes.io/last-applied-configuration"
#: Owns what was there before anybody was noted.
BEFORE_FIRST_APPLY = "before-first-apply"


def apply(
    live: dict[str, Any] | None,
    patch: dict[str, Any],
    manager: Manager,
    *,
    force: bool,
    now: str,
    kind: str,
    api_version: str,
) -> dict[str, Any]:
    """The object after the apply, with managedFields.  Raises StatusError 409 for conflicts."""
    wanted = {path: value for path, value in object_leaves(patch, kind).items() if not is_reset(path, manager)}
    entries = read_entries(live) if live is not None else []
    present = object_leaves(live, kind) if live is not None else {}
    if live is not None and not entries:  # nobody has been noted: what is there is somebody's
        everything = frozenset(path for path in present if not is_reset(path, manager))
        entries = [Entry(Manager(BEFORE_FIRST_APPLY, "Update"), now, everything)]
    conflicts = _conflicts(wanted, present, entries, manager)
    if conflicts and not force:
        refused = _not_kubectls_own(conflicts, live or {}, present, manager, kind, api_version)
        if refused:
            raise conflict_error(refused, api_version)
    lost = {path for path, _ in conflicts}
    own: FieldSet = next((entry.fields for entry in entries if entry.manager == manager), frozenset())
    others = [Entry(entry.manager, entry.time, entry.fields - lost) for entry in entries if entry.manager != manager]
    merged = _merge(live or {}, patch, Type("struct", kind), None)
    owned_by_others = frozenset().union(*(entry.fields for entry in others)) if others else frozenset()
    needed = _above(wanted.keys() | owned_by_others) | {("f:metadata",)}
    # a struct goes whole, with what the server has set in it, once nobody owns any of it
    doomed = {path for path in _above(own) if path not in needed and (path in own or path[-1][:2] == "f:")}
    result = _prune(merged, Type("struct", kind), None, (), doomed)
    _, gone = differences(result, live or {}, kind)
    before = next((entry for entry in entries if entry.manager == manager), None)
    unchanged = before is not None and before.fields == wanted.keys() and not lost
    time = before.time if unchanged and before is not None else now
    result.setdefault("metadata", {})
    left = [Entry(entry.manager, entry.time, entry.fields - gone) for entry in others]
    write_entries(result, [*left, Entry(manager, time, frozenset(wanted))], api_version)
    return dict(result)


def _above(paths: Iterable[Path]) -> set[Path]:
    """The paths and all that lead to them."""
    return {path[:length] for path in paths for length in range(1, len(path) + 1)}


def _conflicts(
    wanted: dict[Path, Any], present: dict[Path, Any], entries: list[Entry], manager: Manager
) -> list[tuple[Path, Entry]]:
    found = []
    for entry in entries:
        if entry.manager == manager:
            continue
        for path in sorted(entry.fields & wanted.keys(), key=_place):
            if (
                (path[-1] != "." or wanted[path] is not True)
                and present.get(path) != wanted[path]
                and not _says_nothing(path, wanted, present)
            ):
                found.append((path, entry))
    return found


def _place(path: Path) -> list[tuple[bool, Any]]:
    """Where a field set names a path: at each level what ends there comes first; items come by the values of their
    keys, numbers as such."""
    return [
        (index < len(path) - 1, sorted(json.loads(element[2:]).items()) if element.startswith("k:") else element)
        for index, element in enumerate(path)
    ]


def _not_kubectls_own(
    conflicts: list[tuple[Path, Entry]],
    live: dict[str, Any],
    present: dict[Path, Any],
    manager: Manager,
    kind: str,
    api_version: str,
) -> list[tuple[Path, Entry]]:
    """The conflicts without those of `kubectl` with what it applied itself before it applied by the server.

    Source: k8s.io/apimachinery/pkg/util/managedfields/internal/lastappliedmanager.go.
    """
    if manager.name != KUBECTL:
        return conflicts
    try:
        applied = json.loads(live.get("metadata", {}).get("annotations", {}).get(LAST_APPLIED) or "null")
    except ValueError:
        return conflicts
    if not isinstance(applied, dict) or applied.get("apiVersion") != api_version:
        return conflicts
    before = object_leaves(applied, kind)
    return [(path, entry) for path, entry in conflicts if path not in before or before[path] != present.get(path)]


def with_last_applied(result: dict[str, Any], patch: dict[str, Any], manager: Manager) -> None:
    """Bring the annotation of a client-side apply up to date, where there is one and `kubectl` applies; take it away
    where it would be too large.

    Source: k8s.io/apimachinery/pkg/util/managedfields/internal/lastappliedupdater.go.
    """
    annotations = result["metadata"].get("annotations", {})
    if manager.name != KUBECTL or not annotations.get(LAST_APPLIED):
        return
    meta = patch.get("metadata") or {}
    kept = {key: value for key, value in (meta.get("annotations") or {}).items() if key != LAST_APPLIED}
    rest = {key: value for key, value in meta.items() if key != "annotations"}
    shown = {**patch, "metadata": {**rest, **({"annotations": kept} if kept else {})}}
    text = go_json.escaped(json.dumps(shown, sort_keys=True, separators=(",", ":"), ensure_ascii=False)) + "\n"
    annotations = {**annotations, LAST_APPLIED: text}
    if annotations_size(annotations) > MAX_ANNOTATIONS_BYTES:
        del annotations[LAST_APPLIED]
    result["metadata"]["annotations"] = annotations


def _says_nothing(path: Path, wanted: dict[Path, Any], present: dict[Path, Any]) -> bool:
    """Whether an empty object is declared where the live one has fields, which it leaves as they are."""
    return wanted[path] == {} and any(place[: len(path)] == path for place in present if place != path)


def conflict_error(conflicts: list[tuple[Path, Entry]], api_version: str = "v1") -> StatusError:
    """409 as upstream words it: one line for one conflict, a list by manager for several."""
    causes: list[dict[str, str]] = []
    fields: dict[str, list[str]] = {}
    for path, entry in conflicts:
        who = f'"{entry.manager.name}"'
        if entry.manager.subresource:
            who += f' with subresource "{entry.manager.subresource}"'
        if entry.manager.operation != "Apply":
            who += f" using {api_version}"
        causes.append({"reason": "FieldManagerConflict", "message": f"conflict with {who}", "field": dotted(path)})
        fields.setdefault(who, []).append(dotted(path))
    if len(conflicts) == 1:
        detail = f"1 conflict: {causes[0]['message']}: {causes[0]['field']}"
    else:
        blocks = [
            "\n".join([f"conflicts with {who}:", *(f"- {name}" for name in fields[who])]) for who in sorted(fields)
        ]
        detail = f"{len(conflicts)} conflicts: " + "\n".join(blocks)
    return StatusError(409, "Conflict", f"Apply failed with {detail}", {"causes": causes})


def dotted(path: Path) -> str:
    """`.spec.ports[port=80,protocol="TCP"].targetPort`."""
    text = ""
    for element in path:
        kind, _, body = element.partition(":")
        if kind == "f":
            text += f".{body}"
        elif kind == "k":
            keys = json.loads(body)
            text += "[" + ",".join(f"{key}={json.dumps(value)}" for key, value in keys.items()) + "]"
        elif kind == "v":
            text += f"[={body}]"
    return text


def _merge(live: Any, patch: Any, type_: Type, field: Field | None) -> Any:
    if type_.is_granular and isinstance(patch, dict):
        result = dict(live) if isinstance(live, dict) else {}
        fields = fields_of(type_.name)
        for key, value in patch.items():
            spec = fields.get(key)
            result[key] = _merge(result.get(key), value, spec.type, spec) if spec else value
        return result
    if type_.shape == "map" and isinstance(patch, dict) and field is not None and not field.is_atomic:
        return {**(live if isinstance(live, dict) else {}), **patch}
    if type_.shape == "list" and isinstance(patch, list) and field is not None and type_.item is not None:
        current = live if isinstance(live, list) else []
        if field.list_keys:
            return _merge_items(current, patch, type_.item, field.list_keys)
        if field.is_set:
            return _interleaved(current, patch)
    return patch


def _merge_items(live: list[Any], patch: list[Any], item: Type, keys: tuple[str, ...]) -> list[Any]:
    """Items by their keys, those of both merged."""
    by_key = {item_key(value, keys): value for value in live}
    wanted = {item_key(value, keys): value for value in patch}
    return [
        _merge(by_key.get(key), wanted[key], item, None) if key in wanted else by_key[key]
        for key in _interleaved(list(by_key), list(wanted))
    ]


def _interleaved(live: list[Any], wanted: list[Any]) -> list[Any]:
    """All of both, the wanted in their order; a live item that is not among them keeps its place before the next of
    both.  One of both that comes later in the wanted order is passed over until its turn."""
    shared = [key for key in wanted if key in live]
    found: list[Any] = []
    at = to = 0
    while at < len(live) or to < len(wanted):
        if at < len(live):
            key = live[at]
            if key not in wanted:
                found.append(key)
                at += 1
                continue
            if key in found or (shared and key != shared[0] and to < len(wanted)):
                at += 1
                continue
        if to < len(wanted):
            key = wanted[to]
            found.append(key)
            to += 1
            shared = shared[1:] if shared[:1] == [key] else shared
            at += at < len(live) and live[at] == key
    return found


def _prune(value: Any, type_: Type, field: Field | None, path: Path, doomed: set[Path]) -> Any:
    """The value without doomed paths.  A keyed item goes when its `.` is doomed, whoever owns a part of it."""
    if not any(candidate[: len(path)] == path for candidate in doomed):
        return value
    if type_.is_granular and isinstance(value, dict):
        fields = fields_of(type_.name)
        result = {}
        for key, inner in value.items():
            place = (*path, f"f:{key}")
            spec = fields.get(key)
            if place in doomed or spec is None:
                if place not in doomed:
                    result[key] = inner
                continue
            rest = _prune(inner, spec.type, spec, place, doomed)
            if rest or not inner:
                result[key] = rest
        return result
    if type_.shape == "map" and isinstance(value, dict):
        return {key: inner for key, inner in value.items() if (*path, f"f:{key}") not in doomed}
    if type_.shape == "list" and isinstance(value, list) and field is not None and type_.item is not None:
        if field.is_set:
            return [inner for inner in value if (*path, f"v:{json.dumps(inner)}") not in doomed]
        if field.list_keys:
            items = []
            for inner in value:
                place = (*path, item_key(inner, field.list_keys))
                if (*place, ".") not in doomed:
                    items.append(_prune(inner, type_.item, None, place, doomed))
            return items
    return value
