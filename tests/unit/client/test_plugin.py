"""Credentials from a program."""

import json
import time
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509

from svcplane.api.http import Request
from svcplane.base.clock import rfc3339
from svcplane.base.errors import ConfigError, TransportError
from svcplane.client.http import HttpTransport
from svcplane.client.kubeconfig import load
from svcplane.server.certificates import Authority, server_context

V1 = "client.authentication.k8s.io/v1"
CERT = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"


def answer(version: str = V1, **status: str) -> str:
    return json.dumps({"kind": "ExecCredential", "apiVersion": version, "status": status})


def config(directory: Path, script: str, server: str = "http://127.0.0.1:1", **fields: object) -> Path:
    """A kubeconfig whose user's plug-in is this shell script, beside it."""
    program = directory / "plugin"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    plugin = {"apiVersion": V1, "command": "./plugin", "interactiveMode": "Never", **fields}
    cluster = {"name": "c", "cluster": {"server": server}}
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    users = [{"name": "u", "user": {"exec": plugin}}]
    file = directory / "config"
    file.write_text(json.dumps({"clusters": [cluster], "contexts": [context], "users": users, "current-context": "c"}))
    return file


def test_the_program_gives_the_token_and_is_told_what_it_is_for(tmp_path: Path) -> None:
    script = f"""printf '%s' "$KUBERNETES_EXEC_INFO" > {tmp_path}/info; printf '%s %s' "$1" "$WHO" > {tmp_path}/given
cat <<END
{answer(token="abc", expirationTimestamp="2030-01-02T03:04:05Z")}
END"""
    env = [{"name": "WHO", "value": "me"}]
    access = load(config(tmp_path, script, args=["get-token"], env=env, provideClusterInfo=True))
    assert (access.token, access.expires_at) == ("abc", 1893553445)
    assert (tmp_path / "given").read_text() == "get-token me"
    assert json.loads((tmp_path / "info").read_text()) == {
        "kind": "ExecCredential",
        "apiVersion": V1,
        "spec": {"interactive": False, "cluster": {"server": "http://127.0.0.1:1"}},
    }


def test_it_may_give_a_certificate_instead(tmp_path: Path) -> None:
    text = answer(clientCertificateData=CERT, clientKeyData="k").replace("\\n", "\\\\n")
    access = load(config(tmp_path, f"printf '{text}'"))
    assert (access.cert, access.key, access.token) == (CERT, "k", "")


