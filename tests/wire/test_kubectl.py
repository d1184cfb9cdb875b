"""kubectl against the API server: what a person does with Services from day to day."""

import signal
import subprocess
import time
from pathlib import Path

import pytest
from tests.wire.kubectl import Kubectl, since

pytestmark = pytest.mark.tools("kubectl")

WEB = """
apiVersion: v1
kind: Service
metadata: {name: web, labels: {tier: front}}
spec:
  type: NodePort
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
"""
NODE = """
apiVersion: v1
kind: Node
metadata: {name: node-1}
"""
POD = """
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
spec:
  nodeName: node-1
  containers: [{name: main, image: nginx, ports: [{containerPort: 8080}]}]
"""
READY = """
{"status": {"phase": "Running", "podIP": "10.244.0.5", "podIPs": [{"ip": "10.244.0.5"}],
 "conditions": [{"type": "Ready", "status": "True"}],
 "containerStatuses": [{"name": "main", "ready": true, "restartCount": 2, "image": "nginx", "imageID": "",
  "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}}}]}}
"""


def rows(table: str) -> list[list[str]]:
    return [line.split() for line in table.splitlines()]


def test_create_get_and_describe(kubectl: Kubectl) -> None:
    assert kubectl("create", "service", "clusterip", "web", "--tcp=80:8080") == "service/web created\n"
    header, row = rows(kubectl("get", "services", "-o", "wide"))
    assert header == ["NAME", "TYPE", "CLUSTER-IP", "EXTERNAL-IP", "PORT(S)", "AGE", "SELECTOR"]
    assert (row[:2], row[3:5], row[6]) == (["web", "ClusterIP"], ["<none>", "80/TCP"], "app=web")
    ip = kubectl("get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}")
    assert row[2] == ip
    assert kubectl("get", "ipaddress", ip, "-o", "jsonpath={.spec.parentRef.name}") == "web"
    described = kubectl("describe", "service", "web")
    assert ["TargetPort:", "8080/TCP"] in rows(described)
    assert 'services "web" already exists' in kubectl.fails("create", "service", "clusterip", "web", "--tcp=80:8080")
    assert 'services "none" not found' in kubectl.fails("get", "svc", "none")


def test_apply_is_repeatable_and_shows_its_difference_first(kubectl: Kubectl) -> None:
    assert kubectl("apply", "-f", "-", stdin=WEB) == "service/web created\n"
    assert kubectl("apply", "-f", "-", stdin=WEB) == "service/web unchanged\n"
    port = kubectl("get", "svc", "web", "-o", "jsonpath={.spec.ports[0].nodePort}")
    assert kubectl.run("diff", "-f", "-", stdin=WEB).returncode == 0
    changed = WEB.replace("port: 80,", "port: 81,")
    difference = kubectl.run("diff", "-f", "-", stdin=changed)
    assert difference.returncode == 1
    lines = [line.strip() for line in difference.stdout.splitlines() if line[:2] in ("- ", "+ ")]
    changes = [line.split()[-2:] for line in lines]  # before 1.21 managedFields are among them
    assert [change for change in changes if change[0] == "port:"] == [["port:", "80"], ["port:", "81"]]
    assert kubectl("get", "svc", "web", "-o", "jsonpath={.spec.ports[0].port}") == "80"
    assert kubectl("apply", "-f", "-", stdin=changed) == "service/web configured\n"
    after = kubectl.json("get", "svc", "web")["spec"]["ports"]
    assert after == [{"name": "http", "nodePort": int(port), "port": 81, "protocol": "TCP", "targetPort": 8080}]
    assert kubectl("apply", "--dry-run=server", "-f", "-", stdin=WEB) == "service/web configured (server dry run)\n"
    assert kubectl.json("get", "svc", "web")["spec"]["ports"] == after


def test_apply_takes_away_what_the_manifest_no_longer_has(kubectl: Kubectl) -> None:
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("label", "svc", "web", "other=kept")
    kubectl("apply", "-f", "-", stdin=WEB.replace("tier: front", "level: one"))
    assert kubectl.json("get", "svc", "web")["metadata"]["labels"] == {"level": "one", "other": "kept"}


