"""From a Request to a Response, without a transport: who may, what is asked, the registry's answer, errors."""

import logging
import time
from collections.abc import Awaitable, Callable

import msgspec

from svcplane.api import codec, go_yaml
from svcplane.api import status as st
from svcplane.api.http import Closing, Handler, Request, Response, User
from svcplane.api.resources import ENDPOINTS
from svcplane.api.strategies.endpoints import DEPRECATED
from svcplane.base.errors import StoreError
from svcplane.base.metrics import CONTENT_TYPE
from svcplane.server import discovery, openapi_protobuf
from svcplane.server.auth import Authorizer
from svcplane.server.binding import Binder
from svcplane.server.deleting import Deleter
from svcplane.server.impersonation import acting
from svcplane.server.metrics import Asked, Metrics
from svcplane.server.metrics import asked as measured
from svcplane.server.negotiation import YAML, Wanted, accept
from svcplane.server.options import DeleteOptions, check_timeout, delete_options, flag
from svcplane.server.patching import Patcher
from svcplane.server.reading import Reader
from svcplane.server.reviews import Reviews
from svcplane.server.reviews import find as find_review
from svcplane.server.routes import MethodNotAllowed, Route, route
from svcplane.server.writing import Writer
from svcplane.server.written import Written

log = logging.getLogger(__name__)
JSON_TYPE = "application/json"
#: What is read with somebody's credentials is nobody else's, and of this moment.
JSON = {"Content-Type": JSON_TYPE, "Cache-Control": "no-cache, private"}
#: From so many bytes on, an answer is not copied for the sake of its last line end.
LARGE = 1 << 20
LogSource = Callable[[str, str, Request], Awaitable[Response]]
NodeSource = Callable[[str, Request], Awaitable[Response]]
ROOT_PATHS = [
    *(
        "/api",
        "/api/v1",
        "/apis",
        "/healthz",
        "/livez",
        "/metrics",
        "/openapi/v2",
        "/openapi/v3",
        "/readyz",
        "/version",
    ),
]
WRITES = frozenset({"create", "update", "patch", "delete", "deletecollection"})


