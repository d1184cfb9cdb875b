"""Connections out of a lab's namespace, made by this process."""

import asyncio
from collections import Counter

from svcplane.base.net import family_of
from svcplane.kernel.links.run import open_socket

ANSWER_TIMEOUT_S = 3.0
AT_ONCE = 10


async def ask(namespace: str, ip: str, port: int, timeout_s: float = ANSWER_TIMEOUT_S) -> str:
    """Who answers one new TCP connection; `refused`, `timeout` or `closed` where nobody does."""
    made = open_socket(namespace, family_of(ip))
    loop = asyncio.get_running_loop()
    try:
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
        return (error.strerror or str(error)).lower()
    finally:
        made.close()


async def ask_many(namespace: str, ip: str, port: int, count: int) -> Counter[str]:
    """Who answered how many of `count` connections."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one() -> str:
        async with gate:
            return await ask(namespace, ip, port)

    return Counter(await asyncio.gather(*(one() for _ in range(count))))
