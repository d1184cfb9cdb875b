"""How understanding verbs read a cluster: through a kubeconfig, or from files."""

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import click
import yaml

from svcplane.api.resources import (
    ENDPOINT_SLICES,
    EVENTS,
    LEASES,
    NODES,
    PODS,
    SERVICES,
    Resource,
)
from svcplane.api.status import StatusError
from svcplane.base.errors import ConfigError
from svcplane.client.api import ApiClient
from svcplane.client.http import HttpTransport
from svcplane.client.kubeconfig import ClusterAccess, in_cluster, load
from svcplane.client.transport import Transport
from svcplane.understand.view import ClusterView, from_trees

Tree = dict[str, Any]
KUBECONFIG = click.option(
    "--kubeconfig", envvar="KUBECONFIG", default="", help="[default: $KUBECONFIG, ~/.kube/config]"
)
NAMESPACE = click.option("-n", "--namespace", default="", help="[default: that of the kubeconfig's context]")
FILES = click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Read manifests or dumps (`kubectl get ... -o yaml`) instead of a cluster; `-` is standard input.",
)
FORMS = ("*.yaml", "*.yml", "*.json")
HOME_CONFIG = Path("~/.kube/config")


def access(kubeconfig: str) -> ClusterAccess:
    """By flag or variable, else the home directory's, else the Pod's service account.  Raises ConfigError."""
    if kubeconfig:
        return load(kubeconfig)
    home = HOME_CONFIG.expanduser()
    return load(home) if home.exists() else in_cluster()


@contextlib.asynccontextmanager
async def connected(found: ClusterAccess) -> AsyncIterator[tuple[ApiClient, Transport]]:
    transport = HttpTransport(found)
    try:
        yield ApiClient(transport, "svcplane-cli"), transport
    finally:
        await transport.close()


async def read_cluster(client: ApiClient, *, leases: str = "") -> ClusterView:
    """Everything the story of a Service needs.  `leases`: the namespace to read Leases of.

    What the user may not read, or the server does not have, is left out where the story can do without.
    """
    wanted = ((SERVICES, True), (PODS, True), (ENDPOINT_SLICES, True), (NODES, False), (EVENTS, False))
    lists = [_list(client, resource, needed) for resource, needed in wanted]
    if leases:
        lists.append(_list(client, LEASES, False, leases))
    trees = await asyncio.gather(*lists)
    return from_trees([tree for group in trees for tree in group], live=True, now_s=time.time())


async def _list(client: ApiClient, resource: Resource, needed: bool, namespace: str = "") -> list[Tree]:
    try:
        items = (await client.list(resource, namespace)).get("items") or []
    except StatusError as error:
        if needed or error.code not in (403, 404):
            raise
        return []
    return [{**item, "kind": resource.kind, "apiVersion": resource.api_version} for item in items]


def read_files(paths: Sequence[Path]) -> list[Tree]:
    """All objects of YAML or JSON files and directories of them.  Raises ConfigError naming the file."""
    found: list[Tree] = []
    for path in paths:
        names = sorted(file for form in FORMS for file in path.glob(form)) if path.is_dir() else [path]
        if not names:
            raise ConfigError(f"-f {path}: there are no manifests in this directory")
        for file in names:
            try:
                trees = [tree for tree in yaml.load_all(_text(file), _TextLoader) if tree is not None]
            except OSError as error:
                raise ConfigError(f"-f {file}: {error.strerror}") from error
            except UnicodeDecodeError as error:
                raise ConfigError(f"-f {file}: is no text in UTF-8") from error
            except (yaml.YAMLError, RecursionError) as error:
                raise ConfigError(f"-f {file}: {' '.join(str(error).split())}") from error
            if not all(isinstance(tree, dict) for tree in trees):
                raise ConfigError(f"-f {file}: every document must be a Kubernetes object")
            found += trees
    return found


def _text(file: Path) -> str:
    return sys.stdin.read() if str(file) == "-" else file.read_text()


class _TextLoader(yaml.SafeLoader):
    """Times stay texts, as the API has them."""


_TextLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:timestamp"]
    for first, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}


def view_of(kubeconfig: str, files: Sequence[Path], namespace: str, *, leases: str = "") -> tuple[ClusterView, str]:
    """The cluster or the files, and the namespace in question."""
    if files:
        chosen = namespace or "default"
        return from_trees(read_files(files), live=False, now_s=time.time(), namespace=chosen), chosen
    found = access(kubeconfig)

    async def read() -> ClusterView:
        async with connected(found) as (client, _):
            return await read_cluster(client, leases=leases)

    return asyncio.run(read()), namespace or found.namespace


def service_name(text: str) -> str:
    """`svc/NAME`, `service/NAME`, `services/NAME` or `NAME`.  Raises ConfigError."""
    kind, slash, name = text.rpartition("/")
    if slash and kind.lower() not in ("svc", "service", "services"):
        raise ConfigError(f"{text}: must be svc/NAME")
    if not name:
        raise ConfigError(f"{text}: must be svc/NAME")
    return name


def complete_service(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion: names of Services, in the form begun; none where the cluster does not answer."""
    with contextlib.suppress(Exception):
        params = ctx.params
        view, namespace = view_of(
            params.get("kubeconfig") or os.environ.get("KUBECONFIG", ""), (), params.get("namespace") or ""
        )
        names = [f"svc/{s.metadata.name}" for s in view.services if s.metadata.namespace == namespace]
        return [name for name in names if name.startswith(incomplete) or incomplete in ("s", "sv")]
    return []
