"""`svcplane delete`: objects by name, label or manifest; until they are gone."""

import asyncio
from pathlib import Path

import click

from svcplane.api.resources import Resource
from svcplane.api.status import StatusError
from svcplane.base.errors import ConfigError, SvcplaneError
from svcplane.cli.objects import (
    SELECTOR,
    complete_objects,
    end,
    label,
    object_namespace,
    resource_of_object,
    seconds,
    shown,
    tell,
    wanted,
    with_client,
)
from svcplane.cli.reading import KUBECONFIG, NAMESPACE, read_files
from svcplane.client.api import ApiClient
from svcplane.understand.view import flat

AGAIN_S = 0.1


@click.command(short_help="Delete objects, and wait until they are gone.")
@click.argument("words", metavar="KIND [NAME]... | KIND/NAME...", nargs=-1, shell_complete=complete_objects)
@click.option("-f", "--filename", "files", multiple=True, type=click.Path(path_type=Path), help="What manifests name.")
@SELECTOR
@click.option("--all", "all_", is_flag=True, help="All of the kind in the namespace.")
@click.option("--now", is_flag=True, help="Give Pods one second to end.")
@click.option("--grace-period", default=-1, type=click.IntRange(-1), help="Seconds Pods have to end; -1: their own.")
@click.option("--wait/--no-wait", "until_gone", default=True, show_default=True, help="Return once they are gone.")
@click.option("--timeout", default="60s", show_default=True, help="How long to wait for each.")
@click.option("--ignore-not-found", "lenient", is_flag=True, help="What is not there is no failure.")
@KUBECONFIG
@NAMESPACE
def delete(
    words: tuple[str, ...],
    files: tuple[Path, ...],
    selector: str,
    all_: bool,
    now: bool,
    grace_period: int,
    until_gone: bool,
    timeout: str,
    lenient: bool,
    kubeconfig: str,
    namespace: str,
) -> None:
    """Delete objects.  The exit status is 1 where one could not be, or was not gone in time."""
    limit_s = seconds(timeout, "--timeout")
    if bool(words) == bool(files):
        raise ConfigError("say what: KIND NAME, KIND/NAME, or -f FILE")
    if files and (selector or all_):
        raise ConfigError("-l and --all choose objects of a kind; they go without -f")
    grace = 1 if now else grace_period if grace_period >= 0 else None

    async def work(client: ApiClient, default: str) -> int:
        if files:
            targets = await _of_files(client, files, namespace, default)
        else:
            targets = await _named(client, words, namespace or default, selector, all_=all_)
        gone, failed = [], 0
        for resource, where, name in targets:
            try:
                await client.delete(resource, where, name, grace_s=grace)
            except StatusError as error:
                if not (lenient and error.code == 404):
                    tell(error)
                    failed += 1
            else:
                click.echo(f"{shown(resource, name)} deleted")
                gone.append((resource, where, name))
        for resource, where, name in gone if until_gone else ():
            try:
                await _gone(client, resource, where, name, limit_s)
            except SvcplaneError as error:
                tell(error)
                failed += 1
        return failed

    end(with_client(kubeconfig, work))


async def _of_files(
    client: ApiClient, files: tuple[Path, ...], namespace: str, default: str
) -> list[tuple[Resource, str, str]]:
    found = []
    for tree in map(dict, flat(read_files(files))):
        meta = tree.get("metadata")
        if not isinstance(meta, dict) or not meta.get("name"):
            raise ConfigError(f"{label(tree)}: has no metadata.name")
        resource = await resource_of_object(client, tree)
        found.append((resource, object_namespace(tree, resource, namespace, default), str(meta["name"])))
    return found


async def _named(
    client: ApiClient, words: tuple[str, ...], namespace: str, selector: str, *, all_: bool
) -> list[tuple[Resource, str, str]]:
    found = []
    for target in await wanted(client, words, namespace):
        if target.names:
            if selector or all_:
                raise ConfigError("-l and --all choose objects; they go without names")
            found += [(target.resource, target.namespace, name) for name in target.names]
            continue
        if not selector and not all_:
            raise ConfigError(f"say which {target.resource.plural}: names, -l SELECTOR or --all")
        items = (await client.list(target.resource, target.namespace, labels=selector)).get("items") or []
        found += [(target.resource, target.namespace, item["metadata"]["name"]) for item in items]
    return found


async def _gone(client: ApiClient, resource: Resource, namespace: str, name: str, limit_s: float) -> None:
    """Wait until this very object is gone; another of the same name may have come."""
    uid = ""
    try:
        async with asyncio.timeout(limit_s):
            while True:
                found = str((await client.get(resource, namespace, name))["metadata"]["uid"])
                if uid and found != uid:
                    return
                uid = found
                await asyncio.sleep(AGAIN_S)
    except StatusError as error:
        if error.code != 404:
            raise
    except TimeoutError:
        raise SvcplaneError(f"{shown(resource, name)} is not gone after {limit_s:g} s") from None
