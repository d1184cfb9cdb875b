"""What the everyday verbs share: which objects are meant, and how they are reached.

The kinds of the Service system are known; any other is looked up in the server's discovery.
"""

import asyncio
import contextlib
import re
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import click
import msgspec

from svcplane.api.resources import BY_KIND, RESOURCES, Resource
from svcplane.api.status import StatusError
from svcplane.base.errors import ConfigError, SvcplaneError
from svcplane.cli.reading import access, connected
from svcplane.client.api import ApiClient, lines, raise_for_event, tree_of

Tree = dict[str, Any]
T = TypeVar("T")
MANAGER = "svcplane"
SELECTOR = click.option("-l", "--selector", default="", help="Labels, such as app=web,tier!=cache.")
_SPAN = re.compile(r"(?:(\d+)h)?(?:(\d+)m)?(?:(\d+(?:\.\d+)?)s)?")


@dataclass(frozen=True, slots=True)
class Wanted:
    """Objects of one kind: those named, or all that fit.  `namespace` is empty for all namespaces."""

    resource: Resource
    namespace: str
    names: tuple[str, ...] = ()


def with_client(kubeconfig: str, work: Callable[[ApiClient, str], Coroutine[Any, Any, T]]) -> T:
    """Run `work(client, the context's namespace)`."""
    found = access(kubeconfig)

    async def run() -> T:
        async with connected(found) as (client, _):
            return await work(client, found.namespace)

    return asyncio.run(run())


async def wanted(client: ApiClient, words: Sequence[str], namespace: str) -> list[Wanted]:
    """`KIND[,KIND]`, `KIND NAME...` or `KIND/NAME...`.  Raises ConfigError."""
    if not words:
        raise ConfigError("say what: KIND, KIND NAME or KIND/NAME, such as services or svc/web")
    if any("/" in word for word in words):
        found: dict[Resource, list[str]] = {}
        for word in words:
            kind, slash, name = word.partition("/")
            if not slash or not kind or not name:
                raise ConfigError(f"{word}: where one argument is KIND/NAME, all must be")
            if "/" in name:
                raise ConfigError(f"{word}: must be KIND/NAME, with one slash")
            found.setdefault(await resource_of(client, kind), []).append(name)
        return [Wanted(resource, _where(resource, namespace), tuple(names)) for resource, names in found.items()]
    kinds, names = [kind for kind in words[0].split(",") if kind], tuple(words[1:])
    if not kinds:
        raise ConfigError(f"{words[0]!r}: is no kind")
    if names and len(kinds) > 1:
        raise ConfigError(f"{words[0]} {names[0]}: names need one kind; use KIND/NAME KIND/NAME")
    resources = [await resource_of(client, kind) for kind in kinds]
    return [Wanted(resource, _where(resource, namespace), names) for resource in resources]


def _where(resource: Resource, namespace: str) -> str:
    return namespace if resource.namespaced else ""


async def resource_of(client: ApiClient, text: str) -> Resource:
    """By plural, singular, kind, short name, or PLURAL.GROUP.  Raises ConfigError."""
    word, _, group = text.lower().partition(".")
    for row in RESOURCES:
        if word in (row.plural, row.singular, row.kind.lower(), *row.short_names) and group in ("", row.group):
            return row
    for version in await _group_versions(client):
        if group and version.partition("/")[0] != group:
            continue
        for row in await _served(client, version):
            if word in (row.plural, row.singular, row.kind.lower(), *row.short_names):
                return row
    raise ConfigError(f"{text}: this server has no such kind of object")


async def resource_of_object(client: ApiClient, tree: Tree) -> Resource:
    """By apiVersion and kind.  Raises ConfigError."""
    version, kind = str(tree.get("apiVersion") or ""), str(tree.get("kind") or "")
    known = BY_KIND.get((version, kind))
    if known is not None:
        return known
    if not version or not kind:
        raise ConfigError(f"{label(tree)}: has no {'kind' if version else 'apiVersion'}")
    for row in await _served(client, version):
        if row.kind == kind:
            return row
    raise ConfigError(f"{label(tree)}: this server has no kind {kind} in apiVersion {version}")


