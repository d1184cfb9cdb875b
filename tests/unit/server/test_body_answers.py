"""What bodies with numbers and fields that do not fit are answered."""

import json
from typing import Any

import pytest

from svcplane.testing.server import Caller

SERVICES = "/api/v1/namespaces/default/services"
STRICT = 'Service in version "v1" cannot be handled as a Service: strict decoding error: '
HEAD = 'Service in version "v1" cannot be handled as a Service: '
INTO = " into Go struct field ServicePort.spec.ports.port of type int32"
YAML = {"Content-Type": "application/yaml"}


def body(port: str) -> bytes:
    return b'{"metadata":{"name":"web"},"spec":{"ports":[{"port":%s}]}}' % port.encode()


@pytest.mark.parametrize("number", ["80.0", "8e1", "80.5", "1e20", "99999999999"])
async def test_numbers_of_json_are_written_as_integers(admin: Caller, number: str) -> None:
    status, answer = await admin.call("POST", SERVICES, body(number))
    assert (status, answer["message"]) == (400, f"{HEAD}json: cannot unmarshal number {number}{INTO}")


@pytest.mark.parametrize("number", ["80", "80.0", "8e+1"])
async def test_numbers_of_yaml_are_whole(admin: Caller, number: str) -> None:
    text = f"metadata: {{name: web}}\nspec:\n  ports:\n  - port: {number}\n    targetPort: {number}\n"
    status, answer = await admin.call("POST", SERVICES, text.encode(), YAML)
    assert status == 201
    assert (answer["spec"]["ports"][0]["port"], answer["spec"]["ports"][0]["targetPort"]) == (80, 80)


async def test_numbers_of_patches(admin: Caller) -> None:
    await admin.call("POST", SERVICES, body("80"))
    patch = b'{"spec":{"healthCheckNodePort":0.0}}'
    for kind, expected in (("merge-patch", 422), ("strategic-merge-patch", 200)):
        status, answer = await admin.call(
            "PATCH", f"{SERVICES}/web", patch, {"Content-Type": f"application/{kind}+json"}
        )
        assert status == expected
        if status == 422:
            assert '\\"healthCheckNodePort\\":0.0' in answer["message"]
            assert "json: cannot unmarshal number 0.0 into" in answer["message"]


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (b'{"metadata":{"labels":{"a":1}}}', "cannot convert int64 to string"),
        (b'{"metadata":{"labels":{"a":1.5}}}', "unrecognized type: string"),
        (b'{"spec":{"healthCheckNodePort":1.5}}', "cannot convert float64 to int32"),
        (
            b'{"spec":{"ports":[{"port":80,"targetPort":true}]}}',
            "error decoding from json: json: cannot unmarshal bool into Go value of type int32",
        ),
    ],
)
async def test_what_strategic_patches_cannot_convert(admin: Caller, change: bytes, why: str) -> None:
    await admin.call("POST", SERVICES, body("80"))
    media_type = {"Content-Type": "application/strategic-merge-patch+json"}
    status, answer = await admin.call("PATCH", f"{SERVICES}/web", change, media_type)
    assert status == 422
    assert answer["message"].endswith(why)


@pytest.mark.parametrize(("value", "found"), [(b"80.5", "number 80.5"), (b"8e1", "number 8e1"), (b"{}", "object")])
async def test_what_is_neither_a_number_nor_a_name(admin: Caller, value: bytes, found: str) -> None:
    given = b'{"metadata":{"name":"web"},"spec":{"ports":[{"port":80,"targetPort":%s}]}}' % value
    _, answer = await admin.call("POST", SERVICES, given)
    assert answer["message"].endswith(
        f"json: cannot unmarshal {found} into Go struct field ServicePort.spec.ports.targetPort of type int32"
    )


async def test_quantities_keep_the_form_they_are_written_in(admin: Caller) -> None:
    node = b'{"metadata":{"name":"n"},"status":{"capacity":{"cpu":2.0,"memory":1e3}}}'
    _, answer = await admin.call("POST", "/api/v1/nodes", node)
    assert answer["status"]["capacity"] == {"cpu": "2", "memory": "1e3"}


GIVEN = (
    b'{"zeta":1,"metadata":{"name":"x","name":"web","foo":{"a":1,"a":2}},"spec":{"ports":[{"port":80,"q":1}],"alpha":1},'
    b'"beta":1,"beta":2,"spec":{"sessionAffinity":"None","type":"NodePort","type":null}}'
)
TOLD = [
    'unknown field "zeta"',
    'duplicate field "metadata.name"',
    'unknown field "metadata.foo"',
    'unknown field "spec.ports[0].q"',
    'unknown field "spec.alpha"',
    'unknown field "beta"',
    'duplicate field "spec"',
    'duplicate field "spec.type"',
]


async def test_problems_are_told_in_the_order_met(admin: Caller) -> None:
    status, answer = await admin.call("POST", f"{SERVICES}?fieldValidation=Strict", GIVEN)
    assert (status, answer["message"]) == (400, STRICT + ", ".join(TOLD))
    assert list((await admin.send("POST", SERVICES, GIVEN)).warnings) == TOLD


async def test_fields_given_twice_are_read_one_after_the_other(admin: Caller) -> None:
    made: dict[str, Any] = (await admin.call("POST", SERVICES, GIVEN))[1]
    assert made["metadata"]["name"] == "web"
    assert made["spec"]["ports"][0]["port"] == 80
    assert made["spec"]["type"] == "NodePort"


