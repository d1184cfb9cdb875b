"""Every verb against wrong input: one clear line, a status other than 0, never an exception that nobody expected."""

import base64
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar

import pytest

from svcplane.cli.main import VERBS
from verbs import live_cluster, svcplane

ROOT = Path(__file__).resolve().parents[3]
HELLO = ROOT / "examples" / "hello.yaml"
PROGRAM = [sys.executable, "-c", "from svcplane.cli.main import main; main()"]
#: One call of each verb that reads a kubeconfig; all but the last run once and end.
ONCE = (
    "get services",
    "explain svc/x",
    "wait svc/x --programmed --timeout 1s",
    "wait pod/x --for=delete --timeout 1s",
    "logs p",
    "delete pod/x",
    f"apply -f {HELLO}",
    f"plan -f {HELLO}",
    "trace svc/x:80",
    "top --once",
    "affinity list",
    "affinity evict 10.0.0.1",
    "plan --drift",
    "doctor",
)
SERVING = ("console --port 0", "controllers", "proxy", "node")
OTHERS = {"lab", "up", "apiserver", "history", "store", "certificate", "completion"}  # they read none


def kubeconfig(cluster: str = "{server: 'https://127.0.0.1:1'}", user: str = "{token: t}", **fields: str) -> str:
    whole = {
        "current-context": "c",
        "contexts": "[{name: c, context: {cluster: c, user: u}}]",
        "clusters": f"[{{name: c, cluster: {cluster}}}]",
        "users": f"[{{name: u, user: {user}}}]",
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    return "".join(f"{name}: {value}\n" for name, value in whole.items())


NO_PEM = base64.b64encode(b"hello").decode()
#: What is in the file, and what the line names.
KUBECONFIGS: dict[str, tuple[bytes | str, str]] = {
    "no text": (b"\xff\xfe\x00", "is no text"),
    "no YAML": ("clusters: [", "expected the node content"),
    "empty": ("", "is no kubeconfig document"),
    "a list": ("- a", "is no kubeconfig document"),
    "contexts are a number": (kubeconfig(contexts="5"), "`$.contexts`"),
    "a context is a text": (kubeconfig(contexts="[c]"), "`$.contexts[0]`"),
    "a cluster is a list": (kubeconfig("[1]"), "`$.clusters[0].cluster`"),
    "no such context": (kubeconfig(current_context="other"), "contexts: there is no 'other'"),
    "no such cluster": (kubeconfig(clusters="[]"), "clusters: there is no 'c'"),
    "no such user": (kubeconfig(users=""), "users: there is no 'u'"),
    "no server": (kubeconfig("{}"), "server: is empty"),
    "the server is a number": (kubeconfig("{server: 5}"), "`$.clusters[0].cluster.server`"),
    "the server is no URL": (kubeconfig("{server: nonsense}"), "nonsense: must be a URL"),
    "of another scheme": (kubeconfig("{server: 'ftp://127.0.0.1'}"), "must be a URL"),
    "no such port": (kubeconfig("{server: 'https://host:99999'}"), "must be a URL"),
    "a token that is a list": (kubeconfig(user="{token: [1]}"), "`$.users[0].user.token`"),
    "no base64": (kubeconfig("{server: 'https://h', certificate-authority-data: '%%'}"), "is no base64"),
    "no certificate": (
        kubeconfig(f"{{server: 'https://127.0.0.1:1', certificate-authority-data: {NO_PEM}}}"),
        "certificate-authority: is no PEM",
    ),
    "no such file": (kubeconfig("{server: 'https://h', certificate-authority: none}"), "No such file"),
    "a plug-in of no version": (kubeconfig(user="{exec: {command: aws}}"), "users.u.exec: apiVersion: None: must be"),
    "an auth provider": (kubeconfig(user="{auth-provider: {name: gcp}}"), "auth-provider is not supported; use exec"),
}


def fails(command: str) -> str:
    """The line a verb ends with; fails the test where it succeeds or says anything else."""
    answer = svcplane(command)
    lines = answer.err.strip().splitlines()
    assert answer.status != 0, f"{command}: {answer.out}"
    assert len(lines) == 1, f"{command}: {answer.err}"
    assert len(lines[0]) < 400, f"{command}: {lines[0]}"
    assert answer.out == "", f"{command}: {answer.out}"
    return lines[0]


@pytest.fixture(autouse=True)
def nowhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without a cluster of the person who runs the tests."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("KUBECONFIG", raising=False)


def test_every_verb_is_looked_at() -> None:
    assert {command.split()[0] for command in (*ONCE, *SERVING)} | OTHERS == set(VERBS)


@pytest.mark.parametrize("command", [*ONCE, *SERVING])
def test_a_broken_kubeconfig_is_named(tmp_path: Path, command: str) -> None:
    path = tmp_path / "config"
    for what, (content, said) in KUBECONFIGS.items():
        if what == "no certificate" and command in SERVING:
            continue
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        line = fails(f"{command} --kubeconfig {path}")
        assert said in line, what
        assert str(path) in line or what == "no certificate", what
    path.unlink()
    assert "No such file" in fails(f"{command} --kubeconfig {path}")
    assert "Is a directory" in fails(f"{command} --kubeconfig {tmp_path}")


class _Answering(BaseHTTPRequestHandler):
    """Answers with what the path's first part names."""

    answers: ClassVar[dict[str, tuple[int, bytes]]] = {
        "page": (200, b"<html>please log in</html>"),
        "list": (200, b"[]"),
        "items": (200, b'{"items": ["a"]}'),
        "cut": (200, b'{"items": ['),
        "status": (500, b"oops"),
        "forbidden": (403, b'{"kind": "Status", "message": "no, you may not"}'),
    }

    def _answer(self) -> None:
        status, body = self.answers[self.path.split("/")[1]]
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PATCH = do_DELETE = _answer  # noqa: N815

    def log_message(self, format: str, *args: object) -> None:
        pass


class _Server(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """A client that has left is no fault."""


@pytest.fixture(scope="module")
def other_server() -> Iterator[str]:
    server = _Server(("127.0.0.1", 0), _Answering)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.mark.parametrize("command", [command for command in ONCE if command not in ("doctor", "logs p")])
def test_what_is_no_api_or_not_there_is_told(tmp_path: Path, other_server: str, command: str) -> None:
    path = tmp_path / "config"
    for answer in (*_Answering.answers, "nobody"):
        server = "http://127.0.0.1:1" if answer == "nobody" else f"{other_server}/{answer}"
        path.write_text(kubeconfig(f"{{server: '{server}'}}"))
        done = svcplane(f"{command} --kubeconfig {path}")
        lines = set(done.err.strip().splitlines())  # `apply` tells each object's fate
        assert (done.status != 0, len(lines), done.out) == (True, 1, ""), (answer, done)
        if answer == "forbidden":
            assert "no, you may not" in done.err


MANIFESTS: dict[str, tuple[bytes | str, str]] = {
    "no text": (b"\xff\xfe", "is no text"),
    "no YAML": ("a: [", "-f "),
    "a list of texts": ("- a\n- b", "must be a Kubernetes object"),
    "a text": ("hello", "must be a Kubernetes object"),
    "deep": ("[" * 400, "-f "),
}


@pytest.mark.parametrize("what", MANIFESTS)
def test_a_file_that_is_no_manifest_is_named(tmp_path: Path, what: str) -> None:
    content, said = MANIFESTS[what]
    path, config = tmp_path / "m.yaml", tmp_path / "config"
    config.write_text(kubeconfig())
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for verb in ("apply", "delete", "plan", "explain svc/x"):
        flag = f" --kubeconfig {config}" if verb != "explain svc/x" else ""
        line = fails(f"{verb} -f {path}{flag}")
        assert said in line, verb
        assert str(path) in line, verb
        assert "No such file" in fails(f"{verb} -f {tmp_path / 'none'}" + flag)


@pytest.mark.parametrize(
    "tree",
    [
        "{kind: Service, apiVersion: v1, metadata: {name: x}, spec: words}",
        "{kind: Service, apiVersion: v1, metadata: [x]}",
        "{kind: Service, apiVersion: v1, metadata: {name: x}, spec: {ports: [{port: many}]}}",
        "{kind: Pod, apiVersion: v1, metadata: {name: x}, status: {podIPs: here}}",
        "{kind: List, apiVersion: v1, items: words}",
        "{kind: List, apiVersion: v1, items: [1]}",
        "{kind: 5}",
    ],
)
def test_a_malformed_dump_is_told(tmp_path: Path, tree: str) -> None:
    path = tmp_path / "dump.yaml"
    path.write_text(tree)
    fails(f"explain svc/x -f {path}")


#: Words that are wrong whatever the cluster; where they are checked against it, they are with the live one below.
WORDS: dict[str, str] = {
    "get": "say what: KIND",
    "get services -o nonsense": "'nonsense' is not one of",
    "explain": "Missing argument",
    "explain pod/x": "pod/x: must be svc/NAME",
    "explain svc/": "must be svc/NAME",
    "explain svc/x -o nonsense": "'nonsense' is not one of",
    "trace": "Missing argument",
    "trace 10.0.0.1": "must be IP:PORT",
    "trace svc/x": "must be IP:PORT",
    "trace svc/x:": "must be IP:PORT",
    "trace svc/x:http": "must be IP:PORT",
    "trace svc/x:0": "must be IP:PORT",
    "trace svc/x:65536": "must be IP:PORT",
    "trace svc/x:80/icmp": "must be IP:PORT",
    "trace fd00::1:80": "in brackets",
    "trace svc/x:80 --timeout soon": "'soon' is not a valid float",
    "trace svc/x:80 --timeout 0": "--timeout",
    "trace svc/x:80 -o wide": "'wide' is not one of",
    "trace svc/x:80 --proxy-mode fast": "--proxy-mode fast: must be one of",
    "trace svc/x:80 --cluster-cidr 10.0.0.0/99": "--cluster-cidr 10.0.0.0/99",
    "plan": "give either -f FILE or --drift",
    "plan --drift --proxy-mode fast": "--proxy-mode fast: must be one of",
    "affinity evict": "Missing argument",
    "affinity evict nobody": "nobody: must be an IP address",
    "top --interval 0": "--interval",
    "top --once --proxy-mode fast": "--proxy-mode fast: must be one of",
    "doctor --proxy-mode fast": "--proxy-mode fast: must be one of",
    "doctor --cluster-cidr nonsense": "--cluster-cidr nonsense",
    "history --since yesterday": "--since yesterday: must be a span",
    "history --at 99x": "--at 99x: must be a span",
    "history pod/x": "pod/x: must be svc/NAME",
    "wait svc/x": "either --programmed or --for",
    "wait svc/x --programmed --for=delete": "either --programmed or --for",
    "wait svc/x svc/y --programmed": "give one Service",
    "wait svc/x --for=nonsense": "nonsense",
    "wait svc/x --programmed --timeout soon": "--timeout soon",
    "delete pod/x --timeout soon": "--timeout soon",
    "delete": "-f",
    "apply": "Missing option",
    "logs": "Missing argument",
    "logs p --since soon": "--since soon",
    "logs p --tail=-2": "--tail",
    "store check --data-dir /nonexistent": "/nonexistent",
    "store backup --data-dir /nonexistent /tmp/none": "/nonexistent",
    "certificate n --node-ip here --data-dir /nonexistent": "here",
    "completion": "Missing argument",
    "completion csh": "'csh' is not one of",
    "console --port 70000": "--port",
    "console --bind-address nonsense --port 0": "cannot listen on nonsense:0",
    "controllers --controllers nonsense": "nonsense",
    "apiserver --secure-port 70000": "--secure-port",
    "apiserver --bind-address nonsense": "--bind-address",
    "proxy --proxy-mode fast": "fast",
    "proxy --config /nonexistent": "/nonexistent",
    "proxy --manifests /nonexistent": "/nonexistent",
    "node --node-ip nonsense": "--node-ip nonsense",
    "node --pod-cidr nonsense": "--pod-cidr nonsense",
    "up --proxy-mode fast": "fast",
    "lab exec nobody true --name nosuchlab": "nosuchlab",
    "lab down --name Wrong_Name": "--name Wrong_Name",
    "lab play /nonexistent": "/nonexistent",
    "lab up --nodes 0": "--nodes",
    "lab connect client svc/x:80 --name nosuchlab": "nosuchlab",
    "lab connect client --name nosuchlab": "Missing argument",
    "lab proxy stop node1 --name nosuchlab": "nosuchlab",
    "lab status --name nosuchlab": "nosuchlab",
    "lab console --name nosuchlab": "nosuchlab",
    "nonsense": "No such command 'nonsense'",
    "--nonsense": "No such option",
}


@pytest.mark.parametrize("command", WORDS)
def test_wrong_words_are_named(tmp_path: Path, command: str) -> None:
    config = tmp_path / "config"
    config.write_text(kubeconfig())
    reading = command.split()[0] in {one.split()[0] for one in (*ONCE, "node", "controllers", "console")}
    answer = svcplane(f"{command} --kubeconfig {config}" if reading and command != "affinity" else command)
    assert answer.status != 0, answer
    assert WORDS[command] in answer.err
    assert answer.out == ""
    assert (answer.err.count("\n"), answer.err.startswith("svcplane: ")) == (1, True), answer.err


LIVE: dict[str, str] = {
    "get services nobody": 'services "nobody" not found',
    "get nonsense": "nonsense",
    "get services -l 'a b c'": "unable to parse requirement",
    "get services --field-selector x=y": "x",
    "get pods/a/b": "a/b",
    "explain svc/nobody": "there is no Service nobody in namespace default",
    "explain svc/kubernetes -n nowhere": "namespace nowhere",
    "wait svc/nobody --programmed": "there is no Service nobody in namespace default",
    "wait svc/kubernetes --programmed -n nowhere": "there is no Service kubernetes in namespace nowhere",
    "wait pod/nobody --for=condition=Ready --timeout 0": "nobody",
    "delete svc/nobody": 'services "nobody" not found',
    "delete nonsense/x": "nonsense",
    "trace svc/nobody:80": "there is no Service nobody with an address in namespace default",
    "trace nonsense:80": "nonsense: is no IP address, and no svc/NAME",
    "trace svc/kubernetes:443 --from pod/nobody": "there is no Pod default/nobody",
    "trace svc/kubernetes:443 --from nobody": "--from nobody: must be pod/NAME, node, or an IPv4 address",
    "trace svc/kubernetes:443 --from fd00::1": "--from fd00::1",
    "trace svc/kubernetes:443 --node nowhere": "--node nowhere: there is no such node; there are node1",
    "top --once --node nowhere": "--node nowhere: there is no such node; there are node1",
    "affinity list --node nowhere": "--node nowhere: there is no such node; there are node1",
    "plan --drift --node nowhere": "--node nowhere: there is no such node; there are node1",
    f"apply -f {HELLO} -n nowhere": "nowhere",
}


async def test_what_a_cluster_does_not_have_is_named(tmp_path: Path) -> None:
    async with live_cluster(tmp_path) as cluster:
        await cluster.create({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node1"}})
        for command, said in LIVE.items():
            answer = await cluster.svcplane(command)
            lines = set(answer.err.strip().splitlines())
            assert (answer.status != 0, len(lines) >= 1, answer.out) == (True, True, ""), (command, answer)
            assert said in answer.err, command
            assert len(lines) == 1 or command.startswith("apply"), (command, answer.err)


SCENARIOS: dict[str, str] = {
    "": "scenario.yaml",
    "- a": "Expected `object`",
    "steps: [": "scenario.yaml",
    "steps: []": "symptom",
    "symptom: {from: client, to: 'svc/x:80'}\nsteps: []": "sees",
    "symptom: {from: client, to: 'svc/x:80', sees: answer}\nsteps: [{}]": "step 1 must have exactly one key",
    "symptom: {from: client, to: 'svc/x:80', sees: answer}\nsteps: [{dance: now}]": "dance",
    "symptom: {from: client, to: 'svc/x:80', sees: answer}\nsteps: [{apply: none.yaml}]": "none.yaml",
    "symptom: {from: client, to: 'svc/x:80', sees: answer}\nsteps: [{apply: ..}]": "..",
    "symptom: {from: client, to: 'svc/x:80', sees: answer}\nsteps: []\nmode: fast": "mode",
    "symptom: {from: client, to: 'svc/x:80', sees: answer}\nsteps: []\nnodes: 0": "nodes",
    "symptom: {from: client, to: 'svc/x:80', sees: answer}\nsteps: []\nnodes: many": "nodes",
    "symptom: {from: client, to: 'svc/x', sees: answer}\nsteps: []": "svc/x",
    "symptom: {from: client, to: 'svc/x:80', sees: answer}\nsteps: [{run: {member: node1, command: []}}]": "command",
    "symptom: {from: client, to: 'svc/x:80', sees: answer}\nsteps: [{delete: web}]": "delete",
}


@pytest.mark.parametrize("text", SCENARIOS)
def test_a_malformed_scenario_is_told_before_anything_is_made(tmp_path: Path, text: str) -> None:
    (tmp_path / "scenario.yaml").write_text(text)
    for command in ("lab play", "lab up --scenario"):
        line = fails(f"{command} {tmp_path} --name badscenario")
        assert SCENARIOS[text] in line, command
    assert not Path("/run/svcplane/lab/badscenario").exists()


def test_a_scenario_that_is_no_text_is_told(tmp_path: Path) -> None:
    (tmp_path / "scenario.yaml").write_bytes(b"\xff\xfe")
    assert "is no text" in fails(f"lab play {tmp_path}")


def ended(*argv: str, stdout: int) -> tuple[int, str]:
    """How a process of the program ends, and what it says of it."""
    done = subprocess.run([*PROGRAM, *argv], stdout=stdout, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    return done.returncode, done.stderr


def test_an_interrupt_ends_a_verb_that_waits_for_a_server_without_a_word(tmp_path: Path) -> None:
    config = tmp_path / "config"
    for verb in ("explain svc/x", f"apply -f {HELLO}", "trace svc/x:80", "logs p", "get pods -w"):
        with socket.create_server(("127.0.0.1", 0)) as silent:  # its own: some verbs connect several times
            config.write_text(kubeconfig(f"{{server: 'http://127.0.0.1:{silent.getsockname()[1]}'}}"))
            silent.settimeout(60)
            argv = [*PROGRAM, *verb.split(), "--kubeconfig", str(config)]
            with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
                connection, _ = silent.accept()
                assert connection.recv(1), "the request has come: an answer is waited for"
                process.send_signal(signal.SIGINT)
                said, _ = process.communicate(timeout=60)
                connection.close()
                assert (process.returncode, said.strip()) == (130, ""), verb


def test_a_reader_that_left_is_no_fault() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        assert ended("--help", stdout=writing) == (1, "")
    finally:
        os.close(writing)


def test_a_full_disk_is_told() -> None:
    with Path("/dev/full").open("wb") as full:
        status, said = ended("completion", "bash", stdout=full.fileno())
    assert (status != 0, said.count("\n"), "no space left on device" in said.lower()) == (True, 1, True), said
