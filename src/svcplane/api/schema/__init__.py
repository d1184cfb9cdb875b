"""THE schema: every type the server accepts, field by field.  Pure; read once from `types.json`.

A type expression is `string`, `int`, `long`, `bool`, `float`, `time`, `microtime`, `quantity`, `intstr`, `any`, a
type's name, `[T]` for a list or `{T}` for a map of strings to T.  `merge` adds what patches need: by which keys
the items of a list are told apart.  Source: the published OpenAPI of Kubernetes v1.
"""

import functools
import importlib.resources
from dataclasses import dataclass
from typing import Literal

import msgspec

from svcplane.api.schema.merge import ATOMIC_MAPS, ATOMIC_STRUCTS, LIST_KEYS, SET_LISTS, STRATEGIC_KEYS
from svcplane.api.schema.zero import KEPT_WHEN_EMPTY, POINTER_STRINGS, VALUE_SCALARS

Shape = Literal["scalar", "struct", "list", "map"]
SCALARS = frozenset({"string", "int", "long", "bool", "float", "time", "microtime", "quantity", "intstr", "any"})


@dataclass(frozen=True, slots=True)
class Type:
    """A parsed type expression.  `name`: of a scalar or struct; `item`: of a list or map."""

    shape: Shape
    name: str = ""
    item: "Type | None" = None

    @property
    def is_granular(self) -> bool:
        """Of a struct: whether apply tells its fields apart."""
        return self.shape == "struct" and self.name not in ATOMIC_STRUCTS


@dataclass(frozen=True, slots=True)
class Field:
    """`list_keys`: identity of items for apply (empty: atomic, unless `is_set`).  `is_atomic`: a map that is one value
    in apply.  `strategic_key`: identity for
    strategic merge.  `drop_zero`: 0 and false are as good as absent.  `keep_empty`: "" and [] are kept."""

    name: str
    type: Type
    required: bool
    list_keys: tuple[str, ...]
    is_set: bool
    is_atomic: bool
    strategic_key: str
    drop_zero: bool
    keep_empty: bool


@functools.cache
def parse(expression: str) -> Type:
    if expression.startswith("["):
        return Type("list", item=parse(expression[1:-1]))
    if expression.startswith("{"):
        return Type("map", item=parse(expression[1:-1]))
    return Type("scalar" if expression in SCALARS else "struct", expression)


@functools.cache
def _types() -> dict[str, dict[str, object]]:
    raw = importlib.resources.files(__package__).joinpath("types.json").read_bytes()
    types: dict[str, dict[str, object]] = msgspec.json.decode(raw)
    return types


@functools.cache
def _descriptions() -> dict[str, dict[str, str]]:
    raw = importlib.resources.files(__package__).joinpath("descriptions.json").read_bytes()
    return msgspec.json.decode(raw, type=dict[str, dict[str, str]])


#: What fields of these names are about, wherever they are.
_EVERYWHERE = {
    "apiVersion": "Group and version of the API.",
    "kind": "The kind of the object.",
    "metadata": "What every object has.",
    "lastTransitionTime": "When the status last changed.",
    "lastHeartbeatTime": "When the status was last told.",
    "message": "For people: what it is about.",
    "reason": "For programs: why, in CamelCase.",
}


def description(name: str, field: str = "") -> str:
    """What a type or a field of it is for; the plain name where there is nothing to add."""
    told = _descriptions().get(name, {}).get(field) or _EVERYWHERE.get(field)
    return told or (f"{field} of {name}." if field else name)


def type_names() -> list[str]:
    return sorted(_types())


@functools.cache
def fields_of(name: str) -> dict[str, Field]:
    """The fields of a struct type.  Raises KeyError for an unknown one."""
    raw = _types()[name]
    required = raw.get("!required", ())
    assert isinstance(required, list | tuple)
    found: dict[str, Field] = {}
    for field, expression in raw.items():
        if field == "!required" or not isinstance(expression, str):
            continue
        place = f"{name}.{field}"
        found[field] = Field(
            name=field,
            type=parse(expression),
            required=field in required,
            list_keys=LIST_KEYS.get(place, ()),
            is_set=place in SET_LISTS,
            is_atomic=place in ATOMIC_MAPS,
            strategic_key=STRATEGIC_KEYS.get(place, ""),
            drop_zero=place in VALUE_SCALARS,
            keep_empty=place in KEPT_WHEN_EMPTY or place in POINTER_STRINGS,
        )
    return found
