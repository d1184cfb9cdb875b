"""Running verbs of the command line in this process, against files or a server on a free loopback port."""

import asyncio
import contextlib
import io
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
from click.testing import CliRunner

from svcplane.api.resources import BY_KIND
from svcplane.base.errors import SvcplaneError
from svcplane.cli.main import cli, told
from svcplane.client.api import ApiClient
from svcplane.client.transport import InProcessTransport
from svcplane.testing.server import in_process_server

Tree = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    out: str
    err: str


def svcplane(command: str, stdin: str = "") -> Answer:
    """`svcplane COMMAND` as the entry point runs it."""
    result = CliRunner().invoke(cli, shlex.split(command), input=stdin, prog_name="svcplane", standalone_mode=False)
    error = result.exception
    if error is None:
        return Answer(result.return_value if isinstance(result.return_value, int) else 0, result.stdout, result.stderr)
    if not isinstance(error, (SvcplaneError, click.ClickException, SystemExit)):
        raise error
    with io.StringIO() as said, contextlib.redirect_stderr(said):
        status = told(error)
        return Answer(status if isinstance(status, int) else 0, result.stdout, result.stderr + said.getvalue())


@dataclass(frozen=True, slots=True)
class LiveCluster:
    """An API server that listens; `kubeconfig` leads to it."""

    api: ApiClient
    kubeconfig: Path
    transport: InProcessTransport

    async def create(self, *trees: Tree) -> None:
        """Objects with their status, which the API takes by itself."""
        for tree in trees:
            resource = BY_KIND[tree["apiVersion"], tree["kind"]]
            namespace = tree["metadata"].get("namespace", "default") if resource.namespaced else ""
            await self.api.create(resource, namespace, tree)
            if "status" in tree:
                name = tree["metadata"]["name"]
                await self.api.patch(resource, namespace, name, {"status": tree["status"]}, subresource="status")

    async def svcplane(self, command: str) -> Answer:
        return await asyncio.to_thread(svcplane, f"{command} --kubeconfig {self.kubeconfig}")


@asynccontextmanager
async def live_cluster(directory: Path) -> AsyncIterator[LiveCluster]:
    async with in_process_server(data_dir=directory, secure_port=0) as server:
        transport = InProcessTransport(server.handle)
        yield LiveCluster(ApiClient(transport, "test"), directory / "kubeconfig", transport)
