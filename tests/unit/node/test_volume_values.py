"""What volumes hold, who processes are, and where mounts lead."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from svcplane.api.core import Container, Pod
from svcplane.node.spec import CannotRun, Mount, mounts_of
from svcplane.node.users import MustNotBeRoot, User, user_of
from svcplane.node.volumefiles import PodVolumes, write
from svcplane.node.volumes import File, NotMounted, chosen, data_of, fields, in_memory, kind_of, safe


def pod(**spec: Any) -> Pod:
    meta = {"name": "web", "namespace": "ns", "uid": "u", "labels": {"b": 'x"y', "a": "1"}}
    return msgspec.convert({"metadata": meta, "spec": spec}, Pod)


def container(**more: Any) -> Container:
    return msgspec.convert({"name": "c", **more}, Container)


@pytest.mark.parametrize(
    ("of_pod", "of_container", "wanted"),
    [
        ({}, {}, None),
        ({"runAsUser": 5}, {}, User(5, 0, (0,))),
        ({"runAsUser": 5, "runAsGroup": 6}, {"runAsUser": 7}, User(7, 6, (6,))),
        ({"fsGroup": 9, "supplementalGroups": [3]}, {}, User(0, 0, (0, 3, 9))),
        ({"runAsNonRoot": True}, {"runAsUser": 7}, User(7, 0, (0,))),
        ({"runAsNonRoot": True}, {"runAsNonRoot": False}, None),
    ],
)
def test_containers_own_values_overrule_the_pods(of_pod: Any, of_container: Any, wanted: User | None) -> None:
    assert user_of(pod(securityContext=of_pod), container(securityContext=of_container)) == wanted


@pytest.mark.parametrize("of_pod", [{"runAsNonRoot": True}, {"runAsNonRoot": True, "runAsUser": 0}])
def test_root_is_refused_where_the_pod_forbids_it(of_pod: Any) -> None:
    with pytest.raises(MustNotBeRoot, match=r'pod: "web_ns\(u\)", container: c'):
        user_of(pod(securityContext=of_pod), container())


def test_mounts_name_their_source_and_part() -> None:
    mounts = [
        {"name": "v", "mountPath": "data", "subPathExpr": "$(POD)/x"},
        {"name": "v", "mountPath": "/ro", "readOnly": True, "recursiveReadOnly": "IfPossible"},
    ]
    assert mounts_of(container(volumeMounts=mounts), {"v": "/src"}, {"POD": "web"}) == (
        Mount("/src", "web/x", "/data"),
        Mount("/src", "", "/ro", True, True),
    )


@pytest.mark.parametrize("mount", [{"name": "none"}, {"name": "v", "subPath": "../x"}, {"name": "v", "subPath": "/x"}])
def test_mount_that_leads_elsewhere_is_refused(mount: dict[str, str]) -> None:
    with pytest.raises(CannotRun):
        mounts_of(container(volumeMounts=[mount | {"mountPath": "/x"}]), {"v": "/src"}, {})


def test_kinds_that_are_not_served_are_named() -> None:
    assert kind_of({"name": "v"}) == "emptyDir"
    assert kind_of({"name": "v", "configMap": {}, "hostPath": None}) == "configMap"
    with pytest.raises(NotMounted, match="svcplane has no nfs volumes: it serves emptyDir"):
        kind_of({"name": "v", "nfs": {}})


def test_memory_volumes_have_their_size_in_bytes() -> None:
    volumes = [{"name": "a", "emptyDir": {"medium": "Memory", "sizeLimit": "64Mi"}}, {"name": "b", "emptyDir": {}}]
    assert list(in_memory(pod(volumes=volumes))) == [("a", 64 << 20)]


def test_files_are_the_keys_that_are_named_or_all() -> None:
    data = data_of({"kind": "ConfigMap", "data": {"a": "1"}, "binaryData": {"b": "Mg=="}})
    assert chosen(data, {}, "configmap", 0o644) == {"a": File(b"1", 0o644), "b": File(b"2", 0o644)}
    assert chosen(data, {"items": [{"key": "b", "path": "x/y", "mode": 0}]}, "configmap", 0o644) == {
        "x/y": File(b"2", 0)
    }
    missing = {"items": [{"key": "c", "path": "c"}]}
    assert chosen(data, missing | {"optional": True}, "configmap", 0o644) == {}
    with pytest.raises(NotMounted, match="references non-existent config key: c"):
        chosen(data, missing, "configmap", 0o644)
    assert data_of({"kind": "Secret", "data": {"a": "MQ=="}}) == {"a": b"1"}


def test_fields_are_written_as_the_kubelet_writes_them() -> None:
    items = [{"path": "l", "fieldRef": {"fieldPath": "metadata.labels"}}]
    items += [{"path": "n", "fieldRef": {"fieldPath": "metadata.name"}}]
    assert fields(pod(), items, 0o600) == {"l": File(b'a="1"\nb="x\\"y"', 0o600), "n": File(b"web", 0o600)}
    with pytest.raises(NotMounted, match="fieldRef only"):
        fields(pod(), [{"path": "cpu", "resourceFieldRef": {"resource": "limits.cpu"}}], 0o600)


@pytest.mark.parametrize("path", ["", "/etc", "a/../../b", "..data"])
def test_files_stay_in_their_volume(path: str) -> None:
    with pytest.raises(NotMounted):
        safe(path)


def test_files_are_replaced_as_a_whole(tmp_path: Path) -> None:
    write(tmp_path, {"a": File(b"1", 0o644), "sub/b": File(b"2", 0o600)})
    old = (tmp_path / "..data").resolve()
    assert (tmp_path / "sub" / "b").read_bytes() == b"2"
    write(tmp_path, {"a": File(b"1", 0o644), "sub/b": File(b"2", 0o600)})
    assert (tmp_path / "..data").resolve() == old
    write(tmp_path, {"a": File(b"3", 0o644)})
    assert (tmp_path / "a").read_bytes() == b"3"
    assert not old.exists()
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("..")) == ["a"]


class NoApi:
    """Asked for nothing."""


@pytest.mark.parametrize(
    ("kind", "text"),
    [("File", "is not a file"), ("Socket", "is not a socket file"), ("Nonsense", "must be one of Directory")],
)
async def test_host_path_of_another_type_is_told(tmp_path: Path, kind: str, text: str) -> None:
    volumes = PodVolumes(NoApi(), tmp_path)  # type: ignore[arg-type]
    problem = await volumes.keep(pod(volumes=[{"name": "h", "hostPath": {"path": str(tmp_path), "type": kind}}]), 0)
    assert problem.startswith('MountVolume.SetUp failed for volume "h" : ')
    assert text in problem


async def test_problem_stays_until_it_is_time_to_look_again(tmp_path: Path) -> None:
    volumes = PodVolumes(NoApi(), tmp_path)  # type: ignore[arg-type]
    path = tmp_path / "later"
    made = pod(volumes=[{"name": "h", "hostPath": {"path": str(path), "type": "Directory"}}])
    assert await volumes.keep(made, 0)
    path.mkdir()
    assert await volumes.keep(made, 0.5)
    assert await volumes.keep(made, 1.5) == ""
    assert volumes.paths == {"h": str(path)}
