"""`svcplane apply -f FILE`: server-side apply of manifests."""

from pathlib import Path

import click

from svcplane.api.status import StatusError
from svcplane.base.errors import ConfigError
from svcplane.cli.objects import (
    MANAGER,
    Tree,
    end,
    label,
    object_namespace,
    resource_of_object,
    shown,
    tell,
    with_client,
)
from svcplane.cli.reading import KUBECONFIG, NAMESPACE, read_files
from svcplane.client.api import ApiClient
from svcplane.understand.view import flat


@click.command(short_help="Apply manifests: files, directories, or standard input.")
@click.option(
    "-f",
    "--filename",
    "files",
    multiple=True,
    required=True,
    type=click.Path(path_type=Path),
    help="YAML or JSON; a directory's files; `-` is standard input.",
)
@click.option("--dry-run", is_flag=True, help="Let the server check, and change nothing; `svcplane plan` tells more.")
@click.option("--force-conflicts", is_flag=True, help="Take over fields that another manager has.")
@click.option("--field-manager", default=MANAGER, show_default=True, help="Under which name fields are owned.")
@KUBECONFIG
@NAMESPACE
def apply(
    files: tuple[Path, ...], dry_run: bool, force_conflicts: bool, field_manager: str, kubeconfig: str, namespace: str
) -> None:
    """Make objects as the manifests say.  The exit status is 1 where one was refused; the others are applied."""
    trees = [dict(tree) for tree in flat(read_files(files))]
    if not trees:
        raise ConfigError(f"-f {', '.join(map(str, files))}: there is no object in it")
    query = {"fieldManager": field_manager}
    query |= {"force": "true"} if force_conflicts else {}
    query |= {"dryRun": "All"} if dry_run else {}

    async def work(client: ApiClient, default: str) -> int:
        failed = 0
        for tree in trees:
            try:
                said = await _apply(client, tree, namespace, default, query)
            except (StatusError, ConfigError) as error:
                if isinstance(error, StatusError) and error.code == 401:
                    raise  # nor would the others be applied
                tell(error)
                failed += 1
            else:
                click.echo(said + (" (dry run)" if dry_run else ""))
        return failed

    end(with_client(kubeconfig, work))


async def _apply(client: ApiClient, tree: Tree, namespace: str, default: str, query: dict[str, str]) -> str:
    """What was done, for people."""
    meta = tree.get("metadata")
    if not isinstance(meta, dict) or not isinstance(meta.get("name"), str) or not meta["name"]:
        raise ConfigError(f"{label(tree)}: has no metadata.name, which apply needs")
    resource = await resource_of_object(client, tree)
    where, name = object_namespace(tree, resource, namespace, default), meta["name"]
    before: Tree | None = None
    try:
        before = await client.get(resource, where, name)
    except StatusError as error:
        if error.code != 404:
            raise
    own: Tree = {**meta, **({"namespace": where} if where else {})}
    body = {key: value for key, value in tree.items() if key != "status"} | {"metadata": own}
    try:
        after = await client.patch(resource, where, name, body, kind="apply", query=query)
    except StatusError as error:
        text = str(error) if name in str(error) else f"{shown(resource, name)}: {error}"
        if error.code == 409 and error.reason == "Conflict":
            text += "; --force-conflicts takes these fields over"
        raise StatusError(error.code, error.reason, text) from error
    did = "created" if before is None else "unchanged" if _content(before) == _content(after) else "configured"
    return f"{shown(resource, name)} {did}"


def _content(tree: Tree) -> Tree:
    """Without what a dry run cannot tell, and whose fields they are."""
    passing = ("resourceVersion", "managedFields", "generation")
    return {**tree, "metadata": {key: value for key, value in tree["metadata"].items() if key not in passing}}
