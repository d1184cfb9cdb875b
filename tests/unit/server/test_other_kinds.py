"""What is wrong with objects of the kinds beside Services, in the order and the words of upstream."""

from typing import Any

import pytest

from svcplane.testing.server import Caller

PODS = "/api/v1/namespaces/default/pods"
ENDPOINTS = "/api/v1/namespaces/default/endpoints"
SLICES = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices"
LEASES = "/apis/coordination.k8s.io/v1/namespaces/default/leases"
NODES, NAMESPACES = "/api/v1/nodes", "/api/v1/namespaces"
ADDRESSES, CIDRS = "/apis/networking.k8s.io/v1/ipaddresses", "/apis/networking.k8s.io/v1/servicecidrs"
MERGE = {"Content-Type": "application/merge-patch+json"}
#: Messages that a faulty name, address or range gets, shortened.
LABEL = "a lowercase RFC 1123 label must"
SUBDOMAIN = "a lowercase RFC 1123 subdomain must"


def causes(body: dict[str, Any]) -> list[tuple[str, str]]:
    """Field and message of each."""
    return [(cause["field"], cause["message"]) for cause in body["details"]["causes"]]


async def refused(admin: Caller, method: str, path: str, body: Any, expected: list[tuple[str, str]]) -> None:
    """`expected`: fields, and how their messages begin."""
    status, answer = await admin.call(method, path, body, MERGE if method == "PATCH" else None)
    assert (status, answer["reason"]) == (422, "Invalid"), answer
    found = causes(answer)
    assert [field for field, _ in found] == [field for field, _ in expected]
    for (_, message), (_, begin) in zip(found, expected, strict=True):
        assert message.startswith(begin)


def endpoints(*subsets: Any) -> dict[str, Any]:
    return {"metadata": {"name": "e"}, "subsets": list(subsets)}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            endpoints({"addresses": [{"ip": "192.0.2.1"}], "ports": [{"port": 80}, {"port": 81}]}),
            [("subsets[0].ports[0].name", "Required value"), ("subsets[0].ports[1].name", "Required value")],
        ),
        (
            endpoints({"ports": [{"port": 0}]}),
            [
                ("subsets[0]", "Required value: must specify `addresses` or `notReadyAddresses`"),
                ("subsets[0].ports[0].port", "Invalid value: 0: must be between 1 and 65535, inclusive"),
            ],
        ),
        (
            endpoints({"addresses": [{"ip": "fe80::1"}, {"ip": "224.0.0.1"}, {"ip": "0.0.0.0"}, {"ip": "ff12::1"}]}),
            [
                ("subsets[0].addresses[0].ip", 'Invalid value: "fe80::1": may not be in the link-local range'),
                ("subsets[0].addresses[1].ip", 'Invalid value: "224.0.0.1": may not be in the link-local multicast'),
                ("subsets[0].addresses[2].ip", 'Invalid value: "0.0.0.0": may not be unspecified'),
                ("subsets[0].addresses[3].ip", 'Invalid value: "ff12::1": may not be in the link-local multicast'),
            ],
        ),
    ],
)
async def test_endpoints(admin: Caller, body: Any, expected: list[tuple[str, str]]) -> None:
    await refused(admin, "POST", ENDPOINTS, body, expected)


