"""What is wrong with the types of an applied object, as its schema sees it.  Pure.

Source: sigs.k8s.io/structured-merge-diff/typed (validate.go, helpers.go).
"""

import json
from typing import Any

from svcplane.api import go_json
from svcplane.api.patch.apply import dotted
from svcplane.api.patch.managed import item_key
from svcplane.api.schema import Field, Type, fields_of

_NUMBERS = frozenset({"int", "long", "float"})
_TEXTS = frozenset({"string", "time", "microtime"})


def faults(tree: dict[str, Any], kind: str) -> str:
    """One line for one fault, a list for several; nothing where all is well."""
    found: list[str] = []
    _walk(tree, Type("struct", kind), None, "", found)
    return found[0] if len(found) == 1 else "\n  ".join(["errors:", *found]) if found else ""


def _walk(value: Any, type_: Type, field: Field | None, path: str, found: list[str]) -> None:
    if value is None:
        return
    if type_.shape in ("struct", "map"):
        if not isinstance(value, dict):
            found.append(f"{path}: expected map, got &{{{go_json.printed(value)}}}")
            return
        fields = fields_of(type_.name) if type_.shape == "struct" else {}
        for key in sorted(value):
            spec, place = fields.get(key), f"{path}.{key}"
            inner = spec.type if spec is not None else type_.item
            if inner is None:
                found.append(f"{place}: field not declared in schema")
            else:
                _walk(value[key], inner, spec, place, found)
    elif type_.shape == "list":
        _list(value, type_, field, path, found)
    elif type_.name in _NUMBERS and (isinstance(value, bool) or not isinstance(value, int | float)):
        found.append(f"{path}: expected numeric (int or float), got {_go_type(value)}")
    elif type_.name in _TEXTS and not isinstance(value, str):
        found.append(f"{path}: expected string, got &value.valueUnstructured{{Value:{go_json.printed(value)}}}")
    elif type_.name == "bool" and not isinstance(value, bool):
        found.append(f"{path}: expected boolean, got &{{{go_json.printed(value)}}}")


def _go_type(value: Any) -> str:
    return {"slice": "[]interface {}", "map": "map[string]interface {}"}.get(kind := go_json.kind_name(value), kind)


def _list(value: Any, type_: Type, field: Field | None, path: str, found: list[str]) -> None:
    item = type_.item
    assert item is not None
    if not isinstance(value, list):
        found.append(f"{path}: expected list, got &{{{go_json.printed(value)}}}")
        return
    seen: set[str] = set()
    for index, inner in enumerate(value):
        place = f"{path}[{index}]"
        if field is not None and (field.list_keys or field.is_set):
            if why := _no_element(inner, field):
                found.append(f"{path}: element {index}: {why}")
                return  # what comes after it is not looked at
            element = dotted((item_key(inner, field.list_keys),)) if field.list_keys else f"[={json.dumps(inner)}]"
            place = f"{path}{element}"
            if element in seen:
                found.append(f"{path}: duplicate entries for key {element}")
            seen.add(element)
        _walk(inner, item, None, place, found)


def _no_element(value: Any, field: Field) -> str:
    """Why a value cannot be told apart in a list of items or a set; nothing where it can."""
    if not field.list_keys:
        if isinstance(value, dict):
            return "associative list without keys has an element that's a map type"
        return "not supported: associative list with lists as elements" if isinstance(value, list) else ""
    if value is None:
        return "associative list with keys may not have a null element"
    if not isinstance(value, dict):
        return "associative list with keys may not have non-map elements"
    missing = next((key for key in field.list_keys if key not in value and key != "protocol"), None)
    if missing is None:
        return ""
    return (
        f'associative list with keys has an element that omits key field "{missing}" (and doesn\'t have default value)'
    )
