"""What patches and applies that do not fit are answered."""

import json
from typing import Any

import pytest

from svcplane.testing.server import Caller

SERVICES = "/api/v1/namespaces/default/services"
JSON = {"Content-Type": "application/json-patch+json"}
MERGE = {"Content-Type": "application/merge-patch+json"}
STRATEGIC = {"Content-Type": "application/strategic-merge-patch+json"}
APPLY = {"Content-Type": "application/apply-patch+yaml"}
UNFIT = "the server rejected our request due to an error in our request"


@pytest.fixture
async def web(admin: Caller) -> str:
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    body = {"metadata": {"name": "web"}, "spec": {"ports": ports}}
    assert (await admin.call("POST", SERVICES, body))[0] == 201
    return f"{SERVICES}/web"


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "remove", "path": ""},
        {"op": "replace", "path": "", "value": {}},
        {"op": "add", "path": "spec", "value": 1},
        {"op": "add"},
        {"op": "grow", "path": "/spec"},
        {"op": "move", "from": "/nope", "path": "/spec/type"},
        {"op": "copy", "from": "/nope", "path": "/spec/type"},
        {"op": "replace", "path": "/spec/ports/9/port", "value": 1},
        {"op": "add", "path": "/spec/ports/9", "value": {}},
        {"op": "test", "path": "/spec/type", "value": "NodePort"},
    ],
)
async def test_operations_that_do_not_apply(admin: Caller, web: str, operation: dict[str, Any]) -> None:
    status, body = await admin.call("PATCH", web, [operation], JSON)
    assert (status, body["reason"], body["message"]) == (422, "Invalid", UNFIT)


async def test_numbers_are_tested_as_they_are_written(admin: Caller, web: str) -> None:
    path = '"path":"/spec/ports/0/port"'
    for value, expected in (("80", 200), ("80.0", 422), ("true", 422)):
        patch = f'[{{"op":"test",{path},"value":{value}}}]'.encode()
        assert (await admin.call("PATCH", web, patch, JSON))[0] == expected
    patch = f'[{{"op":"add",{path},"value":1.5}},{{"op":"copy","from":"/spec",{path}}}]'.encode()
    assert (await admin.call("PATCH", web, patch, JSON))[0] == 422


async def test_a_missing_member_is_tested_as_null(admin: Caller, web: str) -> None:
    operation = {"op": "test", "path": "/metadata/labels", "value": None}
    assert (await admin.call("PATCH", web, [operation], JSON))[0] == 200


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ({}, "cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
        (["x"], "cannot unmarshal string into Go value of type handlers.jsonPatchOp"),
        ([{"op": 5}], "cannot unmarshal number into Go struct field jsonPatchOp.op of type string"),
    ],
)
async def test_what_is_no_json_patch(admin: Caller, web: str, patch: Any, message: str) -> None:
    status, body = await admin.call("PATCH", web, patch, JSON)
    assert (status, body["message"]) == (400, f"error decoding patch: json: {message}")


@pytest.mark.parametrize(
    ("headers", "patch", "expected"),
    [
        (JSON, b"null", 200),
        (JSON, b"[null]", 422),
        (JSON, b'[{"op":null,"path":"/spec"}]', 422),
        (STRATEGIC, b"null", 200),
        (MERGE, b"null", 400),
    ],
)
async def test_null_for_a_patch(admin: Caller, web: str, headers: dict[str, str], patch: bytes, expected: int) -> None:
    status, body = await admin.call("PATCH", web, patch, headers)
    assert status == expected
    if status != 200:
        assert body["message"] == (UNFIT if status == 422 else "Invalid JSON Patch")


@pytest.mark.parametrize("headers", [JSON, MERGE])
async def test_a_patch_that_makes_no_service(admin: Caller, web: str, headers: dict[str, str]) -> None:
    patch: Any = {"spec": {"type": 5}}
    if headers is JSON:
        patch = [{"op": "replace", "path": "/spec/type", "value": 5}]
    status, body = await admin.call("PATCH", web, patch, headers)
    (cause,) = body["details"]["causes"]
    assert (status, body["reason"], cause["field"]) == (422, "Invalid", "patch")
    assert body["message"].startswith(' "" is invalid: patch: Invalid value: "{\\"apiVersion\\":\\"v1\\"')
    assert cause["message"].endswith(
        "json: cannot unmarshal number into Go struct field ServiceSpec.spec.type of type string"
    )