def endpoint_slice(family: str, *found: Any, ports: Any = None) -> dict[str, Any]:
    return {"metadata": {"name": "s"}, "addressType": family, "endpoints": list(found), "ports": ports}


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (endpoint_slice(""), [("addressType", "Required value")]),
        (endpoint_slice("X"), [("addressType", 'Unsupported value: "X": supported values: "FQDN", "IPv4", "IPv6"')]),
        (
            endpoint_slice("IPv4", {"addresses": []}, {"addresses": ["2001:db8::1"]}),
            [
                ("endpoints[0].addresses", "Required value: must contain at least 1 address"),
                ("endpoints[1].addresses", 'Invalid value: "2001:db8::1": must be an IPv4 address'),
            ],
        ),
        (
            endpoint_slice("IPv4", ports=[{"name": "a"}, {"name": "a"}, {"name": "b", "protocol": ""}]),
            [
                ("ports[1].name", 'Duplicate value: "a"'),
                ("ports[2].protocol", 'Unsupported value: "": supported values: "SCTP", "TCP", "UDP"'),
            ],
        ),
        (
            endpoint_slice("IPv4", {"addresses": ["192.0.2.1"], "hints": {"forZones": [{"name": "a"}, {"name": "a"}]}}),
            [("endpoints[0].hints.forZones[1].name", 'Duplicate value: "a"')],
        ),
        (
            endpoint_slice("FQDN", {"addresses": ["a"]}),
            [
                (
                    "endpoints[0].addresses[0]",
                    'Invalid value: "a": should be a domain with at least two segments separated by dots',
                )
            ],
        ),
    ],
)
async def test_slices(admin: Caller, body: Any, expected: list[tuple[str, str]]) -> None:
    await refused(admin, "POST", SLICES, body, expected)


async def test_a_slice_keeps_its_family(admin: Caller) -> None:
    await admin.call("POST", SLICES, endpoint_slice("IPv4", {"addresses": ["192.0.2.1"]}))
    expected = [("endpoints[0].addresses", "Invalid"), ("addressType", 'Invalid value: "IPv6": field is immutable')]
    await refused(admin, "PATCH", f"{SLICES}/s", {"addressType": "IPv6"}, expected)