async def _group_versions(client: ApiClient) -> list[str]:
    groups = tree_of(await client.call("GET", "/apis")).get("groups") or []
    return ["v1", *(str(group["preferredVersion"]["groupVersion"]) for group in groups)]


async def _served(client: ApiClient, version: str) -> list[Resource]:
    """What the server's discovery tells of a group version; nothing where it has none."""
    group, _, name = version.rpartition("/")
    try:
        answer = await client.call("GET", f"/apis/{version}" if group else f"/api/{version}")
    except StatusError as error:
        if error.code == 404:
            return []
        raise
    return [
        Resource(
            group,
            name,
            entry["kind"],
            entry["name"],
            entry.get("singularName") or entry["kind"].lower(),
            entry["namespaced"],
            tuple(entry.get("shortNames") or ()),
        )
        for entry in tree_of(answer).get("resources") or []
        if "/" not in entry["name"]
    ]


def label(tree: Tree) -> str:
    """`Service web`, for people; of what may be malformed."""
    meta = tree.get("metadata")
    name = meta.get("name") if isinstance(meta, dict) else ""
    return f"{tree.get('kind') or 'object'} {name or '(no name)'}"


def shown(resource: Resource, name: str) -> str:
    """`service/web`, `endpointslice.discovery.k8s.io/web-1`: as kubectl names objects."""
    group = f".{resource.group}" if resource.group else ""
    return f"{resource.singular}{group}/{name}"


def object_namespace(tree: Tree, resource: Resource, flag: str, default: str) -> str:
    """Where an object of a file belongs.  Raises ConfigError where the file and -n differ."""
    if not resource.namespaced:
        return ""
    own = str(tree["metadata"].get("namespace") or "")
    if own and flag and own != flag:
        raise ConfigError(f"{label(tree)}: is of namespace {own}, and -n says {flag}")
    return own or flag or default


def seconds(text: str, flag: str) -> float:
    """Of `30`, `30s`, `5m`, `1h30m`.  Raises ConfigError."""
    try:
        plain = float(text)
    except ValueError:
        found = _SPAN.fullmatch(text)
        if not found or not text:
            raise ConfigError(f"{flag} {text}: must be seconds, or a duration such as 30s or 5m") from None
        hours, minutes, rest = (float(part or 0) for part in found.groups())
        plain = hours * 3600 + minutes * 60 + rest
    if not 0 <= plain < float("inf"):
        raise ConfigError(f"{flag} {text}: must be 0 or more")
    return plain


def tell(error: SvcplaneError) -> None:
    """One line for one of several objects."""
    click.echo(f"svcplane: {' '.join(str(error).split())}", err=True)


async def changes(
    client: ApiClient, resource: Resource, namespace: str, query: dict[str, str], *, accept: str = ""
) -> AsyncIterator[tuple[str, Tree]]:
    """(type, object) of a watch until the server ends it.  Raises StatusError for one that fails, 410 included."""
    answer = await client.call("GET", resource.path(namespace), query={"watch": "true", **query}, accept=accept)
    if answer.stream is None:
        return
    async for line in lines(answer.stream):
        event: Tree = msgspec.json.decode(line)
        if event["type"] == "ERROR":
            raise_for_event(event["object"])
        yield event["type"], event["object"]


def complete_objects(ctx: click.Context, _: click.Parameter, incomplete: str) -> list[str]:
    """Shell completion: kinds, then names of the kind; none where the cluster does not answer."""
    words = list(ctx.params.get("words") or ())
    kind, slash, rest = incomplete.partition("/")
    if not words and not slash:
        return sorted(row.plural for row in RESOURCES if row.plural.startswith(incomplete))
    found: list[str] = []
    with contextlib.suppress(Exception):
        params = ctx.params

        async def names(client: ApiClient, default: str) -> list[str]:
            resource = await resource_of(client, kind if slash else words[0])
            where = _where(resource, params.get("namespace") or default)
            items = (await client.list(resource, where)).get("items") or []
            return [str(item["metadata"]["name"]) for item in items]

        found = with_client(params.get("kubeconfig") or "", names)
    if slash:
        return [f"{kind}/{name}" for name in found if name.startswith(rest)]
    return [name for name in found if name.startswith(incomplete)]


def end(failed: int) -> None:
    """The exit status of a verb that went on after a failure."""
    sys.exit(1 if failed else 0)