def test_server_side_apply_reports_conflicts_and_may_be_forced(kubectl: Kubectl) -> None:
    since(21)
    kubectl("apply", "--server-side", "--field-manager=one", "-f", "-", stdin=WEB)
    other = WEB.replace("targetPort: 8080", "targetPort: 9090")
    refused = kubectl.fails("apply", "--server-side", "--field-manager=two", "-f", "-", stdin=other)
    assert 'conflict with "one": .spec.ports[port=80,protocol="TCP"].targetPort' in refused
    kubectl("apply", "--server-side", "--field-manager=two", "--force-conflicts", "-f", "-", stdin=other)
    found = kubectl.json("get", "svc", "web", "--show-managed-fields")
    assert found["spec"]["ports"][0]["targetPort"] == 9090
    assert {entry["manager"] for entry in found["metadata"]["managedFields"]} == {"one", "two"}
    without = WEB.replace(", labels: {tier: front}", "")
    kubectl("apply", "--server-side", "--field-manager=one", "--force-conflicts", "-f", "-", stdin=without)
    assert kubectl.json("get", "svc", "web")["metadata"]["labels"] == {"tier": "front"}  # the other one owns it too
    kubectl("apply", "--server-side", "--field-manager=two", "-f", "-", stdin=without)
    assert "labels" not in kubectl.json("get", "svc", "web")["metadata"]


def test_server_side_apply_takes_over_from_client_side_apply(kubectl: Kubectl) -> None:
    since(27)
    kubectl("apply", "-f", "-", stdin=WEB)
    kubectl("apply", "--server-side", "-f", "-", stdin=WEB.replace(", labels: {tier: front}", ""))
    found = kubectl.json("get", "svc", "web", "--show-managed-fields")["metadata"]
    assert "labels" not in found
    assert [entry["manager"] for entry in found["managedFields"] if entry["operation"] == "Update"] == []


@pytest.mark.parametrize(
    ("kind", "patch"),
    [
        ("strategic", '{"spec":{"ports":[{"port":80,"targetPort":9090}]}}'),
        ("merge", '{"spec":{"ports":[{"name":"http","port":80,"targetPort":9090}]}}'),
        ("json", '[{"op":"replace","path":"/spec/ports/0/targetPort","value":9090}]'),
    ],
)
def test_patch_of_each_type(kubectl: Kubectl, kind: str, patch: str) -> None:
    kubectl("create", "-f", "-", stdin=WEB)
    assert kubectl("patch", "svc", "web", f"--type={kind}", "-p", patch) == "service/web patched\n"
    port = kubectl.json("get", "svc", "web")["spec"]["ports"][0]
    assert (port["name"], port["targetPort"]) == ("http", 9090)
    assert kubectl("patch", "svc", "web", f"--type={kind}", "-p", patch) == "service/web patched (no change)\n"


def test_labels_annotations_and_selectors(kubectl: Kubectl) -> None:
    kubectl("create", "service", "clusterip", "a", "--tcp=80")
    kubectl("create", "service", "clusterip", "b", "--tcp=80")
    kubectl("label", "svc", "a", "tier=front", "zone=1")
    assert "already has a value" in kubectl.fails("label", "svc", "a", "tier=back")
    kubectl("label", "svc", "a", "tier=back", "--overwrite")
    kubectl("label", "svc", "a", "zone-")
    assert kubectl("get", "svc", "-l", "tier in (back,x)", "-o", "name") == "service/a\n"
    assert kubectl("get", "svc", "-l", "!tier", "-o", "name") == "service/b\n"
    assert kubectl("get", "svc", "--field-selector", "metadata.name=b", "-o", "name") == "service/b\n"
    kubectl("annotate", "svc", "a", "note=one two")
    assert kubectl("get", "svc", "a", "-o", "jsonpath={.metadata.annotations.note}") == "one two"
    assert rows(kubectl("get", "svc", "-L", "tier"))[1][-1] == "back"
    kubectl("set", "selector", "svc", "a", "app=other")
    assert kubectl.json("get", "svc", "a")["spec"]["selector"] == {"app": "other"}


