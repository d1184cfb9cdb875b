"""What is wrong with Pods, with their updates and with what is said of their status: every cause, in order."""

from typing import Any

import pytest

from svcplane.testing.server import Caller

PODS = "/api/v1/namespaces/default/pods"
MERGE = {"Content-Type": "application/merge-patch+json"}
ID = "must be between 0 and 2147483647, inclusive"
MIRROR, COST = "kubernetes.io/config.mirror", "controller.kubernetes.io/pod-deletion-cost"
PADDED = 'Invalid value: " i": must not have leading or trailing whitespace'
MODE = "must be a number between 0 and 0777 (octal), both inclusive"
NOT_BOTH = "may specify no more than one IP for each IP family"
SEARCH = (
    "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '_', '-' or '.', and must "
    "start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is "
    "'_?[a-z0-9]([-_a-z0-9]*[a-z0-9])?(\\._?[a-z0-9]([-_a-z0-9]*[a-z0-9])?)*')"
)
NAME = (
    "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character "
    "(e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is "
    "'([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')"
)
LISTED = "[" + ",".join(f'"a{n}"' for n in range(33)) + "]"
Causes = list[tuple[str, str]]


def pod(annotations: dict[str, str] | None = None, **spec: Any) -> dict[str, Any]:
    meta = {"name": "p", "annotations": annotations or {}}
    return {"metadata": meta, "spec": {"containers": [{"name": "c", "image": "i"}], **spec}}


def container(**fields: Any) -> dict[str, Any]:
    return pod(containers=[{"name": "c", "image": "i", **fields}])


def env(*sources: dict[str, Any]) -> dict[str, Any]:
    return container(env=[{"name": f"V{index}", "valueFrom": source} for index, source in enumerate(sources)])