class ApiHandler:
    """Callable as `api.http.Handler`.

    `mounted`: first part of a path -> who answers there, and decides who may ask.
    """

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        patcher: Patcher,
        deleter: Deleter,
        binder: Binder,
        authorizer: Authorizer,
        reviews: Reviews,
        metrics: Metrics,
        *,
        address: str,
        audit: Callable[[str], None] | None = None,
        max_in_flight: int = 400,
        max_watches: int = 10_000,
    ) -> None:
        self._reader, self._authorizer, self._metrics = reader, authorizer, metrics
        self._reviews = reviews
        self._writer, self._patcher, self._deleter, self._binder = writer, patcher, deleter, binder
        self._address, self._audit = address, audit
        self._max_in_flight, self._max_watches = max_in_flight, max_watches
        self._in_flight = self._writing = self._watches = 0
        metrics.in_flight.labels("mutating").set_function(lambda: self._writing)
        metrics.in_flight.labels("readOnly").set_function(lambda: self._in_flight - self._writing)
        self.pod_logs: LogSource | None = None
        self.node_proxy: NodeSource | None = None
        self.mounted: dict[str, Handler] = {}
        self._writable = True

    async def __call__(self, request: Request) -> Response:
        """Never raises but by cancellation."""
        started = time.monotonic()
        verb, resource, asking, about = request.method, "", request.user, Asked(request.method)
        try:
            other = self.mounted.get("/".join(request.path.split("/", 2)[:2]))
            if other is not None:
                return await other(request)
            request = acting(request, self._authorizer)
            asked = find_review(request.path)
            found = self._route(request) if asked is None else None
            if asked is not None:
                verb, resource = "create", asked[0].plural
                about = measured(verb, asked[0])
                response = Response(201, codec.encode(self._reviews.answer(*asked, request)), dict(JSON))
            elif isinstance(found, Route):
                verb, resource = found.verb, found.resource.plural
                about = measured(verb, found.resource, found.subresource, name=found.name, namespace=found.namespace)
                response = await self._object(found, request)
            else:
                response = await self._path(request)
        except st.StatusError as error:
            response = Response(error.code, codec.encode(error.body()), {**JSON, **error.headers})
        except StoreError as error:
            if verb in WRITES:
                self._writable = False  # until a write succeeds again
            log.error("the store failed: path=%s error=%s", request.path, error)
            response = _failure(st.StatusError(503, "ServiceUnavailable", str(error)))
        except RecursionError:
            response = _failure(st.bad_request("the request is nested too deeply"))
        except Exception as error:
            log.exception("request failed: method=%s path=%s", request.method, request.path)
            response = _failure(st.internal_error(f"{type(error).__name__}: {error}"))
        if resource == ENDPOINTS.plural and DEPRECATED not in response.warnings:
            response.warnings = (DEPRECATED, *response.warnings)
        if response.stream is None and response.headers.get("Content-Type") == JSON_TYPE:
            _present(request, response)
        self._metrics.request(about, response.status, time.monotonic() - started)
        if verb in WRITES and self._audit is not None:
            who = _in_one_line(_name(asking))
            if request.user is not asking:
                who += f" as={_in_one_line(_name(request.user))}"
            path = _in_one_line(request.path)
            self._audit(f"user={who} verb={verb} path={path} status={response.status} from={request.remote}")
        return response

    def _route(self, request: Request) -> Route | None:
        path = request.path
        if not path.startswith(("/api/", "/apis/")):
            return None
        watch = bool(flag(request, "watch"))
        found = route(request.method, path, watch=watch)
        if isinstance(found, Route):
            return found
        if request.user is None:
            raise st.unauthorized()
        if isinstance(found, MethodNotAllowed):
            raise _method_not_allowed()
        return None

    # -- objects -----------------------------------------------------------------------------------------------------

    async def _object(self, found: Route, request: Request) -> Response:
        user = request.user
        if user is None:
            raise st.unauthorized()
        self._authorize(found, user)
        if found.verb == "watch":
            return await self._watch(found, request)
        if found.subresource not in ("log", "proxy"):
            check_timeout(request)
        if self._in_flight >= self._max_in_flight:
            self._metrics.refused.inc()
            raise st.too_many_requests("too many requests in flight, please try again later", 1)
        self._in_flight += 1
        writes = found.verb in WRITES
        self._writing += writes
        try:
            return await (self._write(found, request) if writes else self._read(found, request))
        finally:
            self._in_flight -= 1
            self._writing -= writes

    def _authorize(self, found: Route, user: User) -> None:
        resource = found.resource.plural + (f"/{found.subresource}" if found.subresource else "")
        if self._authorizer.allows(user, found.verb, resource, found.namespace):
            return
        where = f' in the namespace "{found.namespace}"' if found.namespace else " at the cluster scope"
        why = (
            f'User "{user.name}" cannot {found.verb} resource "{resource}" in API group "{found.resource.group}"{where}'
        )
        raise st.forbidden(found.resource.plural, found.name, why, found.resource.group)

    async def _read(self, found: Route, request: Request) -> Response:
        if found.subresource == "log":
            if self.pod_logs is None:
                raise st.StatusError(503, "ServiceUnavailable", "no node agent serves logs")
            return await self.pod_logs(found.namespace, found.name, request)
        if found.subresource == "proxy":
            if self.node_proxy is None:
                raise st.StatusError(503, "ServiceUnavailable", "no node agent can be asked")
            return await self.node_proxy(found.name, request)
        wanted = accept(request.headers.get("accept", ""), streamed=found.verb != "get")
        reads = {"get": self._reader.get, "list": self._reader.list, "watch": self._reader.watch}
        response = await reads[found.verb](found, request, wanted)
        response.headers = dict(JSON)
        return response

    async def _write(self, found: Route, request: Request) -> Response:
        wanted = accept(request.headers.get("accept", ""))
        if found.verb == "deletecollection":
            response = await self._delete_collection(found, request, wanted)
        else:
            verbs = {
                "create": self._binder.bind if found.subresource == "binding" else self._writer.create,
                "update": self._writer.update,
                "patch": self._patcher.patch,
                "delete": self._deleter.delete,
            }
            written = await verbs[found.verb](found, request)
            self._writable = True
            response = Response(written.status, self._body(found, written, request, wanted), dict(JSON))
            response.warnings = tuple(written.warnings)
        return response

    def _body(self, found: Route, written: Written, request: Request, wanted: Wanted) -> bytes:
        if written.body is not None:
            return codec.encode(written.body)
        return self._reader.represent(found.resource, written.stored, written.revision, request, wanted)

    async def _delete_collection(self, found: Route, request: Request, wanted: Wanted) -> Response:
        options: DeleteOptions = delete_options(request)
        response, page = await self._reader.collection(found, request, wanted)
        for item in page.items:
            one = Route("delete", found.resource, found.namespace, item.key.rpartition("/")[2])
            try:
                await self._deleter.delete_object(one, options)
            except st.StatusError as error:
                if error.code != 404:
                    raise
        response.headers = dict(JSON)
        return response

    async def _watch(self, found: Route, request: Request) -> Response:
        if self._watches >= self._max_watches:
            raise st.too_many_requests("too many open watches, please try again later", 1)
        self._watches += 1
        response = None
        try:
            response = await self._read(found, request)
        finally:
            if response is None or response.stream is None:
                self._watches -= 1
        if response.stream is not None:
            response.stream = Closing(response.stream, self._watch_closed)
        self._metrics.watches.set(self._watches)
        return response

    async def _watch_closed(self) -> None:
        self._watches -= 1
        self._metrics.watches.set(self._watches)

    # -- other paths ---------------------------------------------------------------------------------------------------

    async def _path(self, request: Request) -> Response:
        path = request.path.rstrip("/") or "/"
        if not self._authorizer.allows_path(request.user, request.method, path):
            if request.user is None:
                raise st.unauthorized()
            raise st.StatusError(403, "Forbidden", f'User "{request.user.name}" cannot {request.method} path "{path}"')
        first = path.removeprefix("/").partition("/")[0]
        if first in ("healthz", "livez", "readyz"):
            return await self._health(request, first)
        if request.method not in ("GET", "HEAD"):
            if self._document(path, request) is not None:
                raise _method_not_allowed()
            return self._no_document(path)
        if path == "/metrics":
            return Response(200, await self._metrics.render(), {"Content-Type": CONTENT_TYPE})
        if path == "/":
            return Response(200, codec.encode({"paths": ROOT_PATHS}), dict(JSON))
        return self._document(path, request) or self._no_document(path)

    @staticmethod
    def _no_document(path: str) -> Response:
        parts = path.strip("/").split("/")
        if parts[0] == "api" or (parts[0] == "apis" and parts[1:2] and parts[1] in discovery.GROUPS):
            raise st.StatusError(404, "NotFound", "the server could not find the requested resource", {})
        return Response(404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})

    async def _health(self, request: Request, name: str) -> Response:
        ok = name == "livez" or (self._writable and await self._reader.reachable())
        verbose = any(key == "verbose" for key, _ in request.query)
        lines = f"[+]ping ok\n[{'+' if ok else '-'}]store {'ok' if ok else 'failed'}\n"
        text = lines + f"{name} check {'passed' if ok else 'failed'}\n" if verbose or not ok else "ok"
        headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
        return Response(200 if ok else 500, text.encode(), headers)

    def _document(self, path: str, request: Request) -> Response | None:
        parts = path.strip("/").split("/")
        negotiated, grouped = parts[0] in ("api", "apis", "version"), parts in (["api"], ["apis"])
        wanted = accept(request.headers.get("accept", ""), grouped=grouped) if negotiated else Wanted()
        headers = dict(JSON)
        body: object | None = None
        match parts:
            case ["api"] | ["apis"] if wanted.form == "APIGroupDiscoveryList":
                body = discovery.aggregated(parts[0] == "api", wanted.version)
                kind = f"application/json;g=apidiscovery.k8s.io;v={wanted.version};as=APIGroupDiscoveryList"
                headers["Content-Type"] = kind
            case ["api"]:
                body = discovery.api_versions(self._address)
            case ["apis"]:
                body = discovery.api_groups()
            case ["api", "v1"]:
                body = discovery.api_resources("")
            case ["apis", group]:
                body = discovery.api_group(group)
            case ["apis", group, "v1"]:
                body = discovery.api_resources(group)
            case ["version"]:
                body = discovery.version()
            case ["openapi", "v2"] if openapi_protobuf.ACCEPTED in request.headers.get("accept", ""):
                return Response(200, openapi_protobuf.openapi_v2(), {"Content-Type": openapi_protobuf.MEDIA_TYPE})
            case ["openapi", "v2"]:
                body = discovery.openapi_v2()
            case ["openapi", "v3"]:
                body = discovery.openapi_v3_index()
            case ["openapi", "v3", *rest]:
                body = discovery.openapi_v3("/".join(rest))
        return None if body is None else Response(200, codec.encode(body), headers)


