"""What is said of Pods that are accepted."""

from typing import Any

import pytest

from svcplane.api.validation.pod_warnings import warnings

Spec = dict[str, Any]
LABEL = (
    "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and "
    "end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is "
    "'(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')"
)


def ports(*names: str, first: int = 80) -> Spec:
    return {"ports": [{"name": name, "containerPort": first + n} for n, name in enumerate(names)]}


def mounted(**source: Any) -> Spec:
    return {"volumes": [{"name": "v", **source}]}


def items(*paths: str) -> list[Spec]:
    return [{"key": "k", "path": path} for path in paths]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (
            {"initContainers": [ports("a", "b")], "containers": [ports("c", "b", first=90), ports("b", "", first=70)]},
            [
                f'spec.containers[{place}]: duplicate port name "b" with spec.initContainers[0].ports[1], services and '
                "probes that select ports by name will use spec.initContainers[0].ports[1]"
                for place in ("0].ports[1", "1].ports[0")
            ],
        ),
        (
            {"topologySpreadConstraints": [{"topologyKey": "beta.kubernetes.io/os", "labelSelector": {}}]},
            [
                "spec.topologySpreadConstraints[0].topologyKey: beta.kubernetes.io/os is deprecated since v1.14; use "
                '"kubernetes.io/os" instead'
            ],
        ),
        (
            {
                "affinity": {
                    "nodeAffinity": {
                        "requiredDuringSchedulingIgnoredDuringExecution": {
                            "nodeSelectorTerms": [
                                {"matchExpressions": [{"key": "beta.kubernetes.io/arch", "values": ["-1"]}]}
                            ]
                        },
                        "preferredDuringSchedulingIgnoredDuringExecution": [
                            {"preference": {"matchExpressions": [{"key": "foo", "values": ["a", "-1"]}]}}
                        ],
                    }
                }
            },
            [
                "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms[0]."
                "matchExpressions[0].key: beta.kubernetes.io/arch is deprecated since v1.14; use "
                '"kubernetes.io/arch" instead',
                "spec.affinity.nodeAffinity.preferredDuringSchedulingIgnoredDuringExecution[0].preference."
                f"matchExpressions[0].values[1]: -1 is invalid, {LABEL}",
            ],
        ),
        (
            {"dnsConfig": {"nameservers": ["1.2.3.4", "05.06.07.08"]}, "hostAliases": [{"ip": "::ffff:1.2.3.4"}]},
            [
                'spec.dnsConfig.nameservers[1]: non-standard IP address "05.06.07.08" will be considered invalid in a '
                'future Kubernetes release: use "5.6.7.8"',
                'spec.hostAliases[0].ip: non-standard IP address "::ffff:1.2.3.4" will be considered invalid in a '
                'future Kubernetes release: use "1.2.3.4"',
            ],
        ),
        (mounted(rbd={}), ["spec.volumes[0].rbd: deprecated in v1.28, non-functional in v1.31+"]),
        (mounted(storageos={}), ["spec.volumes[0].storageOS: deprecated in v1.22, non-functional in v1.25+"]),
        (mounted(configMap={"name": "m", "items": items("a", "ab", "b/c")}), []),
        (
            mounted(configMap={"name": "m", "items": items("a/b", "a/", "a/b")}),
            [
                'volume "v" (ConfigMap "m"): overlapping paths: "a" with "a/b"',
                'volume "v" (ConfigMap "m"): overlapping paths: "a/b" with "a/b"',
                'volume "v" (ConfigMap "m"): overlapping paths: "a/b" with "a"',
            ],
        ),
        (
            mounted(
                projected={
                    "sources": [
                        {"secret": {"name": "s", "items": items("a")}},
                        {},
                        {"serviceAccountToken": {"path": "a/token"}},
                        {"downwardAPI": {"items": items("b", "a")}},
                    ]
                }
            ),
            [
                'volume "v" (Projected): overlapping paths: "a/token" (ServiceAccountToken) with "a" (Secret "s")',
                'volume "v" (Projected): overlapping paths: "a" (DownwardAPI) with "a" (Secret "s")',
                'volume "v" (Projected): overlapping paths: "a" (DownwardAPI) with "a/token" (ServiceAccountToken)',
            ],
        ),
    ],
)
def test_specs(spec: Spec, expected: list[str]) -> None:
    found = warnings(spec, {})
    assert [text for text in found if "no sources" not in text] == expected
    assert ('volume "v" (Projected) has no sources provided' in found) == ("projected" in str(spec))


def test_annotations_that_fields_have_taken_the_place_of() -> None:
    pod, container = "seccomp.security.alpha.kubernetes.io/pod", "container.seccomp.security.alpha.kubernetes.io/"
    marks = {pod: "x", f"{container}a": "x", f"{container}b": "x", "scheduler.alpha.kubernetes.io/critical-pod": ""}
    spec = {"containers": [{"name": "a", "securityContext": {"seccompProfile": {}}}, {"name": "b"}]}
    gone = 'non-functional in v1.27+; use the "seccompProfile" field instead'
    assert warnings(spec, marks) == [
        "metadata.annotations[scheduler.alpha.kubernetes.io/critical-pod]: non-functional in v1.16+; use the "
        '"priorityClassName" field instead',
        f"metadata.annotations[{pod}]: {gone}",
        f"metadata.annotations[{container}b]: {gone}",
    ]


def test_what_people_wrote_is_quoted() -> None:
    env = [{"name": 'a"b', "value": "1"}, {"name": 'a"b', "value": "2"}]
    spec = {"containers": [{"env": env}], "imagePullSecrets": [{"name": "c\n"}, {"name": "c\n"}]}
    assert warnings(spec, {}) == [
        r'spec.imagePullSecrets[1].name: duplicate name "c\n"',
        r'spec.containers[0].env[1]: hides previous definition of "a\"b", which may be dropped when using apply',
    ]
