"""What reads with bad options are answered, and the forms in which lists and watches come."""

import json
from typing import Any

import pytest

from svcplane.api import yaml
from svcplane.testing.server import Caller

SERVICES = "/api/v1/namespaces/default/services"
TABLE = {"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
METADATA = {"Accept": "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"}
METADATA_LIST = {"Accept": "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"}
MATCH = 'ListOptions.meta.k8s.io "" is invalid: resourceVersionMatch: Forbidden: '
HEAD = 'ListOptions.meta.k8s.io "" is invalid: '


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("limit=x", 400, 'strconv.ParseInt: parsing "x": invalid syntax'),
        ("limit=", 400, 'strconv.ParseInt: parsing "": invalid syntax'),
        ("limit=9223372036854775808", 400, 'strconv.ParseInt: parsing "9223372036854775808": value out of range'),
        (
            "resourceVersion=x",
            500,
            'resourceVersion: Invalid value: "x": strconv.ParseUint: parsing "x": invalid syntax',
        ),
        (
            "resourceVersionMatch=Exact",
            422,
            HEAD
            + "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided",
        ),
        (
            "resourceVersion=5&resourceVersionMatch=Foo",
            422,
            HEAD + 'resourceVersionMatch: Unsupported value: "Foo": supported values: "Exact", "NotOlderThan", ""',
        ),
        (
            "resourceVersion=0&resourceVersionMatch=Exact",
            422,
            HEAD + 'resourceVersionMatch: Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"',
        ),
        ("sendInitialEvents=true", 422, HEAD + "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list"),
        (
            "watch=1&resourceVersion=1&resourceVersionMatch=NotOlderThan",
            422,
            HEAD
            + "resourceVersionMatch: Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents "
            "is provided",
        ),
        ("fieldSelector=spec.colour%3Dred", 400, "field label not supported: spec.colour"),
        ("labelSelector=a%20in%20b", 400, "unable to parse requirement: found 'b' expected: '('"),
    ],
)
async def test_options_refused(admin: Caller, query: str, status: int, message: str) -> None:
    answer = await admin.call("GET", f"{SERVICES}?{query}")
    assert (answer[0], answer[1]["message"]) == (status, message)


async def test_versions_to_come_are_too_large(admin: Caller) -> None:
    for path in (SERVICES, f"{SERVICES}/kubernetes"):
        response = await admin.send("GET", f"{path}?resourceVersion=999999")
        assert (response.status, response.headers["Retry-After"]) == (504, "1")


@pytest.mark.parametrize(
    ("token", "why"),
    [
        ("x", "illegal base64 data at input byte 0"),
        ("bad+token", "illegal base64 data at input byte 3"),
        ("bad-token", "illegal base64 data at input byte 8"),
        ("abc", "invalid character 'i' looking for beginning of value"),
        ("eyJ", "unexpected end of JSON input"),
        ("W10", "json: cannot unmarshal array into Go value of type storage.continueToken"),
        ("eyJ2Ijoi_yJ9", "server does not recognize this encoded version \ufffd"),
        ("eyJ2IjoieCJ9", "server does not recognize this encoded version x"),
        ("eyJydiI6MX0", "server does not recognize this encoded version "),
        (
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEifQ",
            "incorrect encoded start resourceVersion (version meta.k8s.io/v1)",
        ),
        (
            "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6NX0",
            "encoded start key empty (version meta.k8s.io/v1)",
        ),
    ],
)
async def test_continue_tokens_refused(admin: Caller, token: str, why: str) -> None:
    status, body = await admin.call("GET", f"{SERVICES}?limit=1&continue={token.replace('+', '%2B')}")
    assert (status, body["message"]) == (400, f"invalid continue token: continue key is not valid: {why}")


