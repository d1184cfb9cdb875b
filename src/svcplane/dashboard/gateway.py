"""The console in front of a cluster that does not serve it: one session of `svcplane console`.

The browser shows the session's own token; the cluster is asked with the kubeconfig's credentials.  Reading only.
"""

from svcplane.api import codec
from svcplane.api import status as st
from svcplane.api.http import Request, Response
from svcplane.base.errors import TransportError
from svcplane.client.transport import Transport
from svcplane.dashboard.console import PREFIX, Console

PASSED_ON = ("/api", "/apis", "/version")
KEPT_HEADERS = ("content-type",)


class Gateway:
    """Callable as `api.http.Handler`.  Requests without the session's user are refused but for the page's files."""

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._console = Console(lambda request: transport)

    async def __call__(self, request: Request) -> Response:
        path = request.path
        if path == PREFIX or path.startswith(PREFIX + "/"):
            return await self._console(request)
        if path == "/":
            return Response(302, b"", {"Location": PREFIX})
        if not any(path == known or path.startswith(known + "/") for known in PASSED_ON):
            return Response(404, b"404 page not found\n", {"Content-Type": "text/plain"})
        if request.user is None:
            return _failure(st.unauthorized())
        if request.method != "GET":
            return _failure(st.StatusError(405, "MethodNotAllowed", "the console only reads", {}))
        headers = {key: value for key, value in request.headers.items() if key == "accept"}
        try:
            answer = await self._transport.send(Request("GET", path, request.query, headers))
        except TransportError as error:
            return _failure(st.StatusError(503, "ServiceUnavailable", str(error)))
        answer.headers = {key: value for key, value in answer.headers.items() if key.lower() in KEPT_HEADERS}
        return answer


def _failure(error: st.StatusError) -> Response:
    return Response(error.code, codec.encode(error.body()), {"Content-Type": "application/json", **error.headers})