@pytest.mark.parametrize(
    ("spec", "status", "message"),
    [
        (
            {"ports": "x"},
            422,
            ' "" is invalid: patch: Invalid value: "map[spec:map[ports:x]]": cannot restore slice from string',
        ),
        (
            {"ports": [{"port": "x"}]},
            422,
            ' "" is invalid: patch: Invalid value: "map[spec:map[ports:[map[port:x]]]]": unrecognized type: int32',
        ),
        (
            {"ports": [{"port": {}}]},
            422,
            ' "" is invalid: patch: Invalid value: "map[spec:map[ports:[map[port:map[]]]]]": unrecognized type: int32',
        ),
        ({"ports": [{"name": "x"}]}, 500, "map: map[name:x] does not contain declared merge key: port"),
        ({"ports": [{"$patch": "grow", "port": 80}]}, 500, "unknown patch type: grow in map: map[$patch:grow port:80]"),
        ({"$patch": "grow"}, 500, "unknown patch type: grow in map: map[$patch:grow]"),
        ({"$retainKeys": ["type"], "ports": []}, 400, "invalid patch format of retainKeys"),
        ({"$retainKeys": "type"}, 400, "invalid patch format of retainKeys"),
        (
            {"$setElementOrder/ports": [{"port": 80}], "ports": [{"port": 81}]},
            500,
            "The order in patch list:\n[map[port:81]]\n doesn't match $setElementOrder list:\n[map[port:80]]\n",
        ),
    ],
)
async def test_strategic_patches_that_do_not_fit(
    admin: Caller, web: str, spec: dict[str, Any], status: int, message: str
) -> None:
    answer = await admin.call("PATCH", web, {"spec": spec}, STRATEGIC)
    assert (answer[0], answer[1]["message"]) == (status, message)


async def test_items_are_deleted_and_replaced_by_directive(admin: Caller, web: str) -> None:
    gone = {"spec": {"ports": [{"port": 80, "$patch": "delete"}]}}
    _, body = await admin.call("PATCH", web, gone, STRATEGIC)
    assert [port["port"] for port in body["spec"]["ports"]] == [81]
    instead = {"spec": {"ports": [{"$patch": "replace"}, {"port": 90}]}}
    _, body = await admin.call("PATCH", web, instead, STRATEGIC)
    assert [port["port"] for port in body["spec"]["ports"]] == [90]


async def test_ports_of_one_number_all_stay(admin: Caller) -> None:
    ports = [{"name": "t", "port": 53}, {"name": "u", "port": 53, "protocol": "UDP"}, {"name": "m", "port": 9153}]
    await admin.call("POST", SERVICES, {"metadata": {"name": "dns"}, "spec": {"ports": ports}})
    patch = {"spec": {"ports": [{"port": 53, "targetPort": 5353}]}}
    _, body = await admin.call("PATCH", f"{SERVICES}/dns", patch, STRATEGIC)
    assert [(port["name"], port["targetPort"]) for port in body["spec"]["ports"]] == [
        ("t", 5353),
        ("u", 53),
        ("m", 9153),
    ]


async def test_new_finalizers_come_before_those_that_the_patch_leaves_out(admin: Caller, web: str) -> None:
    for patched, expected in ((["a.b/c"], ["a.b/c"]), (["x.y/z"], ["x.y/z", "a.b/c"])):
        _, body = await admin.call("PATCH", web, {"metadata": {"finalizers": patched}}, STRATEGIC)
        assert body["metadata"]["finalizers"] == expected


@pytest.mark.parametrize("media_type", ["application/json", "application/yaml", "application/apply-patch+json", ""])
async def test_bodies_that_are_no_patch(admin: Caller, web: str, media_type: str) -> None:
    status, body = await admin.call("PATCH", web, {}, {"Content-Type": media_type})
    assert (status, body["reason"], body["details"]) == (415, "UnsupportedMediaType", {})
    assert body["message"] == "415: Unsupported Media Type"


async def test_strict_patches_refuse_what_the_usual_ones_warn_of(admin: Caller, web: str) -> None:
    patch = b'{"spec":{"type":"ClusterIP","type":"ClusterIP","colour":1}}'
    response = await admin.send("PATCH", web, patch, MERGE)
    assert response.status == 200
    assert list(response.warnings) == ['duplicate field "spec.type"', 'unknown field "spec.colour"']
    status, body = await admin.call("PATCH", f"{web}?fieldValidation=Strict", patch, MERGE)
    assert status == 422
    assert 'strict decoding error: duplicate field "spec.type", unknown field "spec.colour"' in body["message"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"metadata": {"uid": "x"}}, 'Service "web" is invalid: metadata.uid: Invalid value: "x": field is immutable'),
        (
            {"metadata": {"namespace": "x"}},
            "the namespace of the provided object does not match the namespace sent on the request",
        ),
        ({"metadata": {"name": "x"}}, "the name of the object (x) does not match the name on the URL (web)"),
        (
            {"metadata": None},
            "the name of the object (web based on URL) was undeterminable: name must be provided",
        ),
    ],
)
async def test_patches_of_what_an_object_is_called(
    admin: Caller, web: str, change: dict[str, Any], message: str
) -> None:
    assert (await admin.call("PATCH", web, change, MERGE))[1]["message"] == message