async def test_forms_of_the_wrong_shape_are_not_acceptable(admin: Caller) -> None:
    status, body = await admin.call("GET", SERVICES, headers=METADATA)
    assert (status, body["reason"]) == (406, "NotAcceptable")
    assert body["message"] == (
        "you requested PartialObjectMetadata, but the requested object is a list (*core.ServiceList)"
    )
    status, body = await admin.call("GET", f"{SERVICES}/kubernetes", headers=METADATA_LIST)
    assert (status, body["message"]) == (
        406,
        "you requested PartialObjectMetadataList, but the requested object is not a list (*core.Service)",
    )


async def test_a_watch_in_the_form_of_lists_ends(admin: Caller) -> None:
    response = await admin.send("GET", f"{SERVICES}?watch=1", headers=METADATA_LIST)
    assert response.status == 200
    assert response.stream is not None
    assert [chunk async for chunk in response.stream] == []


async def test_a_watch_in_yaml_is_not_acceptable(admin: Caller) -> None:
    response = await admin.send("GET", f"{SERVICES}?watch=1", headers={"Accept": "application/yaml"})
    status, body = response.status, yaml.parse(response.body)
    given = "application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"
    assert (status, body["reason"], "details" in body) == (406, "NotAcceptable", False)
    assert body["message"] == f"only the following media types are accepted: {given}"


async def test_a_watch_of_one_object_selects_no_other(admin: Caller) -> None:
    one = "/api/v1/watch/namespaces/default/services/kubernetes"
    for selector in ("metadata.name%3Dweb", "spec.type%3DClusterIP"):
        status, body = await admin.call("GET", f"{one}?fieldSelector={selector}")
        assert (status, body["message"]) == (400, "fieldSelector metadata.name doesn't match requested name")
    response = await admin.send("GET", f"{one}?fieldSelector=metadata.name%3Dkubernetes&timeoutSeconds=1")
    assert response.stream is not None
    assert b'"ADDED"' in await anext(response.stream)
    await response.stream.aclose()  # type: ignore[attr-defined]


@pytest.mark.parametrize("watch", ["", "watch=1&"])
async def test_what_rows_include_is_checked(admin: Caller, watch: str) -> None:
    status, body = await admin.call("GET", f"{SERVICES}?{watch}includeObject=All", headers=TABLE)
    assert (status, body["message"]) == (
        422,
        'TableOptions.meta.k8s.io "" is invalid: includeObject: Invalid value: "All": '
        "must be 'Metadata', 'Object', 'None', or empty",
    )