@pytest.mark.parametrize(
    ("path", "body", "expected"),
    [
        (
            NODES,
            {"metadata": {"name": "n"}, "spec": {"taints": [{"key": "a", "effect": "X"}]}},
            [
                (
                    "metadata.taints[0].effect",
                    'Unsupported value: "X": supported values: "NoSchedule", "PreferNoSchedule"',
                )
            ],
        ),
        (
            NODES,
            {"metadata": {"name": "n"}, "spec": {"podCIDRs": ["10.0.0.0/24", "10.0.1.0/24"]}},
            [
                (
                    "spec.podCIDRs",
                    'Invalid value: ["10.0.0.0/24","10.0.1.0/24"]: may specify no more than one CIDR for each',
                )
            ],
        ),
        (NAMESPACES, {"metadata": {"name": "a.b"}}, [("metadata.name", 'Invalid value: "a.b": must not contain dots')]),
        (
            NAMESPACES,
            {"metadata": {"name": "n"}, "spec": {"finalizers": ["x"]}},
            [("spec.finalizers", 'Invalid value: "x": name is neither a standard finalizer name nor')],
        ),
        (
            LEASES,
            {"metadata": {"name": "l"}, "spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}},
            [
                ("spec.leaseDurationSeconds", "Invalid value: 0: must be greater than 0"),
                ("spec.leaseTransitions", "Invalid value: -1: must be greater than or equal to 0"),
            ],
        ),
        (
            ADDRESSES,
            {"metadata": {"name": "2001:DB8::1"}, "spec": {"parentRef": {"resource": "", "name": ""}}},
            [
                ("metadata.name", 'Invalid value: "2001:DB8::1": must be in canonical form ("2001:db8::1")'),
                ("spec.parentRef.resource", "Required value"),
                ("spec.parentRef.name", "Required value"),
            ],
        ),
        (
            CIDRS,
            {"metadata": {"name": "c"}, "spec": {"cidrs": ["10.0.0.1/24"]}},
            [
                (
                    "spec.cidrs[0]",
                    'Invalid value: "10.0.0.1/24": must not have bits set beyond the prefix length',
                )
            ],
        ),
        (CIDRS, {"metadata": {"name": "c"}}, [("spec.cidrs", "Required value: at least one CIDR required")]),
    ],
)
async def test_created(admin: Caller, path: str, body: Any, expected: list[tuple[str, str]]) -> None:
    await refused(admin, "POST", path, body, expected)


async def test_what_cannot_change_once_it_is_set(admin: Caller) -> None:
    node = {"metadata": {"name": "n"}, "spec": {"podCIDR": "10.0.0.0/24", "providerID": "a"}}
    assert (await admin.call("POST", NODES, node))[1]["spec"]["podCIDRs"] == ["10.0.0.0/24"]
    expected = [("spec.providerID", 'Forbidden: node updates may not change providerID except from "" to valid')]
    await refused(admin, "PATCH", f"{NODES}/n", {"spec": {"providerID": "b"}}, expected)
    parent = {"resource": "services", "namespace": "default", "name": "x"}
    await admin.call("POST", ADDRESSES, {"metadata": {"name": "10.96.0.7"}, "spec": {"parentRef": parent}})
    change = {"spec": {"parentRef": {"name": "y"}}}
    await refused(admin, "PATCH", f"{ADDRESSES}/10.96.0.7", change, [("spec.parentRef", "Invalid value: {")])
    await admin.call("POST", CIDRS, {"metadata": {"name": "c"}, "spec": {"cidrs": ["10.1.0.0/24"]}})
    added = await admin.call("PATCH", f"{CIDRS}/c", {"spec": {"cidrs": ["10.1.0.0/24", "fd01::/112"]}}, MERGE)
    assert added[0] == 200
    change = {"spec": {"cidrs": ["10.2.0.0/24", "fd01::/112"]}}
    expected = [("spec.cidrs[0]", 'Invalid value: "10.2.0.0/24": field is immutable')]
    await refused(admin, "PATCH", f"{CIDRS}/c", change, expected)


def pod(**spec: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


def container(**fields: Any) -> dict[str, Any]:
    return pod(containers=[{"name": "c", "image": "i", **fields}])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (pod(containers=[]), [("spec.containers", "Required value")]),
        (
            pod(containers=[{"name": "A"}]),
            [
                ("spec.containers[0].name", f'Invalid value: "A": {LABEL}'),
                ("spec.containers[0].image", "Required value"),
            ],
        ),
        (pod(restartPolicy="x"), [("spec.restartPolicy", 'Unsupported value: "x": supported values: "Always"')]),
        (
            pod(ephemeralContainers=[{"name": "e", "image": "i"}]),
            [("spec.ephemeralContainers", "Forbidden: cannot be")],
        ),
        (
            pod(
                hostNetwork=True,
                containers=[{"name": "c", "image": "i", "ports": [{"containerPort": 1, "hostPort": 2}]}],
            ),
            [
                (
                    "spec.containers[0].ports[0].hostPort",
                    "Invalid value: 2: must match `containerPort` when `hostNetwork`",
                )
            ],
        ),
        (
            container(livenessProbe={}, readinessProbe={"httpGet": {"port": 0}, "periodSeconds": -1}),
            [
                ("spec.containers[0].livenessProbe", "Required value: must specify a handler type"),
                ("spec.containers[0].readinessProbe.httpGet.port", "Invalid value: 0: must be between 1 and 65535"),
                ("spec.containers[0].readinessProbe.periodSeconds", "Invalid value: -1: must be greater than or equal"),
            ],
        ),
        (
            container(resources={"requests": {"cpu": "2"}, "limits": {"cpu": "1"}}),
            [
                (
                    "spec.containers[0].resources.requests",
                    'Invalid value: "2": must be less than or equal to cpu limit of 1',
                )
            ],
        ),
        (
            pod(hostAliases=[{"ip": "x", "hostnames": ["A_"]}]),
            [
                ("spec.hostAliases[0].ip", 'Invalid value: "x": must be a valid IP address'),
                ("spec.hostAliases[0].hostnames[0]", f'Invalid value: "A_": {SUBDOMAIN}'),
            ],
        ),
        (
            pod(
                volumes=[
                    {"name": "a", "hostPath": {"path": "/a/../b", "type": "x"}},
                    {"name": "b", "secret": {}},
                    {"name": "c", "configMap": {}},
                    {"name": "d", "hostPath": {"path": "/a..b"}},
                ]
            ),
            [
                ("spec.volumes[0].hostPath.path", "Invalid value: \"/a/../b\": must not contain '..'"),
                ("spec.volumes[0].hostPath.type", 'Unsupported value: "x": supported values: "", "BlockDevice"'),
                ("spec.volumes[1].secret.secretName", "Required value"),
                ("spec.volumes[2].configMap.name", "Required value"),
            ],
        ),
        (
            pod(schedulingGates=[{"name": "a"}], nodeName="n"),
            [("spec.nodeName", "Forbidden: cannot be set until all schedulingGates have been cleared")],
        ),
    ],
)
async def test_pods(admin: Caller, body: Any, expected: list[tuple[str, str]]) -> None:
    await refused(admin, "POST", PODS, body, expected)