@pytest.mark.parametrize("headers", [JSON, MERGE])
async def test_patches_to_an_api_version_that_is_no_text(admin: Caller, web: str, headers: dict[str, str]) -> None:
    patch = {"apiVersion": []} if headers is MERGE else [{"op": "copy", "from": "/spec/ports", "path": "/apiVersion"}]
    status, body = await admin.call("PATCH", web, patch, headers)
    why = "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go struct field .apiVersion"
    assert (status, body["details"]["causes"][0]["field"]) == (422, "patch")
    assert body["message"].endswith(f"{why} of type string")


TYPED = "failed to create typed patch object (/n; /v1, Kind=Service): "


@pytest.mark.parametrize(
    ("change", "status", "message"),
    [
        ({"apiVersion": "v2"}, 400, "invalid object type: /v2, Kind=Service"),
        ({"kind": "Pod"}, 400, "invalid object type: /v1, Kind=Pod"),
        ({"apiVersion": None}, 400, "invalid object type: /, Kind=Service"),
        ({"metadata": {"name": "n", "managedFields": []}}, 400, "metadata.managedFields must be nil"),
        (
            {"spec": {"foo": 1, "bar": 2}},
            500,
            TYPED + "errors:\n  .spec.bar: field not declared in schema\n  .spec.foo: field not declared in schema",
        ),
        (
            {"spec": {"ports": [{"port": 80}, {"port": 80}]}},
            500,
            TYPED + '.spec.ports: duplicate entries for key [port=80,protocol="TCP"]',
        ),
        (
            {"spec": {"ports": [{"name": "x"}]}},
            500,
            TYPED
            + '.spec.ports: element 0: associative list with keys has an element that omits key field "port" '
            + "(and doesn't have default value)",
        ),
        (
            {"spec": {"ports": [None, {"port": "x"}]}},
            500,
            TYPED + ".spec.ports: element 0: associative list with keys may not have a null element",
        ),
        (
            {"spec": {"ports": ["x"]}},
            500,
            TYPED + ".spec.ports: element 0: associative list with keys may not have non-map elements",
        ),
        (
            {"metadata": {"name": "n", "finalizers": [{}]}},
            500,
            TYPED + ".metadata.finalizers: element 0: associative list without keys has an element that's a map type",
        ),
        (
            {"spec": {"healthCheckNodePort": "x"}},
            500,
            TYPED + ".spec.healthCheckNodePort: expected numeric (int or float), got string",
        ),
        ({"spec": {"selector": "x"}}, 500, TYPED + ".spec.selector: expected map, got &{x}"),
        ({"spec": {"ports": {"port": 80}}}, 500, TYPED + ".spec.ports: expected list, got &{map[port:80]}"),
        (
            {"metadata": {"name": "n", "uid": "u"}},
            409,
            'Operation cannot be fulfilled on services "n": uid mismatch: the provided object specified uid u, '
            "and no existing object was found",
        ),
    ],
)
async def test_applies_that_do_not_fit(admin: Caller, change: dict[str, Any], status: int, message: str) -> None:
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "n"}, **change}
    answer = await admin.call("PATCH", f"{SERVICES}/n?fieldManager=m", body, APPLY)
    assert (answer[0], answer[1]["message"]) == (status, message)


async def test_conflicts_of_an_apply_are_listed_by_manager(admin: Caller) -> None:
    slices = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
    labels = {"a": "1", "b": "1"}
    head = {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4"}
    made = {**head, "metadata": {"name": "s", "labels": labels}, "endpoints": [], "ports": []}
    assert (await admin.call("POST", f"{slices}?fieldManager=maker", made))[0] == 201
    wanted = {**head, "metadata": {"name": "s", "labels": {"a": "2", "b": "2"}}}
    status, body = await admin.call("PATCH", f"{slices}/s?fieldManager=m", wanted, APPLY)
    assert (status, body["reason"]) == (409, "Conflict")
    first = 'Apply failed with 2 conflicts: conflicts with "maker" using discovery.k8s.io/v1:'
    assert body["message"] == "\n".join([first, "- .metadata.labels.a", "- .metadata.labels.b"])
    forced = await admin.call("PATCH", f"{slices}/s?fieldManager=m&force=true", wanted, APPLY)
    assert (forced[0], forced[1]["metadata"]["labels"]) == (200, {"a": "2", "b": "2"})


async def apply(admin: Caller, name: str, manager: str, **spec: Any) -> tuple[int, Any]:
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}
    return await admin.call("PATCH", f"{SERVICES}/{name}?fieldManager={manager}", body, APPLY)


