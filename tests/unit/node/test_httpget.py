"""httpGet checks: what is asked, where redirects lead, and what answers mean."""

import asyncio
from typing import Any

import msgspec
import pytest

from svcplane.api.core import HTTPGetAction
from svcplane.node import httpget
from svcplane.node.httpget import Answer


def request(**fields: Any) -> httpget.Get:
    return httpget.first(msgspec.convert({"port": 80, **fields}, HTTPGetAction), "10.0.0.1:80")


def header(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}


def lines(get: httpget.Get) -> list[str]:
    return get.text().decode().split("\r\n")


def test_request_is_the_kubelets() -> None:
    wanted = ["GET / HTTP/1.1", "Host: 10.0.0.1:80", "User-Agent: kube-probe/1.36", "Accept: */*", "Connection: close"]
    assert lines(request()) == [*wanted, "", ""]


@pytest.mark.parametrize(
    ("path", "asked"),
    [("healthz?a=b", "/healthz?a=b"), ("/a b", "/a%20b"), ("/%41", "/%41"), ("/x#part", "/x"), ("", "/")],
)
def test_path_is_sent_as_it_is_given(path: str, asked: str) -> None:
    assert lines(request(path=path))[0] == f"GET {asked} HTTP/1.1"


def test_headers_of_the_probe_come_instead_of_the_usual_ones() -> None:
    given = [header("user-agent", "me"), header("Accept", ""), header("Host", "web.test"), header("X", "1")]
    assert lines(request(httpHeaders=[*given, header("X", "2")])) == [
        "GET / HTTP/1.1",
        "Host: web.test",
        "user-agent: me",
        "X: 1",
        "X: 2",
        "Connection: close",
        "",
        "",
    ]


def test_header_that_would_be_two_is_refused() -> None:
    assert httpget.bad_header(request(httpHeaders=[header("X", "1\r\nY: 2")])) == "invalid value of header 'X'"


@pytest.mark.parametrize(
    ("location", "leads"),
    [
        ("/next", "http://10.0.0.1:80/next"),
        ("https://10.0.0.1:8443/next", "https://10.0.0.1:8443/next"),
        ("http://elsewhere/", None),
        ("ftp://10.0.0.1/", None),
        ("", None),
    ],
)
def test_redirects_are_followed_on_the_same_host_alone(location: str, leads: str | None) -> None:
    first = request(httpHeaders=[header("Host", "web.test")])
    found = httpget.redirect(first, Answer(302, location, ""), first.url)
    assert (found.url if found else None) == leads
    if found is not None:
        assert found.host_header == ("web.test" if location.startswith("/") else "")


@pytest.mark.parametrize(
    ("status", "ok", "warning"),
    [(200, True, False), (204, True, False), (302, True, True), (304, True, True), (404, False, False)],
)
def test_answers_from_200_to_399_are_success_and_a_redirect_one_with_a_warning(
    status: int, ok: bool, warning: bool
) -> None:
    judged = httpget.judge(Answer(status, "", "text"))
    assert (judged[0], judged[3]) == (ok, warning)


async def answer(text: bytes) -> Answer:
    reader = asyncio.StreamReader()
    reader.feed_data(text)
    reader.feed_eof()
    return await httpget.read(reader)


async def test_answers_are_read_past_what_announces_them() -> None:
    text = b"HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 302 Found\r\nLOCATION: /x\r\n\r\nmoved"
    assert await answer(text) == Answer(302, "/x", "moved")


@pytest.mark.parametrize(("text", "error"), [(b"", EOFError), (b"SSH-2.0-x\r\n", ValueError)])
async def test_what_is_no_http_is_no_success(text: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        await answer(text)