IN_YAML = b"""apiVersion: v1
kind: Service
metadata:
  name: x
  name: web
spec:
  ports:
  - port: 80
    port: 81
    protocol: TCP
  ports:
  - port: 82
"""
LINES = [
    'line 5: key "name" already set in map',
    'line 9: key "port" already set in map',
    'line 12: key "ports" already set in map',
]
ERRORS = "yaml: unmarshal errors:\n" + "\n".join(f"  {line}" for line in LINES)


async def test_fields_that_yaml_gives_again(admin: Caller) -> None:
    """The last one counts, and all are told of."""
    status, answer = await admin.call("POST", f"{SERVICES}?fieldValidation=Strict", IN_YAML + b"foo: 1\n", YAML)
    assert (status, answer["message"]) == (400, f'{STRICT}{ERRORS}, unknown field "foo"')
    response = await admin.send("POST", SERVICES, IN_YAML + b"foo: 1\n", YAML)
    assert (response.status, list(response.warnings)) == (201, [*LINES, 'unknown field "foo"'])
    assert b'"port":82' in response.body


@pytest.mark.parametrize("first", [True, False])
async def test_fields_that_an_apply_gives_again(admin: Caller, first: bool) -> None:
    if not first:
        await admin.call("POST", SERVICES, body("82"))
    media_type = {"Content-Type": "application/apply-patch+yaml"}
    url = f"{SERVICES}/web?fieldManager=m"
    status, answer = await admin.call("PATCH", f"{url}&fieldValidation=Strict", IN_YAML, media_type)
    why = f"error strict decoding YAML: error converting YAML to JSON: {ERRORS}"
    assert (status, answer["message"]) == (400, why)
    response = await admin.send("PATCH", url, IN_YAML, media_type)
    assert (response.status, list(response.warnings)) == (201 if first else 200, LINES)
    assert (await admin.send("PATCH", f"{url}&fieldValidation=Ignore", IN_YAML, media_type)).warnings == ()


async def test_json_in_an_apply_is_read_as_yaml(admin: Caller) -> None:
    media_type = {"Content-Type": "application/apply-patch+yaml"}
    given = (
        b'{"apiVersion":"v1","kind":"Service","metadata":{"name":"web","name":"web"},"spec":{"ports":[{"port":80}]}}'
    )
    response = await admin.send("PATCH", f"{SERVICES}/web?fieldManager=m", given, media_type)
    assert list(response.warnings) == ['line 1: key "name" already set in map']


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (b"", "couldn't get version/kind; json parse error: unexpected end of JSON input (<empty>)"),
        (
            b"[]",
            "couldn't get version/kind; json parse error: json: cannot unmarshal array into Go value of type struct "
            '{ APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" } (5b5d)',
        ),
    ],
)
async def test_bodies_that_are_no_objects(admin: Caller, body: bytes, why: str) -> None:
    _, answer = await admin.call("POST", SERVICES, body)
    assert answer["message"] == f"the object provided is unrecognized (must be of type Service): {why}"


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (b'"metadata":{"creationTimestamp":5}', "json: cannot unmarshal number into Go value of type string"),
        (
            b'"metadata":{"creationTimestamp":""}',
            'parsing time "" as "2006-01-02T15:04:05Z07:00": cannot parse "" as "2006"',
        ),
        (
            b'"status":{"capacity":{"cpu":[]}}',
            "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'",
        ),
    ],
)
async def test_types_that_read_themselves(admin: Caller, given: bytes, why: str) -> None:
    _, answer = await admin.call("POST", "/api/v1/nodes", b"{%s}" % given)
    assert answer["message"] == f'Node in version "v1" cannot be handled as a Node: {why}'


async def test_no_quantity_is_nought(admin: Caller) -> None:
    body = {"metadata": {"name": "n"}, "status": {"capacity": {"cpu": None}}}
    _, answer = await admin.call("POST", "/api/v1/nodes", body)
    assert answer["status"]["capacity"] == {"cpu": "0"}


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (b'"\xff"', "\ufffd"),
        (b'"\\ud83d"', "\ufffd"),
        (b'"\\ude00\\ud83d"', "\ufffd\ufffd"),
        (b'"\\ud83d\\ude00"', "\U0001f600"),
        (b'"\\\\ud83d\xff"', "\\ud83d\ufffd"),
        (b'"x","a":"\xff"', "\ufffd"),
    ],
)
async def test_what_is_no_text_is_marked(admin: Caller, given: bytes, kept: str) -> None:
    head = b'{"metadata":{"name":"web","annotations":{"a":%s}},"spec":{"ports":[{"port":80}]}}'
    status, made = await admin.call("POST", SERVICES, head % given)
    assert (status, made["metadata"]["annotations"]) == (201, {"a": kept})
    patch = b'{"metadata":{"annotations":{"a":%s}}}' % given
    _, made = await admin.call("PATCH", f"{SERVICES}/web", patch, {"Content-Type": "application/merge-patch+json"})
    assert made["metadata"]["annotations"] == {"a": kept}


async def test_a_hundred_unknown_fields_are_told_of(admin: Caller) -> None:
    body = {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}, **{f"f{n}": 1 for n in range(200)}}
    response = await admin.send("POST", SERVICES, body)
    assert response.status == 201
    assert response.warnings == tuple(f'unknown field "f{n}"' for n in range(100))
    merge = {"Content-Type": "application/merge-patch+json"}
    assert len((await admin.send("PATCH", f"{SERVICES}/web", body, merge)).warnings) == 100
    text = json.dumps({**body, "metadata": {"name": "other"}}).encode()
    assert len((await admin.send("POST", f"{SERVICES}?dryRun=All", text, YAML)).warnings) == 100


async def test_a_path_that_begins_with_no_slash_is_none(admin: Caller) -> None:
    response = await admin.send("OPTIONS", "*")
    assert (response.status, response.body) == (404, b"404 page not found\n")
