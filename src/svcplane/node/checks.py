"""The checks that probes and hooks make: exec, httpGet, tcpSocket, gRPC.  I/O.

Made from inside the Pod's namespace to the Pod's address.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from svcplane.api.core import Container, GRPCAction, HTTPGetAction, Probe
from svcplane.base.errors import KernelError, reason_of
from svcplane.base.net import family_of, join_host_port
from svcplane.kernel.links.run import open_socket
from svcplane.node import grpchealth, httpget
from svcplane.node.spec import port_number


@dataclass(frozen=True, slots=True)
class Result:
    """`unknown`: the check itself could not be made, which counts neither way; `warning`: a success to be told of."""

    ok: bool
    text: str = ""
    unknown: bool = False
    warning: bool = False


class Exec(Protocol):
    """Runs a command in the container's surroundings: exit code and output.  Ends by itself at the timeout."""

    def __call__(self, argv: list[str], timeout_s: float) -> Awaitable[tuple[int, str]]: ...


@dataclass(frozen=True, slots=True)
class Target:
    """Where a container's probes go."""

    container: Container
    namespace: str  # network namespace; "" is the agent's own
    ip: str
    exec: Exec


async def check(probe: Probe, target: Target) -> Result:
    """One probe; every failure is a Result.  Takes at most the probe's timeout."""
    timeout = float(max(1, probe.timeout_seconds))
    late = f"timeout: no answer within {timeout:g}s"
    if probe.tcp_socket is not None:
        number = port_number(target.container, probe.tcp_socket.port)
        late = f"dial tcp {join_host_port(probe.tcp_socket.host or target.ip, number or 0)}: i/o timeout"
    elif probe.http_get is not None:
        number = port_number(target.container, probe.http_get.port)
        url = httpget.first(probe.http_get, join_host_port(probe.http_get.host or target.ip, number or 0)).url
        late = f'Get "{url}": context deadline exceeded (Client.Timeout exceeded while awaiting headers)'
    try:
        async with asyncio.timeout(timeout):
            if probe.exec is not None:
                code, output = await target.exec(probe.exec.command, timeout)
                return Result(code == 0, output.strip())
            if probe.http_get is not None:
                return await http_get(probe.http_get, target)
            if probe.tcp_socket is not None:
                return await tcp_socket(probe.tcp_socket.port, probe.tcp_socket.host, target)
            if probe.grpc is not None:
                return await grpc(probe.grpc, target)
    except TimeoutError:
        return Result(False, late)
    except (OSError, KernelError) as error:
        return Result(False, str(error))
    return Result(True)


def no_port(port: int | str, target: Target) -> Result:
    return Result(False, f"couldn't find port: {port!r} in container {target.container.name}", unknown=True)


async def connect(
    host: str, port: int, target: Target, context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    made = open_socket(target.namespace, family_of(host))
    try:
        await asyncio.get_running_loop().sock_connect(made, (host, port))
        return await asyncio.open_connection(sock=made, ssl=context, server_hostname="" if context else None)
    except BaseException:
        made.close()
        raise


async def close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


async def tcp_socket(port: int | str, host: str, target: Target) -> Result:
    number = port_number(target.container, port)
    if number is None:
        return no_port(port, target)
    where = host or target.ip
    try:
        _, writer = await connect(where, number, target)
    except OSError as error:
        return Result(False, f"dial tcp {join_host_port(where, number)}: connect: {reason_of(error)}")
    await close(writer)
    return Result(True)


async def grpc(action: GRPCAction, target: Target) -> Result:
    """The gRPC health protocol; SERVING is success."""
    where = join_host_port(target.ip, action.port)
    try:
        reader, writer = await connect(target.ip, action.port, target)
    except OSError as error:
        return Result(False, f'error: failed to connect service "{where}": {reason_of(error)}')
    try:
        return Result(*await grpchealth.ask(reader, writer, where, action.service))
    except (OSError, EOFError) as error:
        return Result(False, f'error: health rpc of "{where}" failed: {error}')
    finally:
        await close(writer)


async def http_get(action: HTTPGetAction, target: Target) -> Result:
    """GET, following redirects on the same host; 200 to 399 is success, a redirect not followed one with a warning."""
    port = port_number(target.container, action.port)
    if port is None:
        return no_port(action.port, target)
    request: httpget.Get | None = httpget.first(action, join_host_port(action.host or target.ip, port))
    assert request is not None
    start = request.url
    if problem := httpget.bad_header(request):
        return Result(False, f'Get "{start}": {problem}')
    for _ in range(httpget.MAX_REQUESTS):
        try:
            answer = await _ask(request, target)
        except TimeoutError:
            raise
        except (OSError, EOFError, ValueError) as error:
            return Result(
                False, f'Get "{request.url}": {error if not isinstance(error, OSError) else reason_of(error)}'
            )
        following = httpget.redirect(request, answer, start)
        if following is None:
            return Result(*httpget.judge(answer))
        request = following
    return Result(False, f'Get "{request.url}": stopped after {httpget.MAX_REQUESTS} redirects')


async def _ask(request: httpget.Get, target: Target) -> httpget.Answer:
    """Raises OSError, EOFError, ValueError."""
    context = _unverified() if request.scheme == "https" else None
    try:
        reader, writer = await connect(request.host, request.port, target, context)
    except ssl.SSLError as error:
        plain = "http: server gave HTTP response to HTTPS client"
        raise ValueError(plain if error.reason == "WRONG_VERSION_NUMBER" else f"tls: {error.reason}") from error
    except OSError as error:
        where = join_host_port(request.host, request.port)
        raise ValueError(f"dial tcp {where}: connect: {reason_of(error)}") from error
    try:
        writer.write(request.text())
        await writer.drain()
        return await httpget.read(reader)
    finally:
        await close(writer)


def _unverified() -> ssl.SSLContext:
    """The kubelet does not verify certificates of probed containers either."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
