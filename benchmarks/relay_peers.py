"""The relays of the benchmark, each on one core at most, and the web server behind them."""

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from svcplane.base.errors import EnvironmentProblem
from svcplane.proxy.planes.userspace import wire
from svcplane.proxy.planes.userspace.workers import Workers

HOST = "127.0.0.1"
MARK = 1 << 14  # kube-proxy's default masquerade bit
READY_WITHIN_S = 10.0
#: HAProxy as it comes, with larger buffers, and with all bytes spliced.
HAPROXY = {
    "default": ("", ""),
    "64 KiB buffers": ("tune.bufsize 65536", ""),
    "forced splice": ("tune.pipesize 262144", "option splice-request\n option splice-response"),
}
OURS = "svcplane"


@dataclass(frozen=True, slots=True)
class Pods:
    """Ports of the two Pods of each kind."""

    web: tuple[int, int]
    source: tuple[int, int]
    echo: tuple[int, int]


def free_ports(count: int) -> list[int]:
    """Ports that neither TCP nor UDP uses just now."""
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count:
            tcp = held.enter_context(socket.socket())
            udp = held.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            tcp.bind((HOST, 0))
            port = tcp.getsockname()[1]
            with contextlib.suppress(OSError):
                udp.bind((HOST, port))
                found.append(port)
    return found


async def listens(port: int) -> None:
    """Until somebody accepts TCP connections there."""
    async with asyncio.timeout(READY_WITHIN_S):
        while True:
            try:
                _, writer = await asyncio.open_connection(HOST, port)
            except OSError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return


@contextlib.asynccontextmanager
async def program(*words: str, **options: int) -> AsyncIterator[asyncio.subprocess.Process]:
    try:
        process = await asyncio.create_subprocess_exec(*words, **options)
    except FileNotFoundError as error:
        raise EnvironmentProblem(f"{words[0]} is not installed; tools/install dev does it") from error
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


def _nginx(directory: Path, name: str, body: str) -> list[str]:
    file = directory / f"{name}.conf"
    module = Path("/usr/lib/nginx/modules/ngx_stream_module.so")
    load = f"load_module {module};\n" if "stream" in body else ""
    file.write_text(
        f"{load}worker_processes 1;\ndaemon off;\npid {directory}/{name}.pid;\nerror_log stderr crit;\n"
        f"events {{ worker_connections 4096; multi_accept on; }}\n{body}\n"
    )
    return ["nginx", "-p", str(directory), "-e", "stderr", "-c", str(file)]


@contextlib.asynccontextmanager
async def web(directory: Path, ports: Sequence[int]) -> AsyncIterator[None]:
    """nginx that answers two bytes."""
    servers = "".join(
        f"server {{ listen {HOST}:{port} backlog=4096; keepalive_requests 1000000000; return 200 ok; }}\n"
        for port in ports
    )
    temporary = "".join(
        f"{kind}_temp_path {directory}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    async with program(*_nginx(directory, "web", f"http {{ access_log off;\n{temporary}{servers}}}")):
        for port in ports:
            await listens(port)
        yield


@contextlib.asynccontextmanager
async def haproxy(directory: Path, setting: str, pods: Pods) -> AsyncIterator[dict[str, int]]:
    """Where it listens for each kind of Pod."""
    tuning, options = HAPROXY[setting]
    kinds = {"web": pods.web, "source": pods.source}
    ports = dict(zip(kinds, free_ports(len(kinds)), strict=True))
    text = f"global\n nbthread 1\n maxconn 2000\n {tuning}\ndefaults\n mode tcp\n {options}\n"
    text += " timeout connect 1s\n timeout client 1d\n timeout server 1d\n retries 3\n option redispatch\n"
    for kind, (first, second) in kinds.items():
        text += f"listen {kind}\n bind {HOST}:{ports[kind]}\n"
        text += f" server a {HOST}:{first}\n server b {HOST}:{second}\n"
    file = directory / f"haproxy-{setting.replace(' ', '-')}.cfg"
    file.write_text(text)
    async with program("haproxy", "-db", "-q", "-f", str(file)):
        for port in ports.values():
            await listens(port)
        yield ports


@contextlib.asynccontextmanager
async def nginx_stream(directory: Path, pods: Pods) -> AsyncIterator[int]:
    (port,) = free_ports(1)
    first, second = pods.echo
    body = f"""stream {{
    upstream pods {{ server {HOST}:{first}; server {HOST}:{second}; }}
    server {{ listen {HOST}:{port} udp; proxy_pass pods; proxy_timeout 120s; }}
    server {{ listen {HOST}:{port}; proxy_pass pods; }}
}}"""
    async with program(*_nginx(directory, "stream", body)):
        await listens(port)
        yield port


@contextlib.asynccontextmanager
async def ours(
    pods: Pods, *, workers: int = 1, affinity_s: int = 10_800
) -> AsyncIterator[tuple[dict[str, int], Callable[[], Sequence[int]]]]:
    """Relay workers with everything on; where they listen, and how to learn their process ids."""
    relay = Workers(workers)
    ports, serves, slots = {}, [], []
    mark = MARK if os.geteuid() == 0 else 0
    for kind, pair in (("web", pods.web), ("source", pods.source), ("echo", pods.echo), ("datagrams", pods.echo)):
        protocol = "UDP" if kind == "datagrams" else "TCP"
        key = f"IPv4/bench/{kind}:p/{protocol}"
        ports[kind] = relay.open((key, False), protocol, HOST, 0)
        endpoints = tuple((HOST, port) for port in pair)
        serves.append(wire.Serve(key, protocol, cluster=endpoints, affinity_timeout_s=affinity_s, mark=mark))  # type: ignore[arg-type]
        slots.append((key, False))
    try:
        await relay.serve(serves, slots)
        yield ports, lambda: relay.pids
    finally:
        await relay.close()
