"""`svcplane get`: objects as the server's table, or as YAML, JSON or names; once, or as they change."""

import sys
from collections.abc import Iterator, Sequence
from typing import Any

import click
import msgspec

from svcplane.api import go_yaml
from svcplane.api.status import StatusError
from svcplane.base.errors import ConfigError, TransportError
from svcplane.cli.objects import (
    SELECTOR,
    Tree,
    Wanted,
    changes,
    complete_objects,
    shown,
    wanted,
    with_client,
)
from svcplane.cli.reading import KUBECONFIG, NAMESPACE
from svcplane.client.api import ApiClient, tree_of

AS_TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"
FORMS = ("table", "wide", "yaml", "json", "name")
GAP = 3


@click.command(short_help="List objects: Services, Pods, EndpointSlices, ...")
@click.argument("words", metavar="KIND [NAME]... | KIND/NAME...", nargs=-1, shell_complete=complete_objects)
@click.option("-A", "--all-namespaces", "everywhere", is_flag=True, help="Of all namespaces.")
@SELECTOR
@click.option("--field-selector", "fields", default="", help="Fields, such as spec.nodeName=node1.")
@click.option("-w", "--watch", "follow", is_flag=True, help="Go on and show each change.")
@click.option("-o", "--output", type=click.Choice(FORMS), default="table", help="Form of the answer.")
@KUBECONFIG
@NAMESPACE
def get(
    words: tuple[str, ...],
    everywhere: bool,
    selector: str,
    fields: str,
    follow: bool,
    output: str,
    kubeconfig: str,
    namespace: str,
) -> None:
    """Show objects of a cluster, as `kubectl get` does."""

    async def work(client: ApiClient, default: str) -> int:
        targets = await wanted(client, words, "" if everywhere else namespace or default)
        if (selector or fields) and any(target.names for target in targets):
            raise ConfigError("-l and --field-selector choose objects; they go without names")
        if everywhere and any(target.names for target in targets):
            raise ConfigError("-A goes without names: a name is of one namespace")
        query = {k: v for k, v in (("labelSelector", selector), ("fieldSelector", fields)) if v}
        reader = Reader(client, query, output, everywhere=everywhere)
        if not follow:
            return await reader.once(targets)
        if len(targets) != 1 or len(targets[0].names) > 1:
            raise ConfigError("-w follows one kind, or one object")
        return await reader.follow(targets[0])

    sys.exit(with_client(kubeconfig, work))


