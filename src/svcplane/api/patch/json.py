"""JSON patch.  Pure.  Source: RFC 6902; error texts of the library kube-apiserver uses.

Nothing is changed in place: each operation makes new containers on the way to what it changes, and shares the rest.
"""

import re
from typing import Any

from svcplane.api import codec, go_json
from svcplane.api.status import StatusError, bad_request

MAX_OPERATIONS = 10_000
#: How many bytes of JSON the copies of one patch may make: each could double the object.
MAX_COPIED = 3 << 20
_INDEX = re.compile(r"-?[0-9]{1,9}")


def apply(target: Any, operations: Any) -> Any:
    """The patched object, which shares with `target` what no operation touches.

    Raises StatusError: 400 for a bad patch, 422 where it does not fit the object.
    """
    check(operations)
    if len(operations) > MAX_OPERATIONS:
        raise StatusError(
            413,
            "RequestEntityTooLarge",
            "Request entity too large: The allowed maximum operations in a JSON patch is "
            f"{MAX_OPERATIONS}, got {len(operations)}",
        )
    result = target
    copied = 0
    for operation in operations:
        if operation.get("op") == "copy":
            copied += len(codec.encode(_get(result, str(operation.get("from")))))
            if copied > MAX_COPIED:
                raise StatusError(
                    422,
                    "Invalid",
                    f"Unable to complete the copy, the accumulated size increase of copy is {copied}, "
                    f"exceeding the limit {MAX_COPIED}",
                    {},
                )
        result = _one(result, operation)
    return result


def check(operations: Any) -> None:
    """A list of objects whose names and paths are texts.  Raises StatusError 400."""
    what = "error decoding patch: json: cannot unmarshal"
    if not isinstance(operations, list):
        raise bad_request(f"{what} {go_json.type_name(operations)} into Go value of type []handlers.jsonPatchOp")
    for operation in operations:
        if not isinstance(operation, dict):
            raise bad_request(f"{what} {go_json.type_name(operation)} into Go value of type handlers.jsonPatchOp")
        for key in ("op", "path", "from"):
            if operation.get(key) is not None and not isinstance(operation[key], str):
                kind = go_json.type_name(operation[key])
                raise bad_request(f"{what} {kind} into Go struct field jsonPatchOp.{key} of type string")


def unknown_fields(operations: list[dict[str, Any]]) -> list[str]:
    """Of operations; upstream warns of them."""
    known = ("op", "path", "from", "value")
    return [
        f'json patch unknown field "[{index}].{key}"'
        for index, operation in enumerate(operations)
        for key in operation
        if key not in known
    ]


def _one(target: Any, operation: dict[str, Any]) -> Any:
    name, path = operation.get("op"), operation.get("path")
    if not path or not path.startswith("/"):  # upstream's library changes parts of an object, never the whole
        raise _fail()
    match name:
        case "add":
            return _add(target, path, operation.get("value"))
        case "remove":
            return _remove(target, path)
        case "replace":
            _get(target, path)
            return _put(target, path, operation.get("value"))
        case "move":
            source = str(operation.get("from"))
            value = _get(target, source)
            return _add(_remove(target, source), path, value)
        case "copy":
            return _add(target, path, _get(target, str(operation.get("from"))))
        case "test":
            return _test(target, path, operation.get("value"))
        case _:
            raise _fail()


def _test(target: Any, path: str, value: Any) -> Any:
    """Null is what a missing member of an object holds."""
    parent, last = _parent(target, path)
    found = parent.get(last) if isinstance(parent, dict) else _step(parent, last)
    if not _equal(found, value):
        raise _fail()
    return target


def _equal(one: Any, other: Any) -> bool:
    """As JSON has them: `1` is neither `1.0` nor `true`."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_equal(one[key], other[key]) for key in one)
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return codec.encode(one) == codec.encode(other)


def _parts(path: str) -> list[str]:
    if not path.startswith("/"):
        raise _fail()
    return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]


def _fail() -> StatusError:
    return StatusError(422, "Invalid", "the server rejected our request due to an error in our request", {})


def _index(container: list[Any], part: str, *, end: bool) -> int:
    if end and part == "-":
        return len(container)
    if _INDEX.fullmatch(part) is None:
        raise _fail()
    index = int(part)
    if index < 0:
        index += len(container)
    if not 0 <= index < len(container) + (1 if end else 0):
        raise _fail()
    return index


def _step(container: Any, part: str) -> Any:
    if isinstance(container, dict):
        if part not in container:
            raise _fail()
        return container[part]
    if isinstance(container, list):
        return container[_index(container, part, end=False)]
    raise _fail()


def _get(target: Any, path: str) -> Any:
    for part in _parts(path):
        target = _step(target, part)
    return target


def _parent(target: Any, path: str) -> tuple[Any, str]:
    parts = _parts(path)
    for part in parts[:-1]:
        target = _step(target, part)
    return target, parts[-1]


def _opened(target: Any, path: str) -> tuple[Any, Any, str]:
    """A copy whose containers on the way to `path` are new; the last of them, and the last part of the path."""
    parts = _parts(path)
    root = parent = _copied(target)
    for part in parts[:-1]:
        child = _copied(_step(parent, part))
        parent[part if isinstance(parent, dict) else _index(parent, part, end=False)] = child
        parent = child
    return root, parent, parts[-1]


def _copied(container: Any) -> Any:
    if not isinstance(container, dict | list):
        raise _fail()
    return container.copy()


def _add(target: Any, path: str, value: Any) -> Any:
    root, parent, last = _opened(target, path)
    if isinstance(parent, dict):
        parent[last] = value
    else:
        parent.insert(_index(parent, last, end=True), value)
    return root


def _put(target: Any, path: str, value: Any) -> Any:
    root, parent, last = _opened(target, path)
    if isinstance(parent, list):
        parent[_index(parent, last, end=False)] = value
    else:
        parent[last] = value
    return root


def _remove(target: Any, path: str) -> Any:
    root, parent, last = _opened(target, path)
    if isinstance(parent, list):
        del parent[_index(parent, last, end=False)]
    elif last in parent:
        del parent[last]
    else:
        raise _fail()
    return root
