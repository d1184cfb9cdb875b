"""Strategic merge patch: merges lists by the keys of the schema, with `$patch` and its kin.  Pure.

Source: k8s.io/apimachinery/pkg/util/strategicpatch.
"""

from typing import Any

from svcplane.api import go_json
from svcplane.api.schema import Field, Type, fields_of
from svcplane.api.status import StatusError, bad_request

_ORDER, _DELETE_FROM, _RETAIN, _PATCH = "$setElementOrder/", "$deleteFromPrimitiveList/", "$retainKeys", "$patch"


def apply(target: dict[str, Any], patch: Any, kind: str) -> dict[str, Any]:
    """The patched copy of an object of `kind`.  Raises StatusError: 400, and 500 as upstream for bad directives."""
    if not isinstance(patch, dict):
        kind_of = go_json.type_name(patch)
        raise bad_request(f"json: cannot unmarshal {kind_of} into Go value of type map[string]interface {{}}")
    result = _map(target, patch, Type("struct", kind))
    return result if isinstance(result, dict) else {}


def _field(owner: Type, key: str) -> tuple[Type, Field | None]:
    if owner.shape == "struct":
        field = fields_of(owner.name).get(key)
        return (field.type, field) if field else (Type("scalar", "any"), None)
    return owner.item or Type("scalar", "any"), None


def _map(target: Any, patch: dict[str, Any], type_: Type) -> Any:
    base = dict(target) if isinstance(target, dict) else {}
    directive = patch.get(_PATCH)
    if directive == "replace":
        return {key: value for key, value in patch.items() if key != _PATCH}
    if directive == "delete":
        return {}
    if _PATCH in patch:
        raise _bad_directive(directive, patch)
    if _RETAIN in patch:
        base = _retained(base, patch)
    for key, value in patch.items():
        if key.startswith("$"):
            continue
        if value is None:
            base.pop(key, None)
            continue
        inner, field = _field(type_, key)
        if isinstance(value, dict) and inner.shape in ("struct", "map"):
            if value.get(_PATCH) == "delete":
                base.pop(key, None)
            else:
                base[key] = _map(base.get(key), value, inner)
        elif isinstance(value, list) and field is not None and field.strategic_key and inner.item is not None:
            order = patch.get(_ORDER + key)
            if _ORDER + key in patch:
                _check_order(value, order, field.strategic_key)
            base[key] = _list(base.get(key) or [], value, field.strategic_key, inner.item, order)
        else:
            base[key] = _stripped(value)
    _primitive_deletions(base, patch)
    _orders_alone(base, patch, type_)
    return base


