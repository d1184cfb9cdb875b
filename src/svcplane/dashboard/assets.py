"""Files under static/ as responses.  They hold no data of a cluster, so everybody may have them, the login form too."""

import hashlib
import importlib.resources
from functools import cache

from svcplane.api.http import Response

KINDS = {
    "html": "text/html; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "svg": "image/svg+xml",
}
#: Scripts, styles and data of this server alone; nobody may put the console into a frame.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self';"
    " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


@cache
def _files() -> dict[str, tuple[bytes, str]]:
    """Name -> content and ETag."""
    root = importlib.resources.files("svcplane.dashboard") / "static"
    found = {}
    for entry in root.iterdir():
        if entry.name.rpartition(".")[2] in KINDS:
            content = entry.read_bytes()
            found[entry.name] = (content, f'"{hashlib.sha256(content).hexdigest()[:20]}"')
    return found


def asset(name: str, if_none_match: str = "") -> Response | None:
    """One file, or 304 where the browser has it; None where there is no such file."""
    found = _files().get(name)
    if found is None:
        return None
    content, tag = found
    headers = {**HEADERS, "ETag": tag, "Content-Type": KINDS[name.rpartition(".")[2]]}
    return Response(304, b"", headers) if if_none_match == tag else Response(200, content, headers)
