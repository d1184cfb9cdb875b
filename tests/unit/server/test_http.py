"""What goes over the wire beside bodies."""

import asyncio
import json
import ssl
from pathlib import Path

from svcplane.server.app import ApiServer
from svcplane.testing.server import in_process_server


async def head_of(server: ApiServer, method: str, path: str, body: bytes = b"") -> bytes:
    """The status line and headers of an answer."""
    context = ssl.create_default_context(cafile=str(server.ca_file))
    reader, writer = await asyncio.open_connection("127.0.0.1", server.port, ssl=context, server_hostname="localhost")
    lines = [f"{method} {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {server.token}"]
    lines += [f"Content-Length: {len(body)}"] if body else []
    writer.write("\r\n".join([*lines, "", ""]).encode() + body)
    async with asyncio.timeout(10):
        head = await reader.readuntil(b"\r\n\r\n")
    writer.transport.abort()
    return head


async def test_watches_carry_the_headers_of_other_answers(tmp_path: Path) -> None:
    async with in_process_server(secure_port=0, bind_address="127.0.0.1", data_dir=tmp_path) as server:
        head = await head_of(server, "GET", "/api/v1/namespaces/default/endpoints?watch=1")
    assert b"\r\nContent-Type: application/json\r\n" in head
    assert (
        b'\r\nWarning: 299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"\r\n' in head
    )


async def test_warnings_are_those_that_a_header_can_hold(tmp_path: Path) -> None:
    wanted = {"matchExpressions": [{"key": "k", "operator": "In", "values": ["a\nb"]}]}
    term = {"weight": 1, "preference": wanted}
    affinity = {"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [term]}}
    spec = {"containers": [{"name": "c", "image": "i"}], "affinity": affinity}
    pod = {"metadata": {"name": "p"}, "spec": spec, "a\nb": 1, "c\xe9": 1}
    async with in_process_server(secure_port=0, bind_address="127.0.0.1", data_dir=tmp_path) as server:
        head = await head_of(server, "POST", "/api/v1/namespaces/default/pods", json.dumps(pod).encode())
    assert head.startswith(b"HTTP/1.1 201 ")
    warnings = [line for line in head.decode().split("\r\n") if line.startswith("Warning")]
    assert warnings == [
        r'Warning: 299 - "unknown field \"a\\nb\""',
        'Warning: 299 - "unknown field \\"c\xe9\\""',
    ]
