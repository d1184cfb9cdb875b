"""`svcplane explain` as a person runs it: on files, and on a cluster."""

import asyncio
import json
from pathlib import Path

import pytest
import yaml

from svcplane.controllers.run import run_controllers
from verbs import live_cluster, svcplane

MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: htpt, protocol: TCP}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec:
  nodeName: node1
  containers: [{name: c, image: web, ports: [{name: http, containerPort: 8080}]}]
status:
  phase: Running
  podIP: 10.244.1.5
  conditions: [{type: Ready, status: "True", lastTransitionTime: 2026-01-02T03:04:05Z}]
"""


def test_explain_reads_manifests_and_says_the_cause_first(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(MANIFESTS)
    answer = svcplane(f"explain svc/web -f {file}")
    assert answer.status == 1
    problems, _, rest = answer.out.partition("Pods\n")
    assert "PROBLEM  pod/web-1 has no port named 'htpt'" in problems
    assert "remedy: set targetPort of web to 'http'" in problems
    assert "web-1" in rest


def test_explain_reads_standard_input_and_lists(tmp_path: Path) -> None:
    dump = {"apiVersion": "v1", "kind": "List", "items": list(yaml.safe_load_all(MANIFESTS.replace("htpt", "http")))}
    answer = svcplane("explain web -f -", stdin=yaml.safe_dump(dump))
    assert (answer.status, "no problem found" in answer.out) == (0, True)


def test_programs_get_codes(tmp_path: Path) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(MANIFESTS)
    story = json.loads(svcplane(f"explain web -f {file} -o json").out)
    assert [finding["code"] for finding in story["findings"]] == ["no-ready-endpoint", "port-name-missing"]
    assert yaml.safe_load(svcplane(f"explain web -f {file} -o yaml").out) == story


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("explain pod/web -f {file}", "pod/web: must be svc/NAME"),
        ("explain svc/wbe -f {file}", "there is no Service wbe in namespace default; did you mean 'web'?"),
        ("explain svc/web -f {file}.no", "No such file or directory"),
        ("explain svc/web --kubeconfig {file}.no", "No such file or directory"),
    ],
)
def test_mistakes_are_one_line_and_status_2(tmp_path: Path, command: str, said: str) -> None:
    file = tmp_path / "m.yaml"
    file.write_text(MANIFESTS)
    answer = svcplane(command.format(file=file))
    assert (answer.status, said in answer.err) == (2, True), answer.err


async def test_explain_on_a_live_cluster(tmp_path: Path) -> None:
    async with live_cluster(tmp_path) as cluster:
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}}
        await cluster.create(node, *yaml.safe_load_all(MANIFESTS.replace("htpt", "8080").replace("htpt", "http")))
        before = await cluster.svcplane("explain svc/web")
        assert "its EndpointSlices are behind: pod/web-1 is ready and not listed as ready" in before.out
        running = asyncio.create_task(run_controllers(cluster.transport))
        try:
            async with asyncio.timeout(20):
                while (after := await cluster.svcplane("explain svc/web")).status:
                    pass
        finally:
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
        assert "no problem found" in after.out
        assert "ClusterIP 10.96." in after.out