MAY_CHANGE = "Forbidden: pod updates may not change fields other than `spec.containers[*].image`"


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"hostNetwork": True}, [("spec", MAY_CHANGE)]),
        (
            {"activeDeadlineSeconds": 9},
            [("spec.activeDeadlineSeconds", "Invalid value: 9: must be less than or equal")],
        ),
        ({"tolerations": []}, [("spec.tolerations", "Forbidden: existing toleration can not be modified except its")]),
        (
            {"containers": [{"name": "c", "image": "i"}, {"name": "d", "image": "i"}]},
            [("spec.containers", "Forbidden: pod updates may not add or remove containers")],
        ),
    ],
)
async def test_pod_updates(admin: Caller, spec: Any, expected: list[tuple[str, str]]) -> None:
    await admin.call("POST", PODS, pod(activeDeadlineSeconds=5, tolerations=[{"key": "a", "operator": "Exists"}]))
    await refused(admin, "PATCH", f"{PODS}/p", {"spec": spec}, expected)


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        ({"podIP": "x"}, [("status.podIPs[0]", 'Invalid value: "x": must be a valid IP address')]),
        (
            {"podIPs": [{"ip": "192.0.2.1"}, {"ip": "192.0.2.2"}]},
            [
                (
                    "status.podIPs",
                    'Invalid value: [{"IP":"192.0.2.1"},{"IP":"192.0.2.2"}]: may specify no more than one IP',
                )
            ],
        ),
        ({"qosClass": "Guaranteed"}, [("status.qosClass", 'Invalid value: "Guaranteed": field is immutable')]),
        ({"nominatedNodeName": "A_"}, [("status.nominatedNodeName", f'Invalid value: "A_": {SUBDOMAIN}')]),
    ],
)
async def test_pod_status(admin: Caller, status: Any, expected: list[tuple[str, str]]) -> None:
    await admin.call("POST", PODS, pod())
    await refused(admin, "PATCH", f"{PODS}/p/status", {"status": status}, expected)


async def test_pods_are_labelled_with_the_topology_of_their_nodes(admin: Caller) -> None:
    zone, region = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
    labels = {zone: "a", region: "r", "other": "x"}
    await admin.call("POST", NODES, {"metadata": {"name": "n", "labels": labels}})
    _, placed = await admin.call("POST", PODS, pod(nodeName="n"))
    assert placed["metadata"]["labels"] == {zone: "a", region: "r"}
    assert "f:metadata" not in placed["metadata"]["managedFields"][0]["fieldsV1"]
    await admin.call("POST", PODS, {**pod(), "metadata": {"name": "q", "labels": {"app": "web"}}})
    target = {"metadata": {"name": "q"}, "target": {"kind": "Node", "name": "n"}}
    assert (await admin.call("POST", f"{PODS}/q/binding", target))[0] == 201
    _, bound = await admin.call("GET", f"{PODS}/q")
    assert bound["metadata"]["labels"] == {zone: "a", region: "r", "app": "web"}


