"""The PROXY protocol header: tells a Pod that asked for it the client's address.  Pure.

Source: HAProxy, "The PROXY protocol, versions 1 & 2", sections 2.1 and 2.2.
"""

import ipaddress
import struct

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
VERSION_COMMAND = 0x21  # version 2, command PROXY
STREAM_IPV4, STREAM_IPV6 = 0x11, 0x21


def header(version: int, client: tuple[str, int], service: tuple[str, int]) -> bytes:
    """The header of version 1 (text) or 2 (binary) for a TCP connection of `client` to `service`."""
    source, target = ipaddress.ip_address(client[0]), ipaddress.ip_address(service[0])
    if version == 1:
        return f"PROXY TCP{source.version} {source} {target} {client[1]} {service[1]}\r\n".encode()
    body = source.packed + target.packed + struct.pack(">HH", client[1], service[1])
    family = STREAM_IPV4 if source.version == 4 else STREAM_IPV6
    return SIGNATURE + struct.pack(">BBH", VERSION_COMMAND, family, len(body)) + body
