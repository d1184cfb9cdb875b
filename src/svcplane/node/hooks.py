"""A container's hooks: postStart and preStop.  Source: the kubelet's lifecycle handlers."""

from dataclasses import dataclass

from svcplane.api.core import Container, LifecycleHandler
from svcplane.base.clock import Clock
from svcplane.node import checks
from svcplane.node.model import Run
from svcplane.node.sandbox import Sandbox
from svcplane.node.spec import Process


@dataclass(frozen=True, slots=True)
class Hook:
    """Where a hook runs."""

    run: Run
    container: Container
    sandbox: Sandbox
    process: Process
    clock: Clock


def post_start_of(container: Container) -> LifecycleHandler | None:
    return container.lifecycle.post_start if container.lifecycle is not None else None


def pre_stop_of(container: Container) -> LifecycleHandler | None:
    return container.lifecycle.pre_stop if container.lifecycle is not None else None


async def run_hook(handler: LifecycleHandler, hook: Hook, limit_s: float) -> str:
    """Returns what went wrong, "" if nothing did.  A command is ended after `limit_s`."""
    if handler.sleep is not None:
        await hook.clock.sleep(float(handler.sleep.seconds))
    elif handler.exec is not None:
        code, output = await hook.sandbox.exec(hook.run, hook.process, handler.exec.command, limit_s)
        return f"exit code {code}: {output.strip()}" if code else ""
    elif handler.http_get is not None:
        target = checks.Target(hook.container, hook.sandbox.namespace, hook.sandbox.identity.ips[0], _no_exec)
        result = await checks.http_get(handler.http_get, target)
        return "" if result.ok else result.text
    return ""


async def _no_exec(argv: list[str], timeout_s: float) -> tuple[int, str]:
    return 0, ""