async def test_bookmarks_end_the_initial_events_in_every_form(admin: Caller) -> None:
    query = "watch=1&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=1"
    expected: list[tuple[dict[str, str], dict[str, Any]]] = [
        ({}, {"kind": "Service", "apiVersion": "v1", "spec": {}, "status": {"loadBalancer": {}}}),
        (METADATA, {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1"}),
    ]
    for headers, empty in expected:
        *events, bookmark = await watched(admin, query, headers)
        assert [event["type"] for event in events] == ["ADDED"]
        assert bookmark["type"] == "BOOKMARK"
        meta = bookmark["object"].pop("metadata")
        assert meta["annotations"] == {"k8s.io/initial-events-end": "true"}
        assert bookmark["object"] == empty


async def test_a_watched_table_names_its_columns_once(admin: Caller) -> None:
    await admin.call("POST", SERVICES, {"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}})
    first, second = await watched(admin, "watch=1&timeoutSeconds=1", TABLE)
    assert first["object"]["columnDefinitions"][0]["name"] == "Name"
    assert second["object"]["columnDefinitions"] is None
    assert second["object"]["rows"][0]["cells"][0] == "web"


async def watched(admin: Caller, query: str, headers: dict[str, str]) -> list[dict[str, Any]]:
    """The first lines of a watch."""
    response = await admin.send("GET", f"{SERVICES}?{query}", headers=headers)
    assert response.stream is not None
    chunk = await anext(response.stream)
    await response.stream.aclose()  # type: ignore[attr-defined]
    return [json.loads(line) for line in chunk.splitlines()]


async def test_documents_are_only_read(admin: Caller) -> None:
    for path in ("/api", "/apis", "/apis/discovery.k8s.io/v1"):
        status, body = await admin.call("POST", path, {})
        assert (status, body["reason"]) == (405, "MethodNotAllowed")


@pytest.mark.parametrize("path", [SERVICES, f"{SERVICES}/kubernetes"])
async def test_forms_come_in_the_version_asked_for(admin: Caller, path: str) -> None:
    form = "PartialObjectMetadata" if path.endswith("kubernetes") else "PartialObjectMetadataList"
    for kind in ("Table", form):
        accepted = {"Accept": f"application/json;as={kind};g=meta.k8s.io;v=v1beta1"}
        _, body = await admin.call("GET", path, headers=accepted)
        inner = [row["object"] for row in body.get("rows", [])] + body.get("items", [])
        assert {body["kind"]} == {kind}
        assert {part["apiVersion"] for part in (body, *inner)} == {"meta.k8s.io/v1beta1"}


@pytest.mark.parametrize(
    ("accepted", "given"),
    [
        ("application/yaml;q=0.5, application/json", "application/json"),
        ("*/*, application/yaml", "application/yaml"),
        ("application/*, application/yaml", "application/yaml"),
        ("application/yaml, application/json", "application/yaml"),
    ],
)
async def test_the_best_representation_accepted(admin: Caller, accepted: str, given: str) -> None:
    response = await admin.send("GET", f"{SERVICES}/kubernetes", headers={"Accept": accepted})
    assert response.headers["Content-Type"] == given


OFFERED = "application/json, application/yaml, application/vnd.kubernetes.protobuf"
STREAMED = ", application/json;stream=watch, application/vnd.kubernetes.protobuf;stream=watch"


@pytest.mark.parametrize(
    ("path", "accepted", "message"),
    [
        ("", "text/plain", f"406: Not Acceptable\n\nAvailable representations: {OFFERED}{STREAMED}"),
        ("", "application/*", f"406: Not Acceptable\n\nAvailable representations: {OFFERED}{STREAMED}"),
        ("/kubernetes", "text/plain", f"406: Not Acceptable\n\nAvailable representations: {OFFERED}"),
        ("", "application/json;as=Table;g=meta.k8s.io;v=v2", f"only the following media types are accepted: {OFFERED}"),
        (
            "?watch=1",
            "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList",
            f"only the following media types are accepted: {OFFERED}",
        ),
        ("/kubernetes", "application/json;as=Row", f"only the following media types are accepted: {OFFERED}"),
    ],
)
async def test_representations_that_nobody_has(admin: Caller, path: str, accepted: str, message: str) -> None:
    status, body = await admin.call("GET", SERVICES + path, headers={"Accept": accepted})
    assert (status, body["reason"], body["message"]) == (406, "NotAcceptable", message)
    assert ("details" in body) == message.startswith("406")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("x", 'invalid duration "x"'),
        ("5", 'missing unit in duration "5"'),
        ("5q", 'unknown unit "q" in duration "5q"'),
        ("1m30", 'missing unit in duration "1m30"'),
        ("-", 'invalid duration "-"'),
    ],
)
async def test_timeouts_are_durations(admin: Caller, text: str, why: str) -> None:
    status, body = await admin.call("GET", f"{SERVICES}?timeout={text}")
    assert (status, body["message"]) == (400, f"invalid timeout specified in the request URL - time: {why}")


@pytest.mark.parametrize("text", ["", "0", "5s", "1m30.5s", "-1s"])
async def test_timeouts_taken(admin: Caller, text: str) -> None:
    assert (await admin.call("GET", f"{SERVICES}?timeout={text}"))[0] == 200


async def test_pages_of_a_selection_end_where_the_objects_end(admin: Caller) -> None:
    """A page that is full has a token where objects follow it, whether these match or not."""
    for name, labels in (("a", {"g": "x"}), ("b", {"g": "x"}), ("c", {"g": "y"})):
        await admin.call(
            "POST", SERVICES, {"metadata": {"name": name, "labels": labels}, "spec": {"ports": [{"port": 80}]}}
        )
    _, page = await admin.call("GET", f"{SERVICES}?labelSelector=g%3Dx&limit=2")
    assert [item["metadata"]["name"] for item in page["items"]] == ["a", "b"]
    assert "remainingItemCount" not in page["metadata"]
    _, rest = await admin.call("GET", f"{SERVICES}?labelSelector=g%3Dx&limit=2&continue={page['metadata']['continue']}")
    assert (rest["items"], "continue" in rest["metadata"]) == ([], False)
    _, one = await admin.call("GET", f"{SERVICES}?fieldSelector=metadata.name%3Da&limit=1")
    assert (len(one["items"]), "continue" in one["metadata"]) == (1, False)


async def test_lists_of_any_version_are_not_paged(admin: Caller) -> None:
    await admin.call("POST", SERVICES, {"metadata": {"name": "a"}, "spec": {"ports": [{"port": 80}]}})
    _, body = await admin.call("GET", f"{SERVICES}?resourceVersion=0&limit=1")
    assert ([item["metadata"]["name"] for item in body["items"]], list(body["metadata"])) == (
        ["a", "kubernetes"],
        ["resourceVersion"],
    )


@pytest.mark.parametrize("number", ["9223372036854775808", "-9223372036854775809"])
async def test_numbers_of_queries_have_an_end(admin: Caller, number: str) -> None:
    status, body = await admin.call("GET", f"{SERVICES}?limit={number}")
    assert (status, body["message"]) == (400, f'strconv.ParseInt: parsing "{number}": value out of range')


@pytest.mark.parametrize("path", [f"{SERVICES}/kubernetes", f"{SERVICES}/missing", "/apis/discovery.k8s.io", SERVICES])
async def test_yaml_comes_where_it_is_accepted(admin: Caller, path: str) -> None:
    """Errors and documents too."""
    response = await admin.send("GET", path, headers={"Accept": "application/yaml"})
    assert response.headers["Content-Type"] == "application/yaml"
    assert response.body.startswith(b"apiVersion: v1\n")


@pytest.mark.parametrize(
    ("query", "agent", "lines"),
    [
        ("?pretty=true", "x", True),
        ("", "curl/8.0", True),
        ("?pretty=0", "curl/8.0", False),
        ("", "kubectl/v1.36", False),
    ],
)
async def test_people_get_lines(admin: Caller, query: str, agent: str, lines: bool) -> None:
    response = await admin.send("GET", f"{SERVICES}/kubernetes{query}", headers={"User-Agent": agent})
    assert response.body.startswith(b'{\n  "kind": "Service",\n  "apiVersion": "v1",\n') is lines
    assert response.body.count(b"\n") > 1 if lines else response.body.endswith(b"}\n")
    assert json.loads(response.body)["kind"] == "Service"


async def test_aggregated_discovery_names_kinds_as_those_of_its_lists(admin: Caller) -> None:
    accepted = {"Accept": "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"}
    _, body = await admin.call("GET", "/apis", headers=accepted)
    found = {group["metadata"]["name"]: group["versions"][0]["resources"] for group in body["items"]}
    assert found["discovery.k8s.io"] == [
        {
            "resource": "endpointslices",
            "responseKind": {"group": "", "version": "", "kind": "EndpointSlice"},
            "scope": "Namespaced",
            "singularResource": "endpointslice",
            "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
        }
    ]
    _, body = await admin.call("GET", "/api", headers=accepted)
    services = next(row for row in body["items"][0]["versions"][0]["resources"] if row["resource"] == "services")
    kind = {"group": "", "version": "", "kind": "Service"}
    status = {"subresource": "status", "responseKind": kind, "verbs": ["get", "patch", "update"]}
    assert services["subresources"] == [status]