@pytest.mark.parametrize(
    ("applied", "expected"),
    [
        ([90, 80], [90, 80, 81]),
        ([80, 90], [80, 81, 90]),
        ([81, 80], [81, 80]),
        ([81, 90, 80], [81, 90, 80]),
    ],
)
async def test_applied_items_come_in_their_order(admin: Caller, applied: list[int], expected: list[int]) -> None:
    """Items of others keep their place before the next that is of both."""
    ports = [{"port": number, "name": f"p{number}"} for number in (80, 81)]
    await admin.call("POST", SERVICES, {"metadata": {"name": "web"}, "spec": {"ports": ports}})
    _, body = await apply(admin, "web", "m", ports=[{"port": number, "name": f"p{number}"} for number in applied])
    assert [port["port"] for port in body["spec"]["ports"]] == expected


async def test_what_a_write_sets_back_it_does_not_own(admin: Caller, web: str) -> None:
    """Neither status by way of the object, nor spec by way of the status."""
    head = {"apiVersion": "v1", "kind": "Service"}

    def status(value: str) -> dict[str, Any]:
        at = "2026-01-01T00:00:00Z"
        return {"conditions": [{"type": "A", "status": value, "reason": "R", "message": "", "lastTransitionTime": at}]}

    def spec(affinity: str) -> dict[str, Any]:
        return {"sessionAffinity": affinity}

    for manager, path, change in (
        ("a", web, {"status": status("True")}),
        ("b", f"{web}/status", {"status": status("False"), "spec": spec("ClientIP")}),
        ("c", web, {"status": status("Unknown"), "spec": spec("None")}),
    ):
        body = head | {"metadata": {"name": "web"}} | change
        code, answer = await admin.call("PATCH", f"{path}?fieldManager={manager}", body, APPLY)
        assert code == 200
    assert answer["status"]["conditions"] == status("False")["conditions"]
    owned = {entry["manager"]: set(entry["fieldsV1"]) for entry in answer["metadata"]["managedFields"]}
    assert owned == {"b": {"f:status"}, "c": {"f:spec"}, "test": {"f:spec"}}


async def test_an_empty_object_applied_changes_nothing(admin: Caller, web: str) -> None:
    assert [(await apply(admin, "web", manager))[0] for manager in ("a", "b")] == [200, 200]


async def test_conflicts_come_as_field_sets_name_them(admin: Caller) -> None:
    """At each level what ends there, then what is below; ports by their numbers."""
    ports = [{"port": number, "name": f"p{number}", "targetPort": 1} for number in (443, 80)]
    made = {"metadata": {"name": "web"}, "spec": {"ports": ports, "type": "ClusterIP"}}
    await admin.call("POST", f"{SERVICES}?fieldManager=maker", made)
    _, body = await apply(admin, "web", "m", ports=[{**port, "targetPort": 2} for port in ports], type="NodePort")
    assert body["message"].split("\n")[1:] == [
        "- .spec.type",
        '- .spec.ports[port=80,protocol="TCP"].targetPort',
        '- .spec.ports[port=443,protocol="TCP"].targetPort',
    ]


async def test_kubectl_takes_over_what_it_applied_before_by_itself(admin: Caller) -> None:
    """Its annotation follows; what others have changed since stays theirs."""
    key = "kubectl.kubernetes.io/last-applied-configuration"
    port = {"port": 80, "targetPort": 1}
    head: dict[str, Any] = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}}
    first = head | {"spec": {"ports": [port], "sessionAffinity": "None"}}
    made = {**first, "metadata": {"name": "web", "annotations": {key: json.dumps(first)}}}
    await admin.call("POST", f"{SERVICES}?fieldManager=kubectl-client-side-apply", made)
    spec = {"ports": [{**port, "targetPort": 2}]}
    assert (await apply(admin, "web", "other", **spec))[0] == 409
    status, body = await apply(admin, "web", "kubectl", **spec)
    assert (status, body["spec"]["ports"][0]["targetPort"]) == (200, 2)
    expected = json.dumps(head | {"spec": spec}, separators=(",", ":"), sort_keys=True) + "\n"
    assert body["metadata"]["annotations"] == {key: expected}
    await admin.call("PATCH", f"{SERVICES}/web?fieldManager=x", {"spec": {"ports": [{**port, "name": "n"}]}}, STRATEGIC)
    status, body = await apply(admin, "web", "kubectl", ports=[{**port, "name": "m"}])
    assert (status, body["details"]["causes"][0]["message"]) == (409, 'conflict with "x" using v1')
    large = {"metadata": {"name": "web", "annotations": {"large": "x" * (200 << 10)}}, "spec": spec}
    _, body = await admin.call("PATCH", f"{SERVICES}/web?fieldManager=kubectl&force=true", head | large, APPLY)
    assert list(body["metadata"]["annotations"]) == ["large"]


