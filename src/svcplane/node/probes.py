"""Readiness, liveness and startup probes: thresholds and schedule as pure functions, and the three checks.

Source: the kubelet's prober.  A result counts once it was seen successThreshold or failureThreshold times in a
row.  Until then: liveness counts as success, readiness and startup as failure.  Readiness and liveness wait for
startup.  Checks are made from inside the Pod's namespace to the Pod's address.
"""

import asyncio
import contextlib
import ssl
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Protocol

from svcplane.api.core import Container, HTTPGetAction, Probe
from svcplane.base.errors import KernelError
from svcplane.base.net import family_of, join_host_port
from svcplane.kernel.links.run import open_socket
from svcplane.node.model import Health
from svcplane.node.spec import port_number

BODY_MAX = 10 * 1024


class Kind(StrEnum):
    """The word is the one in the events' text."""

    STARTUP = "Startup"
    LIVENESS = "Liveness"
    READINESS = "Readiness"


@dataclass(frozen=True, slots=True)
class Tally:
    """One probe's record: how often in a row the last result came, and the verdict in force."""

    last_ok: bool | None = None
    in_a_row: int = 0
    verdict: bool | None = None  # None: not yet decided


@dataclass(frozen=True, slots=True)
class Result:
    ok: bool
    text: str = ""


def fold(tally: Tally, probe: Probe, ok: bool) -> Tally:
    """The record after one more result."""
    count = tally.in_a_row + 1 if tally.last_ok is ok else 1
    threshold = probe.success_threshold if ok else probe.failure_threshold
    verdict = ok if count >= max(1, threshold) else tally.verdict
    return Tally(ok, count, verdict)


def probes_of(container: Container) -> dict[Kind, Probe]:
    pairs = (
        (Kind.STARTUP, container.startup_probe),
        (Kind.LIVENESS, container.liveness_probe),
        (Kind.READINESS, container.readiness_probe),
    )
    return {kind: probe for kind, probe in pairs if probe is not None}


def due(kind: Kind, health: Health, has_startup: bool) -> bool:
    """Whether a probe is to be made at all now."""
    if health.failed:
        return False
    if kind is Kind.STARTUP:
        return not health.started
    return health.started or not has_startup


def health_at_start(container: Container) -> Health:
    """A container that has just been started."""
    started = container.startup_probe is None
    return Health(started=started, ready=started and container.readiness_probe is None)


def verdict(health: Health, container: Container, kind: Kind, tally: Tally, text: str) -> Health:
    """What a probe's record means for the container."""
    probe = probes_of(container)[kind]
    if tally.verdict is None:
        return health
    if kind is Kind.READINESS:
        return replace(health, ready=tally.verdict)
    if tally.verdict:
        if kind is Kind.STARTUP and not health.started:
            return replace(health, started=True, ready=container.readiness_probe is None)
        return health
    grace = probe.termination_grace_period_seconds
    word = kind.value.lower()
    failed = f"Container {container.name} failed {word} probe, will be restarted"
    return replace(health, ready=False, failed=failed, grace_s=grace)


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
    try:
        async with asyncio.timeout(timeout):
            if probe.exec is not None:
                code, output = await target.exec(probe.exec.command, timeout)
                return Result(code == 0, output.strip())
            if probe.http_get is not None:
                return await http_get(probe.http_get, target)
            if probe.tcp_socket is not None:
                return await tcp_socket(probe.tcp_socket.port, probe.tcp_socket.host, target)
    except TimeoutError:
        return Result(False, f"timeout: no answer within {timeout:g}s")
    except (OSError, KernelError) as error:
        return Result(False, str(error))
    return Result(True)


async def _connect(
    host: str, port: int, target: Target, context: ssl.SSLContext | None = None
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    made = open_socket(target.namespace, family_of(host))
    try:
        await asyncio.get_running_loop().sock_connect(made, (host, port))
        return await asyncio.open_connection(sock=made, ssl=context, server_hostname="" if context else None)
    except BaseException:
        made.close()
        raise


async def _close(writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()


async def tcp_socket(port: int | str, host: str, target: Target) -> Result:
    number = port_number(target.container, port)
    if number is None:
        return Result(False, f"couldn't find port: {port!r} in container {target.container.name}")
    where = host or target.ip
    try:
        _, writer = await _connect(where, number, target)
    except OSError as error:
        return Result(False, f"dial tcp {join_host_port(where, number)}: connect: {reason(error)}")
    await _close(writer)
    return Result(True)


async def http_get(action: HTTPGetAction, target: Target) -> Result:
    """GET; 200 to 399 is success."""
    port = port_number(target.container, action.port)
    if port is None:
        return Result(False, f"couldn't find port: {action.port!r} in container {target.container.name}")
    host = action.host or target.ip
    scheme = action.scheme.lower() or "http"
    path = action.path if action.path.startswith("/") else f"/{action.path}"
    url = f"{scheme}://{join_host_port(host, port)}{path}"
    context = _unverified() if scheme == "https" else None
    try:
        reader, writer = await _connect(host, port, target, context)
    except OSError as error:
        where = join_host_port(host, port)
        return Result(False, f'Get "{url}": dial tcp {where}: connect: {reason(error)}')
    try:
        headers = {"Host": join_host_port(host, port), "User-Agent": "kube-probe/svcplane", "Accept": "*/*"}
        headers |= {header.name: header.value for header in action.http_headers}
        lines = [f"GET {path} HTTP/1.1", *(f"{key}: {value}" for key, value in headers.items()), "Connection: close"]
        writer.write("\r\n".join([*lines, "", ""]).encode())
        await writer.drain()
        words = (await reader.readline()).split(None, 2)
        if len(words) < 2 or not words[1].isdigit():
            return Result(False, f'Get "{url}": malformed HTTP response')
        status = int(words[1])
        return Result(200 <= status < 400, f"HTTP probe failed with statuscode: {status}")
    except OSError as error:
        return Result(False, f'Get "{url}": {reason(error)}')
    finally:
        await _close(writer)


def reason(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _unverified() -> ssl.SSLContext:
    """The kubelet does not verify certificates of probed containers either."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


@dataclass(slots=True)
class Prober:
    """All probes of one run.  `changed` is called with the new Health, `failed` with a probe's failure text."""

    target: Target
    health: Health
    sleep: Callable[[float], Awaitable[None]]
    changed: Callable[[Health], None]
    failed: Callable[[Kind, str], None]
    terminating: bool = False

    async def run(self) -> None:
        """Until cancelled.  Raises nothing."""
        async with asyncio.TaskGroup() as group:
            for kind, probe in probes_of(self.target.container).items():
                group.create_task(self._one(kind, probe), name=f"{kind} {self.target.container.name}")

    async def _one(self, kind: Kind, probe: Probe) -> None:
        container = self.target.container
        tally = Tally()
        await self.sleep(float(probe.initial_delay_seconds))
        while True:
            if kind is Kind.STARTUP and (self.health.started or self.health.failed):
                return
            if due(kind, self.health, container.startup_probe is not None) and self._wanted(kind):
                result = await check(probe, self.target)
                tally = fold(tally, probe, result.ok)
                if not result.ok:
                    self.failed(kind, result.text)
                health = verdict(self.health, container, kind, tally, result.text)
                if health != self.health:
                    self.health = health
                    self.changed(health)
            await self.sleep(float(max(1, probe.period_seconds)))

    def _wanted(self, kind: Kind) -> bool:
        """A terminating Pod's readiness is still watched (it may serve); it is not restarted any more."""
        return kind is Kind.READINESS or not self.terminating
