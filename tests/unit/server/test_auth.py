"""Tokens, roles, and what nobody may do."""

import pytest

from svcplane.api.http import Request, User
from svcplane.base.errors import ConfigError
from svcplane.server.auth import Authorizer, bearer, parse_rules, parse_tokens
from svcplane.testing.server import Caller, in_process_server

ROLES = """
rules:
- users: [reader]
  role: read-only
- groups: [team-a]
  role: admin
  namespaces: [a]
- users: [scraper]
  verbs: [get]
  resources: [metrics]
"""
READER, TEAM_A = User("reader"), User("carol", frozenset({"team-a"}))
SERVICE = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}


@pytest.fixture
def authorizer() -> Authorizer:
    return Authorizer(parse_rules(ROLES, "roles.yaml"))


def test_token_file_line_gives_user_and_groups() -> None:
    tokens = parse_tokens('# who\nabc,alice,7,"one,two"\nxyz,bob,8\n', "tokens.csv")
    assert tokens["abc"] == User("alice", frozenset({"one", "two", "system:authenticated"}), "7")
    assert tokens["xyz"].groups == {"system:authenticated"}


@pytest.mark.parametrize("line", ["abc", "abc,alice", ",alice,7", "abc,,7"])
def test_token_file_with_a_short_line_is_refused_by_number(line: str) -> None:
    with pytest.raises(ConfigError, match="line 2"):
        parse_tokens(f"ok,a,1\n{line}\n", "tokens.csv")


def test_token_file_fault_does_not_show_the_token() -> None:
    with pytest.raises(ConfigError) as caught:
        parse_tokens("verysecret,alice\n", "tokens.csv")
    assert "verysecret" not in str(caught.value)


def test_bearer_header_finds_its_user_and_only_its_user() -> None:
    tokens = parse_tokens("abc,alice,7\n", "tokens.csv")
    assert bearer("Bearer abc", tokens) == tokens["abc"]
    assert bearer("bearer abc", tokens) == tokens["abc"]
    assert bearer("Bearer abcd", tokens) is None
    assert bearer("Basic abc", tokens) is None
    assert bearer("Bearer ", tokens) is None


def test_reader_may_read_everywhere_and_write_nowhere(authorizer: Authorizer) -> None:
    assert authorizer.allows(READER, "watch", "services", "")
    assert not authorizer.allows(READER, "create", "services", "a")
    assert not authorizer.allows(READER, "delete", "namespaces", "")


def test_namespaced_admin_is_nobody_elsewhere(authorizer: Authorizer) -> None:
    assert authorizer.allows(TEAM_A, "delete", "services", "a")
    assert not authorizer.allows(TEAM_A, "get", "services", "b")
    assert not authorizer.allows(TEAM_A, "list", "services", "")


def test_unknown_user_is_denied(authorizer: Authorizer) -> None:
    assert not authorizer.allows(User("nobody"), "get", "services", "a")


def test_metrics_need_a_rule(authorizer: Authorizer) -> None:
    assert not authorizer.allows_path(TEAM_A, "GET", "/metrics")
    assert authorizer.allows_path(User("scraper"), "GET", "/metrics")
    assert not authorizer.allows_path(None, "GET", "/metrics")


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("rules: 3", "rules"),
        ("rules: [{users: [a]}]", r"rules\[0\]"),
        ("rules: [{users: [a], role: king}]", r"rules\[0\].role"),
        ("rules: [{user: a, role: admin}]", r"rules\[0\].user"),
        ("{", "roles.yaml"),
    ],
)
def test_role_file_with_a_fault_is_refused_by_place(text: str, place: str) -> None:
    with pytest.raises(ConfigError, match=place):
        parse_rules(text, "roles.yaml")


@pytest.mark.parametrize("path", ["/healthz", "/livez", "/readyz", "/readyz?verbose", "/version"])
async def test_anonymous_may_ask_after_health_and_version(path: str) -> None:
    async with in_process_server() as server:
        assert (await Caller(server.handle, None).send("GET", path)).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api"),
        ("GET", "/api/v1/services"),
        ("GET", "/metrics"),
        ("GET", "/openapi/v2"),
        ("POST", "/api/v1/namespaces/default/services"),
        ("PUT", "/api/v1/namespaces/default/services/kubernetes"),
        ("PATCH", "/api/v1/namespaces/default/services/kubernetes"),
        ("DELETE", "/api/v1/namespaces/default/services/kubernetes"),
        ("POST", "/healthz"),
        ("POST", "/api/v1/nosuch"),
    ],
)
async def test_anonymous_gets_nothing_else(method: str, path: str) -> None:
    async with in_process_server() as server:
        status, body = await Caller(server.handle, None).call(method, path, SERVICE)
        assert (status, body["reason"]) == (401, "Unauthorized")


async def test_reader_that_writes_is_forbidden_with_upstreams_words(tmp_path: object) -> None:
    async with in_process_server() as server:
        status, body = await Caller(server.handle, READER).call("POST", "/api/v1/namespaces/default/services", SERVICE)
        assert (status, body["reason"]) == (403, "Forbidden")
        assert body["message"] == (
            'services is forbidden: User "reader" cannot create resource "services" in API group "" '
            'in the namespace "default"'
        )


async def test_write_leaves_one_audit_line_without_its_body() -> None:
    lines: list[str] = []
    async with in_process_server(audit=lines.append) as server:
        lines.clear()
        await Caller(server.handle).call("POST", "/api/v1/namespaces/default/services", SERVICE)
        await Caller(server.handle).call("GET", "/api/v1/namespaces/default/services/web")
    assert len(lines) == 1
    assert "verb=create" in lines[0]
    assert "status=201" in lines[0]
    assert "spec" not in lines[0]


async def test_a_name_that_a_client_chose_cannot_forge_an_audit_line() -> None:
    lines: list[str] = []
    async with in_process_server(audit=lines.append) as server:
        forged = User("eve status=200\nuser=admin", frozenset({"system:masters"}))
        path = "/api/v1/namespaces/default/services/x%0auser=admin verb=create\u2028".replace("%0a", "\n")
        await server.handle(Request("DELETE", path, user=forged))
    line = lines[-1]
    assert line.startswith("user=eve%20status=200%0auser=admin verb=delete path=/api/v1/")
    assert "\n" not in line
    assert line.count(" ") == 4


@pytest.mark.parametrize("field", ["users", "groups", "resources", "namespaces", "verbs"])
@pytest.mark.parametrize("value", ["alice", "[]", "", "[1]", '[""]', "{a: b}"])
def test_a_list_of_names_that_is_none_is_refused(field: str, value: str) -> None:
    """An empty list of namespaces would mean all of them; a text would be taken letter by letter."""
    fields = {"users": "[bob]", "verbs": "[get]"} | {field: value}
    text = "rules:\n- " + "\n  ".join(f"{name}: {value}" for name, value in fields.items())
    with pytest.raises(ConfigError, match=rf"rules\[0\]\.{field}: must be a list of names"):
        parse_rules(text, "roles.yaml")