async def causes(admin: Caller, method: str, path: str, body: Any) -> Causes:
    status, answer = await admin.call(method, path, body, MERGE if method == "PATCH" else None)
    assert status == 422, answer
    return [(cause["field"], cause["message"]) for cause in answer["details"]["causes"]]


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            container(securityContext={"runAsUser": -1, "runAsGroup": 1 << 31}),
            [
                ("spec.containers[0].securityContext.runAsUser", f"Invalid value: -1: {ID}"),
                ("spec.containers[0].securityContext.runAsGroup", f"Invalid value: 2147483648: {ID}"),
            ],
        ),
        (
            pod(
                securityContext={"runAsUser": -1, "fsGroup": -2, "supplementalGroups": [-3], "fsGroupChangePolicy": "x"}
            ),
            [
                ("spec.securityContext.fsGroup", f"Invalid value: -2: {ID}"),
                ("spec.securityContext.runAsUser", f"Invalid value: -1: {ID}"),
                ("spec.securityContext.supplementalGroups[0]", f"Invalid value: -3: {ID}"),
                (
                    "spec.securityContext.fsGroupChangePolicy",
                    'Unsupported value: "x": supported values: "Always", "OnRootMismatch"',
                ),
            ],
        ),
        (
            pod(dnsConfig={"searches": [".", "_a.b_c.d.", "A", "b."], "options": [{"name": "x"}, {"value": "1"}]}),
            [
                ("spec.dnsConfig.searches[2]", f'Invalid value: "A": {SEARCH}'),
                ("spec.dnsConfig.options[1]", "Required value: must not be empty"),
            ],
        ),
        (
            pod(dnsConfig={"searches": [f"a{n}" for n in range(33)]}),
            [("spec.dnsConfig.searches", f"Invalid value: {LISTED}: must not have more than 32 search paths")],
        ),
        (
            env(
                {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "2"}},
                {"resourceFieldRef": {"resource": "requests.memory", "divisor": "1Ki"}},
                {"resourceFieldRef": {"resource": "requests.hugepages-2Mi", "divisor": "2Mi"}},
                {"resourceFieldRef": {"resource": "limits.gpu", "divisor": "2"}},
                {"resourceFieldRef": {}},
            ),
            [
                (
                    "spec.containers[0].env[0].valueFrom.resourceFieldRef.divisor",
                    'Invalid value: "limits.cpu": only divisor\'s values 1m and 1 are supported with the cpu resource',
                ),
                (
                    "spec.containers[0].env[2].valueFrom.resourceFieldRef.divisor",
                    'Invalid value: "requests.hugepages-2Mi": only divisor\'s values 1, 1k, 1M, 1G, 1T, 1P, 1E, 1Ki, '
                    "1Mi, 1Gi, 1Ti, 1Pi, 1Ei are supported with the hugepages resource",
                ),
                (
                    "spec.containers[0].env[3].valueFrom.resourceFieldRef.resource",
                    'Unsupported value: "limits.gpu": supported values: "limits.cpu", "limits.ephemeral-storage", '
                    '"limits.memory", "requests.cpu", "requests.ephemeral-storage", "requests.memory"',
                ),
                ("spec.containers[0].env[4].valueFrom.resourceFieldRef.resource", "Required value"),
            ],
        ),
        (
            env(
                {"fieldRef": {"fieldPath": "spec.host"}},
                {"fieldRef": {"fieldPath": "spec.x['a']"}},
                {"fieldRef": {"fieldPath": "metadata.annotations['-A']"}},
                {"fieldRef": {"fieldPath": "metadata.name", "apiVersion": "v2"}},
            ),
            [
                (
                    "spec.containers[0].env[1].valueFrom.fieldRef.fieldPath",
                    "Invalid value: \"spec.x['a']\": error converting fieldPath: field label does not support "
                    "subscript: spec.x['a']",
                ),
                ("spec.containers[0].env[2].valueFrom.fieldRef", f'Invalid value: "-A": name part {NAME}'),
                (
                    "spec.containers[0].env[3].valueFrom.fieldRef.fieldPath",
                    'Invalid value: "metadata.name": error converting fieldPath: unsupported pod version: v2',
                ),
            ],
        ),
        (
            pod(volumes=[{"name": "v", "configMap": {"name": "m"}, "emptyDir": {}, "secret": {}}]),
            [
                (f"spec.volumes[0].{kind}", "Forbidden: may not specify more than 1 volume type")
                for kind in ("secret", "configMap")
            ],
        ),
        (
            pod(
                shareProcessNamespace=True,
                hostPID=True,
                hostIPC=True,
                hostUsers=False,
                securityContext={"seccompProfile": {"type": "Localhost", "localhostProfile": "/a"}},
            ),
            [
                (
                    "spec.securityContext.shareProcessNamespace",
                    "Invalid value: true: ShareProcessNamespace and HostPID cannot both be enabled",
                ),
                (
                    "spec.securityContext.seccompProfile.localhostProfile",
                    'Invalid value: "/a": must be a relative path',
                ),
                ("spec.HostPID", "Forbidden: when `pod.Spec.HostUsers` is false"),
                ("spec.HostIPC", "Forbidden: when `pod.Spec.HostUsers` is false"),
            ],
        ),
        (
            container(securityContext={"seccompProfile": {"type": "x", "localhostProfile": "a"}}),
            [
                (
                    "spec.containers[0].securityContext.seccompProfile.type",
                    'Unsupported value: "x": supported values: "Localhost", "RuntimeDefault", "Unconfined"',
                ),
                (
                    "spec.containers[0].securityContext.seccompProfile.localhostProfile",
                    'Invalid value: {"Type":"x","LocalhostProfile":"a"}: can only be set when seccomp type is '
                    "Localhost",
                ),
            ],
        ),
        (
            container(envFrom=[{"prefix": "a="}, {"configMapRef": {}, "secretRef": {"name": "a"}}]),
            [
                (
                    "spec.containers[0].envFrom[0].prefix",
                    'Invalid value: "a=": a valid environment variable name must consist only of printable ASCII '
                    "characters other than '='",
                ),
                (
                    "spec.containers[0].envFrom",
                    'Invalid value: "": must specify one of: `configMapRef` or `secretRef`',
                ),
                ("spec.containers[0].envFrom[1].configMapRef.name", "Required value"),
                (
                    "spec.containers[0].envFrom",
                    'Invalid value: "": may not have more than one field specified at a time',
                ),
            ],
        ),
        (
            pod(
                volumes=[{"name": "v", "secret": {"secretName": "s", "defaultMode": 512}}]
                + [{"name": "w", "emptyDir": {"sizeLimit": "-1"}}],
            ),
            [
                (
                    "spec.volumes[0].secret.defaultMode",
                    "Invalid value: 512: must be a number between 0 and 0777 (octal), both inclusive",
                ),
                ("spec.volumes[1].emptyDir.sizeLimit", "Forbidden: SizeLimit field must be a valid resource quantity"),
            ],
        ),
        (
            pod(
                volumes=[{"name": "v"}],
                containers=[
                    {
                        "name": "c",
                        "image": "i",
                        "volumeMounts": [{"name": "v", "mountPath": "/a", "subPath": "/b/..", "subPathExpr": "c"}],
                    }
                ],
            ),
            [
                ("spec.containers[0].volumeMounts.subPath", 'Invalid value: "/b/..": must be a relative path'),
                ("spec.containers[0].volumeMounts.subPath", "Invalid value: \"/b/..\": must not contain '..'"),
                (
                    "spec.containers[0].volumeMounts[0].subPathExpr",
                    'Invalid value: "c": subPathExpr and subPath are mutually exclusive',
                ),
            ],
        ),
        (
            pod(schedulingGates=[{"name": "a"}, {"name": "a"}], os={"name": "x"}),
            [
                ("spec.schedulingGates[1]", 'Duplicate value: "a"'),
                ("spec.os", 'Unsupported value: "x": supported values: "linux", "windows"'),
            ],
        ),
        (pod(os={}), [("spec.os.name", "Required value: cannot be empty")]),
        (
            pod(tolerations=[{"operator": "Exists", "value": "x"}]),
            [("spec.tolerations[0].operator", "Invalid value: \"x\": value must be empty when `operator` is 'Exists'")],
        ),
        (
            pod({MIRROR: "x", COST: "+1"}),
            [
                (
                    f"metadata.annotations[{MIRROR}]",
                    'Invalid value: "x": must set spec.nodeName if mirror pod annotation is set',
                ),
                (f"metadata.annotations[{COST}]", 'Invalid value: "+1": must be a 32bit integer'),
            ],
        ),
    ],
)
async def test_new_pods(admin: Caller, body: dict[str, Any], expected: Causes) -> None:
    assert await causes(admin, "POST", PODS, body) == expected