def _retained(base: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """What `$retainKeys` keeps; it must name whatever the patch sets."""
    retain = patch[_RETAIN]
    set_here = [key for key, value in patch.items() if value is not None and not key.startswith("$")]
    if not isinstance(retain, list) or not all(key in retain for key in set_here):
        raise bad_request("invalid patch format of retainKeys")
    return {key: value for key, value in base.items() if key in retain}


def _check_order(patch: list[Any], order: Any, key: str) -> None:
    """What a patch of a list sets comes in the order that `$setElementOrder` names."""
    if not isinstance(order, list):
        raise bad_request("invalid patch format of setElementOrder list")
    if not order or not patch:
        return
    names = iter([_identity(entry, key) for entry in order])
    kept = [entry for entry in patch if not (isinstance(entry, dict) and entry.get(_PATCH) == "delete")]
    if not all(_identity(entry, key) in names for entry in kept):  # each search goes on where the last one ended
        shown = f"{go_json.printed(patch)}\n doesn't match $setElementOrder list:\n{go_json.printed(order)}\n"
        raise StatusError(500, "", f"The order in patch list:\n{shown}")


def _identity(value: Any, key: str) -> Any:
    found = value.get(key) if isinstance(value, dict) else value
    return go_json.printed(found) if isinstance(found, list | dict) else found  # what no name can be has a text


def _bad_directive(directive: Any, patch: dict[str, Any]) -> StatusError:
    return StatusError(500, "", f"unknown patch type: {go_json.printed(directive)} in map: {go_json.printed(patch)}")


def _stripped(value: Any) -> Any:
    """A new value without directives and nulls."""
    if isinstance(value, dict):
        return {k: _stripped(v) for k, v in value.items() if not k.startswith("$") and v is not None}
    if isinstance(value, list):
        return [_stripped(item) for item in value]
    return value


def _primitive_deletions(base: dict[str, Any], patch: dict[str, Any]) -> None:
    for key, doomed in patch.items():
        if key.startswith(_DELETE_FROM):
            if not isinstance(doomed, list):
                raise bad_request("invalid patch format of primitive list")
            name = key.removeprefix(_DELETE_FROM)
            if isinstance(base.get(name), list):
                base[name] = [item for item in base[name] if item not in doomed]


def _orders_alone(base: dict[str, Any], patch: dict[str, Any], type_: Type) -> None:
    """`$setElementOrder` without a patch of the list itself still orders it."""
    for key, order in patch.items():
        name = key.removeprefix(_ORDER)
        if key.startswith(_ORDER) and name not in patch and isinstance(base.get(name), list):
            _, field = _field(type_, name)
            if field is not None and field.strategic_key:
                base[name] = _ordered(base[name], order, field.strategic_key, base[name])


def _list(target: list[Any], patch: list[Any], key: str, item: Type, order: Any) -> list[Any]:
    if key == "$scalar":
        merged = [*target, *(value for value in patch if value not in target)]
        return _ordered(merged, order if order is not None else patch, key, target)
    merged, entries, replaces = _directives(target, patch, key)
    if replaces:
        return [_stripped(value) for value in entries]
    for value in entries:
        found = next((i for i, old in enumerate(merged) if isinstance(old, dict) and old.get(key) == value[key]), None)
        if found is None:
            merged.append(_stripped(value))
        else:
            merged[found] = _map(merged[found], value, item)
    return _ordered(merged, order if order is not None else patch, key, target)


def _directives(target: list[Any], patch: list[Any], key: str) -> tuple[list[Any], list[Any], bool]:
    """What the deletions leave of the target, the entries that are no directives, and whether those replace all."""
    merged, entries, replaces = list(target), [], False
    for value in patch:
        if not isinstance(value, dict):
            raise StatusError(500, "", "list element types are not identical")
        directive = value.get(_PATCH)
        if directive is None:
            entries.append(value)
        elif directive == "replace":
            replaces = True
            continue
        elif directive == "merge":
            raise StatusError(500, "", "merging lists cannot yet be specified in the patch")
        elif directive != "delete":
            raise _bad_directive(directive, value)
        if key not in value and not replaces:
            shown = go_json.printed(value)
            raise StatusError(500, "", f"map: {shown} does not contain declared merge key: {key}")
        if directive == "delete":
            merged = [old for old in merged if not (isinstance(old, dict) and old.get(key) == value[key])]
    return merged, entries, replaces


def _ordered(items: list[Any], order: Any, key: str, original: list[Any]) -> list[Any]:
    """Two orders made one: items the patch names come as it says, others as they were.

    Between the two an item stands where it stood before; a new one comes before its next neighbour.  Several items
    of one name, as a port of TCP and of UDP, all stay.
    """
    if not isinstance(order, list):
        return items

    def identity(value: Any) -> Any:
        return _identity(value, key)

    wanted = [identity(entry) for entry in order]
    before = {identity(value): index for index, value in reversed(list(enumerate(original)))}
    named = sorted((value for value in items if identity(value) in wanted), key=lambda v: wanted.index(identity(v)))
    others = [value for value in items if identity(value) not in wanted]
    result: list[Any] = []
    while named and others:
        first = before.get(identity(named[0]), -1) <= before.get(identity(others[0]), -1)
        result.append(named.pop(0) if first else others.pop(0))
    return result + named + others