def test_output_forms_and_chunks(kubectl: Kubectl) -> None:
    for name in ("c", "a", "b"):
        kubectl("create", "service", "clusterip", name, "--tcp=80")
    assert [row[0] for row in rows(kubectl("get", "svc", "--chunk-size=1", "--no-headers"))] == ["a", "b", "c"]
    columns = "custom-columns=N:.metadata.name,T:.spec.type"
    assert rows(kubectl("get", "svc", "a", "-o", columns)) == [["N", "T"], ["a", "ClusterIP"]]
    assert "\n    name: a\n" in kubectl("get", "svc", "-o", "yaml")
    assert kubectl("get", "svc", "-o", "go-template={{len .items}}") == "3"
    both = kubectl("get", "svc,endpointslices", "--no-headers", "-o", "name").split()
    assert both[:3] == ["service/a", "service/b", "service/c"]


def test_replace_edit_and_delete(kubectl: Kubectl, tmp_path: Path) -> None:
    kubectl("create", "-f", "-", stdin=WEB)
    before = kubectl.json("get", "svc", "web")
    assert kubectl("replace", "-f", "-", stdin=WEB.replace("8080", "9090")) == "service/web replaced\n"
    after = kubectl.json("get", "svc", "web")
    assert after["spec"]["clusterIP"] == before["spec"]["clusterIP"]
    assert after["spec"]["ports"][0]["nodePort"] == before["spec"]["ports"][0]["nodePort"]
    editor = tmp_path / "editor"
    editor.write_text("#!/bin/sh\nsed -i 's/targetPort: 9090/targetPort: 7070/' \"$1\"\n")
    editor.chmod(0o755)
    assert kubectl("edit", "svc", "web", env={"KUBE_EDITOR": str(editor)}) == "service/web edited\n"
    assert kubectl.json("get", "svc", "web")["spec"]["ports"][0]["targetPort"] == 7070
    kubectl("replace", "--force", "-f", "-", stdin=WEB)
    assert kubectl.json("get", "svc", "web")["metadata"]["uid"] != before["metadata"]["uid"]
    kubectl("delete", "-f", "-", stdin=WEB)
    assert kubectl("delete", "svc", "web", "--ignore-not-found") == ""
    assert "not found" in kubectl.fails("delete", "svc", "web")


def test_what_is_wrong_is_said_as_kubernetes_says_it(kubectl: Kubectl) -> None:
    since(25)
    typo = WEB.replace("targetPort:", "targetPrt:")
    assert 'unknown field "spec.ports[0].targetPrt"' in kubectl.fails("create", "-f", "-", stdin=typo)
    bad = kubectl.fails("create", "-f", "-", stdin=WEB.replace("port: 80,", "port: 99999,"))
    assert 'The Service "web" is invalid: spec.ports[0].port: Invalid value: 99999: must be between 1 and 65535' in bad
    kubectl("create", "-f", "-", stdin=WEB)
    changed = '{"spec":{"clusterIP":"10.96.7.7","clusterIPs":["10.96.7.7"]}}'
    assert "spec.clusterIPs[0]: Invalid value" in kubectl.fails("patch", "svc", "web", "-p", changed)