def _method_not_allowed() -> st.StatusError:
    text = "the server does not allow this method on the requested resource"
    return st.StatusError(405, "MethodNotAllowed", text, {})


def _name(user: User | None) -> str:
    return user.name if user else "system:anonymous"


def _in_one_line(text: str) -> str:
    """What a client chose, so that it cannot look like another field or another line."""
    if text.isprintable() and " " not in text:
        return text
    return "".join(c if c.isprintable() and c != " " else f"%{ord(c):02x}" for c in text)


def _failure(error: st.StatusError) -> Response:
    return Response(error.code, codec.encode(error.body()), dict(JSON))


def _present(request: Request, response: Response) -> None:
    """A body of JSON as YAML, or with line ends for people, where that is asked for; else it is one line."""
    if _wants_yaml(request, response):
        text = go_yaml.written(msgspec.json.decode(response.body))
        response.body, response.headers = text.encode(), {**response.headers, "Content-Type": YAML}
    elif _wants_lines(request):
        response.body = msgspec.json.format(response.body, indent=2)
    elif len(response.body) < LARGE:
        response.body += b"\n"


def _wants_yaml(request: Request, response: Response) -> bool:
    """Errors come in YAML too, but in no other form than their own."""
    header = request.headers.get("accept", "")
    if "yaml" not in header:
        return False
    try:
        wanted = accept(header)
    except st.StatusError:
        return False
    return wanted.media_type == YAML and (response.status < 400 or not wanted.form)


def _wants_lines(request: Request) -> bool:
    """Whether a person looks on.  Source: k8s.io/apiserver pkg/endpoints/handlers/negotiation isPrettyPrint."""
    if asked := request.param("pretty"):
        return asked in ("1", "t", "T", "true", "TRUE", "True")
    if "pretty=1" in request.headers.get("accept", ""):
        return True
    people = request.headers.get("user-agent", "").startswith(("curl", "Wget", "Mozilla/5.0"))
    return people and not request.path.startswith("/openapi/")
