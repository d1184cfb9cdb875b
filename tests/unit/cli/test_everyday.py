"""`svcplane get|apply|delete|wait|completion` against a real API server."""

import asyncio
import json
import os
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from svcplane.api.resources import SERVICES
from svcplane.cli.main import VERBS
from verbs import LiveCluster, live_cluster, svcplane

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec: {clusterIP: 10.96.0.50, selector: {app: web}, ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: db, labels: {app: db}}
spec: {selector: {app: db}, ports: [{port: 5432}]}
"""


@pytest.fixture
async def cluster(tmp_path: Path) -> AsyncIterator[LiveCluster]:
    async with live_cluster(tmp_path) as live:
        yield live


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    (tmp_path / "m").mkdir()
    (tmp_path / "m" / "web.yaml").write_text(WEB)
    return tmp_path / "m"


async def test_apply_creates_leaves_and_changes(cluster: LiveCluster, manifests: Path) -> None:
    done = await cluster.svcplane(f"apply -f {manifests}")
    assert (done.status, done.out) == (0, "service/web created\nservice/db created\n")
    again = await cluster.svcplane(f"apply -f {manifests / 'web.yaml'}")
    assert again.out == "service/web unchanged\nservice/db unchanged\n"
    (manifests / "web.yaml").write_text(WEB.replace("port: 80", "port: 81"))
    dry = await cluster.svcplane(f"apply -f {manifests} --dry-run")
    assert dry.out == "service/web configured (dry run)\nservice/db unchanged (dry run)\n"
    assert (await cluster.api.get(SERVICES, "default", "web"))["spec"]["ports"][0]["port"] == 80
    assert (await cluster.svcplane(f"apply -f {manifests}")).out.startswith("service/web configured\n")
    assert (await cluster.api.get(SERVICES, "default", "web"))["spec"]["ports"][0]["port"] == 81


async def test_apply_goes_on_after_a_refusal_and_tells_each(cluster: LiveCluster, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(WEB.replace("port: 80}", "port: 0}") + "---\n{apiVersion: v1, kind: Widget, metadata: {name: w}}")
    done = await cluster.svcplane(f"apply -f {file}")
    assert (done.status, done.out) == (1, "service/db created\n")
    refused, unknown = done.err.splitlines()
    assert refused.startswith('svcplane: Service "web" is invalid: [spec.ports[0].port')
    assert unknown == "svcplane: Widget w: this server has no kind Widget in apiVersion v1"


async def test_apply_names_who_has_a_field_and_takes_it_over_when_told(cluster: LiveCluster, manifests: Path) -> None:
    await cluster.svcplane(f"apply -f {manifests} --field-manager other")
    (manifests / "web.yaml").write_text(WEB.replace("port: 80", "port: 81").replace("name: http, ", "name: http2, "))
    changed = WEB.replace("{app: web}, ports", "{app: new}, ports")
    (manifests / "web.yaml").write_text(changed)
    done = await cluster.svcplane(f"apply -f {manifests}")
    assert done.status == 1
    assert 'conflict with "other"' in done.err
    assert done.err.startswith("svcplane: service/web: ")
    assert done.err.endswith("--force-conflicts takes these fields over\n")
    forced = await cluster.svcplane(f"apply -f {manifests} --force-conflicts")
    assert (forced.status, forced.out) == (0, "service/web configured\nservice/db unchanged\n")


async def test_get_shows_the_servers_table_and_all_forms(cluster: LiveCluster, manifests: Path) -> None:
    await cluster.svcplane(f"apply -f {manifests}")
    shown = (await cluster.svcplane("get svc web")).out.splitlines()
    assert shown[0].split() == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE"]
    assert shown[1].split()[:3] == ["web", "ClusterIP", "10.96.0.50"]
    wide = (await cluster.svcplane("get services -o wide -l app=web")).out
    assert ("SELECTOR" in wide, "app=web" in wide, "db" in wide) == (True, True, False)
    everywhere = (await cluster.svcplane("get svc -A")).out.splitlines()
    assert everywhere[0].split()[:2] == ["NAMESPACE", "NAME"]
    assert everywhere[1].split()[0] == "default"
    assert (await cluster.svcplane("get Service -o name")).out.split() == [
        "service/db",
        "service/kubernetes",
        "service/web",
    ]
    assert json.loads((await cluster.svcplane("get svc/web -o json")).out)["spec"]["clusterIP"] == "10.96.0.50"
    listed = yaml.safe_load((await cluster.svcplane("get svc,endpointslices.discovery.k8s.io -o yaml")).out)
    assert listed["kind"] == "List"
    assert {item["kind"] for item in listed["items"]} == {"Service", "EndpointSlice"}
    fields = await cluster.svcplane("get svc --field-selector metadata.name=db -o name")
    assert fields.out == "service/db\n"
    nothing = await cluster.svcplane("get pods")
    assert (nothing.status, nothing.out, nothing.err) == (0, "", "there are none in namespace default\n")
    # a kind that is not in the table of this program, from the server's discovery
    review = await cluster.svcplane("get tokenreviews")
    assert review.status == 1


async def test_get_follows_changes(cluster: LiveCluster, manifests: Path) -> None:
    await cluster.svcplane(f"apply -f {manifests}")
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-c", "from svcplane.cli.main import main; main()"),
        *("get", "svc/web", "-w", "--kubeconfig", str(cluster.kubeconfig)),
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(20):
            assert (await process.stdout.readline()).split()[0] == b"NAME"
            assert (await process.stdout.readline()).split()[0] == b"web"
            patch = {"spec": {"ports": [{"name": "http", "port": 82}]}}
            await cluster.api.patch(SERVICES, "default", "db", {"metadata": {"labels": {"x": "y"}}})
            await cluster.api.patch(SERVICES, "default", "web", patch)
            line = await process.stdout.readline()
            assert (line.split()[0], b"82/TCP" in line) == (b"web", True)
    finally:
        process.terminate()
        await process.wait()


async def test_delete_by_name_label_and_file(cluster: LiveCluster, manifests: Path) -> None:
    await cluster.svcplane(f"apply -f {manifests}")
    done = await cluster.svcplane("delete svc/web svc/nobody")
    assert (done.status, done.out) == (1, "service/web deleted\n")
    assert done.err == 'svcplane: services "nobody" not found\n'
    assert (await cluster.svcplane("delete svc nobody --ignore-not-found")).status == 0
    assert (await cluster.svcplane("delete svc -l app=db")).out == "service/db deleted\n"
    await cluster.svcplane(f"apply -f {manifests}")
    assert (await cluster.svcplane(f"delete -f {manifests}")).out == "service/web deleted\nservice/db deleted\n"
    assert (await cluster.svcplane("get svc -o name")).out == "service/kubernetes\n"


async def test_wait_for_conditions(cluster: LiveCluster) -> None:
    node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1"}}
    await cluster.create({**node, "status": {"conditions": [{"type": "Ready", "status": "True"}]}})
    assert (await cluster.svcplane("wait node/n1 --for condition=Ready")).out == "node/n1 condition met\n"
    late = await cluster.svcplane("wait node/n1 --for condition=Ready=False --timeout 0")
    assert (late.status, late.err) == (1, "svcplane: node/n1 is not as asked after 0 s: condition Ready=False\n")
    assert (await cluster.svcplane("wait node/n2 --for delete")).out == "node/n2 is gone\n"
    begun = asyncio.create_task(cluster.svcplane("wait node n3 --for create --timeout 20s"))
    await cluster.create({**node, "metadata": {"name": "n3"}})
    assert (await begun).status == 0


MISTAKES = [
    ("get", "say what"),
    ("get widgets", "widgets: this server has no such kind"),
    ("get svc/web web", "web: where one argument is KIND/NAME, all must be"),
    ("get svc,pods web", "names need one kind"),
    ("get svc web -l app=web", "go without names"),
    ("get svc web -A", "-A goes without names"),
    ("get svc,pods -w", "-w follows one kind"),
    ("get svc nobody", 'services "nobody" not found'),
    ("get svc -l 'a b'", "found 'b', expected"),
    ("delete", "say what"),
    ("delete svc", "say which services"),
    ("delete svc --all --timeout never", "--timeout never: must be seconds, or a duration"),
    ("wait svc/web", "either --programmed or --for"),
    ("wait svc/web --for rain", "--for rain: must be"),
    ("wait svc/web svc/db --programmed", "give one Service"),
    ("wait svc/nobody --programmed", "there is no Service nobody"),
    ("wait pods --for delete", "say which pods"),
    ("wait svc/web --for condition=Ready", "not found"),
]


async def test_mistakes_are_one_line(cluster: LiveCluster) -> None:
    for command, said in MISTAKES:
        done = await cluster.svcplane(command)
        assert (done.status != 0, done.out) == (True, ""), command
        assert said in done.err, command
        assert len(done.err.strip().splitlines()) == 1, command


async def test_file_and_namespace_must_agree(cluster: LiveCluster, tmp_path: Path) -> None:
    file = tmp_path / "f.yaml"
    file.write_text(WEB.replace("name: web,", "name: web, namespace: other,"))
    done = await cluster.svcplane(f"apply -n mine -f {file}")
    assert "Service web: is of namespace other, and -n says mine" in done.err


def completed(shell: str, words: str) -> list[str]:
    env = {"_SVCPLANE_COMPLETE": f"{shell}_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split()) - 1)}
    code = "import sys; sys.argv[0] = 'svcplane'; from svcplane.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code], env=os.environ | env, capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    return [line.split(",", 1)[1] for line in done.stdout.splitlines()]


def test_shells_complete_verbs_options_and_kinds() -> None:
    assert completed("bash", "svcplane ex") == ["explain"]
    assert completed("bash", "svcplane wait --prog") == ["--programmed"]
    assert completed("bash", "svcplane get endp") == ["endpoints", "endpointslices"]


async def test_shells_complete_names(cluster: LiveCluster, manifests: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    await cluster.svcplane(f"apply -f {manifests}")
    monkeypatch.setenv("KUBECONFIG", str(cluster.kubeconfig))
    assert await asyncio.to_thread(completed, "bash", "svcplane get svc/w") == ["svc/web"]
    assert await asyncio.to_thread(completed, "bash", "svcplane delete svc d") == ["db"]
    assert await asyncio.to_thread(completed, "bash", "svcplane explain svc/w") == ["svc/web"]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_for_svcplane(shell: str) -> None:
    done = svcplane(f"completion {shell}")
    assert done.status == 0
    assert f"_SVCPLANE_COMPLETE={shell}_complete" in done.out
    assert f"source <(svcplane completion {shell})" in svcplane("completion --help").out or shell == "fish"


@pytest.mark.parametrize("verb", list(VERBS))
def test_every_verb_has_help_whose_line_is_that_of_the_table(verb: str) -> None:
    done = svcplane(f"{verb} --help")
    assert done.status == 0
    assert done.out.startswith("Usage: ")
