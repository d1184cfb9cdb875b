"""Values of JSON as values of the types that the schema names, and what Go says of those that are none.  Pure.

Source: encoding/json decode.go; k8s.io/apimachinery/pkg/runtime/converter.go.
"""

import re
from itertools import zip_longest
from typing import Any

from svcplane.api import go_json, go_time, quantity
from svcplane.api.fields import quoted
from svcplane.api.schema import Field, Type, fields_of
from svcplane.api.strategy import Tree


class Mismatch(Exception):
    """A value of the wrong JSON type, told as Go's decoder tells it; `of_type`: the type's own decoder tells it.

    `restored`: as the conversion of an unstructured object tells it instead.  `place`: the field, below the struct
    that is innermost around it.
    """

    def __init__(self, found: str, place: str, target: str, restored: str, of_type: str = "") -> None:
        super().__init__()
        self._found, self._place, self._target, self._of_type = found, place, target, of_type
        self.restored = restored or f"error decoding from json: {of_type}"
        self.owner = ""

    @property
    def alone(self) -> str:
        """As it is told where no struct is around."""
        return f"json: cannot unmarshal {self._found} into Go value of type {self._target}"

    def __str__(self) -> str:
        if self._of_type:
            return self._of_type
        into = f"struct field {self.owner}.{self._place}" if self._place else "value"
        return f"json: cannot unmarshal {self._found} into Go {into} of type {self._target}"


_NOTHING: Tree = {}


def struct(value: Any, name: str, path: str, problems: list[str], known: Any = None) -> Tree:
    """A value as the struct `name`, without what a Go round trip would drop.  Raises Mismatch.

    `path`: where it is, "" at the top.  `problems` gets a text for each unknown field.  `known` has been through this:
    what is the very same object in the same place is taken over, not read again.
    """
    if not isinstance(value, dict):
        raise _mismatch(value, path, f"v1.{name}", f"cannot restore struct from: {go_json.kind_name(value)}")
    specs = fields_of(name)
    before = known if isinstance(known, dict) else _NOTHING
    result: Tree = {}
    for key in sorted(value):
        inner = value[key]
        spec = specs.get(key)
        if spec is not None and spec.type.shape == "scalar" and spec.type.name == "string" and type(inner) is str:
            if inner or (spec.keep_empty and not spec.drop_zero):  # the usual field, told apart early
                result[key] = inner
            continue
        place = f"{path}.{key}" if path else key
        if spec is None:
            problems.append(f"unknown field {quoted(place)}")
            continue
        if inner is None:
            if key == "ports" and name == "EndpointSlice":
                result[key] = None
            continue
        try:
            read = _value(inner, spec.type, place, problems, before.get(key))
        except Mismatch as error:
            error.owner = error.owner or name
            raise
        if not _is_dropped(read, spec):
            result[key] = read
    return result


def _is_dropped(value: Any, spec: Field) -> bool:
    if value == "" or (isinstance(value, list | dict) and not value and spec.type.shape != "struct"):
        return not spec.keep_empty or spec.type.name in ("time", "microtime")  # the zero time, which no client can read
    return spec.drop_zero and not value


def _value(value: Any, type_: Type, path: str, problems: list[str], known: Any = None) -> Any:
    if value is known and isinstance(value, dict | list):
        return value
    if type_.shape == "struct":
        return struct(value, type_.name, path, problems, known)
    if type_.shape == "list":
        if not isinstance(value, list):
            raise _mismatch(value, path, _go_type(type_), f"cannot restore slice from {go_json.kind_name(value)}")
        item = type_.item
        assert item is not None
        before = known if isinstance(known, list) else ()
        return [
            _value(inner, item, f"{path}[{index}]", problems, was) if inner is not None else _zero(item)
            for index, (inner, was) in enumerate(zip_longest(value, before[: len(value)]))
        ]
    if type_.shape == "map":
        if not isinstance(value, dict):
            raise _mismatch(value, path, _go_type(type_), f"cannot restore map from {go_json.kind_name(value)}")
        item = type_.item
        assert item is not None
        return {
            key: _value(inner, item, path if item.shape == "scalar" else f"{path}.{key}", problems)
            if inner is not None
            else _zero(item)
            for key, inner in value.items()
        }
    return _scalar(value, type_.name, path)


def _zero(type_: Type) -> Any:
    if type_.shape == "scalar":
        return {"int": 0, "long": 0, "bool": False, "float": 0, "quantity": "0"}.get(type_.name, "")
    return {} if type_.shape in ("struct", "map") else []


def _scalar(value: Any, name: str, path: str) -> Any:
    match name:
        case "any":
            return value
        case "string" if isinstance(value, str):
            return value
        case "int" | "long" if isinstance(value, int | float) and not isinstance(value, bool):
            return _whole(value, name, path)
        case "bool" if isinstance(value, bool):
            return value
        case "float" if isinstance(value, int | float) and not isinstance(value, bool):
            return value if isinstance(value, int) else float(value)
        case "intstr" if isinstance(value, str):
            return value
        case "intstr":
            return _number_or_name(value, path)
        case "quantity" | "time" | "microtime":
            try:
                return _read_by_itself(value, name)
            except ValueError as error:
                raise Mismatch("", "", "", "", str(error)) from error
        case _:
            target = _GO_TYPES.get(name, name)
            # Go would make a text of an integer, and so tells of it apart
            number = target == "string" and isinstance(value, int) and not isinstance(value, bool)
            why = "cannot convert int64 to string" if number else f"unrecognized type: {target}"
            raise _mismatch(value, path, target, why)


def _read_by_itself(value: Any, name: str) -> str:
    """A value of a type that reads its own JSON.  Raises ValueError with its words."""
    if name == "quantity":
        plain = isinstance(value, int | float | str) and not isinstance(value, bool)
        return quantity.canonical(str(value).strip() if plain else "?")
    if not isinstance(value, str):
        raise ValueError(f"json: cannot unmarshal {go_json.type_name(value)} into Go value of type string")
    return go_time.read(value, micro=name == "microtime")


def _number_or_name(value: Any, path: str) -> int:
    """The number; a name was seen to.  The type's own decoder takes an int32 and tells of anything else."""
    try:
        return int(_scalar(value, "int", path))
    except Mismatch as mismatch:
        mismatch.restored = f"error decoding from json: {mismatch.alone}"
        raise


_GO_TYPES = {"int": "int32", "long": "int64", "quantity": "Quantity"}


def _whole(value: int | float, name: str, path: str) -> int:
    """A number that fits its Go type.  One that YAML or a strategic patch has as a float may be whole."""
    limit = 1 << (31 if name == "int" else 63)
    odd = isinstance(value, float) and (isinstance(value, go_json.Written) or not value.is_integer())
    if odd or not -limit <= value < limit:
        raise Mismatch(
            f"number {value}", _dotted(path), _GO_TYPES[name], f"cannot convert float64 to {_GO_TYPES[name]}"
        )
    return int(value)


def _dotted(path: str) -> str:
    return re.sub(r"\[\d+\]", "", path)


def _go_type(type_: Type) -> str:
    if type_.shape == "struct":
        return f"v1.{type_.name}"
    if type_.item is not None:
        return ("[]" if type_.shape == "list" else "map[string]") + _go_type(type_.item)
    return _GO_TYPES.get(type_.name, type_.name)


def _mismatch(value: Any, path: str, target: str, restored: str) -> Mismatch:
    return Mismatch(go_json.type_name(value), _dotted(path), target, restored)
