"""JSON patches that no reasonable client sends: each is refused, none takes the server along."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from svcplane.api.patch.json import apply
from svcplane.api.status import StatusError

OBJECT = {"metadata": {"name": "web", "labels": {"a": "b"}}, "spec": {"ports": [{"port": 80}, {"port": 81}]}}


def test_copies_that_double_the_object_again_and_again_are_refused() -> None:
    operations = [{"op": "copy", "from": "/spec", "path": f"/spec/x{n}"} for n in range(40)]
    with pytest.raises(StatusError, match="accumulated size increase of copy") as refused:
        apply(OBJECT, operations)
    assert refused.value.code == 422


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": ""},
        {"op": "move", "from": "", "path": "/a"},
        {"op": "replace", "path": "/spec/ports/" + "9" * 5000, "value": 1},
        {"op": "replace", "path": "/spec/ports/²", "value": 1},
        {"op": "add", "path": "/spec/ports/--1", "value": 1},
        {"op": "add", "path": "/spec/ports/0/port/x", "value": 1},
        {"op": "test", "path": "/metadata/name/x", "value": 1},
        {"op": "copy", "path": "/a"},
        {"op": "add"},
        {},
    ],
)
def test_refused(operation: dict[str, Any]) -> None:
    with pytest.raises(StatusError) as refused:
        apply(OBJECT, [operation])
    assert refused.value.code == 422


_PATHS = some.lists(some.sampled_from(["metadata", "spec", "ports", "0", "-1", "-", "2", "labels", "~1", "", "é"]))
_PATH = _PATHS.map(lambda parts: "".join(f"/{part}" for part in parts))
_OPERATION = some.fixed_dictionaries(
    {"op": some.sampled_from(["add", "remove", "replace", "move", "copy", "test", "x"]), "path": _PATH},
    optional={"from": _PATH, "value": some.none() | some.integers() | some.just({"a": [1]})},
)


@given(some.lists(_OPERATION, max_size=6))
def test_anything_patches_or_is_refused(operations: list[dict[str, Any]]) -> None:
    before, code = repr(OBJECT), 422
    try:
        apply(OBJECT, operations)
    except StatusError as error:
        code = error.code
    assert code in (400, 422)
    assert repr(OBJECT) == before
