"""What goes over the wire beside bodies."""

import asyncio
import ssl
from pathlib import Path

from svcplane.testing.server import in_process_server


async def test_watches_carry_the_headers_of_other_answers(tmp_path: Path) -> None:
    async with in_process_server(secure_port=0, bind_address="127.0.0.1", data_dir=tmp_path) as server:
        context = ssl.create_default_context(cafile=str(server.ca_file))
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", server.port, ssl=context, server_hostname="localhost"
        )
        path = "/api/v1/namespaces/default/endpoints?watch=1"
        lines = [f"GET {path} HTTP/1.1", "Host: localhost", f"Authorization: Bearer {server.token}", "", ""]
        writer.write("\r\n".join(lines).encode())
        async with asyncio.timeout(10):
            head = await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()
    assert b"\r\nContent-Type: application/json\r\n" in head
    assert (
        b'\r\nWarning: 299 - "v1 Endpoints is deprecated in v1.33+; use discovery.k8s.io/v1 EndpointSlice"\r\n' in head
    )
