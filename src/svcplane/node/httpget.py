"""An httpGet check's requests and what their answers mean.  Pure but for reading an answer.

Source: the kubelet's HTTP prober and Go's client: redirects are followed on the same host alone, ten at most; where one
leads elsewhere the check has succeeded, with a warning.
"""

import asyncio
from dataclasses import dataclass, replace
from urllib.parse import quote, urljoin, urlsplit

from svcplane.api.core import HTTPGetAction

MAX_REQUESTS = 10
BODY_MAX = 10 * 1024
HEADER_LINES_MAX = 1000
USER_AGENT = "kube-probe/1.36"
REDIRECTS = (301, 302, 303, 307, 308)
# what a URL may have as it stands; "%" too, since a path is given as it is to be sent
_PLAIN = "/?&=%:@!$'()*+,;~[]-._"


@dataclass(frozen=True, slots=True)
class Get:
    """One request.  `host_header`: what the user wants to be said instead of the URL's host, "" for nothing else."""

    url: str
    headers: tuple[tuple[str, str], ...]
    host_header: str = ""

    @property
    def scheme(self) -> str:
        return urlsplit(self.url).scheme

    @property
    def host(self) -> str:
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        return urlsplit(self.url).port or (443 if self.scheme == "https" else 80)

    def text(self) -> bytes:
        parts = urlsplit(self.url)
        path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        lines = [f"GET {path} HTTP/1.1", f"Host: {self.host_header or parts.netloc}"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        return "\r\n".join([*lines, "Connection: close", "", ""]).encode()


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    location: str
    body: str


def first(action: HTTPGetAction, where: str) -> Get:
    """The request an action asks for; `where` is HOST:PORT."""
    path = quote(action.path.partition("#")[0], safe=_PLAIN)
    scheme = action.scheme.lower() or "http"
    given = [(header.name, header.value) for header in action.http_headers]
    names = {name.lower() for name, _ in given}
    headers = [] if "user-agent" in names else [("User-Agent", USER_AGENT)]
    headers += [] if "accept" in names else [("Accept", "*/*")]
    hosts = [value for name, value in given if name.lower() == "host"]
    left_out = ("user-agent", "accept")  # where they are to be empty
    headers += [
        (name, value) for name, value in given if name.lower() != "host" and (value or name.lower() not in left_out)
    ]
    return Get(f"{scheme}://{where}/{path.removeprefix('/')}", tuple(headers), hosts[0] if hosts else "")


def bad_header(request: Get) -> str:
    """What is wrong with the headers, or ""."""
    for name, value in [*request.headers, ("Host", request.host_header)]:
        if any(char in name + value for char in "\r\n\0"):
            return f"invalid value of header {name!r}"
    return ""


def redirect(request: Get, answer: Answer, start: str) -> Get | None:
    """Where an answer leads, if it is to be followed.  `start`: the first request's URL."""
    if answer.status not in REDIRECTS or not answer.location:
        return None
    url = urljoin(request.url, answer.location)
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or parts.hostname != urlsplit(start).hostname:
        return None
    keep = not urlsplit(answer.location).netloc
    return replace(request, url=url.partition("#")[0], host_header=request.host_header if keep else "")


def judge(answer: Answer) -> tuple[bool, str, bool, bool]:
    """Of a last answer: success, text, False, and whether it is one with a warning."""
    if not 200 <= answer.status < 400:
        return False, f"HTTP probe failed with statuscode: {answer.status}", False, False
    if answer.status >= 300:
        return True, f"Probe terminated redirects, Response body: {answer.body}", False, True
    return True, answer.body, False, False


async def read(reader: asyncio.StreamReader) -> Answer:
    """An answer's status, and its body where somebody may want it.  Raises ValueError, EOFError, OSError."""
    while True:
        words = (await reader.readline()).split(None, 2)
        if not words:
            raise EOFError("EOF")
        if len(words) < 2 or not words[0].startswith(b"HTTP/") or not words[1].isdigit():
            raise ValueError("malformed HTTP response")
        status, location = int(words[1]), ""
        for _ in range(HEADER_LINES_MAX):
            line = await reader.readline()
            if line in (b"\r\n", b"\n", b""):
                break
            name, _, value = line.decode("latin-1").partition(":")
            if name.strip().lower() == "location":
                location = value.strip()
        if status >= 200:  # what is below announces another
            break
    body = ""
    if 300 <= status < 400:
        body = (await reader.read(BODY_MAX)).decode("utf-8", "replace")
    return Answer(status, location, body)
