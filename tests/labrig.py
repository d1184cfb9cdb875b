"""A lab for tests of what people run: `svcplane` and other commands in its members, objects through its API."""

import asyncio
import os
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

from svcplane.api.resources import BY_KIND
from svcplane.client.api import ApiClient
from svcplane.kernel import uml
from svcplane.kernel.links.run import command_in, inside
from svcplane.lab.cluster import Cluster
from svcplane.lab.topology import Lab

PROGRAM = [sys.executable, "-c", "from svcplane.cli.main import main; main()"]
#: User-mode Linux has one processor, and system calls cost it ten times as much.
SLOWNESS = 4.0 if uml.INSIDE in os.environ else 1.0
WAIT_S = 30.0 * SLOWNESS
T = TypeVar("T")
Tree = dict[str, Any]


class LabRig:
    """Use as a context manager: the lab is up inside it, and gone after it."""

    def __init__(self, name: str, state: Path, mode: str = "nftables", nodes: int = 2) -> None:
        self.cluster = Cluster(Lab(name, nodes), mode, state)

    def __enter__(self) -> "LabRig":
        try:
            asyncio.run(self.cluster.up())
        except BaseException:
            asyncio.run(self.cluster.down())
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run(self.cluster.down())

    def run(self, member: str, command: str, *, timeout_s: float = 30.0) -> subprocess.CompletedProcess[str]:
        """A command in a member, KUBECONFIG set; `svcplane` is this tree's."""
        argv = shlex.split(command)
        if argv[0] == "svcplane":
            argv = [*PROGRAM, *argv[1:]]
        return subprocess.run(
            command_in(self.cluster.namespace(member), argv),
            capture_output=True,
            text=True,
            timeout=timeout_s * SLOWNESS,
            check=False,
            env={**_environment(), "KUBECONFIG": str(self.cluster.kubeconfig)},
        )

    def api(self, work: Callable[[ApiClient], Any]) -> Any:
        """Run `await work(client)` in the control namespace, on a thread of its own."""
        result: list[Any] = []
        failure: list[BaseException] = []

        async def call() -> Any:
            client, transport = self.cluster.client()
            try:
                return await work(client)
            finally:
                await transport.close()

        def body() -> None:
            try:
                with inside(self.cluster.namespace("control")):
                    result.append(asyncio.run(call()))
            except BaseException as error:
                failure.append(error)

        thread = threading.Thread(target=body)
        thread.start()
        thread.join()
        if failure:
            raise failure[0]
        return result[0]

    def create(self, trees: Iterable[Tree]) -> None:
        for tree in trees:
            resource = BY_KIND[tree["apiVersion"], tree["kind"]]
            namespace = tree["metadata"].get("namespace", "default") if resource.namespaced else ""
            self.api(lambda api, r=resource, n=namespace, t=tree: api.create(r, n, t))

    def until(self, done: Callable[[], T], what: str = "") -> T:
        """Wait for something true; what it gave."""
        end = time.monotonic() + WAIT_S
        while True:
            found = done()
            if found:
                return found
            if time.monotonic() > end:
                raise AssertionError(f"not within {WAIT_S:g} s: {what}; last: {found!r}")
            time.sleep(0.1)


def _environment() -> dict[str, str]:
    return {key: value for key, value in os.environ.items() if key != "KUBECONFIG"} | {"COLUMNS": "200"}
