"""What a write changed, found by walking only what differs, is what comparing all owned paths finds."""

import copy
from typing import Any
from unittest.mock import patch

from hypothesis import example, given, settings
from hypothesis import strategies as st

from svcplane.api.patch import managed
from svcplane.api.patch.managed import Manager, differences, object_leaves, record_update

LABELS = st.dictionaries(st.sampled_from(["a", "b", "c"]), st.sampled_from(["", "1", "2"]), max_size=3)
PORT = st.fixed_dictionaries(
    {"port": st.sampled_from([80, 81, 443])},
    optional={
        "protocol": st.sampled_from(["TCP", "UDP"]),
        "name": st.sampled_from(["", "web"]),
        "targetPort": st.sampled_from([8080, "web", None]),
        "unheardOf": st.just(1),
    },
)
SPEC = st.fixed_dictionaries(
    {},
    optional={
        "ports": st.lists(PORT | st.none(), max_size=3) | st.none(),
        "selector": LABELS | st.none(),
        "clusterIPs": st.lists(st.sampled_from(["10.96.0.1", "fd00::1"]), max_size=2),
        "sessionAffinityConfig": st.sampled_from([None, {}, {"clientIP": {}}, {"clientIP": {"timeoutSeconds": 5}}]),
        "publishNotReadyAddresses": st.sampled_from([True, False, 1, None]),
    },
)
METADATA = st.fixed_dictionaries(
    {},
    optional={
        "name": st.sampled_from(["x", "y"]),
        "labels": LABELS | st.none(),
        "annotations": LABELS,
        "finalizers": st.lists(st.sampled_from(["a/b", "c/d"]), max_size=2),
        "ownerReferences": st.lists(st.fixed_dictionaries({"uid": st.sampled_from(["1", "2"])}), max_size=2),
    },
)
SERVICE = st.fixed_dictionaries(
    {},
    optional={
        "kind": st.just("Service"),
        "metadata": METADATA | st.just({}),
        "spec": SPEC | st.none(),
        "status": st.sampled_from([{}, {"loadBalancer": {}}, {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}]),
    },
)


@settings(max_examples=500, deadline=None)
@given(after=SERVICE, before=SERVICE)
@example(after={"spec": {"ports": [{"port": 80}]}}, before={"spec": {}})
@example(after={"metadata": {}}, before={"metadata": {"labels": {"a": "1"}}})
@example(after={}, before={"metadata": {"labels": {}}})
def test_walking_what_differs_finds_what_all_paths_tell(after: dict[str, Any], before: dict[str, Any]) -> None:
    now, then = (object_leaves(tree, "Service", parents=True) for tree in (after, before))
    changed = {path for path, value in now.items() if path not in then or then[path] != value}
    changed -= {(*path, ".") for path in then}  # what was empty
    assert differences(after, before, "Service") == (changed, then.keys() - now.keys())


WRITES = st.lists(st.tuples(SERVICE, st.sampled_from(["kubectl", "operator"])), min_size=2, max_size=4)


def recorded(writes: list[tuple[dict[str, Any], str]]) -> list[dict[str, Any]]:
    """The object after each of the writes, every one a second later."""
    states: list[dict[str, Any]] = []
    for second, (wanted, name) in enumerate(writes):
        new = copy.deepcopy(wanted)
        new.setdefault("metadata", {})
        if states and "managedFields" in states[-1]["metadata"]:
            new["metadata"]["managedFields"] = states[-1]["metadata"]["managedFields"]
        old = states[-1] if states else None
        record_update(new, old, Manager(name, "Update"), f"2026-01-01T00:00:0{second}Z", "Service", "v1")
        states.append(new)
    return states


@settings(max_examples=300, deadline=None)
@given(WRITES)
def test_the_short_way_for_a_manager_that_is_known_records_what_the_long_way_does(
    writes: list[tuple[dict[str, Any], str]],
) -> None:
    writes += [({**wanted, "kind": "Service"}, name) for wanted, name in writes[-1:]]
    with patch.object(managed, "_record_known", return_value=False):
        expected = recorded(writes)
    assert recorded(writes) == expected