async def test_what_was_applied_as_empty_goes_with_none_of_its_fields(admin: Caller, web: str) -> None:
    head: dict[str, Any] = {"apiVersion": "v1", "kind": "Service"}
    for change in (
        {"metadata": {"name": "web", "labels": {}}, "spec": {}},
        {"metadata": {"name": "web", "labels": {"a": "b"}}, "spec": {"externalIPs": ["192.0.2.1"]}},
        {"metadata": {"name": "web"}},
    ):
        status, body = await admin.call("PATCH", f"{web}?fieldManager=m", head | change, APPLY)
        assert (status, [port["port"] for port in body["spec"]["ports"]]) == (200, [80, 81])
    assert ("externalIPs" in body["spec"], "labels" in body["metadata"]) == (False, False)


async def test_a_struct_goes_with_what_the_server_set_in_it(admin: Caller) -> None:
    """As the defaults of a probe do; the labels of others stay."""
    pods = "/api/v1/namespaces/default/pods/p"
    head: dict[str, Any] = {"apiVersion": "v1", "kind": "Pod"}
    probe = {"livenessProbe": {"httpGet": {"port": 80}}}
    container = {"name": "c", "image": "i"}
    first = head | {"metadata": {"name": "p", "labels": {"a": "1"}}, "spec": {"containers": [container | probe]}}
    assert (await admin.call("PATCH", f"{pods}?fieldManager=m", first, APPLY))[0] == 201
    await admin.call("PATCH", f"{pods}?fieldManager=o", {"metadata": {"labels": {"b": "2"}}}, MERGE)
    second = head | {"metadata": {"name": "p"}, "spec": {"containers": [container]}}
    _, body = await admin.call("PATCH", f"{pods}?fieldManager=m", second, APPLY)
    assert [cause["field"] for cause in body["details"]["causes"]] == ["spec"]
    _, body = await admin.call("PATCH", f"{pods}?fieldManager=m", first | {"metadata": {"name": "p"}}, APPLY)
    assert body["metadata"]["labels"] == {"b": "2"}


async def test_an_item_goes_with_what_others_changed_in_it(admin: Caller) -> None:
    """They own it no more, so that it can come back with other values."""
    ports = [{"port": number, "name": f"p{number}"} for number in (80, 81)]
    assert (await apply(admin, "web", "m", ports=ports))[0] == 201
    await admin.call(
        "PATCH", f"{SERVICES}/web?fieldManager=o", {"spec": {"ports": [{"port": 81, "targetPort": 5}]}}, STRATEGIC
    )
    status, body = await apply(admin, "web", "m", ports=ports[:1])
    assert (status, [port["port"] for port in body["spec"]["ports"]]) == (200, [80])
    assert [entry["manager"] for entry in body["metadata"]["managedFields"]] == ["m"]
    status, body = await apply(admin, "web", "m", ports=[ports[0], {**ports[1], "targetPort": 6}])
    assert (status, [port["targetPort"] for port in body["spec"]["ports"]]) == (200, [80, 6])


async def test_references_are_one_value_each(admin: Caller, web: str) -> None:
    owner = {"apiVersion": "v1", "kind": "Pod", "name": "p", "uid": "u"}
    head: dict[str, Any] = {"apiVersion": "v1", "kind": "Service"}
    for manager, name, expected in (("m", "p", 200), ("o", "q", 409), ("o", "p", 200)):
        change = {"metadata": {"name": "web", "ownerReferences": [{**owner, "name": name}]}}
        status, body = await admin.call("PATCH", f"{web}?fieldManager={manager}", head | change, APPLY)
        assert status == expected
        if status == 409:
            assert body["message"].endswith('conflict with "m": .metadata.ownerReferences[uid="u"]')
    owned = {entry["manager"]: entry["fieldsV1"] for entry in body["metadata"]["managedFields"]}
    assert owned["m"] == {"f:metadata": {"f:ownerReferences": {'k:{"uid":"u"}': {}}}}