def binding(target: Any, **meta: Any) -> dict[str, Any]:
    return {"metadata": {"name": "p", **meta}, "target": target}


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"target": {"name": "n"}}, 400, "name in URL does not match name in Binding object"),
        (binding({}), 500, "target.name: Required value"),
        (
            binding({"kind": "Pod"}),
            500,
            '[target.kind: Unsupported value: "Pod": supported values: "Node", "<empty>", target.name: Required value]',
        ),
        (
            binding({"name": "n"}, uid="u"),
            409,
            'Operation cannot be fulfilled on pods "p": StorageError: invalid object, Code: 4, '
            "Key: /registry/pods/default/p, ResourceVersion: 0, AdditionalErrorMsg: "
            "Precondition failed: UID in precondition: u, UID in object meta: <uid>",
        ),
    ],
)
async def test_bindings_refused(admin: Caller, body: Any, status: int, message: str) -> None:
    _, made = await admin.call("POST", PODS, pod())
    answer = await admin.call("POST", f"{PODS}/p/binding", body)
    assert (answer[0], answer[1]["message"]) == (status, message.replace("<uid>", made["metadata"]["uid"]))


async def warnings_of(admin: Caller, path: str, patch: Any) -> list[str]:
    response = await admin.send("PATCH", path, patch, MERGE)
    assert response.status == 200
    return list(response.warnings)


async def test_warnings_of_updates(admin: Caller) -> None:
    """Pods get none; a status has those of its own addresses."""
    _, made = await admin.call("POST", PODS, pod(hostAliases=[{"ip": "192.0.2.1"}, {"ip": "192.0.2.1"}]))
    assert made["spec"]["hostAliases"]
    assert await warnings_of(admin, f"{PODS}/p", {"metadata": {"labels": {"a": "b"}}}) == []
    found = await warnings_of(admin, f"{PODS}/p/status", {"status": {"podIPs": [{"ip": "2001:DB8::1"}]}})
    text = 'IPv6 address "2001:DB8::1" should be in RFC 5952 canonical format ("2001:db8::1")'
    assert found == [f"status.podIPs[0].ip: {text}"]
    services = "/api/v1/namespaces/default/services"
    service = {"metadata": {"name": "s"}, "spec": {"type": "LoadBalancer", "ports": [{"port": 80}]}}
    await admin.call("POST", services, service)
    status = {"loadBalancer": {"ingress": [{"hostname": "a.example"}, {"ip": "2001:DB8::1"}]}}
    found = await warnings_of(admin, f"{services}/s/status", {"status": status})
    assert found == [f"status.loadBalancer.ingress[1]: {text}"]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            container(resources={"limits": {"memory": "128500m"}}),
            [
                f'spec.containers[0].resources.{kind}[memory]: fractional byte value "128500m" is invalid, must be an '
                "integer"
                for kind in ("limits", "requests")
            ],
        ),
        (
            container(ports=[{"containerPort": 80, "hostIP": "192.0.2.1"}]),
            [
                "spec.containers[0].ports[0]: hostIP set without hostPort: {Name: HostPort:0 ContainerPort:80 "
                "Protocol:TCP HostIP:192.0.2.1}"
            ],
        ),
        (
            pod(topologySpreadConstraints=[{"maxSkew": 1, "topologyKey": "z", "whenUnsatisfiable": "DoNotSchedule"}]),
            ["spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod"],
        ),
    ],
)
async def test_warnings_of_new_pods(admin: Caller, body: Any, expected: list[str]) -> None:
    assert list((await admin.send("POST", PODS, body)).warnings) == expected


async def test_the_generation_a_status_has_seen_is_kept(admin: Caller) -> None:
    await admin.call("POST", PODS, pod())
    seen = {"observedGeneration": 1, "conditions": [{"type": "Ready", "status": "False", "observedGeneration": 1}]}
    await admin.call("PATCH", f"{PODS}/p/status", {"status": seen}, MERGE)
    patch = {"observedGeneration": None, "conditions": [{"type": "Ready", "status": "True"}]}
    _, body = await admin.call("PATCH", f"{PODS}/p/status", {"status": patch}, MERGE)
    assert body["status"]["observedGeneration"] == 1
    assert body["status"]["conditions"][0]["observedGeneration"] == 1


