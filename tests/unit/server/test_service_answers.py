"""What writes of Services are answered: what is accepted, what is refused, what they are warned of."""

from typing import Any

import pytest

from svcplane.testing.server import Caller

SERVICES = "/api/v1/namespaces/default/services"
MERGE = {"Content-Type": "application/merge-patch+json"}


def service(name: str = "web", **spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}], **spec}}


async def test_load_balancers_may_serve_the_port_of_kubelets(admin: Caller) -> None:
    body = service(type="LoadBalancer", ports=[{"port": 10250}])
    assert (await admin.call("POST", SERVICES, body))[0] == 201


@pytest.mark.parametrize(
    ("ip", "warnings"),
    [
        ("2001:db8::1", ()),
        (
            "2001:DB8::1",
            (
                'status.loadBalancer.ingress[0]: IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format '
                '("2001:db8::1")',
            ),
        ),
    ],
)
async def test_status_updates_warn_of_addresses(admin: Caller, ip: str, warnings: tuple[str, ...]) -> None:
    await admin.call("POST", SERVICES, service(type="LoadBalancer"))
    patch = {"status": {"loadBalancer": {"ingress": [{"ip": ip}]}}}
    response = await admin.send("PATCH", f"{SERVICES}/web/status", patch, MERGE)
    assert (response.status, response.warnings) == (200, warnings)


@pytest.mark.parametrize(
    ("spec", "why"),
    [
        ({"clusterIP": "10.96.0.1"}, ""),  # taken, which a dry run does not see
        ({"type": "NodePort", "ports": [{"port": 80, "nodePort": 80}]}, ""),  # nor the range of node ports
        (
            {"clusterIP": "192.0.2.1"},
            'spec.clusterIPs: Invalid value: ["192.0.2.1"]: failed to allocate IP 192.0.2.1: the provided IP '
            "(192.0.2.1) is not in the valid range. The range of valid IPs is 10.96.0.0/16",
        ),
    ],
)
async def test_dry_runs_look_at_less(admin: Caller, spec: dict[str, Any], why: str) -> None:
    status, body = await admin.call("POST", f"{SERVICES}?dryRun=All", service(**spec))
    assert (status, body.get("message")) == ((422, f'Service "web" is invalid: {why}') if why else (201, None))


async def test_automatic_node_ports_of_dry_runs(admin: Caller) -> None:
    ports = [{"name": "a", "port": 80}, {"name": "b", "port": 81}]
    _, body = await admin.call("POST", f"{SERVICES}?dryRun=All", service(type="NodePort", ports=ports))
    assert [port["nodePort"] for port in body["spec"]["ports"]] == [32769, 32770]


async def test_addresses_asked_for_without_a_name(admin: Caller) -> None:
    _, body = await admin.call("POST", SERVICES, service("", clusterIP="10.96.0.40"))
    assert body["message"] == (
        'Service "" is invalid: spec.clusterIPs: Invalid value: ["10.96.0.40"]: failed to allocate IP 10.96.0.40: '
        'IPAddress.networking.k8s.io "10.96.0.40" is invalid: spec.parentRef.name: Required value'
    )


@pytest.mark.parametrize("version", [True, False])
async def test_an_update_of_what_has_gone_is_a_conflict(admin: Caller, version: bool) -> None:
    _, gone = await admin.call("POST", SERVICES, service())
    await admin.call("DELETE", f"{SERVICES}/web")
    if not version:
        del gone["metadata"]["resourceVersion"]
    status, body = await admin.call("PUT", f"{SERVICES}/web", gone)
    assert (status, body["message"]) == (
        409,
        'Operation cannot be fulfilled on services "web": StorageError: invalid object, Code: 4, Key: '
        "/registry/services/specs/default/web, ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in "
        f"precondition: {gone['metadata']['uid']}, UID in object meta: ",
    )


async def test_an_update_without_a_uid_creates_what_is_not_there(admin: Caller) -> None:
    body = service()
    body["metadata"]["resourceVersion"] = "5"
    assert (await admin.call("PUT", f"{SERVICES}/web", body))[0] == 201


async def test_an_empty_body_is_an_object_without_content(admin: Caller) -> None:
    status, body = await admin.call("POST", SERVICES, b"null")
    assert (status, body["reason"]) == (422, "Invalid")


async def test_a_kind_is_text(admin: Caller) -> None:
    status, body = await admin.call("POST", SERVICES, {"kind": 5})
    assert (status, body["message"]) == (
        400,
        "the object provided is unrecognized (must be of type Service): couldn't get version/kind; json parse error: "
        'json: cannot unmarshal number into Go struct field .kind of type string ({"kind": 5})',
    )


