"""JSON patch.  Pure.  Source: RFC 6902; error texts of the library kube-apiserver uses."""

import copy
from typing import Any

from svcplane.api.status import StatusError, bad_request

MAX_OPERATIONS = 10_000


def _unprocessable(message: str) -> StatusError:
    return StatusError(422, "Invalid", message, {})


def apply(target: Any, operations: Any) -> Any:
    """The patched copy.  Raises StatusError: 400 for a bad patch, 422 where it does not fit the object."""
    if not isinstance(operations, list) or not all(isinstance(op, dict) for op in operations):
        raise bad_request("error decoding patch: json: cannot unmarshal object into Go value of type jsonpatch.Patch")
    if len(operations) > MAX_OPERATIONS:
        raise StatusError(
            413,
            "RequestEntityTooLarge",
            "Request entity too large: The allowed maximum operations in a JSON patch is "
            f"{MAX_OPERATIONS}, got {len(operations)}",
        )
    result = copy.deepcopy(target)
    for operation in operations:
        result = _one(result, operation)
    return result


def _one(target: Any, operation: dict[str, Any]) -> Any:
    name, path = operation.get("op"), operation.get("path")
    if not isinstance(path, str):
        raise _unprocessable("the server rejected our request due to an error in our request")
    match name:
        case "add":
            return _add(target, path, copy.deepcopy(operation.get("value")))
        case "remove":
            return _remove(target, path)
        case "replace":
            _get(target, path, "replace")
            return _put(target, path, copy.deepcopy(operation.get("value")))
        case "move":
            source = str(operation.get("from"))
            value = _get(target, source, "move")
            return _add(_remove(target, source), path, value)
        case "copy":
            return _add(target, path, copy.deepcopy(_get(target, str(operation.get("from")), "copy")))
        case "test":
            if _get(target, path, "test") != operation.get("value"):
                raise _unprocessable("the server rejected our request due to an error in our request")
            return target
        case _:
            raise _unprocessable("the server rejected our request due to an error in our request")


def _parts(path: str) -> list[str]:
    if path == "":
        return []
    if not path.startswith("/"):
        raise _unprocessable("the server rejected our request due to an error in our request")
    return [part.replace("~1", "/").replace("~0", "~") for part in path[1:].split("/")]


def _fail() -> StatusError:
    return _unprocessable("the server rejected our request due to an error in our request")


def _index(container: list[Any], part: str, *, end: bool) -> int:
    if end and part == "-":
        return len(container)
    if not part.lstrip("-").isdigit():
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


def _get(target: Any, path: str, _operation: str) -> Any:
    for part in _parts(path):
        target = _step(target, part)
    return target


def _parent(target: Any, path: str) -> tuple[Any, str]:
    parts = _parts(path)
    for part in parts[:-1]:
        target = _step(target, part)
    return target, parts[-1]


def _add(target: Any, path: str, value: Any) -> Any:
    if not _parts(path):
        return value
    parent, last = _parent(target, path)
    if isinstance(parent, dict):
        parent[last] = value
    elif isinstance(parent, list):
        parent.insert(_index(parent, last, end=True), value)
    else:
        raise _fail()
    return target


def _put(target: Any, path: str, value: Any) -> Any:
    if not _parts(path):
        return value
    parent, last = _parent(target, path)
    if isinstance(parent, list):
        parent[_index(parent, last, end=False)] = value
    else:
        parent[last] = value
    return target


def _remove(target: Any, path: str) -> Any:
    parent, last = _parent(target, path)
    if isinstance(parent, dict):
        if last not in parent:
            raise _fail()
        del parent[last]
    elif isinstance(parent, list):
        del parent[_index(parent, last, end=False)]
    else:
        raise _fail()
    return target
