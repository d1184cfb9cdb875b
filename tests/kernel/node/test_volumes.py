"""Volumes and users of real processes: what they see, and that the host sees none of it."""

import asyncio
import os
from pathlib import Path

import pytest

from podrig import PREFIX, Bench, pod, shell
from svcplane.kernel.links.run import KernelLinks

pytestmark = [
    pytest.mark.root,
    pytest.mark.tools("ip"),
]

MISSING = f"/svcplane-test-{os.getpid()}"  # what no host has


async def ended(bench: Bench, name: str) -> str:
    """What a Pod that runs once has said."""
    await bench.api.until(lambda: bench.api.status(name).get("phase") in ("Succeeded", "Failed"))
    assert bench.api.status(name)["phase"] == "Succeeded", bench.log(name) + str(bench.api.container(name))
    return bench.log(name)


async def test_volumes_are_where_the_containers_look_for_them_and_nowhere_on_the_host(
    bench: Bench, tmp_path: Path
) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "shared" / "given").write_text("from the host")
    volumes = [
        {"name": "scratch", "emptyDir": {}},
        {"name": "memory", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
        {"name": "host", "hostPath": {"path": str(tmp_path / "shared"), "type": "Directory"}},
    ]
    mounts = [
        {"name": "scratch", "mountPath": "/tmp"},
        {"name": "scratch", "mountPath": f"{MISSING}/deep/er", "subPath": "part"},
        {"name": "memory", "mountPath": f"/etc{MISSING}"},
        {"name": "host", "mountPath": "/mnt", "readOnly": True},
    ]
    writes = f"""set -e; test -e /etc/passwd; cat /mnt/given; echo
        echo one > /tmp/file; echo two > {MISSING}/deep/er/file; cat /tmp/part/file
        stat -f -c %T /etc{MISSING}; echo three > /etc{MISSING}/file
        touch /mnt/no 2>/dev/null || echo read-only; pwd"""
    reads = f"cat /tmp/file {MISSING}/deep/er/file /etc{MISSING}/file"
    first = shell(writes, "first", volumeMounts=mounts, workingDir=f"{MISSING}/deep")
    main = shell(reads, volumeMounts=mounts)
    bench.api.put(pod("web", main, initContainers=[first], volumes=volumes, restartPolicy="Never"))
    assert await ended(bench, "web") == "one\ntwo\nthree\n"
    assert bench.log("web", "first") == f"from the host\ntwo\ntmpfs\nread-only\n{MISSING}/deep\n"
    assert not Path(MISSING).exists()
    assert not Path(f"/etc{MISSING}").exists()
    shown = bench.api.container("web")["volumeMounts"]
    assert shown[0] == {"name": "scratch", "mountPath": "/tmp"}
    assert shown[3] == {"name": "host", "mountPath": "/mnt", "readOnly": True, "recursiveReadOnly": "Disabled"}
    await bench.delete("web")
    async with asyncio.timeout(10):
        while list((bench.state / "pods").iterdir()) or KernelLinks().namespaces(PREFIX):
            await asyncio.sleep(0.01)
    assert (tmp_path / "shared" / "given").exists()


async def test_configuration_comes_as_files_once_it_is_there(bench: Bench) -> None:
    api = bench.api
    config = {"name": "web", "items": [{"key": "a", "path": "sub/a.conf", "mode": 0o600}]}
    sources = [
        {"secret": {"name": "s"}},
        {"downwardAPI": {"items": [{"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}}]}},
        {"serviceAccountToken": {"path": "token", "expirationSeconds": 600}},
    ]
    volumes = [{"name": "config", "configMap": config}, {"name": "all", "projected": {"sources": sources}}]
    mounts = [{"name": "config", "mountPath": "/mnt"}, {"name": "all", "mountPath": f"{MISSING}"}]
    script = f"cat /mnt/sub/a.conf {MISSING}/key {MISSING}/labels {MISSING}/token; echo; stat -Lc %a /mnt/sub/a.conf"
    tree = pod("web", shell(script, volumeMounts=mounts), volumes=volumes, restartPolicy="Never")
    tree["metadata"]["labels"] = {"app": "web"}
    api.put(tree)
    await api.until(lambda: any(reason == "FailedMount" for reason, _ in api.events))
    text = next(text for reason, text in api.events if reason == "FailedMount")
    assert text == 'MountVolume.SetUp failed for volume "config" : configmaps "web" not found'
    assert api.container("web")["state"] == {"waiting": {"reason": "ContainerCreating"}}
    api.others["configmaps", "web"] = {"data": {"a": "one\n", "b": "unused"}}
    api.others["secrets", "s"] = {"data": {"key": "dHdvCg=="}}
    assert await ended(bench, "web") == 'one\ntwo\napp="web"token of serviceaccounts/default/token\n600\n'


async def test_volume_of_a_kind_there_is_not_is_told_and_the_container_waits(bench: Bench) -> None:
    api = bench.api
    volumes = [{"name": "disk", "persistentVolumeClaim": {"claimName": "x"}}]
    api.put(pod("web", shell("exit 0"), volumes=volumes))
    await api.until(lambda: any(reason == "FailedMount" for reason, _ in api.events))
    assert ("FailedMount", api.events[-1][1]) in api.events
    assert 'volume "disk" : svcplane has no persistentVolumeClaim volumes' in api.events[-1][1]
    assert api.status("web")["phase"] == "Pending"
    assert api.container("web")["state"] == {"waiting": {"reason": "ContainerCreating"}}


async def test_process_and_its_probes_are_the_user_the_pod_asks_for(bench: Bench) -> None:
    api = bench.api
    probe = {"exec": {"command": ["sh", "-c", f"id -u > {MISSING}/probe"]}, "periodSeconds": 1}
    script = f"id -u > {MISSING}/main; id -G >> {MISSING}/main; exec sleep 1000"
    container = shell(script, readinessProbe=probe, volumeMounts=[{"name": "scratch", "mountPath": MISSING}])
    security = {"runAsUser": 4321, "runAsNonRoot": True, "supplementalGroups": [7], "fsGroup": 88}
    api.put(pod("web", container, volumes=[{"name": "scratch", "emptyDir": {}}], securityContext=security))
    await api.until(lambda: api.ready("web"))
    scratch = bench.state / "pods" / api.pods["web"]["metadata"]["uid"] / "volumes" / "scratch"
    assert (scratch / "main").read_text() == "4321\n0 7 88\n"
    assert (scratch / "probe").read_text() == "4321\n"
    assert api.container("web")["user"] == {"linux": {"uid": 4321, "gid": 0, "supplementalGroups": [0, 7, 88]}}
    await bench.delete("web")


async def test_container_that_must_not_be_root_is_not_started_as_root(bench: Bench) -> None:
    api = bench.api
    api.put(pod("web", shell("exit 0"), securityContext={"runAsNonRoot": True}))
    await api.until(lambda: "waiting" in api.container("web").get("state", {}) and api.events)
    await api.until(lambda: api.container("web")["state"]["waiting"]["reason"] == "CreateContainerConfigError")
    assert "container has runAsNonRoot" in api.container("web")["state"]["waiting"]["message"]


async def test_mount_that_cannot_be_made_is_named(bench: Bench) -> None:
    api = bench.api
    mounts = [{"name": "scratch", "mountPath": "/etc/passwd"}]
    volumes = [{"name": "scratch", "emptyDir": {}}]
    api.put(pod("web", shell("exit 0", volumeMounts=mounts), volumes=volumes, restartPolicy="Never"))
    await api.until(lambda: api.status("web").get("phase") == "Failed")
    end = api.container("web")["state"]["terminated"]
    assert end["reason"] == "StartError"
    assert end["message"].endswith('to "/etc/passwd": not a directory')


async def test_next_container_waits_for_the_hook_of_the_one_before(bench: Bench, tmp_path: Path) -> None:
    api = bench.api
    gate = tmp_path / "gate"
    hook = {"postStart": {"exec": {"command": ["sh", "-c", f"until test -e {gate}; do sleep 0.05; done"]}}}
    first, second = shell("exec sleep 1000", "first", lifecycle=hook), shell("exec sleep 1000", "second")
    api.put(pod("web", first, second))
    await api.until(lambda: "running" in api.container("web").get("state", {}))
    assert api.status("web")["containerStatuses"][1]["state"] == {"waiting": {"reason": "ContainerCreating"}}
    await asyncio.sleep(0.3)
    assert not [text for reason, text in api.events if (reason, text) == ("Started", "Started container second")]
    gate.touch()
    await api.until(lambda: api.ready("web"))
