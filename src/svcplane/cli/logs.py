"""`svcplane logs`: what a Pod's containers wrote, as `kubectl logs`."""

import asyncio
import re
import signal
import sys

import click

from svcplane.base.errors import ConfigError
from svcplane.cli.reading import KUBECONFIG, NAMESPACE, access

UNITS = {"s": 1, "m": 60, "h": 3600}


def seconds(text: str) -> int:
    """A duration such as 90s, 5m or 1h30m.  Raises ConfigError."""
    if not re.fullmatch(r"(\d+h)?(\d+m)?(\d+s)?", text) or not text:
        raise ConfigError(f"--since {text}: must be a duration such as 90s, 5m or 1h30m")
    return sum(int(number) * UNITS[unit] for number, unit in re.findall(r"(\d+)([hms])", text))


@click.command(short_help="Show what a Pod's containers wrote.")
@click.argument("pod")
@KUBECONFIG
@NAMESPACE
@click.option("-c", "--container", default="", help="Needed where the Pod has several.")
@click.option("-f", "--follow", is_flag=True, help="Go on until the container ends.")
@click.option("-p", "--previous", is_flag=True, help="Of the container's previous run.")
@click.option("--tail", default=-1, show_default=True, type=click.IntRange(-1), help="The last lines only; -1: all.")
@click.option("--since", default="", help="Only what is newer than a duration such as 5m.")
@click.option("--timestamps", is_flag=True, help="Each line's time in front of it.")
def logs(
    pod: str,
    kubeconfig: str,
    namespace: str,
    container: str,
    follow: bool,
    previous: bool,
    tail: int,
    since: str,
    timestamps: bool,
) -> None:
    """Write a Pod's log to standard output."""
    query = {
        "container": container,
        "follow": "true" if follow else "",
        "previous": "true" if previous else "",
        "tailLines": str(tail) if tail >= 0 else "",
        "sinceSeconds": str(seconds(since)) if since else "",
        "timestamps": "true" if timestamps else "",
    }
    given = {key: value for key, value in query.items() if value}
    asyncio.run(_show(kubeconfig, namespace, pod.removeprefix("pod/").removeprefix("pods/"), given))


async def _show(kubeconfig: str, namespace: str, pod: str, query: dict[str, str]) -> None:
    from svcplane.api.resources import PODS
    from svcplane.client.api import ApiClient
    from svcplane.client.http import HttpTransport

    task = asyncio.current_task()
    assert task is not None
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    found = access(kubeconfig)
    transport = HttpTransport(found)
    path = PODS.path(namespace or found.namespace, pod, "log")
    try:
        answer = await ApiClient(transport, "svcplane-logs").call("GET", path, query=query)
        sys.stdout.buffer.write(answer.body)
        if answer.stream is not None:
            async for chunk in answer.stream:
                sys.stdout.buffer.write(chunk)
                sys.stdout.buffer.flush()
        sys.stdout.buffer.flush()
    finally:
        await transport.close()