@pytest.mark.parametrize("cost", ["0", "-0", "2147483647", "-2147483648"])
async def test_costs_of_deletion(admin: Caller, cost: str) -> None:
    assert (await admin.call("POST", PODS, pod({COST: cost})))[0] == 201


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (
            {"spec": {"containers": [{"name": "c", "image": " i", "imagePullPolicy": "Always"}]}},
            [("spec.containers[0].image", PADDED)] * 2,
        ),
        (
            {"metadata": {"annotations": {MIRROR: None}}},
            [(f"metadata.annotations[{MIRROR}]", "Forbidden: may not remove or update mirror pod annotation")],
        ),
        (
            {"spec": {"nodeSelector": {"a": "x", "c": "d"}}},
            [
                (
                    "spec.nodeSelector",
                    'Invalid value: {"a":"x","c":"d"}: only additions to spec.nodeSelector are allowed (no mutations '
                    "or deletions)",
                )
            ],
        ),
    ],
)
async def test_updates(admin: Caller, change: dict[str, Any], expected: Causes) -> None:
    mirror = "mirror" in str(change)
    body = pod({MIRROR: "x"}, nodeName="n") if mirror else pod(schedulingGates=[{"name": "a"}], nodeSelector={"a": "b"})
    assert (await admin.call("POST", PODS, body))[0] == 201
    assert await causes(admin, "PATCH", f"{PODS}/p", change) == expected


async def test_pods_with_gates_may_be_held_to_more_nodes(admin: Caller) -> None:
    await admin.call("POST", PODS, pod(schedulingGates=[{"name": "a"}], nodeSelector={"a": "b"}))
    status, body = await admin.call("PATCH", f"{PODS}/p", {"spec": {"nodeSelector": {"c": "d"}}}, MERGE)
    assert (status, body["spec"]["nodeSelector"]) == (200, {"a": "b", "c": "d"})


def ips(*values: str) -> list[dict[str, str]]:
    return [{"ip": value} for value in values]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (
            {"podIPs": ips("x", "10.0.0.1")},
            [
                (
                    "status.podIPs[0]",
                    'Invalid value: "x": must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)',
                ),
                ("status.podIPs", "Internal error: failed to check for dual stack with error:invalid IP[0]: x"),
                ("status.podIPs", f'Invalid value: [{{"IP":"x"}},{{"IP":"10.0.0.1"}}]: {NOT_BOTH}'),
            ],
        ),
        (
            {"hostIP": "10.0.0.1", "hostIPs": ips("10.0.0.1", "10.0.0.1")},
            [
                ("status.hostIPs[1]", 'Duplicate value: {"IP":"10.0.0.1"}'),
                ("status.hostIPs", f'Invalid value: [{{"IP":"10.0.0.1"}},{{"IP":"10.0.0.1"}}]: {NOT_BOTH}'),
            ],
        ),
    ],
)
async def test_addresses(admin: Caller, status: dict[str, Any], expected: Causes) -> None:
    await admin.call("POST", PODS, pod())
    assert await causes(admin, "PATCH", f"{PODS}/p/status", {"status": status}) == expected