async def test_a_pod_that_is_being_deleted_may_only_go_sooner(admin: Caller) -> None:
    await admin.call("POST", PODS, pod(nodeName="n"))
    assert (await admin.call("DELETE", f"{PODS}/p?orphanDependents=false"))[0] == 202
    await admin.call("PATCH", f"{PODS}/p/status", {"status": {"phase": "Succeeded"}}, MERGE)
    for grace in ("", "?gracePeriodSeconds=30", "?gracePeriodSeconds=60"):
        assert (await admin.call("DELETE", f"{PODS}/p{grace}"))[1]["metadata"]["deletionGracePeriodSeconds"] == 30
    assert (await admin.call("DELETE", f"{PODS}/p?gracePeriodSeconds=0"))[0] == 200
    assert (await admin.call("GET", f"{PODS}/p"))[0] == 404


async def test_a_pod_that_went_at_once_but_for_a_finalizer_gets_no_more_time(admin: Caller) -> None:
    held = pod(nodeName="n")
    held["metadata"]["finalizers"] = ["example.com/f"]
    await admin.call("POST", PODS, held)
    for body in ({"gracePeriodSeconds": 0}, {"propagationPolicy": "Orphan"}, {"gracePeriodSeconds": 30}):
        _, answer = await admin.call("DELETE", f"{PODS}/p", body)
        assert answer["metadata"]["deletionGracePeriodSeconds"] == 0


async def test_changes_are_looked_at_as_new_objects_too(admin: Caller) -> None:
    """Each look counts as a cause."""
    await admin.call("POST", NODES, {"metadata": {"name": "n"}})
    taint = ("metadata.taints[0].effect", 'Unsupported value: "X"')
    patch: Any = {"spec": {"taints": [{"key": "a", "effect": "X"}]}}
    await refused(admin, "PATCH", f"{NODES}/n", patch, [taint, taint])
    patch = {"spec": {"podCIDRs": ["x"]}}
    await refused(admin, "PATCH", f"{NODES}/n", patch, [("spec.podCIDRs[0]", 'Invalid value: "x"')])
    label = ("metadata.labels", 'Invalid value: "-"')
    for path in (f"{NODES}/n", f"{NAMESPACES}/default"):
        await refused(admin, "PATCH", path, {"metadata": {"labels": {"a": "-"}}}, [label] * 3)