class Reader:
    """One `get`."""

    def __init__(self, client: ApiClient, query: dict[str, str], output: str, *, everywhere: bool) -> None:
        self._client, self._query, self._output, self._everywhere = client, query, output, everywhere
        self._tabular = output in ("table", "wide")

    async def once(self, targets: Sequence[Wanted]) -> int:
        answers: list[tuple[Wanted, Tree]] = []
        for target in targets:
            for name in target.names or ("",):
                answers.append((target, await self._read(target, name)))
        if self._tabular:
            self._tables(answers, targets)
        elif self._output == "name":
            for target, answer in answers:
                for item in answer.get("items") or ([answer] if "items" not in answer else []):
                    click.echo(shown(target.resource, item["metadata"]["name"]))
        else:
            emit(_whole(answers), self._output)
        return 0

    async def _read(self, target: Wanted, name: str) -> Tree:
        path = target.resource.path(target.namespace, name)
        accept = AS_TABLE if self._tabular else ""
        answer = await self._client.call("GET", path, query=self._query if not name else None, accept=accept)
        return tree_of(answer)

    def _tables(self, answers: Sequence[tuple[Wanted, Tree]], targets: Sequence[Wanted]) -> None:
        empty = True
        for target in targets:
            tables = [answer for of, answer in answers if of is target]
            rows = [row for table in tables for row in table.get("rows") or ()]
            if not rows:
                continue
            if not empty:
                click.echo()
            empty = False
            prefix = shown(target.resource, "") if len(targets) > 1 else ""
            for line in self.lines(tables[0]["columnDefinitions"], rows, prefix):
                click.echo(line)
        if empty:
            where = f" in namespace {targets[0].namespace}" if targets[0].namespace else ""
            click.echo(f"there are none{where}", err=True)

    def lines(self, columns: Sequence[Tree], rows: Sequence[Tree], prefix: str = "", heads: bool = True) -> list[str]:
        """A table's lines; of low priority only where they are asked for."""
        chosen = [n for n, c in enumerate(columns) if self._output == "wide" or not c.get("priority")]
        table = [[str(columns[n]["name"]).upper() for n in chosen]] if heads else []
        for row in rows:
            cells = [_cell(row["cells"][n]) for n in chosen]
            table.append([prefix + cells[0], *cells[1:]])
        if self._everywhere:
            spaces = [str(row.get("object", {}).get("metadata", {}).get("namespace", "")) for row in rows]
            for line, space in zip(table, (["NAMESPACE"] if heads else []) + spaces, strict=True):
                line.insert(0, space)
        return list(_aligned(table))

    # -- as they change ------------------------------------------------------------------------------------------

    async def follow(self, target: Wanted) -> int:
        """First what is there, then each change, until interrupted."""
        name = target.names[0] if target.names else ""
        query = {**self._query, **({"fieldSelector": f"metadata.name={name}"} if name else {})}
        heads, version = True, ""
        while True:
            try:
                if not version:
                    answer = await self._list(target, query)
                    version = str(answer.get("metadata", {}).get("resourceVersion", ""))
                    heads = self._change(target, answer, heads)
                accept = AS_TABLE if self._tabular else ""
                asked = {**query, "resourceVersion": version, "allowWatchBookmarks": "true"}
                async for kind, tree in changes(self._client, target.resource, target.namespace, asked, accept=accept):
                    version = _version(tree) or version
                    if kind != "BOOKMARK":
                        heads = self._change(target, tree, heads)
            except StatusError as error:
                if error.code != 410:
                    raise
                version = ""
            except TransportError:
                if not version:
                    raise
                version = ""

    async def _list(self, target: Wanted, query: dict[str, str]) -> Tree:
        path = target.resource.path(target.namespace)
        answer = await self._client.call("GET", path, query=query, accept=AS_TABLE if self._tabular else "")
        return tree_of(answer)

    def _change(self, target: Wanted, tree: Tree, heads: bool) -> bool:
        """Print a list or a change; whether the heads are still to come."""
        if self._tabular:
            rows = tree.get("rows") or []
            for line in self.lines(tree.get("columnDefinitions") or [], rows, heads=heads) if rows else ():
                click.echo(line)
            heads = heads and not rows
        else:
            for item in tree.get("items") or [] if "items" in tree else [tree]:
                if self._output == "name":
                    click.echo(shown(target.resource, item["metadata"]["name"]))
                else:
                    whole = _typed(target, item)
                    click.echo("---") if self._output == "yaml" else None
                    emit(whole, self._output)
        sys.stdout.flush()
        return heads


def _version(tree: Tree) -> str:
    """The resourceVersion of a change: an object's, or that of a table's row."""
    rows = tree.get("rows")
    meta = rows[-1].get("object", {}).get("metadata", {}) if rows else tree.get("metadata", {})
    return str(meta.get("resourceVersion") or "")


def _typed(target: Wanted, item: Tree) -> Tree:
    return {"apiVersion": target.resource.api_version, "kind": target.resource.kind, **item}


def _whole(answers: Sequence[tuple[Wanted, Tree]]) -> Tree:
    """The one object asked for, or a List."""
    if len(answers) == 1 and answers[0][0].names:
        return answers[0][1]
    items: list[Tree] = []
    for target, answer in answers:
        items += [_typed(target, item) for item in answer["items"] or []] if "items" in answer else [answer]
    return {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}


def emit(tree: Any, form: str) -> None:
    if form == "yaml":
        click.echo(go_yaml.written(tree), nl=False)
    else:
        click.echo(msgspec.json.format(msgspec.json.encode(tree), indent=4).decode())


def _cell(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return "" if value is None else str(value)


def _aligned(table: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(map(len, column)) for column in zip(*table, strict=True)]
    for row in table:
        cells = [cell.ljust(width + GAP) for cell, width in zip(row, widths, strict=True)]
        yield "".join(cells).rstrip()