def test_watch_shows_each_change(kubectl: Kubectl) -> None:
    watching = subprocess.Popen(
        kubectl.command("get", "svc", "--watch", "--output-watch-events", "--no-headers"),
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert watching.stdout is not None
        kubectl("create", "service", "clusterip", "a", "--tcp=80")
        assert watching.stdout.readline().split()[:3] == ["ADDED", "a", "ClusterIP"]
        kubectl("patch", "svc", "a", "-p", '{"spec":{"type":"NodePort"}}')
        assert watching.stdout.readline().split()[:3] == ["MODIFIED", "a", "NodePort"]
        kubectl("delete", "svc", "a")
        assert watching.stdout.readline().split()[:3] == ["DELETED", "a", "NodePort"]
    finally:
        watching.send_signal(signal.SIGINT)
        watching.communicate(timeout=10)


def test_wait_for_a_field_and_for_deletion(kubectl: Kubectl) -> None:
    since(23)
    kubectl("create", "service", "clusterip", "a", "--tcp=80")
    waiting = subprocess.Popen(
        kubectl.command("wait", "svc/a", "--for=jsonpath={.spec.type}=NodePort", "--timeout=20s"),
        stdout=subprocess.PIPE,
        text=True,
    )
    kubectl("patch", "svc", "a", "-p", '{"spec":{"type":"NodePort"}}')
    assert waiting.communicate(timeout=30)[0] == "service/a condition met\n"
    gone = subprocess.Popen(
        kubectl.command("wait", "svc/a", "--for=delete", "--timeout=20s"), stdout=subprocess.PIPE, text=True
    )
    kubectl("delete", "svc", "a")
    assert gone.wait(timeout=30) == 0


@pytest.mark.usefixtures("controllers")
def test_pods_back_their_service_and_namespaces_go(kubectl: Kubectl) -> None:
    since(24)
    kubectl("create", "-f", "-", stdin=WEB)
    kubectl("apply", "-f", "-", stdin=NODE)
    kubectl("create", "-f", "-", stdin=POD)
    kubectl("patch", "pod", "web-1", "--subresource=status", "--type=merge", "-p", READY)
    header, row = rows(kubectl("get", "pods", "-o", "wide"))
    assert header[:7] == ["NAME", "READY", "STATUS", "RESTARTS", "AGE", "IP", "NODE"]
    assert row[:4] + row[5:7] == ["web-1", "1/1", "Running", "2", "10.244.0.5", "node-1"]
    kubectl("wait", "pod/web-1", "--for=condition=Ready", "--timeout=10s")
    endpoints = "jsonpath={.items[*].endpoints[*].addresses[0]}:{.items[*].ports[0].port}"
    end = time.monotonic() + 20
    while kubectl("get", "endpointslices", "-o", endpoints) != "10.244.0.5:8080":
        assert time.monotonic() < end, "the slice did not come"
    assert "10.244.0.5:8080" in kubectl("describe", "svc", "web")
    assert kubectl("expose", "pod", "web-1", "--name=second", "--port=81") == "service/second exposed\n"
    kubectl("delete", "pod", "web-1", "--grace-period=0", "--force")
    kubectl("create", "namespace", f"{kubectl.namespace}-b")
    kubectl("create", "-n", f"{kubectl.namespace}-b", "-f", "-", stdin=WEB)
    kubectl("delete", "namespace", f"{kubectl.namespace}-b", "--timeout=20s")
    assert "not found" in kubectl.fails("get", "namespace", f"{kubectl.namespace}-b")


def test_explain_and_what_there_is(kubectl: Kubectl) -> None:
    explained = kubectl("explain", "service.spec.ports")
    assert "[]ServicePort" in explained or "[]Object" in explained  # the latter before 1.25
    assert "nodePort\t<integer>" in explained
    names = {line.split()[0] for line in kubectl("api-resources", "--no-headers").splitlines()}
    assert {"services", "endpoints", "endpointslices", "pods", "nodes", "servicecidrs", "ipaddresses"} <= names
    assert "discovery.k8s.io/v1" in kubectl("api-versions").split()
    assert kubectl.json("version")["serverVersion"]["major"] == "1"
    assert kubectl("get", "--raw", "/readyz") == "ok"


def test_service_kubernetes_comes_back(kubectl: Kubectl) -> None:
    get = ("get", "svc,endpoints,endpointslices", "-n", "default", "kubernetes", "-o", "name")
    before = kubectl(*get)
    kubectl("delete", "svc,endpoints,endpointslices", "-n", "default", "kubernetes", "--ignore-not-found")
    end = time.monotonic() + 30
    while kubectl.run(*get).stdout != before:
        assert time.monotonic() < end, "the Service kubernetes did not come back"
        time.sleep(0.2)
    assert kubectl("get", "svc", "-n", "default", "kubernetes", "-o", "jsonpath={.spec.clusterIP}") == "10.96.0.1"
