"""Paths and methods become operations."""

import pytest

from svcplane.server.routes import MethodNotAllowed, NotFound, Route, route


@pytest.mark.parametrize(
    ("method", "path", "verb", "plural", "namespace", "name", "subresource"),
    [
        ("GET", "/api/v1/services", "list", "services", "", "", ""),
        ("GET", "/api/v1/namespaces/a/services", "list", "services", "a", "", ""),
        ("POST", "/api/v1/namespaces/a/services", "create", "services", "a", "", ""),
        ("DELETE", "/api/v1/namespaces/a/services", "deletecollection", "services", "a", "", ""),
        ("PUT", "/api/v1/namespaces/a/services/b/status", "update", "services", "a", "b", "status"),
        ("GET", "/api/v1/namespaces/a", "get", "namespaces", "", "a", ""),
        ("PUT", "/api/v1/namespaces/a/finalize", "update", "namespaces", "", "a", "finalize"),
        ("GET", "/api/v1/namespaces/a/pods/b/log", "get", "pods", "a", "b", "log"),
        ("GET", "/api/v1/nodes/b/proxy", "get", "nodes", "", "b", "proxy"),
        ("GET", "/api/v1/nodes/b/proxy/stats/summary", "get", "nodes", "", "b", "proxy"),
        ("GET", "/apis/discovery.k8s.io/v1/endpointslices", "list", "endpointslices", "", "", ""),
        ("GET", "/api/v1/watch/services", "watch", "services", "", "", ""),
        ("GET", "/api/v1/watch/namespaces/a/services/b", "watch", "services", "a", "b", ""),
    ],
)
def test_path_of_an_object_becomes_its_operation(
    method: str, path: str, verb: str, plural: str, namespace: str, name: str, subresource: str
) -> None:
    found = route(method, path, watch=False)
    assert isinstance(found, Route)
    assert (found.verb, found.resource.plural, found.namespace) == (verb, plural, namespace)
    assert (found.name, found.subresource) == (name, subresource)


def test_watch_parameter_turns_a_list_into_a_watch() -> None:
    for path, verb in (("/api/v1/services", "watch"), ("/api/v1/namespaces/a/services/b", "get")):
        found = route("GET", path, watch=True)
        assert isinstance(found, Route)
        assert found.verb == verb


@pytest.mark.parametrize(
    "path",
    [
        "/api/v2/services",
        "/api/v1/nosuch",
        "/apis/apps/v1/deployments",
        "/api/v1/services/b",
        "/api/v1/namespaces/a/nodes/b",
        "/api/v1/namespaces/a/services/b/log",
        "/api/v1/namespaces/a/services/b/status/more",
        "/api/v1/watch/namespaces/a/services/b/status",
    ],
)
def test_unknown_path_is_not_found(path: str) -> None:
    assert route("GET", path, watch=False) == NotFound()


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/namespaces/a/services/b"),
        ("POST", "/api/v1/services"),
        ("DELETE", "/api/v1/services"),
        ("DELETE", "/api/v1/namespaces/a/services/b/status"),
        ("PUT", "/api/v1/namespaces/a/pods/b/log"),
        ("GET", "/api/v1/namespaces/a/finalize"),
        ("POST", "/api/v1/watch/namespaces/a/services"),
        ("DELETE", "/api/v1/watch/namespaces/a/services/b"),
    ],
)
def test_method_a_path_does_not_offer_is_not_allowed(method: str, path: str) -> None:
    assert route(method, path, watch=False) == MethodNotAllowed()


def test_nodes_are_only_read_through() -> None:
    assert isinstance(route("POST", "/api/v1/nodes/b/proxy/run/x", watch=False), MethodNotAllowed)
