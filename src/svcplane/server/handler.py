"""From a Request to a Response, without a transport: who may, what is asked, the registry's answer, errors."""

import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable

from svcplane.api import codec
from svcplane.api import status as st
from svcplane.api.http import Request, Response, User
from svcplane.api.resources import ENDPOINTS
from svcplane.api.strategies.endpoints import DEPRECATED
from svcplane.base.errors import StoreError
from svcplane.server import discovery
from svcplane.server.auth import Authorizer
from svcplane.server.metrics import Metrics
from svcplane.server.negotiation import YAML, Wanted, accept
from svcplane.server.options import DeleteOptions, delete_options
from svcplane.server.reading import Reader
from svcplane.server.routes import MethodNotAllowed, Route, route
from svcplane.server.writing import Writer, Written

log = logging.getLogger(__name__)
JSON = {"Content-Type": "application/json"}
LogSource = Callable[[str, str, Request], Awaitable[Response]]
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
    """Callable as `api.http.Handler`."""

    def __init__(
        self,
        reader: Reader,
        writer: Writer,
        authorizer: Authorizer,
        metrics: Metrics,
        *,
        address: str,
        audit: Callable[[str], None] | None = None,
        max_in_flight: int = 400,
        max_watches: int = 10_000,
    ) -> None:
        self._reader, self._writer, self._authorizer, self._metrics = reader, writer, authorizer, metrics
        self._address, self._audit = address, audit
        self._max_in_flight, self._max_watches = max_in_flight, max_watches
        self._in_flight = self._watches = 0
        self.pod_logs: LogSource | None = None
        self.ready = True

    async def __call__(self, request: Request) -> Response:
        """Never raises but by cancellation."""
        started = time.monotonic()
        verb, resource = request.method, ""
        try:
            found = self._route(request)
            if isinstance(found, Route):
                verb, resource = found.verb, found.resource.plural
                response = await self._object(found, request)
            else:
                response = self._path(request)
        except st.StatusError as error:
            response = Response(error.code, codec.encode(error.body()), {**JSON, **error.headers})
        except StoreError as error:
            self.ready = False  # until a write succeeds again
            log.error("the store failed: path=%s error=%s", request.path, error)
            response = _failure(st.StatusError(503, "ServiceUnavailable", str(error)))
        except Exception as error:
            log.exception("request failed: method=%s path=%s", request.method, request.path)
            response = _failure(st.internal_error(f"{type(error).__name__}: {error}"))
        if resource == ENDPOINTS.plural and DEPRECATED not in response.warnings:
            response.warnings = (DEPRECATED, *response.warnings)
        self._metrics.request(verb, resource, response.status, time.monotonic() - started)
        if verb in WRITES and self._audit is not None:
            who = request.user.name if request.user else "system:anonymous"
            self._audit(f"user={who} verb={verb} path={request.path} status={response.status} from={request.remote}")
        return response

    def _route(self, request: Request) -> Route | None:
        path = request.path
        if not path.startswith(("/api/", "/apis/")):
            return None
        watch = request.param("watch").lower() in ("true", "1")
        found = route(request.method, path, watch=watch)
        if isinstance(found, Route):
            return found
        if request.user is None:
            raise st.unauthorized()
        if isinstance(found, MethodNotAllowed):
            text = "the server does not allow this method on the requested resource"
            raise st.StatusError(405, "MethodNotAllowed", text, {})
        return None

    # -- objects -----------------------------------------------------------------------------------------------------

    async def _object(self, found: Route, request: Request) -> Response:
        user = request.user
        if user is None:
            raise st.unauthorized()
        self._authorize(found, user)
        if found.verb == "watch":
            return self._counted_watch(await self._read(found, request))
        if self._in_flight >= self._max_in_flight:
            raise st.too_many_requests("too many requests in flight, please try again later", 1)
        self._in_flight += 1
        try:
            if found.verb in WRITES:
                return await self._write(found, request)
            return await self._read(found, request)
        finally:
            self._in_flight -= 1

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
        wanted = accept(request.headers.get("accept", ""))
        reads = {"get": self._reader.get, "list": self._reader.list, "watch": self._reader.watch}
        response = await reads[found.verb](found, request, wanted)
        response.headers = dict(JSON)
        return _as_yaml(response) if wanted.media_type == YAML and response.stream is None else response

    async def _write(self, found: Route, request: Request) -> Response:
        wanted = accept(request.headers.get("accept", ""))
        if found.verb == "deletecollection":
            response = await self._delete_collection(found, request, wanted)
        else:
            verbs = {
                "create": self._writer.create,
                "update": self._writer.update,
                "patch": self._writer.patch,
                "delete": self._writer.delete,
            }
            written = await verbs[found.verb](found, request)
            self.ready = True
            response = Response(written.status, self._body(found, written, request, wanted), dict(JSON))
            response.warnings = tuple(written.warnings)
        return _as_yaml(response) if wanted.media_type == YAML else response

    def _body(self, found: Route, written: Written, request: Request, wanted: Wanted) -> bytes:
        if written.body is not None:
            return codec.encode(written.body)
        return self._reader.represent(found.resource, written.stored, written.revision, request, wanted)

    async def _delete_collection(self, found: Route, request: Request, wanted: Wanted) -> Response:
        options: DeleteOptions = delete_options(request)
        page, objects = await self._reader.collection(found, request)
        for obj in objects:
            one = Route("delete", found.resource, found.namespace, obj["metadata"]["name"])
            try:
                await self._writer.delete_object(one, options)
            except st.StatusError as error:
                if error.code != 404:
                    raise
        for obj in objects:
            del obj["apiVersion"], obj["kind"]
        head = {"kind": found.resource.list_kind, "apiVersion": found.resource.api_version}
        body = {**head, "metadata": {"resourceVersion": str(page.revision)}, "items": objects}
        return Response(200, codec.encode(body), dict(JSON))

    def _counted_watch(self, response: Response) -> Response:
        stream = response.stream
        if stream is None:
            return response
        if self._watches >= self._max_watches:
            raise st.too_many_requests("too many open watches, please try again later", 1)
        self._watches += 1
        self._metrics.watches.set(self._watches)

        async def counted() -> AsyncIterator[bytes]:
            try:
                async for chunk in stream:
                    yield chunk
            finally:
                self._watches -= 1
                self._metrics.watches.set(self._watches)
                await stream.aclose()  # type: ignore[attr-defined]

        response.stream = counted()
        return response

    # -- other paths ---------------------------------------------------------------------------------------------------

    def _path(self, request: Request) -> Response:
        path = request.path.rstrip("/") or "/"
        if not self._authorizer.allows_path(request.user, request.method, path):
            if request.user is None:
                raise st.unauthorized()
            raise st.StatusError(403, "Forbidden", f'User "{request.user.name}" cannot {request.method} path "{path}"')
        if request.method not in ("GET", "HEAD"):
            return self._no_document(path)
        if path.split("/")[1] in ("healthz", "livez", "readyz"):
            return self._health(request, path.split("/")[1])
        if path == "/metrics":
            return Response(200, self._metrics.render(), {"Content-Type": "text/plain; version=0.0.4"})
        if path == "/":
            return Response(200, codec.encode({"paths": ROOT_PATHS}), dict(JSON))
        return self._document(path, request) or self._no_document(path)

    @staticmethod
    def _no_document(path: str) -> Response:
        if path.startswith(("/api/", "/apis/")):
            raise st.StatusError(404, "NotFound", "the server could not find the requested resource", {})
        return Response(404, b"404 page not found\n", {"Content-Type": "text/plain; charset=utf-8"})

    def _health(self, request: Request, name: str) -> Response:
        ok = self.ready or name == "livez"
        verbose = any(key == "verbose" for key, _ in request.query)
        lines = f"[+]ping ok\n[{'+' if ok else '-'}]store {'ok' if ok else 'failed'}\n"
        text = lines + f"{name} check {'passed' if ok else 'failed'}\n" if verbose or not ok else "ok"
        headers = {"Content-Type": "text/plain; charset=utf-8", "X-Content-Type-Options": "nosniff"}
        return Response(200 if ok else 500, text.encode(), headers)

    def _document(self, path: str, request: Request) -> Response | None:
        parts = path.strip("/").split("/")
        wanted = accept(request.headers.get("accept", "")) if parts[0] in ("api", "apis", "version") else Wanted()
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
            case ["openapi", "v2"]:
                body = discovery.openapi_v2()
            case ["openapi", "v3"]:
                body = discovery.openapi_v3_index()
            case ["openapi", "v3", *rest]:
                body = discovery.openapi_v3("/".join(rest))
        return None if body is None else Response(200, codec.encode(body), headers)


def _failure(error: st.StatusError) -> Response:
    return Response(error.code, codec.encode(error.body()), dict(JSON))


def _as_yaml(response: Response) -> Response:
    import msgspec
    import yaml

    text = yaml.safe_dump(msgspec.json.decode(response.body), sort_keys=False)
    response.body, response.headers = text.encode(), {"Content-Type": YAML}
    return response
