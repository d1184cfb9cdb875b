"""Connections out of a lab's namespace, made by this process."""

import asyncio
import os
import socket
from collections import Counter

from svcplane.base.net import family_of
from svcplane.kernel.links.run import open_socket

ANSWER_TIMEOUT_S = 3.0
AT_ONCE = 10
FAILED = ("refused", "timeout", "closed")  # else the kernel's words, more than one


async def ask(
    namespace: str,
    ip: str,
    port: int,
    timeout_s: float = ANSWER_TIMEOUT_S,
    source: str = "",
    *,
    udp: bool = False,
    source_port: int = 0,
) -> str:
    """Who answers one new TCP connection, or a datagram, from an address and a port of the namespace's where given;
    `refused`, `timeout` or `closed` where nobody does."""
    made = open_socket(namespace, family_of(ip), socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    loop = asyncio.get_running_loop()
    try:
        if source or source_port:
            made.bind((source, source_port))
        async with asyncio.timeout(timeout_s):
            await loop.sock_connect(made, (ip, port))
            await loop.sock_sendall(made, b"who\n")
            answer = await loop.sock_recv(made, 4096)
            return answer.decode().strip() or "closed"
    except TimeoutError:
        return "timeout"
    except ConnectionRefusedError:
        return "refused"
    except OSError as error:
        return reason(error)
    finally:
        made.close()


def reason(error: OSError) -> str:
    """The kernel's word; asyncio puts its own in the place of it."""
    return (os.strerror(error.errno) if error.errno else str(error)).lower()


def answered(said: str) -> bool:
    """Whether `ask` gave the name of who answers."""
    return said not in FAILED and " " not in said


async def ask_many(namespace: str, ip: str, port: int, count: int, *, udp: bool = False) -> Counter[str]:
    """Who answered how many of `count` connections."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> str:
        async with gate:
            return await ask(namespace, ip, port, udp=udp)

    return Counter(await asyncio.gather(*(one() for _ in range(count))))
