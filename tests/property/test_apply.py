"""Applies and updates in any order come to what structured merge makes of them."""

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as some
from tests.property.structuredmerge import Conflict, Model, merged

from svcplane.api.patch.apply import apply
from svcplane.api.patch.managed import Manager, record_update
from svcplane.api.status import StatusError

Tree = dict[str, Any]


def _some_of(**fields: Any) -> Any:
    return some.fixed_dictionaries({}, optional=fields)


def _items(key: str, values: list[Any], **fields: Any) -> Any:
    item = some.fixed_dictionaries({key: some.sampled_from(values)}, optional=fields)
    return some.lists(item, min_size=1, max_size=len(values), unique_by=lambda item: item[key])


_WORD = some.sampled_from(["1", "2"])
_LABELS = some.dictionaries(some.sampled_from(["a", "b"]), _WORD, min_size=1)
_NUMBER = some.sampled_from([5, 6])
SPEC = _some_of(
    type=some.sampled_from(["ClusterIP", "NodePort"]),
    selector=some.fixed_dictionaries({"app": _WORD}),
    externalIPs=some.lists(some.sampled_from(["192.0.2.1", "192.0.2.2"]), min_size=1, max_size=1),
    sessionAffinityConfig=some.fixed_dictionaries({"clientIP": some.fixed_dictionaries({"timeoutSeconds": _NUMBER})}),
    ports=_items("port", [80, 81], name=_WORD, targetPort=_NUMBER, protocol=some.just("TCP")),
)
META = _some_of(
    labels=_LABELS,
    finalizers=some.lists(some.sampled_from(["a/b", "c/d"]), min_size=1, unique=True),
    ownerReferences=_items("uid", ["u", "v"], name=_WORD),
)
SERVICE = some.builds(lambda meta, spec: {"metadata": {"name": "web", **meta}, "spec": spec}, META, SPEC)
STEPS = some.lists(
    some.tuples(some.sampled_from(["put", "patch", "apply", "force"]), some.sampled_from(["m", "n"]), SERVICE),
    max_size=6,
)


def _in_order(value: Any) -> Any:
    """Lists of items in some order, and nothing that is empty: the server keeps none of it."""
    if isinstance(value, dict):
        found = {key: _in_order(inner) for key, inner in value.items() if key != "managedFields"}
        return {key: inner for key, inner in found.items() if inner not in ({}, [])}
    return sorted(map(_in_order, value), key=str) if isinstance(value, list) else value


def _ports(*ports: Tree) -> Tree:
    return {"metadata": {"name": "web"}, "spec": {"ports": list(ports)}}


@settings(max_examples=100, deadline=None)
@given(SERVICE, STEPS)
@example(
    _ports({"port": 80}),
    [
        ("apply", "m", _ports({"port": 80}, {"port": 81})),
        ("patch", "n", _ports({"port": 81, "targetPort": 5})),
        ("apply", "m", _ports({"port": 80})),
        ("apply", "m", _ports({"port": 80}, {"port": 81, "targetPort": 6})),
    ],
)
@example({"metadata": {"name": "web"}, "spec": {}}, [("apply", "m", _ports()), ("apply", "m", _ports({"port": 80}))])
def test_any_steps(first: Tree, steps: list[tuple[str, str, Tree]]) -> None:
    empty: Tree = {"metadata": {"name": "web"}, "spec": {}}
    model, ours = Model("Service", empty), empty
    for how, manager, tree in [("create", "m", first), *steps]:
        if how in ("create", "put", "patch"):
            tree = merged(model.tree, tree, model.type) if how == "patch" else tree
            name = f"updater-{manager}"
            model.update(tree, name)
            new = {**tree, "metadata": {**tree["metadata"]}}
            if "managedFields" in ours["metadata"]:
                new["metadata"]["managedFields"] = ours["metadata"]["managedFields"]
            record_update(new, None if how == "create" else ours, Manager(name, "Update"), "", "Service", "v1")
            ours = new
        else:
            force, refused = how == "force", False
            try:
                ours = apply(
                    ours, tree, Manager(manager, "Apply"), force=force, now="", kind="Service", api_version="v1"
                )
            except StatusError:
                refused = True
            try:
                model.apply(tree, manager, force=force)
            except Conflict:
                assert refused
            else:
                assert not refused
        assert _in_order(ours) == _in_order(model.tree)
