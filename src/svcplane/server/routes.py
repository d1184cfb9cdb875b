"""URL path and method -> what is asked.  Pure.  Source: k8s.io/apiserver/pkg/endpoints/request RequestInfo."""

import msgspec

from svcplane.api.resources import NODES, RESOURCES, Resource

_BY_PREFIX: dict[str, dict[str, Resource]] = {}
for _row in RESOURCES:
    _BY_PREFIX.setdefault(_row.prefix, {})[_row.plural] = _row


class Route(msgspec.Struct, frozen=True, gc=False):
    """An API request.  `verb` is Kubernetes' word: get, list, watch, create, update, patch, delete,
    deletecollection."""

    verb: str
    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


class NotFound(msgspec.Struct, frozen=True, gc=False):
    """No such path."""


class MethodNotAllowed(msgspec.Struct, frozen=True, gc=False):
    """The path exists, the method does not."""


_ON_OBJECT = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete", "HEAD": "get"}
_ON_COLLECTION = {"GET": "list", "POST": "create", "DELETE": "deletecollection", "HEAD": "list"}


def route(method: str, path: str, *, watch: bool) -> Route | NotFound | MethodNotAllowed:
    """`path` below /api or /apis."""
    parts = [part for part in path.split("/") if part]
    depth = 2 if parts[:1] == ["api"] else 3
    resources = _BY_PREFIX.get("/" + "/".join(parts[:depth]))
    rest = parts[depth:]
    if resources is None or not rest:
        return NotFound()
    below_watch = rest[0] == "watch"
    if below_watch:
        rest = rest[1:]
    if resources.get(rest[0]) is NODES and rest[2:3] == ["proxy"]:
        return Route("get", NODES, "", rest[1], "proxy") if method in ("GET", "HEAD") else MethodNotAllowed()
    namespace = ""
    if rest[:1] == ["namespaces"] and len(rest) > 2 and rest[2] not in ("status", "finalize"):
        namespace, rest = rest[1], rest[2:]
    resource = resources.get(rest[0]) if rest else None
    if resource is None or len(rest) > 3 or (namespace and not resource.namespaced):
        return NotFound()
    name, subresource = (*rest[1:], "", "")[:2]
    if name and resource.namespaced and not namespace:
        return NotFound()
    if subresource and (below_watch or subresource not in resource.subresources):
        return NotFound()
    verb = (_ON_OBJECT if name and subresource != "binding" else _ON_COLLECTION).get(method)
    if verb is None or not _allowed(verb, resource, namespace, subresource):
        return MethodNotAllowed()
    if below_watch and verb not in ("list", "get"):
        return MethodNotAllowed()
    if below_watch or (watch and verb == "list"):  # who names an object asks for that alone
        verb = "watch"
    return Route(verb, resource, namespace, name, subresource)


def _allowed(verb: str, resource: Resource, namespace: str, subresource: str) -> bool:
    if subresource == "log":
        return verb == "get"
    if subresource == "binding":
        return verb == "create"
    if subresource == "finalize":
        return verb == "update"
    if subresource:
        return verb in ("get", "update", "patch")
    if resource.namespaced and not namespace and verb in ("create", "deletecollection"):
        return False
    return verb in resource.verbs
