"""Who is meant by one kubeconfig, and by several."""

import json
from pathlib import Path
from typing import Any

import pytest

from svcplane.base.errors import ConfigError
from svcplane.client.kubeconfig import ClusterAccess, component_access, load


def written(file: Path, **fields: Any) -> Path:
    file.parent.mkdir(exist_ok=True)
    file.write_text(json.dumps({key.replace("_", "-"): value for key, value in fields.items()}))
    return file


def cluster(name: str, **fields: str) -> dict[str, Any]:
    return {"name": name, "cluster": {key.replace("_", "-"): value for key, value in fields.items()}}


@pytest.fixture
def both(tmp_path: Path) -> str:
    """The first has the current context and its cluster, the second the user, and a cluster of the same name."""
    (tmp_path / "two").mkdir()
    (tmp_path / "two" / "token").write_text("secret\n")
    one = written(
        tmp_path / "one" / "config",
        contexts=[{"name": "here", "context": {"cluster": "c", "user": "u", "namespace": "shop"}}],
        clusters=[cluster("c", server="http://192.0.2.1:80")],
        current_context="here",
    )
    two = written(
        tmp_path / "two" / "config",
        contexts=[{"name": "there", "context": {"cluster": "d", "user": "u"}}],
        clusters=[cluster("c", server="http://192.0.2.9:80"), cluster("d", server="http://192.0.2.2:80")],
        users=[{"name": "u", "user": {"tokenFile": "token"}}],
        current_context="there",
    )
    return f"{tmp_path / 'none'}:{one}::{two}"


def test_the_first_file_that_says_something_counts(both: str) -> None:
    access = load(both)
    assert (access.server, access.namespace, access.token) == ("http://192.0.2.1:80", "shop", "secret")
    assert load(both, context="there").server == "http://192.0.2.2:80"


def test_what_a_file_names_lies_beside_it(both: str) -> None:
    assert load(both).token_file == str(Path(both.rpartition(":")[2]).parent / "token")


def test_files_that_are_not_there_are_told_where_none_is(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=rf"--kubeconfig {tmp_path}/a: No such file"):
        load(f"{tmp_path}/a:{tmp_path}/b")


def test_a_file_that_is_no_kubeconfig_is_told_among_several(both: str, tmp_path: Path) -> None:
    (tmp_path / "bad").write_text("clusters: 7")
    with pytest.raises(ConfigError, match=rf"--kubeconfig {tmp_path}/bad: is no kubeconfig document"):
        load(f"{both}:{tmp_path / 'bad'}")


def test_a_colon_in_the_name_of_one_file_is_no_separator(tmp_path: Path) -> None:
    file = written(
        tmp_path / "a:b",
        contexts=[{"name": "x", "context": {"cluster": "c"}}],
        clusters=[cluster("c", server="http://192.0.2.1:80")],
        current_context="x",
    )
    assert load(str(file)).server == "http://192.0.2.1:80"


def test_an_entry_that_no_file_has_is_named(both: str) -> None:
    with pytest.raises(ConfigError, match="contexts: there is no 'nowhere'"):
        load(both, context="nowhere")


def test_a_component_is_told_the_server_with_and_without_a_kubeconfig(
    both: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    assert component_access("", "http://192.0.2.7:8080/") == ClusterAccess("http://192.0.2.7:8080")
    assert component_access(both, "http://192.0.2.7:8080") == load(both, master="http://192.0.2.7:8080")
    assert component_access(both) == load(both)
    with pytest.raises(ConfigError, match="--master: here: must be a URL"):
        component_access("", "here")
    with pytest.raises(ConfigError, match="no --kubeconfig given, and this is no Pod"):
        component_access("")