@pytest.mark.parametrize(
    ("script", "fields", "said"),
    [
        ("echo no access >&2; exit 3", {}, "./plugin ended with status 3: no access"),
        ("echo hello", {}, "./plugin gave no ExecCredential: "),
        ("echo '{}'", {}, "./plugin gave  , not client.authentication.k8s.io/v1"),
        (f"echo '{answer()}'", {}, "gave neither a token nor a client certificate with its key"),
        (f"echo '{answer(clientKeyData='k')}'", {}, "gave neither a token nor a client certificate with its key"),
        ("", {"apiVersion": "v1"}, "users.u.exec: apiVersion: 'v1': must be client.authentication.k8s.io/v1 or"),
        ("", {"command": ""}, "users.u.exec: command: is empty"),
        ("", {"interactiveMode": None}, "users.u.exec: interactiveMode: None: must be one of Never, IfAvailable"),
        ("", {"interactiveMode": "Always"}, "./plugin needs a terminal"),
        ("", {"command": "no-such-thing", "installHint": "install\nit"}, "`no-such-thing` is missing; install it"),
        ("", {"command": "./none", "installHint": "get it"}, "./none: No such file or directory; get it"),
        ("", {"args": "x"}, "is no kubeconfig document"),
    ],
)
def test_what_is_wrong_is_one_line(tmp_path: Path, script: str, fields: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(config(tmp_path, script, **fields))
    assert said in str(caught.value)
    assert str(caught.value).startswith(f"--kubeconfig {tmp_path}/config: ")
    assert "\n" not in str(caught.value)


class Counted:
    """A server that takes the newest token of a plug-in that counts how often it was run."""

    def __init__(self, directory: Path) -> None:
        self.directory, self.wanted, self.asked = directory, "1", 0

    def script(self, expires: str = "") -> str:
        text = answer(token="N", **({"expirationTimestamp": expires} if expires else {}))
        return f"""cd {self.directory}; echo x >> runs; test -e broken && exit 1
echo '{text}' | sed "s/\\"N\\"/\\"$(wc -l < runs)\\"/\""""

    @property
    def runs(self) -> int:
        return len((self.directory / "runs").read_text().splitlines())

    async def handle(self, request: web.Request) -> web.Response:
        self.asked += 1
        good = request.headers.get("Authorization") == f"Bearer {self.wanted}"
        return web.Response(status=200 if good else 401)


async def serve(counted: Counted) -> tuple[web.AppRunner, str]:
    app = web.Application()
    app.router.add_get("/", counted.handle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}"


async def test_a_token_that_expired_or_is_refused_is_asked_for_anew(tmp_path: Path) -> None:
    counted = Counted(tmp_path)
    runner, url = await serve(counted)
    transport = HttpTransport(load(config(tmp_path, counted.script(), url)))
    try:
        assert (await transport.send(Request("GET", "/"))).status == 200
        counted.wanted = "2"
        assert (await transport.send(Request("GET", "/"))).status == 200  # refused, asked again, taken
        assert (counted.runs, counted.asked) == (2, 3)
        counted.wanted = "never"
        assert (await transport.send(Request("GET", "/"))).status == 401  # one more try, not more
        assert (counted.runs, counted.asked) == (3, 5)
    finally:
        await transport.close()
    config(tmp_path, counted.script(rfc3339(time.time() - 5)), url)
    transport = HttpTransport(load(tmp_path / "config"))
    try:
        counted.wanted = "5"  # that of the load has expired
        assert (await transport.send(Request("GET", "/"))).status == 200
        (tmp_path / "broken").touch()
        with pytest.raises(TransportError, match="ended with status 1"):
            await transport.send(Request("GET", "/"))
    finally:
        await transport.close()
        await runner.cleanup()


async def test_a_certificate_that_expired_is_replaced_for_new_connections(tmp_path: Path) -> None:
    """The plug-in gives a certificate, which it says has expired already, and then another."""
    authority = Authority(tmp_path / "pki")
    server = authority.apiserver(["127.0.0.1"])
    for number, expires_in_s in ((1, -5), (2, 3600)):
        pair = authority.node_client()
        status = {"clientCertificateData": pair.cert.read_text(), "clientKeyData": pair.key.read_text()}
        text = answer(**status, expirationTimestamp=rfc3339(time.time() + expires_in_s))
        (tmp_path / f"answer{number}").write_text(text)
        newest = x509.load_pem_x509_certificate(pair.cert.read_bytes()).serial_number
        pair.cert.unlink()

    async def who(request: web.Request) -> web.Response:
        assert request.transport is not None
        return web.Response(text=request.transport.get_extra_info("peercert")["serialNumber"])

    app = web.Application()
    app.router.add_get("/", who)
    runner = web.AppRunner(app)
    await runner.setup()
    context = server_context(server.cert, server.key, authority.ca_path)
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context)
    await site.start()
    script = f"cd {tmp_path}; echo x >> runs; cat answer$(wc -l < runs)"
    file = config(tmp_path, script, f"https://127.0.0.1:{runner.addresses[0][1]}")
    raw = json.loads(file.read_text())
    raw["clusters"][0]["cluster"]["certificate-authority"] = str(authority.ca_path)
    file.write_text(json.dumps(raw))
    access = load(file)
    transport = HttpTransport(access)
    try:
        assert "BEGIN CERTIFICATE" in access.cert
        for _ in range(2):
            assert int((await transport.send(Request("GET", "/"))).body, 16) == newest
        assert (tmp_path / "runs").read_text() == "x\nx\n"
    finally:
        await transport.close()
        await runner.cleanup()