@pytest.mark.parametrize(
    ("spec", "shown"),
    [
        ({"clusterIP": "10.96.0.1", "ipFamilyPolicy": "RequireDualStack"}, '["10.96.0.1",""]'),
        (
            {
                "clusterIP": "10.96.0.1",
                "clusterIPs": ["10.96.0.1", "fd00:10:96::9"],
                "ipFamilyPolicy": "PreferDualStack",
            },
            '["10.96.0.1","fd00:10:96::9"]',
        ),
    ],
)
async def test_addresses_yet_to_come_are_marked(admin: Caller, spec: dict[str, Any], shown: str) -> None:
    _, body = await admin.call("POST", SERVICES, service(**spec))
    assert body["message"] == (
        f'Service "web" is invalid: spec.clusterIPs: Invalid value: {shown}: failed to allocate IP 10.96.0.1: '
        "provided IP is already allocated"
    )


async def test_a_client_without_cluster_ips_makes_an_external_name(admin: Caller) -> None:
    _, body = await admin.call("POST", SERVICES, service())
    del body["spec"]["clusterIPs"]
    body["spec"] |= {"type": "ExternalName", "externalName": "example.com"}
    status, body = await admin.call("PUT", f"{SERVICES}/web", body)
    assert (status, body["spec"].get("clusterIP"), body["spec"].get("clusterIPs")) == (200, None, None)


async def test_generations_given_stay(admin: Caller) -> None:
    """Services count no generations themselves."""
    body = {"metadata": {"name": "g", "generation": 5, "finalizers": ["a/b"]}, "spec": {"ports": [{"port": 1}]}}
    status, made = await admin.call("POST", SERVICES, body)
    assert (status, made["metadata"]["generation"]) == (201, 5)
    await admin.call("DELETE", f"{SERVICES}/g")
    assert (await admin.call("GET", f"{SERVICES}/g"))[1]["metadata"]["generation"] == 6


@pytest.mark.parametrize(
    ("version", "status", "message"),
    [
        ("5", 500, "resourceVersion should not be set on objects to be created"),
        ("0", 201, None),
        ("x", 201, None),
    ],
)
async def test_versions_of_new_objects(admin: Caller, version: str, status: int, message: str | None) -> None:
    body = service()
    body["metadata"]["resourceVersion"] = version
    assert (await admin.call("POST", f"{SERVICES}?dryRun=All", body))[0] == 201
    found, answer = await admin.call("POST", SERVICES, body)
    assert (found, answer.get("message"), answer.get("reason")) == (status, message, None)


@pytest.mark.parametrize(
    ("version", "status", "why"),
    [
        ("x", 500, 'strconv.ParseUint: parsing "x": invalid syntax'),
        ("18446744073709551616", 500, 'strconv.ParseUint: parsing "18446744073709551616": value out of range'),
        ("999999", 409, "Operation cannot be fulfilled on services"),
        ("0", 200, ""),
        ("0{}", 200, ""),
    ],
)
async def test_versions_of_updates(admin: Caller, version: str, status: int, why: str) -> None:
    _, made = await admin.call("POST", SERVICES, service())
    given = version.format(made["metadata"]["resourceVersion"])
    change = {"metadata": {"resourceVersion": given}}
    apply = {"Content-Type": "application/apply-patch+yaml"}
    for method, query, body, headers in (
        ("PUT", "", service() | {"metadata": {"name": "web", "resourceVersion": given}}, {}),
        ("PATCH", "", change, MERGE),
        ("PATCH", "?fieldManager=m", {"apiVersion": "v1", "kind": "Service", **change}, apply),
    ):
        found, answer = await admin.call(method, f"{SERVICES}/web{query}", body, headers)
        assert found == status
        assert answer.get("message", "").startswith(why)


async def test_versions_that_some_kinds_must_be_told(admin: Caller) -> None:
    leases = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
    await admin.call("POST", leases, {"metadata": {"name": "l"}})
    for version in (None, "", "0"):
        _, answer = await admin.call("PATCH", f"{leases}/l", {"metadata": {"resourceVersion": version}}, MERGE)
        assert answer["details"]["causes"] == [
            {
                "reason": "FieldValueInvalid",
                "message": "Invalid value: 0: must be specified for an update",
                "field": "metadata.resourceVersion",
            }
        ]
