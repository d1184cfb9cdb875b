"""Bearer tokens that are renewed in their file."""

from pathlib import Path

import pytest

from svcplane.client import http, kubeconfig


async def test_a_renewed_token_is_used_within_a_minute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file, now = tmp_path / "token", [0.0]
    file.write_text("old\n")
    monkeypatch.setattr(http.time, "monotonic", lambda: now[0])
    wallet = http._Wallet(kubeconfig.ClusterAccess("http://a", token="old", token_file=str(file)))
    file.write_text("new\n")
    now[0] = http.TOKEN_LOOK_S - 1
    assert (await wallet.credentials()).headers == {"Authorization": "Bearer old"}
    now[0] = http.TOKEN_LOOK_S
    assert (await wallet.credentials()).headers == {"Authorization": "Bearer new"}
    file.unlink()
    now[0] *= 3
    assert (await wallet.credentials()).headers == {"Authorization": "Bearer new"}


async def test_connections_are_kept_when_the_token_alone_is_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, now = tmp_path / "token", [0.0]
    monkeypatch.setattr(http.time, "monotonic", lambda: now[0])
    wallet = http._Wallet(kubeconfig.ClusterAccess("https://a", token="old", token_file=str(file)))
    before = await wallet.credentials()
    file.write_text("new\n")
    now[0] = http.TOKEN_LOOK_S
    after = await wallet.credentials()
    assert after.headers == {"Authorization": "Bearer new"}
    assert after.context is before.context


async def test_without_a_token_nothing_is_sent() -> None:
    assert (await http._Wallet(kubeconfig.ClusterAccess("http://a")).credentials()).headers == {}


def test_a_kubeconfig_remembers_where_its_token_came_from(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("abc\n")
    text = """
clusters: [{name: c, cluster: {server: "http://127.0.0.1:1"}}]
users: [{name: u, user: {tokenFile: token}}]
contexts: [{name: x, context: {cluster: c, user: u}}]
current-context: x
"""
    (tmp_path / "config").write_text(text)
    access = kubeconfig.load(tmp_path / "config")
    assert (access.token, access.token_file) == ("abc", str(tmp_path / "token"))
