"""What this machine takes for the least that a figure needs: a commit to its disk, an answer over TLS."""

import asyncio
import contextlib
import socket
import sqlite3
import ssl
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

from aiohttp import web

from svcplane.server.certificates import Authority, server_context


def commits_per_second(directory: Path, commits: int) -> float:
    """Commits of one row of 1 KiB each to a SQLite database in WAL mode, each on disk before the next."""
    connection = sqlite3.connect(directory / "floor.db", isolation_level=None)
    try:
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute("CREATE TABLE item (key INTEGER PRIMARY KEY, value BLOB)")
        began = time.perf_counter()
        for number in range(commits):
            connection.execute("INSERT INTO item VALUES (?, ?)", (number, b"x" * 1024))
        return commits / (time.perf_counter() - began)
    finally:
        connection.close()


class Echo:
    """aiohttp alone, over TLS: `GET /N` answers with N bytes, `POST` with what it was sent."""

    def __init__(self, url: str, context: ssl.SSLContext) -> None:
        self.url, self.context = url, context


@contextlib.asynccontextmanager
async def echo(directory: Path) -> AsyncIterator[Echo]:
    """It runs in a process of its own, as the API server does."""
    authority = Authority(directory / "floor-pki")
    pair = authority.apiserver(["127.0.0.1"])
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(1024)
        listener.set_inheritable(True)
        port = listener.getsockname()[1]
        words = (str(listener.fileno()), str(pair.cert), str(pair.key))
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "benchmarks.floors", *words, pass_fds=(listener.fileno(),)
        )
        try:
            yield Echo(f"https://127.0.0.1:{port}", ssl.create_default_context(cafile=authority.ca_path))
        finally:
            process.kill()
            await process.wait()


def _serve(fd: int, cert: Path, key: Path) -> None:
    async def get(request: web.Request) -> web.Response:
        return web.Response(body=b"x" * int(request.match_info["size"]), content_type="application/json")

    async def post(request: web.Request) -> web.Response:
        return web.Response(status=201, body=await request.read(), content_type="application/json")

    app = web.Application()
    app.add_routes([web.get("/{size}", get), web.post("/{size}", post)])
    web.run_app(
        app, sock=socket.socket(fileno=fd), ssl_context=server_context(cert, key, None), print=None, access_log=None
    )


if __name__ == "__main__":
    import uvloop

    uvloop.install()
    _serve(int(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]))