async def test_conditions_show_what_nobody_set(admin: Caller) -> None:
    services = "/api/v1/namespaces/default/services"
    await admin.call("POST", services, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    await admin.call("POST", CIDRS, {"metadata": {"name": "c"}, "spec": {"cidrs": ["10.1.0.0/24"]}})
    given = {"type": "Ready", "status": "True"}
    whole = {**given, "lastTransitionTime": None, "reason": "", "message": ""}
    expected = [(f"{services}/s", whole), (f"{CIDRS}/c", whole)]
    expected += [(f"{NAMESPACES}/default", {**given, "lastTransitionTime": None})]
    for path, condition in expected:
        _, body = await admin.call("PATCH", f"{path}/status", {"status": {"conditions": [given]}}, MERGE)
        assert body["status"]["conditions"] == [condition]


async def test_the_zero_time_is_shown_as_none(admin: Caller) -> None:
    services = "/api/v1/namespaces/default/services"
    await admin.call("POST", services, {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": "0001-01-01T00:00:00Z"}
    _, body = await admin.call("PATCH", f"{services}/s/status", {"status": {"conditions": [condition]}}, MERGE)
    assert body["status"]["conditions"][0]["lastTransitionTime"] is None
    assert (await admin.call("PUT", f"{services}/s/status", body))[0] == 200


async def test_times_that_nobody_set_are_shown(admin: Caller) -> None:
    await admin.call("POST", PODS, pod())
    containers = [{"name": "c", "state": {"running": {}}, "lastState": {"terminated": {"reason": "Error"}}}]
    status = {"containerStatuses": containers}
    _, body = await admin.call("PATCH", f"{PODS}/p/status", {"status": status}, MERGE)
    (shown,) = body["status"]["containerStatuses"]
    assert shown["state"] == {"running": {"startedAt": None}}
    ended = {"exitCode": 0, "reason": "Error", "startedAt": None, "finishedAt": None}
    assert shown["lastState"] == {"terminated": ended}
    event = {"metadata": {"name": "e"}, "involvedObject": {"namespace": "default"}, "series": {}}
    _, body = await admin.call("POST", "/api/v1/namespaces/default/events", event)
    assert body["series"] == {"lastObservedTime": None}


async def test_quantities_are_shown_in_their_usual_form(admin: Caller) -> None:
    reference = {"valueFrom": {"resourceFieldRef": {"resource": "limits.memory", "divisor": "1024Ki"}}}
    containers = [{"name": "c", "image": "i", "env": [{"name": "E", **reference}]}]
    volumes = [{"name": "v", "emptyDir": {"sizeLimit": "1024Mi"}}]
    _, made = await admin.call("POST", PODS, pod(containers=containers, volumes=volumes))
    assert made["spec"]["volumes"][0]["emptyDir"] == {"sizeLimit": "1Gi"}
    assert made["spec"]["containers"][0]["env"][0]["valueFrom"]["resourceFieldRef"]["divisor"] == "1Mi"


async def test_references_to_the_pod_itself(admin: Caller) -> None:
    labels, cpu = {"fieldPath": "metadata.labels"}, {"containerName": "c", "resource": "limits.cpu"}
    items = [{"path": "a", "fieldRef": labels}, {"path": "b", "resourceFieldRef": cpu}]
    volumes = [
        {"name": "a", "downwardAPI": {"items": items}},
        {"name": "b", "projected": {"sources": [{"downwardAPI": {"items": items}}]}},
    ]
    env = [{"name": "E", "valueFrom": {"resourceFieldRef": cpu}}]
    _, made = await admin.call("POST", PODS, pod(volumes=volumes, containers=[{"name": "c", "image": "i", "env": env}]))
    first, second = made["spec"]["volumes"]
    whole = [{"path": "a", "fieldRef": {**labels, "apiVersion": "v1"}}]
    whole += [{"path": "b", "resourceFieldRef": {**cpu, "divisor": "0"}}]
    assert first["downwardAPI"]["items"] == second["projected"]["sources"][0]["downwardAPI"]["items"] == whole
    assert made["spec"]["containers"][0]["env"][0]["valueFrom"]["resourceFieldRef"]["divisor"] == "0"


async def test_a_pod_is_put_without_what_admission_adds(admin: Caller) -> None:
    _, before = await admin.call("POST", PODS, pod())
    status, after = await admin.call("PUT", f"{PODS}/p", container(image="other"))
    assert status == 200
    before["spec"]["containers"][0]["image"] = "other"
    assert after["spec"] == before["spec"]
    assert after["metadata"]["generation"] == 2


async def test_events_of_today_name_their_reporter(admin: Caller) -> None:
    event = {
        "metadata": {"name": "e"},
        "involvedObject": {"namespace": "default"},
        "eventTime": "2026-01-01T00:00:00.000000Z",
        **dict.fromkeys(("reason", "action", "reportingInstance"), "x"),
    }
    _, body = await admin.call("POST", "/api/v1/namespaces/default/events", event)
    assert {field for field, _ in causes(body)} == {"reportingComponent"}


async def test_pods_with_gates_are_not_bound(admin: Caller) -> None:
    await admin.call("POST", PODS, pod(schedulingGates=[{"name": "example.com/wait"}]))
    status, body = await admin.call("POST", f"{PODS}/p/binding", binding({"name": "n"}))
    assert (status, body["message"]) == (
        409,
        'Operation cannot be fulfilled on pods/binding "p": pod p has non-empty .spec.schedulingGates',
    )