async def test_what_ended_for_good_stays_so(admin: Caller) -> None:
    await admin.call("POST", PODS, pod())
    ended = {"name": "e", "state": {"terminated": {"exitCode": 1}}}
    await admin.call("PATCH", f"{PODS}/p/status", {"status": {"ephemeralContainerStatuses": [ended]}}, MERGE)
    again = {"ephemeralContainerStatuses": [{"name": "e", "state": {"running": {}}}]}
    assert await causes(admin, "PATCH", f"{PODS}/p/status", {"status": again}) == [
        ("status.ephemeralContainerStatuses[0].state", "Forbidden: may not be transitioned to non-terminated state")
    ]


def volume(**source: Any) -> dict[str, Any]:
    return pod(volumes=[{"name": "v", **source}])


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (
            volume(secret={"secretName": "s", "items": [{"path": "/a/.."}, {"key": "k", "path": "..b", "mode": -1}]}),
            [
                ("items[0].key", "Required value"),
                ("items[0].path", 'Invalid value: "/a/..": must be a relative path'),
                ("items[0].path", "Invalid value: \"/a/..\": must not contain '..'"),
                ("items[1].path", "Invalid value: \"..b\": must not start with '..'"),
                ("items[1].mode", f"Invalid value: -1: {MODE}"),
            ],
        ),
        (
            volume(
                downwardAPI={
                    "items": [
                        {"path": "a"},
                        {"path": "b", "fieldRef": {"fieldPath": "spec.nodeName"}, "mode": 512},
                        {"fieldRef": {"fieldPath": "metadata.labels"}, "resourceFieldRef": {}},
                        {"path": "c", "resourceFieldRef": {"resource": "limits.cpu"}},
                    ]
                }
            ),
            [
                ("", "Required value: one of fieldRef and resourceFieldRef is required"),
                (
                    "fieldRef.fieldPath",
                    'Unsupported value: "spec.nodeName": supported values: "metadata.annotations", "metadata.labels", '
                    '"metadata.name", "metadata.namespace", "metadata.uid"',
                ),
                ("mode", f"Invalid value: 512: {MODE}"),
                ("path", "Required value"),
                ("", 'Invalid value: "resource": fieldRef and resourceFieldRef can not be specified simultaneously'),
                ("resourceFieldRef.containerName", "Required value"),
            ],
        ),
        (
            volume(
                projected={
                    "sources": [
                        {"secret": {"items": [{"key": "k", "path": "a"}]}, "configMap": {"name": "m"}},
                        {"configMap": {"name": "m", "items": [{"key": "k", "path": "a"}]}},
                        {"serviceAccountToken": {"expirationSeconds": 60}},
                    ]
                }
            ),
            [
                ("sources[0].secret.name", "Required value"),
                ("sources[0]", "Forbidden: may not specify more than 1 volume type"),
                ("", 'Invalid value: "m": conflicting duplicate paths'),
                (
                    "sources[2].serviceAccountToken.expirationSeconds",
                    "Invalid value: 60: may not specify a duration less than 10 minutes",
                ),
                ("path", "Required value"),
            ],
        ),
    ],
)
async def test_volumes(admin: Caller, body: dict[str, Any], expected: Causes) -> None:
    kind = next(key for key in body["spec"]["volumes"][0] if key != "name")
    path = f"spec.volumes[0].{kind}"
    found = await causes(admin, "POST", PODS, body)
    assert found == [(f"{path}.{field}".rstrip("."), message) for field, message in expected]


async def test_mounts_that_spread(admin: Caller) -> None:
    mounts = [
        {"name": "v", "mountPath": f"/{mode}", "mountPropagation": mode} for mode in ("None", "x", "Bidirectional")
    ]
    body = container(volumeMounts=mounts)
    body["spec"]["volumes"] = [{"name": "v", "emptyDir": {}}]
    path = "spec.containers[0].volumeMounts.mountPropagation"
    assert await causes(admin, "POST", PODS, body) == [
        (path, 'Unsupported value: "x": supported values: "Bidirectional", "HostToContainer", "None"'),
        (path, "Forbidden: Bidirectional mount propagation is available only to privileged containers"),
    ]
